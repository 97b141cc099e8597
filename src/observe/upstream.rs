//! The metrics of backends: how they are, what they answer, their breakers, second attempts, and the sources they come from.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

pub use super::labels::{Ending, Retry};
use super::metrics::{SECONDS, counters, gauges, histograms};

/// Everything counted of backends.
pub struct UpstreamMeter {
    backend_up: IntGaugeVec,
    backend_requests: IntCounterVec,
    backend_time: HistogramVec,
    backend_in_flight: IntGaugeVec,
    breaker_state: IntGaugeVec,
    tool_breaker_state: IntGaugeVec,
    retries: [IntCounter; 4],
    backend_draining: IntGaugeVec,
    discovery_up: IntGaugeVec,
    discovery_backends: IntGaugeVec,
    discovery_rejected: IntCounterVec,
}

impl UpstreamMeter {
    pub(super) fn new(r: &Registry) -> Self {
        Self {
            backend_up: gauges(r, "backend_up", "1 while the backend passes its health checks.", &["backend"]),
            backend_requests: counters(
                r,
                "backend_requests_total",
                "Requests to the backend, by class of status or how there was none.",
                &["backend", "status"],
            ),
            backend_time: histograms(r, "backend_response_time_seconds", "Time to the backend's response header.", &["backend"], SECONDS),
            backend_in_flight: gauges(r, "backend_in_flight", "Requests the backend is working on.", &["backend"]),
            breaker_state: gauges(r, "circuit_breaker_state", "The breaker of the backend: 0 closed, 1 half-open, 2 open.", &["backend"]),
            tool_breaker_state: gauges(
                r,
                "tool_circuit_breaker_state",
                "The breaker of one tool: 1 half-open, 2 open; closed ones are left out.",
                &["backend", "server", "tool"],
            ),
            retries: {
                let family = counters(r, "backend_retries_total", "Second attempts at other backends, and those not made.", &["kind"]);
                Retry::ALL.map(|kind| family.with_label_values(&[kind.name()]))
            },
            backend_draining: gauges(r, "backend_draining", "1 while the backend is given no new requests.", &["backend"]),
            discovery_up: gauges(r, "discovery_up", "1 while the source can be asked and is in step.", &["source"]),
            discovery_backends: gauges(r, "discovery_backends", "Backends the source last told.", &["source"]),
            discovery_rejected: counters(r, "discovery_rejected_total", "What the source told that is no backend.", &["source"]),
        }
    }

    /// Handles for one backend.
    pub fn backend(&self, name: &str) -> BackendMeter {
        BackendMeter {
            up: self.backend_up.with_label_values(&[name]),
            time: self.backend_time.with_label_values(&[name]),
            in_flight: self.backend_in_flight.with_label_values(&[name]),
            draining: self.backend_draining.with_label_values(&[name]),
            statuses: STATUSES.map(|status| self.backend_requests.with_label_values(&[name, status])),
        }
    }

    pub fn retry(&self, kind: Retry) {
        self.retries[kind as usize].inc();
    }

    /// Says where breakers stand; asked for at each exposition, since an open one becomes half-open by time alone.
    pub fn breakers<'b>(&self, states: impl Iterator<Item = (&'b str, i64)>, tools: impl Iterator<Item = ([String; 3], i64)>) {
        for (backend, level) in states {
            self.breaker_state.with_label_values(&[backend]).set(level);
        }
        self.tool_breaker_state.reset();
        for (labels, level) in tools {
            self.tool_breaker_state.with_label_values(&labels).set(level);
        }
    }

    /// Drops the series of a backend that is configured no more.
    pub fn forget_backend(&self, name: &str) {
        let _ = self.backend_up.remove_label_values(&[name]);
        let _ = self.breaker_state.remove_label_values(&[name]);
        let _ = self.backend_time.remove_label_values(&[name]);
        let _ = self.backend_in_flight.remove_label_values(&[name]);
        let _ = self.backend_draining.remove_label_values(&[name]);
        for status in STATUSES {
            let _ = self.backend_requests.remove_label_values(&[name, status]);
        }
    }

    /// Handles for one source of backends.
    pub fn discovery(&self, source: &str) -> DiscoveryMeter {
        DiscoveryMeter {
            up: self.discovery_up.with_label_values(&[source]),
            backends: self.discovery_backends.with_label_values(&[source]),
            rejected: self.discovery_rejected.with_label_values(&[source]),
        }
    }

    /// Drops the series of a source that is configured no more.
    pub fn forget_discovery(&self, source: &str) {
        let _ = self.discovery_up.remove_label_values(&[source]);
        let _ = self.discovery_backends.remove_label_values(&[source]);
        let _ = self.discovery_rejected.remove_label_values(&[source]);
    }
}

/// Values of the `status` label of `backend_requests_total`: the class of the answer, or how there was none.
const STATUSES: [&str; 6] = ["2xx", "3xx", "4xx", "5xx", "unreachable", "broken"];

/// Handles for one backend.
pub struct BackendMeter {
    pub up: IntGauge,
    time: Histogram,
    pub in_flight: IntGauge,
    pub draining: IntGauge,
    statuses: [IntCounter; 6],
}

impl BackendMeter {
    /// How many requests ended how, by the values of the `status` label.
    pub fn statuses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        STATUSES.into_iter().zip(self.statuses.iter().map(IntCounter::get))
    }

    pub const fn time(&self) -> &Histogram {
        &self.time
    }

    pub fn count(&self, ending: Ending, elapsed: Duration) {
        let index = match ending {
            Ending::Status(status) => usize::from(status / 100).clamp(2, 5) - 2,
            Ending::Unreachable => 4,
            Ending::Broken => 5,
        };
        self.statuses[index].inc();
        self.time.observe(elapsed.as_secs_f64());
    }
}

/// Handles for one source of backends.
pub struct DiscoveryMeter {
    pub up: IntGauge,
    backends: IntGauge,
    pub rejected: IntCounter,
}

impl DiscoveryMeter {
    /// Notes how many backends the source has.
    pub fn found(&self, count: usize) {
        self.backends.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
