//! `/health` (is the process alive) and `/ready` (should traffic come here).

use http::header::{self, HeaderValue};
use serde::Serialize;

use crate::page::Page;
use crate::snapshot::{Phase, Snapshot, State};

#[derive(Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    backends: Backends,
    circuit_breakers: std::collections::BTreeMap<String, &'static str>,
    timestamp: String,
}

#[derive(Serialize)]
struct Backends {
    total: usize,
    healthy: usize,
    unhealthy: usize,
}

/// The word for how the backends are.
pub fn status(snapshot: &Snapshot) -> &'static str {
    match snapshot.healthy() {
        0 => "unhealthy",
        healthy if healthy == snapshot.upstream.backends.len() => "healthy",
        _ => "degraded",
    }
}

/// Liveness: 200 as long as the process serves, whatever the backends do.
pub fn health(snapshot: &Snapshot) -> Page {
    let total = snapshot.upstream.backends.len();
    let healthy = snapshot.healthy();
    let health = Health {
        status: status(snapshot),
        version: env!("CARGO_PKG_VERSION"),
        backends: Backends { total, healthy, unhealthy: total - healthy },
        circuit_breakers: super::breakers::by_backend(snapshot),
        timestamp: format!("{:.0}", jiff::Timestamp::now()),
    };
    json(200, &health)
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Readiness: configuration loaded, a backend healthy, what is to be kept before traffic comes asked for, not draining.
pub fn ready(state: &State, snapshot: &Snapshot) -> Page {
    let reason = if state.shared.life.phase() > Phase::Serving {
        Some("draining")
    } else if !snapshot.is_ready() {
        Some("no healthy backend")
    } else if !state.shared.life.is_warm() {
        Some("the cache is being warmed")
    } else {
        None
    };
    let page = json(if reason.is_none() { 200 } else { 503 }, &Ready { ready: reason.is_none(), reason });
    if reason.is_some() { page.with(header::RETRY_AFTER, HeaderValue::from_static("1")) } else { page }
}

fn json(status: u16, value: &impl Serialize) -> Page {
    Page::json(status, serde_json::to_vec(value).unwrap_or_default()).with(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
}
