//! The methods of the protocol in one table: how REST callers call them, where the name they act on stands, what a
//! list calls its items.

use std::borrow::Cow;

use crate::call::{Kind, shown as shown_uri};
use crate::reject::clip;

/// Where a request says what it acts on (MCP 2026-07-28, `Mcp-Name`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    Nothing,
    Name,
    Uri,
    TaskId,
    /// A prompt or a resource template in `ref`; no `Mcp-Name` tells it.
    Reference,
}

/// One row of the table.
#[derive(Debug)]
pub struct Method {
    /// The MCP name.
    pub mcp: &'static str,
    /// The REST form's own word for it, if it has one.
    pub rest: Option<&'static str>,
    pub named: Named,
    /// What it is about.
    pub kind: Kind,
    /// The member of the result that is the answer of the v1 REST form; `None` is the whole result.
    pub result: Option<&'static str>,
    /// Whether the answer comes in pages (`cursor`, `nextCursor`).
    pub paged: bool,
    /// Whether it only reads, so that asking twice does no harm.
    pub reads: bool,
}

const fn row(mcp: &'static str, rest: Option<&'static str>, named: Named, kind: Kind, result: Option<&'static str>, paged: bool) -> Method {
    Method { mcp, rest, named, kind, result, paged, reads: false }
}

/// A row that only reads.
const fn reads(method: Method) -> Method {
    Method { reads: true, ..method }
}

/// Every request a client may send; the order is that of the documentation.
pub const METHODS: &[Method] = &[
    reads(row("tools/list", Some("list_tools"), Named::Nothing, Kind::Tool, Some("tools"), true)),
    row("tools/call", Some("call_tool"), Named::Name, Kind::Tool, Some("content"), false),
    reads(row("resources/list", Some("list_resources"), Named::Nothing, Kind::Resource, Some("resources"), true)),
    reads(row(
        "resources/templates/list",
        Some("list_resource_templates"),
        Named::Nothing,
        Kind::Resource,
        Some("resourceTemplates"),
        true,
    )),
    reads(row("resources/read", Some("read_resource"), Named::Uri, Kind::Resource, Some("contents"), false)),
    reads(row("prompts/list", Some("list_prompts"), Named::Nothing, Kind::Prompt, Some("prompts"), true)),
    reads(row("prompts/get", Some("get_prompt"), Named::Name, Kind::Prompt, Some("messages"), false)),
    reads(row("completion/complete", Some("complete"), Named::Reference, Kind::Prompt, Some("completion"), false)),
    reads(row("ping", Some("ping"), Named::Nothing, Kind::Protocol, None, false)),
    row("initialize", None, Named::Nothing, Kind::Protocol, None, false),
    reads(row("server/discover", None, Named::Nothing, Kind::Protocol, None, false)),
    row("logging/setLevel", None, Named::Nothing, Kind::Protocol, None, false),
    row("resources/subscribe", None, Named::Uri, Kind::Resource, None, false),
    row("resources/unsubscribe", None, Named::Uri, Kind::Resource, None, false),
    row("subscriptions/listen", None, Named::Nothing, Kind::Protocol, None, false),
    reads(row("tasks/get", None, Named::TaskId, Kind::Task, None, false)),
    reads(row("tasks/result", None, Named::TaskId, Kind::Task, None, false)),
    row("tasks/update", None, Named::TaskId, Kind::Task, None, false),
    row("tasks/cancel", None, Named::TaskId, Kind::Task, None, false),
];

/// The row of an MCP method name.
pub fn find(mcp: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.mcp == mcp)
}

/// The row a REST caller means: its own word, or the MCP name itself.
pub fn find_rest(word: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.rest == Some(word) || (method.rest.is_some() && method.mcp == word))
}

/// What a request acts on as it may be written down: short, and of a URI nothing that could be a secret.
pub fn shown<'n>(mcp: &str, name: &'n str) -> Cow<'n, str> {
    if find(mcp).is_some_and(|row| row.named == Named::Name) {
        return Cow::Borrowed(clip(name));
    }
    match shown_uri(name) {
        Cow::Borrowed(text) => Cow::Borrowed(clip(text)),
        Cow::Owned(text) => Cow::Owned(clip(&text).to_owned()),
    }
}
