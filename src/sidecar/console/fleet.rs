//! Backends and servers as the operator's page shows them.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use utoipa::ToSchema;

use super::overview::{rate, share};
use crate::observe::pulse::Tally;
use crate::sidecar::{breakers, servers};
use crate::snapshot::{Snapshot, State};
use crate::upstream::backend;
use crate::upstream::discovery::Source;
use crate::upstream::facts::Speaks;
use crate::upstream::pool::Pool;

/// Tools of one server that are named.
const NAMED: usize = 200;

/// One backend.
#[derive(Serialize, ToSchema)]
pub struct Backend {
    #[schema(example = "primary")]
    pub name: String,
    pub url: String,
    /// `file`, `admin`, `etcd` or `dns`.
    pub source: &'static str,
    /// As in `/api/servers`: `healthy`, `unhealthy` or `draining`.
    pub status: &'static str,
    pub draining: bool,
    /// `closed`, `half-open` or `open`.
    pub breaker: &'static str,
    /// Left out for failing more than the others, for so many seconds yet.
    pub ejected_for: Option<f64>,
    /// `legacy`, `modern` or `middleware`, once known.
    pub era: Option<&'static str>,
    pub servers: Vec<String>,
    pub in_flight: i64,
    /// In the last minute, as what follows.
    pub requests: u64,
    pub requests_per_second: f64,
    /// Of the requests, those answered with 5xx or not at all, from 0 to 1.
    pub failed_share: f64,
    /// Seconds until the answer's header.
    pub p50_seconds: Option<f64>,
    pub p95_seconds: Option<f64>,
    /// When its health was last checked (RFC 3339).
    pub last_health_check: Option<String>,
    #[serde(skip)]
    #[schema(ignore)]
    pub checked: Option<jiff::Timestamp>,
}

/// All backends, those first that are in trouble.
pub fn backends(state: &State, snapshot: &Snapshot) -> Vec<Backend> {
    let now = Instant::now();
    let mut rows: Vec<Backend> = snapshot.upstream.backends.iter().map(|backend| row(state, snapshot, backend, now)).collect();
    rows.sort_by(|a, b| (a.is_well(), &a.name).cmp(&(b.is_well(), &b.name)));
    rows
}

impl Backend {
    pub fn is_well(&self) -> bool {
        self.status == "healthy" && self.breaker == "closed" && self.ejected_for.is_none()
    }
}

fn row(state: &State, snapshot: &Snapshot, backend: &backend::Backend, now: Instant) -> Backend {
    let facts = backend.facts();
    let minute = state.shared.pulse.minute_of(backend.name(), &Tally::of_backend(&backend.meter));
    let until = backend.record.outlier.until(now);
    Backend {
        name: backend.name().to_owned(),
        url: backend.conf.url.to_string(),
        source: snapshot.sources.get(backend.name()).copied().unwrap_or(Source::File).name(),
        status: servers::status(backend),
        draining: backend.is_draining(),
        breaker: breakers::state_of(snapshot, backend, now).name(),
        ejected_for: until.map(|until| until.saturating_duration_since(now).as_secs_f64()),
        era: facts.speaks.map(Speaks::name),
        servers: facts.servers.keys().cloned().collect(),
        in_flight: backend.meter.in_flight.get(),
        requests: minute.tally.requests(),
        requests_per_second: rate(&minute),
        failed_share: share(minute.tally.failed, &minute.tally),
        p50_seconds: minute.tally.quantile(0.5),
        p95_seconds: minute.tally.quantile(0.95),
        last_health_check: backend.last_check().map(|time| format!("{time:.0}")),
        checked: backend.last_check(),
    }
}

/// One MCP server over all its backends.
#[derive(Serialize, ToSchema)]
pub struct Server {
    #[schema(example = "filesystem")]
    pub name: String,
    /// `healthy`, `degraded` or `unhealthy`: all, some or none of its backends take requests.
    pub status: &'static str,
    pub backends: Vec<Member>,
    /// The MCP revision, where they tell one.
    pub protocol_version: Option<String>,
    /// How many tools are known; null while it could not be asked.
    pub tools_count: Option<usize>,
    /// The first of them.
    pub tools: Vec<Tool>,
}

/// A backend that serves a server.
#[derive(Serialize, ToSchema)]
pub struct Member {
    pub name: String,
    /// As in `/api/servers`.
    pub status: &'static str,
}

/// A tool.
#[derive(Serialize, ToSchema)]
pub struct Tool {
    pub name: String,
    /// Where its breakers stand that are not closed.
    pub breakers: Vec<String>,
    /// What its server declares: it changes nothing.
    pub read_only: bool,
}

/// All servers, by name.
pub fn servers(snapshot: &Snapshot) -> Vec<Server> {
    let now = Instant::now();
    let mut open: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for backend in &snapshot.upstream.backends {
        for (server, tool, standing) in backend.record.tool_states(now) {
            open.entry((server, tool)).or_default().push(format!("{} at {}", standing.name(), backend.name()));
        }
    }
    let directory = snapshot.upstream.directory();
    directory.pools.values().map(|pool| server(pool, &open)).collect()
}

fn server(pool: &Pool, open: &BTreeMap<(String, String), Vec<String>>) -> Server {
    let name = &*pool.server;
    let mut row = Server {
        name: name.to_owned(),
        status: "healthy",
        backends: Vec::new(),
        protocol_version: None,
        tools_count: None,
        tools: Vec::new(),
    };
    let mut tools = BTreeMap::new();
    for backend in pool.members.iter().map(|member| &member.backend) {
        let facts = backend.facts();
        let Some(server) = facts.servers.get(name) else { continue };
        row.backends.push(Member { name: backend.name().to_owned(), status: servers::status(backend) });
        row.protocol_version = row.protocol_version.max(server.version.clone());
        row.tools_count = row.tools_count.max(server.count());
        tools.extend(server.tools.iter().flat_map(|tools| tools.iter()).map(|(tool, known)| (tool.clone(), known.read_only)));
    }
    row.tools_count = row.tools_count.max((!tools.is_empty()).then_some(tools.len()));
    let well = row.backends.iter().filter(|member| member.status == "healthy").count();
    row.status = match well {
        0 => "unhealthy",
        well if well == row.backends.len() => "healthy",
        _ => "degraded",
    };
    row.tools = tools.into_iter().map(|(tool, read_only)| of(name, tool, read_only, open)).collect();
    // Those in trouble are named in any case.
    row.tools.sort_by(|a, b| (a.breakers.is_empty(), &a.name).cmp(&(b.breakers.is_empty(), &b.name)));
    row.tools.truncate(NAMED);
    row
}

fn of(server: &str, tool: String, read_only: bool, open: &BTreeMap<(String, String), Vec<String>>) -> Tool {
    let breakers = open.get(&(server.to_owned(), tool.clone())).cloned().unwrap_or_default();
    Tool { name: tool, breakers, read_only }
}
