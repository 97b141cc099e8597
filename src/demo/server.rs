//! The demo server `filesystem`: five read-only tools over the bundled folder.

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock, Implementation, ServerCapabilities, ServerConfig};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use super::files;

/// The server; it has no state.
#[derive(Clone)]
pub struct Filesystem {
    tool_router: ToolRouter<Self>,
}

#[derive(Deserialize, JsonSchema)]
struct Path {
    /// A path of the demo folder, such as /etc/hosts.
    path: String,
}

#[derive(Deserialize, JsonSchema)]
struct Pattern {
    /// Text to look for, in any case.
    pattern: String,
}

#[tool_router]
impl Filesystem {
    pub fn new() -> Self {
        Self { tool_router: Self::tool_router() }
    }

    #[tool(description = "Read a file of the demo folder", annotations(read_only_hint = true))]
    async fn read_file(&self, Parameters(Path { path }): Parameters<Path>) -> CallToolResult {
        answer(files::read(&path).map(str::to_owned))
    }

    #[tool(description = "List a directory of the demo folder", annotations(read_only_hint = true))]
    async fn list_directory(&self, Parameters(Path { path }): Parameters<Path>) -> CallToolResult {
        answer(files::list(&path).map(|entries| entries.join("\n")))
    }

    #[tool(description = "Find lines that contain a text", annotations(read_only_hint = true))]
    async fn search_files(&self, Parameters(Pattern { pattern }): Parameters<Pattern>) -> CallToolResult {
        answer(Ok(files::search(&pattern).join("\n")))
    }

    #[tool(description = "Size in bytes and number of lines of a file", annotations(read_only_hint = true))]
    async fn get_file_info(&self, Parameters(Path { path }): Parameters<Path>) -> CallToolResult {
        answer(files::read(&path).map(|text| format!("{} bytes, {} lines", text.len(), text.lines().count())))
    }

    #[tool(description = "Every path of the demo folder", annotations(read_only_hint = true))]
    async fn directory_tree(&self) -> CallToolResult {
        answer(Ok(files::paths().join("\n")))
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Filesystem {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info = Implementation::new("filesystem", env!("CARGO_PKG_VERSION"));
        info
    }
}

fn answer(outcome: Result<String, String>) -> CallToolResult {
    match outcome {
        Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
        Err(text) => CallToolResult::error(vec![ContentBlock::text(text)]),
    }
}
