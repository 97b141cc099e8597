//! The metrics of the response cache. Series come into being with the first use, so that a gateway without a cache shows
//! none.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Registry};

use super::metrics::{counter, counters, gauges, histograms};

/// Upper bounds of ages at a hit, in seconds.
const AGES: &[f64] = &[1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];
/// Upper bounds of the time to fill an entry, in seconds.
const FILLS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// How a question to a tier ended, as the `result` label says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    Hit,
    Miss,
    Stale,
    Bypass,
}

impl Looked {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
        }
    }
}

/// Everything counted of the cache.
pub struct CacheMeter {
    requests: IntCounterVec,
    bypasses: IntCounterVec,
    bytes: IntGaugeVec,
    pub evictions: IntCounter,
    /// What came from it and cannot be read.
    pub garbage: IntCounter,
    pub invalidations: IntCounter,
    fills: HistogramVec,
    ages: HistogramVec,
}

/// The handles of one server.
pub struct ServerMeter {
    pub fill: Histogram,
    pub age: Histogram,
}

impl CacheMeter {
    pub(super) fn new(r: &Registry) -> Self {
        Self {
            requests: counters(r, "cache_requests_total", "Requests that could be answered from the cache.", &["tier", "result"]),
            bypasses: counters(r, "cache_bypasses_total", "Requests that were not looked up, or not kept.", &["reason"]),
            bytes: gauges(r, "cache_bytes", "Bytes of what is kept, with its keys.", &["tier"]),
            evictions: counter(r, "cache_evictions_total", "Entries that made room for others."),
            garbage: counter(r, "cache_garbage_total", "What came from Redis and was not what the cache had put there."),
            invalidations: counter(r, "cache_invalidations_total", "Times that something kept was declared void."),
            fills: histograms(r, "cache_fill_seconds", "Time to get an answer that is kept.", &["server"], FILLS),
            ages: histograms(r, "cache_hit_age_seconds", "Age of answers given from the cache.", &["server"], AGES),
        }
    }

    pub fn looked(&self, tier: &str, looked: Looked) {
        self.requests.with_label_values(&[tier, looked.name()]).inc();
    }

    pub fn bypassed(&self, reason: &str) {
        self.looked("memory", Looked::Bypass);
        self.bypasses.with_label_values(&[reason]).inc();
    }

    pub fn holds(&self, tier: &str, bytes: u64) {
        self.bytes.with_label_values(&[tier]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Handles for one server.
    pub fn server(&self, server: &str) -> ServerMeter {
        ServerMeter { fill: self.fills.with_label_values(&[server]), age: self.ages.with_label_values(&[server]) }
    }
}

impl ServerMeter {
    pub fn filled(&self, elapsed: Duration) {
        self.fill.observe(elapsed.as_secs_f64());
    }

    pub fn hit(&self, age: Duration) {
        self.age.observe(age.as_secs_f64());
    }
}
