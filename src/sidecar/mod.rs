//! What the gateway tells about itself, on the public and on the admin listener: health, readiness, the servers it
//! aggregates, metrics, documentation. Everything is answered from memory; what takes asking is asked by the
//! background service (`bootstrap/caretaker`), never on the request path. The page for people is in `console`.

pub mod admin;
mod analytics;
mod backends;
mod body;
mod breakers;
mod cache;
mod console;
mod csrf;
mod docs;
mod health;
mod keys;
mod log;
pub mod openapi;
mod servers;

use http::header::{self, HeaderValue};

use crate::auth::challenge;
use crate::page::Page;
use crate::principal::Principal;
use crate::reject::{Code, Reject, Verdict};
use crate::route::Route;
use crate::snapshot::{Snapshot, State};

/// The page a route stands for.
///
/// # Errors
/// `not_found` for what is switched off or does not exist.
pub fn page(state: &State, snapshot: &Snapshot, route: Route<'_>, principal: Option<&Principal>) -> Verdict<Page> {
    match route {
        Route::Health => Ok(health::health(snapshot)),
        Route::Ready => Ok(health::ready(state, snapshot)),
        Route::Metrics if snapshot.config.observability.metrics => Ok(metrics(state)),
        Route::Metrics => Err(Reject::new(Code::NotFound, "metrics are switched off (observability.metrics.enabled)")),
        Route::Servers => Ok(servers::list(snapshot, principal)),
        Route::OpenApi => {
            // The document is open, and which servers there are is for those to know who may use them.
            let names = if snapshot.auth.conf().is_some() { Vec::new() } else { servers::names(snapshot) };
            Ok(Page::json(200, openapi::document(&names, snapshot.auth.conf(), &snapshot.config.versions)))
        }
        Route::Docs(file) => docs::file(file),
        Route::Rest { .. } | Route::Native { .. } | Route::ProtectedResource(_) => Err(Reject::new(Code::Internal, "not a page")),
    }
}

/// OAuth metadata of the resource at `path` below our public URL `base` (RFC 9728).
///
/// # Errors
/// `not_found` where no authorization server is configured.
pub fn protected_resource(snapshot: &Snapshot, base: &str, path: &str) -> Verdict<Page> {
    let oauth2 = snapshot.auth.conf().and_then(|auth| auth.oauth2.as_ref()).filter(|oauth2| !oauth2.authorization_servers.is_empty());
    let own = oauth2.and_then(|oauth2| oauth2.resource.as_ref()).map_or("", |url| url.path().trim_end_matches('/'));
    // The path of our own URL, if it has one, stands before that of the resource.
    let path = path.strip_prefix(own).filter(|path| is_resource(path)).or_else(|| Some(path).filter(|path| is_resource(path)));
    let path = path.ok_or_else(|| Reject::new(Code::NotFound, "no such protected resource"))?;
    let oauth2 =
        oauth2.ok_or_else(|| Reject::new(Code::NotFound, "no authorization server is configured (auth.oauth2.authorization_servers)"))?;
    let document = challenge::metadata(oauth2, snapshot.permits.scopes(), base, path);
    // Without a configured URL the document depends on how we were called.
    Ok(Page::json(200, document).with(header::CACHE_CONTROL, HeaderValue::from_static("no-store")))
}

/// The gateway as a whole, or one server.
fn is_resource(path: &str) -> bool {
    matches!(path, "" | "/mcp") || path.strip_prefix("/mcp/").is_some_and(|server| !server.is_empty() && !server.contains('/'))
}

fn metrics(state: &State) -> Page {
    breakers::note(state);
    if let Some(cache) = &state.snapshot().cache {
        cache.bytes();
    }
    state.shared.metrics.limit_store_up.set(i64::from(state.snapshot().limits.store_is_up() != Some(false)));
    Page {
        content_type: "text/plain; version=0.0.4; charset=utf-8".into(),
        headers: vec![(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        ..Page::json(200, state.shared.metrics.expose())
    }
}
