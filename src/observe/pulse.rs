//! What happened in the last minutes: the counters there are, read every few seconds and kept in a ring. Nothing is counted
//! anew, so a request pays nothing for it, and memory is bounded by the length of the ring.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::{Collector as _, Metric as _};
use prometheus::proto;

use super::metrics::{Metrics, SECONDS};
use super::upstream::BackendMeter;

/// Between two readings.
pub const EVERY: Duration = Duration::from_secs(5);
/// Readings kept: a quarter of an hour, and where it began.
const KEPT: usize = 181;
/// Readings that tell backends apart: a minute, and where it began.
const DETAILED: usize = 13;
/// How the routes end that reach MCP servers.
const SERVED: &str = "/mcp/{server}";

/// Requests by how they ended and how long they took, since the start or since an earlier reading.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub ok: u64,
    /// Answered with 4xx.
    pub refused: u64,
    /// Answered with 5xx, or not at all where a backend is asked.
    pub failed: u64,
    /// Requests up to each bound of [`SECONDS`], and all of them.
    buckets: [u64; SECONDS.len() + 1],
}

impl Tally {
    /// What the metrics tell of requests to MCP servers, and to paths there are not.
    pub fn of_requests(metrics: &Metrics) -> Self {
        let mut tally = Self::default();
        for family in metrics.http_requests.collect() {
            for series in family.get_metric().iter().filter(|series| is_served(series) || label(series, "route") == "other") {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter of whole requests")]
                tally.count(label(series, "status").as_bytes().first(), series.get_counter().get_value() as u64);
            }
        }
        for family in metrics.http_duration.collect() {
            family.get_metric().iter().filter(|series| is_served(series)).for_each(|series| tally.add(series.get_histogram()));
        }
        tally
    }

    /// What the metrics tell of requests to a backend.
    pub fn of_backend(meter: &BackendMeter) -> Self {
        let mut tally = Self::default();
        for (status, requests) in meter.statuses() {
            tally.count(status.as_bytes().first(), requests);
        }
        tally.add(meter.time().metric().get_histogram());
        tally
    }

    fn count(&mut self, class: Option<&u8>, requests: u64) {
        match class {
            Some(b'1'..=b'3') => self.ok += requests,
            Some(b'4') => self.refused += requests,
            // The client left before it was answered.
            Some(b'0') => {}
            _ => self.failed += requests,
        }
    }

    fn add(&mut self, histogram: &proto::Histogram) {
        let counts = histogram.get_bucket().iter().map(proto::Bucket::cumulative_count).take(SECONDS.len());
        for (sum, count) in self.buckets.iter_mut().zip(counts.chain([histogram.get_sample_count()])) {
            *sum += count;
        }
    }

    /// What came to it since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut buckets = self.buckets;
        for (count, before) in buckets.iter_mut().zip(earlier.buckets) {
            *count = count.saturating_sub(before);
        }
        let less = |now: u64, before: u64| now.saturating_sub(before);
        Self {
            ok: less(self.ok, earlier.ok),
            refused: less(self.refused, earlier.refused),
            failed: less(self.failed, earlier.failed),
            buckets,
        }
    }

    pub const fn requests(&self) -> u64 {
        self.ok + self.refused + self.failed
    }

    /// The time in seconds within which this share of the requests ended, between the bounds of its bucket; `None` without
    /// any.
    #[expect(clippy::cast_precision_loss, reason = "an estimate from buckets")]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let all = self.buckets[SECONDS.len()];
        let rank = share * all as f64;
        let (mut low, mut below) = (0.0, 0);
        for (bound, count) in SECONDS.iter().zip(self.buckets) {
            if count > 0 && count as f64 >= rank {
                let within = (rank - below as f64) / (count - below).max(1) as f64;
                return Some(low + (bound - low) * within.clamp(0.0, 1.0));
            }
            (low, below) = (*bound, count);
        }
        (all > 0).then_some(low)
    }
}

fn label<'s>(series: &'s proto::Metric, name: &str) -> &'s str {
    series.get_label().iter().find(|pair| pair.name() == name).map_or("", |pair| pair.value())
}

fn is_served(series: &proto::Metric) -> bool {
    label(series, "route").ends_with(SERVED)
}

/// One reading.
struct Reading {
    at: Instant,
    all: Tally,
    backends: BTreeMap<String, Tally>,
}

/// A stretch between two readings.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// When it ended, before now.
    pub ago: Duration,
    pub lasted: Duration,
    pub tally: Tally,
}

/// The ring.
pub struct Pulse(Mutex<VecDeque<Reading>>);

impl Default for Pulse {
    /// Begins with a reading of nothing: what happened before the first is told as well.
    fn default() -> Self {
        Self(Mutex::new(VecDeque::from([Reading { at: Instant::now(), all: Tally::default(), backends: BTreeMap::new() }])))
    }
}

impl Pulse {
    /// Keeps a reading.
    pub fn keep(&self, all: Tally, backends: BTreeMap<String, Tally>) {
        let mut ring = self.ring();
        ring.push_back(Reading { at: Instant::now(), all, backends });
        while ring.len() > KEPT {
            ring.pop_front();
        }
        let old = ring.len().saturating_sub(DETAILED);
        if let Some(old) = old.checked_sub(1).and_then(|last| ring.get_mut(last)) {
            old.backends = BTreeMap::new();
        }
    }

    /// The stretches between the readings, oldest first.
    pub fn stretches(&self) -> Vec<Stretch> {
        let ring = self.ring();
        let between = ring.iter().zip(ring.iter().skip(1));
        between
            .map(|(from, to)| Stretch { ago: to.at.elapsed(), lasted: to.at.duration_since(from.at), tally: to.all.since(&from.all) })
            .collect()
    }

    /// What happened in the last minute, or since the start, up to `now`.
    pub fn minute(&self, now: &Tally) -> Stretch {
        let ring = self.ring();
        let from = &ring[ring.len().saturating_sub(DETAILED)];
        Stretch { ago: Duration::ZERO, lasted: from.at.elapsed(), tally: now.since(&from.all) }
    }

    /// The same of one backend; one that was not there then began with nothing.
    pub fn minute_of(&self, backend: &str, now: &Tally) -> Stretch {
        let ring = self.ring();
        let from = &ring[ring.len().saturating_sub(DETAILED)];
        let none = Tally::default();
        Stretch { ago: Duration::ZERO, lasted: from.at.elapsed(), tally: now.since(from.backends.get(backend).unwrap_or(&none)) }
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::upstream::Ending;

    #[test]
    fn readings_tell_what_came_between_them_and_are_bounded() {
        let (metrics, pulse) = (Metrics::new(), Pulse::default());
        let asked = |route: &str, status: &str| metrics.http_requests.with_label_values(&["POST", route, status]).inc();
        asked("/mcp/{server}", "200");
        asked("/api/mcp/{server}", "503");
        asked("other", "404");
        asked("/health", "200");
        let first = Tally::of_requests(&metrics);
        assert_eq!((first.ok, first.refused, first.failed), (1, 1, 1), "pages do not count");
        pulse.keep(first, BTreeMap::new());
        asked("/mcp/{server}", "429");
        pulse.keep(Tally::of_requests(&metrics), BTreeMap::new());
        let told: Vec<u64> = pulse.stretches().iter().map(|stretch| stretch.tally.requests()).collect();
        assert_eq!(told, [3, 1]);
        for _ in 0..2 * KEPT {
            pulse.keep(Tally::default(), BTreeMap::from([("one".to_owned(), Tally::default())]));
        }
        let ring = pulse.ring();
        assert_eq!((ring.len(), ring.iter().filter(|reading| !reading.backends.is_empty()).count()), (KEPT, DETAILED));
    }

    #[test]
    fn quantiles_lie_between_the_bounds_of_their_bucket() {
        let metrics = Metrics::new();
        assert_eq!(Tally::of_requests(&metrics).quantile(0.5), None);
        for seconds in [0.003, 0.004, 0.3, 100.0] {
            metrics.http_duration.with_label_values(&["/mcp/{server}"]).observe(seconds);
        }
        let tally = Tally::of_requests(&metrics);
        let within = |share, low, high| tally.quantile(share).is_some_and(|seconds| (low..=high).contains(&seconds));
        assert!(within(0.5, 0.0025, 0.005) && within(0.75, 0.25, 0.5) && within(0.99, 60.0, 60.0));
        let meter = metrics.upstream.backend("one");
        meter.count(Ending::Broken, Duration::from_millis(3));
        assert_eq!(Tally::of_backend(&meter).failed, 1);
    }
}
