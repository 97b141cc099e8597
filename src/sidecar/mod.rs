//! What the gateway tells about itself, on the public and on the admin listener: health, readiness, the servers it
//! aggregates, metrics, documentation. Everything is answered from memory; what takes asking is asked by the
//! background service (`bootstrap/caretaker`), never on the request path.

pub mod admin;
mod docs;
mod health;
pub mod openapi;
mod servers;

use http::header::{self, HeaderValue};

use crate::page::Page;
use crate::reject::{Code, Reject, Verdict};
use crate::route::Route;
use crate::snapshot::{Snapshot, State};

/// The page a route stands for.
///
/// # Errors
/// `not_found` for what is switched off or does not exist.
pub fn page(state: &State, snapshot: &Snapshot, route: Route<'_>) -> Verdict<Page> {
    match route {
        Route::Health => Ok(health::health(snapshot)),
        Route::Ready => Ok(health::ready(state, snapshot)),
        Route::Metrics if snapshot.config.observability.metrics => Ok(metrics(state)),
        Route::Metrics => Err(Reject::new(Code::NotFound, "metrics are switched off (observability.metrics.enabled)")),
        Route::Servers => Ok(servers::list(snapshot)),
        Route::OpenApi => Ok(Page::json(200, openapi::document(&servers::names(snapshot)))),
        Route::Docs(file) => docs::file(file),
        Route::Rest { .. } | Route::Native { .. } => Err(Reject::new(Code::Internal, "not a page")),
    }
}

fn metrics(state: &State) -> Page {
    Page {
        content_type: "text/plain; version=0.0.4; charset=utf-8".into(),
        headers: vec![(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        ..Page::json(200, state.shared.metrics.expose())
    }
}
