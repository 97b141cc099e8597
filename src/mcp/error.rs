//! What a server's JSON-RPC error means to a REST caller: the one mapping from error codes to refusals.

use std::borrow::Cow;

use serde::Deserialize;

use crate::reject::{Code, Reject, clip};
use crate::verbatim::Verbatim;

/// Codes with a meaning of their own; all others are the server's private matter.
pub const METHOD_NOT_FOUND: i64 = -32601;
pub const INVALID_PARAMS: i64 = -32602;
/// Legacy "resource not found".
const RESOURCE_NOT_FOUND: i64 = -32002;
/// 2025-11-25: the user must open a URL first.
const URL_ELICITATION_REQUIRED: i64 = -32042;
/// 2026-07-28: a header is missing or contradicts the body.
pub const HEADER_MISMATCH: i64 = -32020;
/// 2026-07-28: the client lacks a capability.
const MISSING_CAPABILITY: i64 = -32021;
/// 2026-07-28: the version is not supported.
const UNSUPPORTED_VERSION: i64 = -32022;

#[derive(Deserialize)]
struct Written<'b> {
    #[serde(default)]
    code: i64,
    #[serde(borrow, default)]
    message: Cow<'b, str>,
}

/// The code of an error object; 0 if it has none.
pub fn code(error: Verbatim<'_>) -> i64 {
    serde_json::from_str::<Written<'_>>(error.get()).map_or(0, |written| written.code)
}

/// Whether an error proves that its sender speaks the modern era.
pub fn is_modern(code: i64) -> bool {
    (UNSUPPORTED_VERSION..=HEADER_MISMATCH).contains(&code)
}

/// The refusal a REST caller gets for a server's error. `known` tells whether the catalogue knows the name acted on:
/// servers answer an unknown tool with "invalid params", and the caller is better served with 404.
pub fn refuse(error: Verbatim<'_>, known: bool) -> Reject {
    let written = serde_json::from_str::<Written<'_>>(error.get()).unwrap_or(Written { code: 0, message: Cow::Borrowed("") });
    let code = match written.code {
        METHOD_NOT_FOUND => Code::UnknownMethod,
        INVALID_PARAMS if known => Code::InvalidParams,
        INVALID_PARAMS | RESOURCE_NOT_FOUND => Code::UnknownName,
        URL_ELICITATION_REQUIRED | MISSING_CAPABILITY => Code::InputRequired,
        _ => Code::ServerError,
    };
    Reject::new(code, format!("the MCP server answered {}: {}", written.code, clip(&written.message))).with_rpc_error(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_error_gets_the_status_it_deserves() {
        let status = |text: &str, known| refuse(Verbatim::found(text), known).code.status();
        assert_eq!(status(r#"{"code":-32602,"message":"bad"}"#, true), 400);
        assert_eq!(status(r#"{"code":-32602,"message":"Unknown tool"}"#, false), 404);
        assert_eq!(status(r#"{"code":-32601,"message":""}"#, true), 404);
        assert_eq!(status(r#"{"code":-32042,"message":""}"#, true), 422);
        assert_eq!(status(r#"{"code":7}"#, true), 502);
        assert_eq!(status("7", true), 502);
    }
}
