//! What a backend told about itself: protocol, era, servers and their tools. Learned in the background by `catalog`,
//! read by every request.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::call::Era;
use crate::mcp::headers::Param;
use crate::schema::Schema;

/// What is known of one backend. Kept through outages: an unreachable backend is still the one that serves its servers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    pub speaks: Option<Speaks>,
    /// By server name.
    pub servers: BTreeMap<String, Server>,
}

/// How to talk to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Mcp(Era),
    Middleware,
}

impl Speaks {
    pub const fn is_mcp(self) -> bool {
        matches!(self, Self::Mcp(_))
    }

    /// The word for it in answers to operators.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mcp(era) => era.name(),
            Self::Middleware => "middleware",
        }
    }
}

/// What is known of one MCP server on one backend.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Server {
    /// The revision it negotiated or offered.
    pub version: Option<String>,
    /// Its tools by name; `None` while they could not be asked.
    pub tools: Option<Arc<BTreeMap<String, Tool>>>,
    /// For middleware, which tells a number only.
    pub tools_count: Option<usize>,
}

impl Server {
    pub fn count(&self) -> Option<usize> {
        self.tools.as_ref().map(|tools| tools.len()).or(self.tools_count)
    }
}

/// What we need to know of a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tool {
    /// Arguments that must also travel as headers.
    pub params: Vec<Param>,
    /// What its arguments must be, where they are checked (`server.validate_arguments`); compiled when first used.
    pub schema: Option<Arc<Schema>>,
    /// What its server declares: that it changes nothing (`readOnlyHint`), or nothing more the second time
    /// (`idempotentHint`).
    pub read_only: bool,
    pub idempotent: bool,
}
