//! The metrics of the response cache. Series come into being with the first use, so that a gateway without a cache shows
//! none.

use std::time::Duration;

use prometheus::core::Collector as _;
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
    const ALL: [Self; 4] = [Self::Hit, Self::Miss, Self::Stale, Self::Bypass];

    const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
        }
    }
}

/// Why a question is neither answered from the cache nor its answer kept, as the `reason` label says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass {
    /// The caller wants it anew (`Cache-Control`).
    Caller,
    /// It continues an exchange.
    Continued,
    /// Its params are too long.
    Size,
    /// Its params can be read in two ways.
    Unreadable,
    /// It belongs to a legacy session.
    Session,
    /// The caller wants to see progress.
    Progress,
    /// Its last answer was none that is kept.
    Uncacheable,
}

impl Bypass {
    const ALL: [Self; 7] = [Self::Caller, Self::Continued, Self::Size, Self::Unreadable, Self::Session, Self::Progress, Self::Uncacheable];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Continued => "continued",
            Self::Size => "size",
            Self::Unreadable => "unreadable",
            Self::Session => "session",
            Self::Progress => "progress",
            Self::Uncacheable => "uncacheable",
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
#[derive(Debug)]
pub struct ServerMeter {
    memory: [IntCounter; 4],
    /// Whoever asks Redis for an answer finds it or does not.
    redis: [IntCounter; 2],
    bypasses: [IntCounter; 7],
    fill: Histogram,
    age: Histogram,
}

impl CacheMeter {
    pub(super) fn new(r: &Registry) -> Self {
        Self {
            requests: counters(r, "cache_requests_total", "Requests that could be answered from the cache.", &["server", "tier", "result"]),
            bypasses: counters(r, "cache_bypasses_total", "Requests that were not looked up, or not kept.", &["server", "reason"]),
            bytes: gauges(r, "cache_bytes", "Bytes of what this process keeps, with its keys.", &["tier"]),
            evictions: counter(r, "cache_evictions_total", "Entries that made room for others."),
            garbage: counter(r, "cache_garbage_total", "What came from Redis and was not what the cache had put there."),
            invalidations: counter(r, "cache_invalidations_total", "Times that something kept was declared void."),
            fills: histograms(r, "cache_fill_seconds", "Time to get an answer that is kept.", &["server"], FILLS),
            ages: histograms(r, "cache_hit_age_seconds", "Age of answers given from the cache.", &["server"], AGES),
        }
    }

    /// Questions to a tier (`memory`, `redis`) that ended so, of all servers.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters of whole questions")]
    pub fn total(&self, tier: &str, looked: Looked) -> u64 {
        let wanted = [("tier", tier), ("result", looked.name())];
        let families = self.requests.collect();
        let series = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        let counts = series.filter(|series| {
            let labels = series.get_label();
            wanted.iter().all(|wanted| labels.iter().any(|label| (label.name(), label.value()) == *wanted))
        });
        counts.map(|series| series.get_counter().get_value() as u64).sum()
    }

    /// Notes what is kept in memory; what Redis holds is not ours alone, and Redis tells it.
    pub fn holds(&self, bytes: u64) {
        self.bytes.with_label_values(&["memory"]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Handles for one server.
    pub fn server(&self, server: &str) -> ServerMeter {
        let looked = |tier: &str, looked: Looked| self.requests.with_label_values(&[server, tier, looked.name()]);
        ServerMeter {
            memory: Looked::ALL.map(|result| looked("memory", result)),
            redis: [Looked::Hit, Looked::Miss].map(|result| looked("redis", result)),
            bypasses: Bypass::ALL.map(|reason| self.bypasses.with_label_values(&[server, reason.name()])),
            fill: self.fills.with_label_values(&[server]),
            age: self.ages.with_label_values(&[server]),
        }
    }
}

impl ServerMeter {
    /// Counts a question to the memory of this process.
    pub fn looked(&self, looked: Looked) {
        self.memory[looked as usize].inc();
    }

    /// Counts a question to the tier that replicas share.
    pub fn found_elsewhere(&self, found: bool) {
        self.redis[usize::from(!found)].inc();
    }

    pub fn bypassed(&self, why: Bypass) {
        self.looked(Looked::Bypass);
        self.bypasses[why as usize].inc();
    }

    pub fn filled(&self, elapsed: Duration) {
        self.fill.observe(elapsed.as_secs_f64());
    }

    pub fn hit(&self, age: Duration) {
        self.age.observe(age.as_secs_f64());
    }
}
