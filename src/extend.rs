//! What users add in Rust: a trait each, called from one place. A binary of your own builds [`Extensions`] and hands them
//! to `bootstrap::cli::run`; `tests/examples/custom_auth.rs` and `tests/examples/custom_gateway.rs` are whole ones. What
//! panics in them is contained, and nothing is admitted by it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue};

pub use crate::config::Among;
use crate::principal::{Identity, Principal};
pub use crate::reject::Code;

/// What an authenticator is shown of a request.
#[derive(Clone, Copy)]
pub struct Arriving<'r> {
    pub headers: &'r HeaderMap,
    /// The real client, behind trusted proxies.
    pub client: Option<IpAddr>,
}

/// What an authenticator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recognition {
    /// The request carries no credential of mine; ask the next.
    NotMine,
    Known(Identity),
    /// Mine, and wrong. The reason goes to the audit log; it must hold no secret.
    Refused(String),
    /// Mine, but it cannot be judged now: the client gets 503, not 401.
    Unavailable(String),
}

/// A way to authenticate that the gateway does not have. Asked before the configured ones; needs an `auth:` section.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Says who asks. Called for every request, so it should be quick to say [`Recognition::NotMine`].
    async fn authenticate(&self, request: Arriving<'_>) -> Recognition;
}

/// What routers and middleware are shown of a request to an MCP server. A batch is shown request by request.
#[derive(Clone, Copy)]
pub struct Asking<'r> {
    pub server: &'r str,
    /// The MCP method, such as `tools/call`; empty for a stream and the end of a session.
    pub method: &'r str,
    /// The tool, prompt, resource URI or task.
    pub name: Option<&'r str>,
    /// The arguments of a tool call or prompt, as JSON.
    pub arguments: Option<&'r str>,
    pub principal: &'r Principal,
    pub headers: &'r HeaderMap,
    /// The real client, behind trusted proxies.
    pub client: Option<IpAddr>,
}

/// Where a router sends a request.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// `None` is every backend that serves the server.
    pub among: Option<Among>,
    /// Instead of the backend's own timeout.
    pub timeout: Option<Duration>,
}

/// A routing decision that no condition can express. Asked before the configured `routes:`, for every request, so it must
/// answer from memory.
pub trait Router: Send + Sync + 'static {
    /// Says where a request goes; `None` leaves it to the next router and the configured routes.
    fn route(&self, asking: &Asking<'_>) -> Option<Way>;
}

/// Why middleware refuses a request. The message is told to the client.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

/// What middleware is shown of an answer, whoever gave it.
#[derive(Clone, Copy)]
pub struct Answered<'r> {
    pub server: &'r str,
    pub principal: &'r Principal,
    pub status: u16,
    /// The code of a refusal.
    pub code: Option<&'static str>,
    /// How the call ended, where that is known before its answer is through: `ok`, `tool_error`, …
    pub outcome: Option<&'static str>,
    pub backend: Option<&'r str>,
    /// Since the request came in.
    pub elapsed: Duration,
}

/// Headers by name.
pub type Lines = Vec<(HeaderName, HeaderValue)>;

/// Something to be done with every request to an MCP server, once it is permitted, and with its answer.
#[async_trait]
pub trait Middleware: Send + Sync + 'static {
    /// Lets a request pass, with headers to send upstream, or refuses it. Those that a transformation may not set are
    /// left out.
    ///
    /// # Errors
    /// Why it is not to be sent.
    async fn request(&self, _asking: &Asking<'_>) -> Result<Lines, Refusal> {
        Ok(Lines::new())
    }

    /// Sees an answer as its header is written, and adds headers to it.
    fn response(&self, _answered: &Answered<'_>) -> Lines {
        Lines::new()
    }
}

/// What a binary adds to the gateway.
#[derive(Clone, Default)]
pub struct Extensions {
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    pub routers: Vec<Arc<dyn Router>>,
    pub middleware: Vec<Arc<dyn Middleware>>,
}
