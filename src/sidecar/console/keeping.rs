//! Rate limits and the cache as the operator's page shows them.

use std::cmp::Reverse;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Serialize;
use utoipa::ToSchema;

use crate::cache;
use crate::config::quota::Store;
use crate::limit::near;
use crate::limit::rule::Count;
use crate::observe::cache::Looked;
use crate::observe::metrics::Metrics;
use crate::sidecar::cache::Row;
use crate::snapshot::Snapshot;

/// Entries that are shown.
const HOTTEST: usize = 10;

/// The rate limits.
#[derive(Serialize, ToSchema)]
pub struct Limits {
    /// `local` or `redis`.
    pub store: &'static str,
    /// Whether Redis answers; null where it is not asked.
    pub store_up: Option<bool>,
    pub rules: Vec<Rule>,
    /// Callers with less than a fifth left, a few of them.
    pub near: Vec<Near>,
}

/// One limit.
#[derive(Serialize, ToSchema)]
pub struct Rule {
    pub name: String,
    /// `60 in 60 s, 20 at once`, …
    pub counts: Vec<String>,
    pub concurrency: Option<u32>,
    /// Since the start, as the next.
    pub admitted: u64,
    pub refused: u64,
}

/// A caller near the end of a limit.
#[derive(Serialize, ToSchema)]
pub struct Near {
    pub rule: String,
    #[schema(example = "subject ann")]
    pub who: String,
    pub left: u64,
    pub most: u64,
    /// Requests refused since it came near.
    pub refused: u64,
    pub resets_in_seconds: u64,
}

pub fn limits(snapshot: &Snapshot, near: &[near::Near]) -> Limits {
    let now = Instant::now();
    let rules = snapshot.limits.rules().iter().map(|rule| {
        let [admitted, refused] = rule.meter.totals();
        let counts = rule.counts.iter().map(|count| allows(count)).collect();
        Rule { name: rule.name.clone(), counts, concurrency: rule.concurrency, admitted, refused }
    });
    let near = near.iter().map(|near| Near {
        rule: near.rule.clone(),
        who: near.who.clone(),
        left: near.left,
        most: near.most,
        refused: near.refused,
        resets_in_seconds: near.resets.saturating_duration_since(now).as_secs() + 1,
    });
    Limits {
        store: if snapshot.config.rate_limits.store == Store::Redis { "redis" } else { "local" },
        store_up: snapshot.limits.store_is_up(),
        rules: rules.collect(),
        near: near.collect(),
    }
}

fn allows(count: &Count) -> String {
    let most = count.meter.most();
    let burst = if most == u64::from(count.requests) { String::new() } else { format!(", {most} at once") };
    format!("{} in {} s{burst}", count.requests, count.seconds)
}

/// The cache.
#[derive(Serialize, ToSchema)]
pub struct Cache {
    pub entries: usize,
    pub bytes: u64,
    /// Bytes it may hold.
    pub limit: u64,
    /// Whether Redis keeps for all replicas.
    pub redis: bool,
    pub filling: usize,
    /// Since the start, as the next three; from memory or Redis, stale ones included.
    pub hits: u64,
    pub misses: u64,
    pub bypasses: u64,
    /// Hits of what was looked up, from 0 to 1; null before anything was.
    pub hit_share: Option<f64>,
    pub hottest: Vec<Hot>,
}

/// An entry that is asked for often.
#[derive(Serialize, ToSchema)]
pub struct Hot {
    pub server: String,
    pub method: &'static str,
    pub tool: Option<String>,
    /// `shared` or `private`.
    pub scope: &'static str,
    pub bytes: usize,
    pub hits: u64,
    pub age_seconds: f64,
    pub ttl_seconds: f64,
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
pub fn cache(cache: &cache::Cache, metrics: &Metrics) -> Cache {
    let mut entries = cache.entries();
    entries.sort_by_cached_key(|entry| Reverse(entry.hits.load(Ordering::Relaxed)));
    let total = |tier, looked| metrics.cache.total(tier, looked);
    let shared = total("redis", Looked::Hit);
    let hits = total("memory", Looked::Hit) + total("memory", Looked::Stale) + shared;
    let misses = total("memory", Looked::Miss).saturating_sub(shared);
    let looked_up = hits + misses;
    Cache {
        entries: entries.len(),
        bytes: cache.bytes(),
        limit: u64::try_from(cache.conf.memory).unwrap_or(u64::MAX),
        redis: cache.conf.redis.is_some(),
        filling: cache.under_way(),
        hits,
        misses,
        bypasses: total("memory", Looked::Bypass),
        hit_share: (looked_up > 0).then(|| hits as f64 / looked_up as f64),
        hottest: entries.iter().take(HOTTEST).map(|entry| Hot::of(&Row::of(entry))).collect(),
    }
}

impl Hot {
    fn of(row: &Row<'_>) -> Self {
        Self {
            server: row.server.to_owned(),
            method: row.method,
            tool: row.tool.map(str::to_owned),
            scope: row.scope,
            bytes: row.bytes,
            hits: row.hits,
            age_seconds: row.age,
            ttl_seconds: row.ttl,
        }
    }
}
