//! The protocol without I/O: bytes in, messages out; no socket, no clock. What the revisions differ in is decided here
//! and nowhere else: `message` (JSON-RPC), `params`, `method` (one table), `headers` (`Mcp-*`), `sse` (event streams), `session`
//! (sealed session ids), `rest` (the REST form), `error` (what a server's error means to a REST caller), `edit` (changing JSON and
//! keeping the bytes of the rest), `mirror` (texts that repeat structured content), `cut` (outputs that are too long), `rewrite` (answers changed on their way),
//! `filter` (lists as a caller may see them), `canonical` (the one form of all writings of a value), `plain` (bodies as nearly all are
//! written, in one pass).

pub mod canonical;
pub mod cut;
pub mod edit;
pub mod error;
pub mod filter;
pub mod headers;
pub mod members;
pub mod message;
pub mod method;
pub mod mirror;
pub mod params;
mod plain;
pub mod rest;
pub mod rewrite;
pub mod session;
pub mod sse;
pub mod strict;

use crate::call::Era;

/// The stateless revision.
pub const MODERN: &str = "2026-07-28";
/// The newest revision with sessions; what we offer in `initialize`.
pub const LEGACY: &str = "2025-11-25";

/// The era of a revision date; revisions order as text.
pub fn era_of(version: &str) -> Era {
    if version >= MODERN { Era::Modern } else { Era::Legacy }
}
