//! What is asked: the one value that routing, permission, limits and metrics look at, the same for every lane and era.

use std::borrow::Cow;

use crate::verbatim::Verbatim;

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

/// What kind of thing a request is about; permissions are given for these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The protocol itself: handshake, ping, subscriptions, notifications.
    Protocol,
    Tool,
    Prompt,
    Resource,
    Task,
    /// A method we do not know.
    Unknown,
}

/// One request to one MCP server, borrowed from the body it was read from.
#[derive(Debug, Clone)]
pub struct Call<'b> {
    /// The MCP method, such as `tools/call`.
    pub method: Cow<'b, str>,
    /// The tool, prompt, resource URI or task it names.
    pub name: Option<Cow<'b, str>>,
    pub kind: Kind,
    /// Whether the method acts on something by name, so that a missing name is no request for a list.
    pub is_named: bool,
    /// The arguments of a tool call or prompt, as they were written.
    pub arguments: Option<Verbatim<'b>>,
    /// Resources a subscription asks about besides.
    pub also: Vec<Cow<'b, str>>,
}

impl Call<'_> {
    /// What is no request: a stream, the end of a session, an answer to the server.
    pub const fn other() -> Self {
        Self { method: Cow::Borrowed(""), name: None, kind: Kind::Protocol, is_named: false, arguments: None, also: Vec::new() }
    }

    /// Whether its answer is a stream for as long as the client likes.
    pub fn stays(&self) -> bool {
        self.method == "subscriptions/listen"
    }
}

/// A URI as it may be shown, also where it does not parse: without user information, query and fragment.
pub fn shown(uri: &str) -> Cow<'_, str> {
    let uri = uri.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = uri.split_once("://").map_or(("", uri), |(scheme, rest)| (scheme, rest));
    match rest.rsplit_once('@') {
        None => Cow::Borrowed(uri),
        Some((_, rest)) if scheme.is_empty() => Cow::Borrowed(rest),
        Some((_, rest)) => Cow::Owned(format!("{scheme}://{rest}")),
    }
}
