//! What users add in Rust: a trait each, called from one place. A binary of your own builds [`Extensions`] and hands them
//! to `bootstrap::cli::run`; `tests/examples/custom_auth.rs` is a whole one.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;

use crate::principal::Identity;

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

/// What a binary adds to the gateway.
#[derive(Clone, Default)]
pub struct Extensions {
    pub authenticators: Vec<Arc<dyn Authenticator>>,
}
