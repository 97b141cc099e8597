//! `GET /api/servers`: every server of every backend, from the catalogue in memory.

use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::permit::View;
use crate::call::Kind;
use crate::page::Page;
use crate::principal::Principal;
use crate::snapshot::Snapshot;
use crate::upstream::backend::Backend;
use crate::upstream::facts::{Server, Speaks};

/// The aggregated list.
#[derive(Serialize, ToSchema)]
pub struct Servers {
    servers: Vec<Row>,
}

/// One server on one backend.
#[derive(Serialize, ToSchema)]
struct Row {
    #[schema(example = "filesystem")]
    name: String,
    #[schema(example = "primary")]
    backend: String,
    /// `healthy` or `unhealthy`, by the backend's health checks; `draining` if it is healthy and given no new requests.
    status: &'static str,
    /// How many tools it offers; 0 while it could not be asked.
    tools_count: usize,
    /// When the backend's health was last checked (RFC 3339), or null.
    last_health_check: Option<String>,
    /// The MCP revision it negotiated or offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_version: Option<String>,
    /// `legacy`, `modern` or `middleware`, once known.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_era: Option<&'static str>,
}

/// The page: one row per server and backend, sorted; only what the caller may use.
pub fn list(snapshot: &Snapshot, principal: Option<&Principal>) -> Page {
    let sees = |row: &Row| principal.is_none_or(|principal| snapshot.permits.enter(principal, &row.name).is_ok());
    let rows = snapshot.upstream.backends.iter().flat_map(|backend| rows(backend, snapshot, principal));
    let mut servers: Vec<Row> = rows.filter(sees).collect();
    servers.sort_by(|a, b| (&a.name, &a.backend).cmp(&(&b.name, &b.backend)));
    Page::json(200, serde_json::to_vec(&Servers { servers }).unwrap_or_default())
}

/// How many of a server's tools the caller may use.
fn count(snapshot: &Snapshot, principal: Option<&Principal>, name: &str, server: &Server) -> usize {
    match (principal.map(|principal| snapshot.permits.view(principal, name)), &server.tools) {
        (Some(View::Part(part)), Some(tools)) => tools.keys().filter(|tool| part.keeps(Kind::Tool, tool)).count(),
        // A number without names cannot be divided.
        (Some(View::Part(_)), None) => 0,
        _ => server.count().unwrap_or_default(),
    }
}

/// The word for how a backend is.
pub fn status(backend: &Backend) -> &'static str {
    match (backend.is_healthy(), backend.is_draining()) {
        (false, _) => "unhealthy",
        (true, true) => "draining",
        (true, false) => "healthy",
    }
}

fn rows(backend: &Backend, snapshot: &Snapshot, principal: Option<&Principal>) -> Vec<Row> {
    let facts = backend.facts();
    let row = |(name, server): (&String, &Server)| Row {
        name: name.clone(),
        backend: backend.name().to_owned(),
        status: status(backend),
        tools_count: count(snapshot, principal, name, server),
        last_health_check: backend.last_check().map(|time| format!("{time:.0}")),
        protocol_version: server.version.clone(),
        backend_era: facts.speaks.map(Speaks::name),
    };
    facts.servers.iter().map(row).collect()
}

/// The names of all servers, sorted.
pub fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.upstream.directory().pools.keys().cloned().collect()
}
