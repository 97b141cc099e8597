//! What `GET /admin/overview` tells and the page shows: one look at everything that is in memory. Nothing is asked for it.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::attention::{self, Notice};
use super::fleet::{self, Backend, Server};
use super::keeping::{self, Cache, Limits};
use crate::limit::near::Near;
use crate::observe::pulse::{Stretch, Tally};
use crate::observe::refusals::Refusal as Noted;
use crate::sidecar::health;
use crate::snapshot::{Phase, Snapshot, State};

/// Refusals that are shown.
const SHOWN: usize = 100;

/// Everything an operator sees at a glance.
#[derive(Serialize, ToSchema)]
pub struct Overview {
    #[schema(example = "1.0.0")]
    pub version: &'static str,
    /// As in `/health`: `healthy`, `degraded` or `unhealthy`.
    pub status: &'static str,
    /// `serving`, `lame duck`, `draining` or `closing`.
    pub phase: &'static str,
    /// Now (RFC 3339).
    pub time: String,
    pub uptime_seconds: u64,
    /// What somebody should look at, the worst first.
    pub attention: Vec<Notice>,
    pub traffic: Traffic,
    pub backends: Vec<Backend>,
    pub servers: Vec<Server>,
    pub limits: Limits,
    /// Null: nothing is kept.
    pub cache: Option<Cache>,
    /// The latest first; those alike are one.
    pub refusals: Vec<Refusal>,
    pub configuration: Configuration,
}

/// Requests to MCP servers in the last minute, or since the start.
#[derive(Serialize, ToSchema)]
pub struct Traffic {
    pub window_seconds: f64,
    pub requests: u64,
    pub requests_per_second: f64,
    /// Of the requests, those answered with 4xx, from 0 to 1.
    pub refused_share: f64,
    /// Those answered with 5xx.
    pub failed_share: f64,
    /// Seconds within which half of them ended, estimated from buckets; null without any.
    pub p50_seconds: Option<f64>,
    pub p95_seconds: Option<f64>,
    pub open_streams: i64,
    pub open_connections: i64,
    /// The last quarter of an hour.
    pub points: Vec<Point>,
    #[serde(skip)]
    #[schema(ignore)]
    pub stretches: Vec<Stretch>,
}

/// A few seconds of it.
#[derive(Serialize, ToSchema)]
pub struct Point {
    /// When it ended, before now.
    pub seconds_ago: f64,
    pub ok: u64,
    pub refused: u64,
    pub failed: u64,
    pub p50_seconds: Option<f64>,
    pub p95_seconds: Option<f64>,
}

/// One refusal, or several alike.
#[derive(Serialize, ToSchema)]
pub struct Refusal {
    /// The last time (RFC 3339).
    pub at: String,
    pub times: u64,
    #[schema(example = "rate_limited")]
    pub code: &'static str,
    pub status: u16,
    pub detail: String,
    /// What the log was told as well, of failures.
    pub cause: Option<String>,
    /// Of the last one.
    pub request_id: String,
    pub principal: Option<String>,
    pub tenant: Option<String>,
    pub client: Option<String>,
    pub server: Option<String>,
    pub method: Option<String>,
    /// The tool or prompt.
    pub name: Option<String>,
    /// The rate limit that refused it.
    pub limit: Option<String>,
    #[serde(skip)]
    #[schema(ignore)]
    pub noted: jiff::Timestamp,
}

/// Which configuration is served.
#[derive(Serialize, ToSchema)]
pub struct Configuration {
    pub revision: u64,
    /// Since when (RFC 3339).
    pub since: String,
    /// When one was read last, and why.
    pub read: String,
    #[schema(example = "SIGHUP")]
    pub because: &'static str,
    /// Why that one is not served; empty where it is.
    pub problems: Vec<String>,
    /// Keys that changed and take a restart.
    pub waiting: Vec<&'static str>,
    #[serde(skip)]
    #[schema(ignore)]
    pub loaded: jiff::Timestamp,
    #[serde(skip)]
    #[schema(ignore)]
    pub tried: jiff::Timestamp,
}

impl Overview {
    pub fn gather(state: &State, snapshot: &Snapshot) -> Self {
        let shared = &state.shared;
        let near = snapshot.limits.nearest();
        let mut overview = Self {
            version: env!("CARGO_PKG_VERSION"),
            status: health::status(snapshot),
            phase: phase(shared.life.phase()),
            time: format!("{:.0}", jiff::Timestamp::now()),
            uptime_seconds: shared.life.age().as_secs(),
            attention: Vec::new(),
            traffic: traffic(state),
            backends: fleet::backends(state, snapshot),
            servers: fleet::servers(snapshot),
            limits: keeping::limits(snapshot, &near),
            cache: snapshot.cache.as_deref().map(|cache| keeping::cache(cache, &shared.metrics)),
            refusals: shared.refusals.latest().into_iter().take(SHOWN).map(Refusal::from).collect(),
            configuration: configuration(state, snapshot),
        };
        overview.attention = attention::notices(&overview, &shared.risks.load(), refused(&near));
        overview
    }
}

fn refused(near: &[Near]) -> usize {
    near.iter().filter(|near| near.refused > 0).count()
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Serving => "serving",
        Phase::LameDuck => "lame duck",
        Phase::Draining => "draining",
        Phase::Closing => "closing",
    }
}

/// Requests in a second of a stretch.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
pub fn rate(stretch: &Stretch) -> f64 {
    stretch.tally.requests() as f64 / stretch.lasted.max(Duration::from_secs(1)).as_secs_f64()
}

/// A part of the requests, from 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "a share")]
pub fn share(part: u64, tally: &Tally) -> f64 {
    part as f64 / tally.requests().max(1) as f64
}

fn traffic(state: &State) -> Traffic {
    let metrics = &state.shared.metrics;
    let minute = state.shared.pulse.minute(&Tally::of_requests(metrics));
    let stretches = state.shared.pulse.stretches();
    let tally = &minute.tally;
    Traffic {
        window_seconds: minute.lasted.as_secs_f64(),
        requests: tally.requests(),
        requests_per_second: rate(&minute),
        refused_share: share(tally.refused, tally),
        failed_share: share(tally.failed, tally),
        p50_seconds: tally.quantile(0.5),
        p95_seconds: tally.quantile(0.95),
        open_streams: metrics.open_streams.get(),
        open_connections: metrics.connections.get(),
        points: stretches.iter().map(Point::of).collect(),
        stretches,
    }
}

impl Point {
    fn of(stretch: &Stretch) -> Self {
        let tally = &stretch.tally;
        Self {
            seconds_ago: stretch.ago.as_secs_f64(),
            ok: tally.ok,
            refused: tally.refused,
            failed: tally.failed,
            p50_seconds: tally.quantile(0.5),
            p95_seconds: tally.quantile(0.95),
        }
    }
}

impl From<Noted> for Refusal {
    fn from(noted: Noted) -> Self {
        Self {
            at: format!("{:.0}", noted.at),
            times: noted.times,
            code: noted.code,
            status: noted.status,
            detail: noted.detail,
            cause: noted.cause,
            request_id: noted.request_id,
            principal: noted.principal,
            tenant: noted.tenant,
            client: noted.client.map(|address| address.to_string()),
            server: noted.server,
            method: noted.method,
            name: noted.name,
            limit: noted.limit,
            noted: noted.at,
        }
    }
}

fn configuration(state: &State, snapshot: &Snapshot) -> Configuration {
    let reloaded = state.shared.reloaded.load();
    Configuration {
        revision: snapshot.revision,
        since: format!("{:.0}", reloaded.since),
        read: format!("{:.0}", reloaded.at),
        because: reloaded.because,
        problems: reloaded.problems.clone(),
        waiting: reloaded.waiting.clone(),
        loaded: reloaded.since,
        tried: reloaded.at,
    }
}
