//! Every refusal a client can see. One table (`Code`) fixes name, HTTP status, JSON-RPC code and title; one type
//! (`Reject`) travels by `?` from wherever the refusal was decided; two functions write it out, as problem+json
//! (RFC 9457) for REST and as a JSON-RPC error for native MCP. The private cause goes to the log only.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use serde::Serialize;

use crate::verbatim::Verbatim;

/// The result of a stage of the request path.
pub type Verdict<T> = Result<T, Reject>;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $status:literal, $rpc:literal, $title:literal;)+) => {
        /// What went wrong, in the words and numbers clients see.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($(#[doc = $doc])+ $variant,)+ }

        impl Code {
            /// All codes, in the order of their status.
            pub const ALL: &[Code] = &[$(Code::$variant,)+];

            /// The `code` member of a problem document.
            pub const fn name(self) -> &'static str { match self { $(Code::$variant => $name,)+ } }

            /// The HTTP status.
            pub const fn status(self) -> u16 { match self { $(Code::$variant => $status,)+ } }

            /// The JSON-RPC error code on native routes. Ours lie outside -32768…-32000, which belong to the specifications.
            pub const fn rpc(self) -> i64 { match self { $(Code::$variant => $rpc,)+ } }

            /// The `title` member of a problem document.
            pub const fn title(self) -> &'static str { match self { $(Code::$variant => $title,)+ } }

            /// When this refusal is given.
            pub const fn meaning(self) -> &'static str { match self { $(Code::$variant => concat!($($doc),+),)+ } }
        }
    };
}

codes! {
    /// The body is not JSON.
    ParseError = "parse_error", 400, -32700, "Bad Request";
    /// The body is JSON of the wrong shape.
    InvalidRequest = "invalid_request", 400, -32600, "Bad Request";
    /// A parameter is missing or wrong, by our judgement or the server's (JSON-RPC -32602).
    InvalidParams = "invalid_params", 400, -32602, "Bad Request";
    /// An `Mcp-*` header contradicts the body (MCP 2026-07-28).
    HeaderMismatch = "header_mismatch", 400, -32020, "Bad Request";
    /// A credential is missing or wrong.
    Unauthorized = "unauthorized", 401, -31401, "Unauthorized";
    /// None of the caller's roles permits it.
    Forbidden = "forbidden", 403, -31403, "Forbidden";
    /// The token's scopes do not permit it; `WWW-Authenticate` names those that do (RFC 6750 §3.1).
    InsufficientScope = "insufficient_scope", 403, -31403, "Forbidden";
    /// The client's address is in `access.deny`, or not in `access.allow`.
    AddressForbidden = "address_forbidden", 403, -31403, "Forbidden";
    /// The browser's Origin is neither ours nor listed in `access.origins`.
    OriginForbidden = "origin_forbidden", 403, -31403, "Forbidden";
    /// A request over loopback carries a Host that is neither loopback nor listed in `access.hosts` (DNS rebinding).
    HostForbidden = "host_forbidden", 403, -31403, "Forbidden";
    /// No such path.
    NotFound = "not_found", 404, -31404, "Not Found";
    /// No backend serves this MCP server.
    UnknownServer = "unknown_server", 404, -31404, "Not Found";
    /// The MCP server has no such tool, resource or prompt.
    UnknownName = "unknown_name", 404, -31404, "Not Found";
    /// The MCP server does not know the method (JSON-RPC -32601).
    UnknownMethod = "unknown_method", 404, -32601, "Not Found";
    /// The session id is not ours, not for this server, or its backend is gone: initialize again.
    UnknownSession = "unknown_session", 404, -31404, "Not Found";
    /// The path exists, but not for this HTTP method.
    MethodNotAllowed = "method_not_allowed", 405, -31405, "Method Not Allowed";
    /// What is to be made exists already.
    Conflict = "conflict", 409, -31409, "Conflict";
    /// The request body did not arrive in time.
    RequestTimeout = "request_timeout", 408, -31408, "Request Timeout";
    /// The body is larger than `server.limits.body`.
    BodyTooLarge = "body_too_large", 413, -31413, "Content Too Large";
    /// The body is not `application/json`, or is compressed.
    UnsupportedMediaType = "unsupported_media_type", 415, -31415, "Unsupported Media Type";
    /// The server asks for client input, which the REST form cannot give.
    InputRequired = "input_required", 422, -31422, "Unprocessable Content";
    /// A rate limit, quota or concurrency limit of `rate_limits` is reached; the detail names it, and `RateLimit` what counts in time.
    RateLimited = "rate_limited", 429, -31429, "Too Many Requests";
    /// The headers are larger than `server.limits.headers`.
    HeadersTooLarge = "headers_too_large", 431, -31431, "Request Header Fields Too Large";
    /// A fault of the gateway itself.
    Internal = "internal", 500, -32603, "Internal Server Error";
    /// The server answered with a JSON-RPC error of its own, given in `rpc_error`.
    ServerError = "server_error", 502, -31502, "Bad Gateway";
    /// The backend cut the connection or broke the protocol after the request was sent; it may have been executed.
    BackendFailed = "backend_failed", 502, -31502, "Bad Gateway";
    /// The backend refused the credential we presented.
    BackendRefused = "backend_refused", 502, -31502, "Bad Gateway";
    /// No backend of this server is healthy and reachable; nothing was sent.
    NoHealthyBackend = "no_healthy_backend", 503, -31503, "Service Unavailable";
    /// What could serve it failed too often: a circuit breaker leaves it alone for a while; nothing was sent.
    CircuitOpen = "circuit_open", 503, -31503, "Service Unavailable";
    /// What could serve it, or this gateway, has all the requests it may have; nothing was sent.
    Overloaded = "overloaded", 503, -31503, "Service Unavailable";
    /// The credential cannot be judged: the identity provider or authenticator cannot be asked.
    AuthUnavailable = "auth_unavailable", 503, -31503, "Service Unavailable";
    /// The store that replicas share cannot be written.
    StoreUnavailable = "store_unavailable", 503, -31503, "Service Unavailable";
    /// PostgreSQL, where analytics are, cannot be asked, or not in time.
    AnalyticsUnavailable = "analytics_unavailable", 503, -31503, "Service Unavailable";
    /// This process is about to stop and takes no new requests.
    Draining = "draining", 503, -31503, "Service Unavailable";
    /// The backend did not answer within its `timeout`; it may have executed the request.
    BackendTimeout = "backend_timeout", 504, -31504, "Gateway Timeout";
}

/// A limit that was reached.
#[derive(Debug)]
pub struct Limited {
    /// For the log.
    pub rule: String,
    /// `RateLimit-Policy` and `RateLimit`, of what counts in time.
    pub headers: Option<(HeaderValue, HeaderValue)>,
}

/// One refusal: what the client sees and, privately, why.
#[derive(Debug)]
pub struct Reject {
    pub code: Code,
    /// Public explanation: names the field or header at fault, never a secret.
    pub detail: Cow<'static, str>,
    /// Sent as `Retry-After`, in whole seconds.
    pub retry_after: Option<Duration>,
    /// Sent as `WWW-Authenticate` (RFC 9110 §11.6.1).
    pub challenge: Option<Box<str>>,
    /// Sent as `Allow`: the methods a path answers (RFC 9110 §15.5.6).
    pub allow: Option<&'static str>,
    /// The limit that was reached.
    pub limit: Option<Box<Limited>>,
    /// The server's own JSON-RPC error, passed on whole.
    pub rpc_error: Option<Box<str>>,
    /// For the log only.
    pub cause: Option<Box<str>>,
}

impl Reject {
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), retry_after: None, challenge: None, allow: None, limit: None, rpc_error: None, cause: None }
    }

    /// Attaches the private cause.
    #[must_use]
    pub fn because(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string().into());
        self
    }

    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Attaches the limit that was reached.
    #[must_use]
    pub fn limited(mut self, rule: &str, headers: Option<(HeaderValue, HeaderValue)>) -> Self {
        self.limit = Some(Box::new(Limited { rule: rule.to_owned(), headers }));
        self
    }

    /// What `Retry-After` says: whole seconds, at least one.
    pub fn retry_seconds(&self) -> Option<u64> {
        self.retry_after.map(|wait| (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }

    /// Attaches how to authenticate.
    #[must_use]
    pub fn challenge(mut self, challenge: String) -> Self {
        self.challenge = Some(challenge.into());
        self
    }

    #[must_use]
    pub fn with_rpc_error(mut self, error: Verbatim<'_>) -> Self {
        self.rpc_error = Some(error.get().into());
        self
    }

    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(Code::MethodNotAllowed, format!("this path answers {allow}")) }
    }

    pub fn no_healthy_backend(server: &str) -> Self {
        Self::new(Code::NoHealthyBackend, format!("no healthy backend serves `{server}`")).retry_after(Duration::from_secs(1))
    }

    pub fn unknown_server(server: &str) -> Self {
        Self::new(Code::UnknownServer, format!("no backend serves an MCP server named `{}`; see GET /api/servers", clip(server)))
    }

    /// The problem document (RFC 9457).
    pub fn problem(&self, request_id: &str) -> Vec<u8> {
        let problem = Problem {
            r#type: "about:blank",
            title: self.code.title(),
            status: self.code.status(),
            detail: &self.detail,
            code: self.code.name(),
            request_id,
            rpc_error: self.rpc_error.as_deref().map(Verbatim::found),
        };
        serde_json::to_vec(&problem).unwrap_or_default()
    }

    /// The JSON-RPC error message, with the caller's id as it was written, or `null`.
    pub fn rpc(&self, id: Option<Verbatim<'_>>) -> Vec<u8> {
        let error = RpcError {
            code: self.code.rpc(),
            message: &self.detail,
            data: RpcData { code: self.code.name(), retry_after: self.retry_seconds() },
        };
        serde_json::to_vec(&RpcMessage { jsonrpc: "2.0", id, error }).unwrap_or_default()
    }
}

/// For the log.
impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The words of a server stand behind the colon, and may quote the arguments.
        let own = self.rpc_error.as_ref().and_then(|_| Some(self.detail.split_once(": ")?.0));
        write!(f, "{}: {}", self.code.name(), own.unwrap_or(&self.detail))?;
        self.cause.iter().try_for_each(|cause| write!(f, " ({cause})"))
    }
}

impl std::error::Error for Reject {}

/// Shortens what a client sent before it is echoed.
pub fn clip(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(end, _)| &text[..end])
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rpc_error: Option<Verbatim<'a>>,
}

#[derive(Serialize)]
struct RpcMessage<'a> {
    jsonrpc: &'static str,
    id: Option<Verbatim<'a>>,
    error: RpcError<'a>,
}

#[derive(Serialize)]
struct RpcError<'a> {
    code: i64,
    message: &'a str,
    data: RpcData,
}

#[derive(Serialize)]
struct RpcData {
    code: &'static str,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_the_same_in_both_dialects() {
        let reject = Reject::unknown_server("files").because("secret address 10.0.0.1");
        let problem = String::from_utf8(reject.problem("r1")).unwrap();
        assert!(
            problem.contains(r#""status":404"#)
                && problem.contains(r#""code":"unknown_server""#)
                && problem.contains(r#""request_id":"r1""#)
        );
        let id = Verbatim::found("\"a\\u0062\"");
        let rpc = String::from_utf8(reject.rpc(Some(id))).unwrap();
        assert!(rpc.starts_with(r#"{"jsonrpc":"2.0","id":"a\u0062","error":{"code":-31404"#), "the id keeps its bytes: {rpc}");
        assert!(!problem.contains("10.0.0.1") && !rpc.contains("10.0.0.1"), "the cause is private");
        let raw = Verbatim::found("{}");
        let server = Reject::new(Code::ServerError, "the MCP server answered -1: no user ann").with_rpc_error(raw);
        assert_eq!(server.to_string(), "server_error: the MCP server answered -1", "the server's words are the caller's");
    }

    #[test]
    fn our_own_codes_stay_out_of_the_reserved_range() {
        let spec = [-32700, -32600, -32601, -32602, -32603, -32020];
        for code in Code::ALL {
            assert!(spec.contains(&code.rpc()) || !(-32768..=-32000).contains(&code.rpc()), "{}", code.name());
        }
    }
}
