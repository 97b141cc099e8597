//! What is asked: the one value that routing, permission, limits and metrics look at, the same for every lane and era.

use std::borrow::Cow;

/// The generation of the protocol a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// 2024-11-05 to 2025-11-25: `initialize`, sessions, server-to-client requests.
    Legacy,
    /// 2026-07-28: stateless, every request carries its own context.
    Modern,
}

impl Era {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

/// One request to one MCP server, borrowed from the body it was read from.
#[derive(Debug, Clone)]
pub struct Call<'b> {
    /// The MCP method, such as `tools/call`.
    pub method: Cow<'b, str>,
    /// The tool, prompt, resource URI or task it names.
    pub name: Option<Cow<'b, str>>,
}
