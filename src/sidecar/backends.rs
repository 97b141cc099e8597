//! `/admin/backends`: every backend with where it comes from and how it is; backends registered, changed and removed while
//! running; any of them drained. Credentials go in and are never shown again.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use pingora::protocols::http::ServerSession;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::admin::json_page;
use super::body::read;
use super::servers;
use crate::config::{self, discovery};
use crate::mcp::message::must_be_object;
use crate::page::Page;
use crate::reject::{Code, Reject, Verdict, clip};
use crate::snapshot::{Snapshot, State};
use crate::upstream::backend::Backend;
use crate::upstream::discovery::admin::Wish;
use crate::upstream::discovery::{Source, usable};
use crate::upstream::facts::Speaks;

/// How long an answer waits for what was registered to be served.
const PATIENCE: Duration = Duration::from_secs(10);

/// One backend as it is shown.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    source: Source,
    /// As in `/api/servers`.
    status: &'static str,
    healthy: bool,
    draining: bool,
    /// `legacy`, `modern` or `middleware`, once known.
    era: Option<&'static str>,
    servers: Vec<String>,
    in_flight: i64,
    last_health_check: Option<String>,
    /// Its effective configuration, secrets hidden.
    backend: &'a config::Backend,
}

fn row<'a>(snapshot: &Snapshot, backend: &'a Backend) -> Row<'a> {
    let facts = backend.facts();
    Row {
        name: backend.name(),
        source: snapshot.sources.get(backend.name()).copied().unwrap_or(Source::File),
        status: servers::status(backend),
        healthy: backend.is_healthy(),
        draining: backend.is_draining(),
        era: facts.speaks.map(Speaks::name),
        servers: facts.servers.keys().cloned().collect(),
        in_flight: backend.meter.in_flight.get(),
        last_health_check: backend.last_check().map(|time| format!("{time:.0}")),
        backend: &backend.conf,
    }
}

/// Answers a request below `/admin/backends`.
///
/// # Errors
/// The refusal for the administrator.
pub async fn answer(state: &State, client: &mut ServerSession, method: &Method, path: &str) -> Verdict<Page> {
    let place = path.strip_prefix("/admin/backends").unwrap_or_default().trim_start_matches('/');
    match (method, place.split_once('/').map_or((place, None), |(name, action)| (name, Some(action)))) {
        (&Method::GET, ("", None)) => Ok(list(&state.snapshot())),
        (&Method::GET, (name, None)) => show(&state.snapshot(), name),
        (&Method::PUT, (name, None)) if !name.is_empty() => put(state, client, name).await,
        (&Method::DELETE, (name, None)) if !name.is_empty() => remove(state, name).await,
        (&Method::POST, (name, Some("drain"))) => drain(state, name, true),
        (&Method::DELETE, (name, Some("drain"))) => drain(state, name, false),
        (_, ("", None)) => Err(Reject::method_not_allowed("GET")),
        (_, (_, None)) => Err(Reject::method_not_allowed("GET, PUT, DELETE")),
        (_, (_, Some("drain"))) => Err(Reject::method_not_allowed("POST, DELETE")),
        _ => Err(Reject::new(Code::NotFound, "no such path on the admin listener")),
    }
}

fn list(snapshot: &Snapshot) -> Page {
    let mut rows: Vec<Row<'_>> = snapshot.upstream.backends.iter().map(|backend| row(snapshot, backend)).collect();
    rows.sort_by_key(|row| row.name);
    json_page(&json!({ "backends": rows }))
}

fn find<'s>(snapshot: &'s Snapshot, name: &str) -> Verdict<&'s Arc<Backend>> {
    let found = snapshot.upstream.backends.iter().find(|backend| backend.name() == name);
    found.ok_or_else(|| Reject::new(Code::NotFound, "no backend of this name"))
}

fn show(snapshot: &Snapshot, name: &str) -> Verdict<Page> {
    Ok(json_page(&row(snapshot, find(snapshot, name)?)))
}

/// Whoever but the admin listener has a name.
fn holder(snapshot: &Snapshot, name: &str) -> Option<&'static str> {
    if snapshot.configured.backends.iter().any(|backend| backend.name == name) {
        return Some("the configuration");
    }
    snapshot.sources.get(name).filter(|source| **source != Source::Admin).map(|source| source.name())
}

async fn put(state: &State, client: &mut ServerSession, name: &str) -> Verdict<Page> {
    let written = written(state, &read(client).await?, name)?;
    if let Some(holder) = holder(&state.snapshot(), name) {
        return Err(Reject::new(Code::Conflict, format!("a backend of this name comes from {holder}")));
    }
    let done = state.shared.discovery.office.wish(Wish::Put(name.to_owned(), written)).await?;
    served(state, done.version).await;
    let page = show(&state.snapshot(), name).unwrap_or_else(|_| json_page(&json!({ "name": name })));
    Ok(Page { status: if done.new { 201 } else { 200 }, ..page })
}

/// Waits until a change is served; what takes longer comes later.
async fn served(state: &State, version: u64) {
    let _ = tokio::time::timeout(PATIENCE, state.shared.discovery.served(version)).await;
}

/// The body, if it is one good backend.
fn written(state: &State, body: &[u8], name: &str) -> Verdict<Box<RawValue>> {
    let wrong = |what: String| Reject::new(Code::InvalidParams, what);
    config::label(name, "backend name").map_err(|e| wrong(clip(&e).to_owned()))?;
    must_be_object(body)?;
    let broken = |e: serde_json::Error| Reject::new(Code::ParseError, "the body is not JSON").because(e);
    let written: Box<RawValue> = serde_json::from_slice(body).map_err(broken)?;
    let interval = state.snapshot().config.discovery.health_check_interval;
    let backend = discovery::backend("body", written.get(), name, interval).map_err(|problems| {
        let told = |problem: &config::Problem| match problem.path.as_str() {
            "" => problem.message.clone(),
            path => format!("`{path}`: {}", problem.message),
        };
        wrong(problems.iter().map(told).collect::<Vec<_>>().join("; "))
    })?;
    if backend.name != name {
        return Err(wrong("`name`: not the one in the path; leave it out".to_owned()));
    }
    usable(&backend).map_err(|message| wrong(format!("`tls.ca`: {message}")))?;
    Ok(written)
}

async fn remove(state: &State, name: &str) -> Verdict<Page> {
    let removed = state.shared.discovery.office.wish(Wish::Remove(name.to_owned())).await;
    let done = removed.map_err(|reject| match holder(&state.snapshot(), name) {
        Some(holder) if reject.code == Code::NotFound => {
            Reject::new(Code::Conflict, format!("this backend comes from {holder}; take it away there"))
        }
        _ => reject,
    })?;
    // The next of this name is another one.
    state.shared.discovery.drain(name, false);
    served(state, done.version).await;
    state.mark_draining(&state.snapshot());
    Ok(json_page(&json!({ "name": name, "removed": true })))
}

pub(super) fn drain(state: &State, name: &str, draining: bool) -> Verdict<Page> {
    find(&state.snapshot(), name)?;
    state.shared.discovery.drain(name, draining);
    let snapshot = state.snapshot();
    state.mark_draining(&snapshot);
    log::info!("backend {name}: {}", if draining { "draining: it gets no new requests" } else { "no longer draining" });
    show(&snapshot, name)
}
