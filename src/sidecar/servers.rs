//! `GET /api/servers`: every server of every backend, from the catalogue in memory.

use serde::Serialize;
use utoipa::ToSchema;

use crate::page::Page;
use crate::snapshot::Snapshot;

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
    /// `healthy` or `unhealthy`, by the backend's health checks.
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

/// The page: one row per server and backend, sorted.
pub fn list(snapshot: &Snapshot) -> Page {
    let mut servers: Vec<Row> = snapshot.upstream.backends.iter().flat_map(|backend| rows(backend)).collect();
    servers.sort_by(|a, b| (&a.name, &a.backend).cmp(&(&b.name, &b.backend)));
    Page::json(200, serde_json::to_vec(&Servers { servers }).unwrap_or_default())
}

fn rows(backend: &crate::upstream::backend::Backend) -> Vec<Row> {
    let facts = backend.facts();
    let row = |(name, server): (&String, &crate::upstream::facts::Server)| Row {
        name: name.clone(),
        backend: backend.name().to_owned(),
        status: if backend.is_healthy() { "healthy" } else { "unhealthy" },
        tools_count: server.count().unwrap_or_default(),
        last_health_check: backend.last_check().map(|time| format!("{time:.0}")),
        protocol_version: server.version.clone(),
        backend_era: facts.speaks.map(crate::upstream::facts::Speaks::name),
    };
    facts.servers.iter().map(row).collect()
}

/// The names of all servers, sorted.
pub fn names(snapshot: &Snapshot) -> Vec<String> {
    snapshot.upstream.directory().pools.keys().cloned().collect()
}
