//! Every metric of the gateway, one field each. Label values come from configuration and catalogue names only, so that
//! no client can make series. Hot paths keep handles (`Meter`, `BackendMeter`), because looking one up by labels costs
//! more than counting.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::cache::CacheMeter;
pub use super::labels::{Ending, Fallback, Outcome, Retry, Shed};
use crate::coding::Coding;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Upper bounds of latency buckets, in seconds.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Upper bounds of size buckets, in bytes.
const BYTES: &[f64] = &[256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

/// Handles for the decisions of one rate limit.
pub struct LimitMeter {
    admitted: IntCounter,
    refused: IntCounter,
}

impl LimitMeter {
    pub fn count(&self, admitted: bool) {
        if admitted { self.admitted.inc() } else { self.refused.inc() }
    }
}

/// Questions to Redis that failed. One for the process, as a store is asked where no registry is at hand.
static REDIS_ERRORS: LazyLock<IntCounter> =
    LazyLock::new(|| IntCounter::new("redis_errors_total", "Questions to Redis that failed.").expect("a constant name"));

/// Counts a question to Redis that failed.
pub fn redis_error() {
    REDIS_ERRORS.inc();
}

/// The registry and its families.
pub struct Metrics {
    registry: Registry,
    pub http_requests: IntCounterVec,
    pub http_duration: HistogramVec,
    mcp_requests: IntCounterVec,
    mcp_duration: HistogramVec,
    mcp_size: HistogramVec,
    backend_up: IntGaugeVec,
    backend_requests: IntCounterVec,
    backend_time: HistogramVec,
    backend_in_flight: IntGaugeVec,
    breaker_state: IntGaugeVec,
    tool_breaker_state: IntGaugeVec,
    retries: [IntCounter; 4],
    limit_decisions: IntCounterVec,
    limit_fallbacks: [IntCounter; 3],
    pub limit_store_up: IntGauge,
    shed: [IntCounter; 4],
    /// By what became of them.
    pub spans: IntCounterVec,
    backend_draining: IntGaugeVec,
    discovery_up: IntGaugeVec,
    discovery_backends: IntGaugeVec,
    discovery_rejected: IntCounterVec,
    auth_decisions: IntCounterVec,
    pub tenant_requests: IntCounterVec,
    pub reloads: IntCounterVec,
    pub last_reload: IntGauge,
    pub open_streams: IntGauge,
    /// By coding: before, after.
    compression: [[IntCounter; 2]; Coding::ALL.len()],
    pub cache: Arc<CacheMeter>,
    pub connections: IntGauge,
    pub connections_refused: IntCounter,
}

impl Metrics {
    /// # Panics
    /// If two families share a name, which the test below rules out.
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        register(r, REDIS_ERRORS.clone());
        register(r, prometheus::process_collector::ProcessCollector::for_self());
        Self {
            http_requests: counters(r, "http_requests_total", "Requests answered.", &["method", "route", "status"]),
            http_duration: histograms(r, "http_request_duration_seconds", "Time to the end of the answer.", &["route"], SECONDS),
            mcp_requests: counters(r, "mcp_requests_total", "MCP requests by outcome.", &["server", "method", "tool", "outcome"]),
            mcp_duration: histograms(r, "mcp_request_duration_seconds", "Time of MCP requests.", &["server", "method", "tool"], SECONDS),
            mcp_size: histograms(r, "mcp_response_size_bytes", "Size of MCP answers.", &["server", "tool"], BYTES),
            backend_up: gauges(r, "backend_up", "1 while the backend passes its health checks.", &["backend"]),
            backend_requests: counters(r, "backend_requests_total", "Requests sent to the backend.", &["backend", "status"]),
            backend_time: histograms(r, "backend_response_time_seconds", "Time to the backend's response header.", &["backend"], SECONDS),
            backend_in_flight: gauges(r, "backend_in_flight", "Requests the backend is working on.", &["backend"]),
            breaker_state: gauges(r, "circuit_breaker_state", "0 closed, 1 half-open, 2 open.", &["backend"]),
            tool_breaker_state: gauges(
                r,
                "tool_circuit_breaker_state",
                "1 half-open, 2 open; closed ones are left out.",
                &["backend", "server", "tool"],
            ),
            retries: retries(r),
            limit_decisions: counters(r, "rate_limit_decisions_total", "Requests judged by a rate limit.", &["rule", "decision"]),
            limit_fallbacks: {
                let family =
                    counters(r, "rate_limit_fallbacks_total", "Decisions made without the shared store, by what stood in for it.", &["by"]);
                Fallback::ALL.map(|by| family.with_label_values(&[by.name()]))
            },
            limit_store_up: gauge(r, "rate_limit_store_up", "1 while the store of rate limits answers, or none is shared."),
            shed: sheds(r),
            spans: counters(r, "trace_spans_total", "Spans told to the collector, or not: exported, failed, dropped.", &["result"]),
            backend_draining: gauges(r, "backend_draining", "1 while the backend is given no new requests.", &["backend"]),
            discovery_up: gauges(r, "discovery_up", "1 while the source can be asked and is in step.", &["source"]),
            discovery_backends: gauges(r, "discovery_backends", "Backends the source last told.", &["source"]),
            discovery_rejected: counters(r, "discovery_rejected_total", "What the source told that is no backend.", &["source"]),
            auth_decisions: counters(r, "auth_decisions_total", "Callers recognised or refused.", &["way", "decision"]),
            tenant_requests: counters(
                r,
                "tenant_requests_total",
                "Requests by tenant, for tenants that are named in the configuration.",
                &["tenant", "status"],
            ),
            reloads: counters(r, "config_reloads_total", "Configuration reloads.", &["result"]),
            last_reload: gauge(r, "config_last_reload_timestamp_seconds", "When the running configuration was loaded."),
            open_streams: gauge(r, "open_streams", "Event streams being relayed."),
            compression: compression(r),
            cache: Arc::new(CacheMeter::new(r)),
            connections: gauge(r, "open_connections", "Open client connections."),
            connections_refused: counter(
                r,
                "connections_refused_total",
                "Client connections closed because a connection limit was reached.",
            ),
            registry,
        }
    }

    /// The text exposition.
    pub fn expose(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // Writing into a vector cannot fail; a family that cannot be encoded is a bug the exposition test shows.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        out
    }

    /// Handles for one server, method and tool; `tool` is empty for methods that name none.
    pub fn meter(&self, server: &str, method: &str, tool: &str) -> Meter {
        Meter {
            outcomes: Outcome::ALL.map(|outcome| self.mcp_requests.with_label_values(&[server, method, tool, outcome.name()])),
            duration: self.mcp_duration.with_label_values(&[server, method, tool]),
            size: self.mcp_size.with_label_values(&[server, tool]),
        }
    }

    /// Handles for the decisions of one way to authenticate: admitted, refused, unavailable.
    pub fn decisions(&self, way: &str) -> [IntCounter; 3] {
        ["admitted", "refused", "unavailable"].map(|decision| self.auth_decisions.with_label_values(&[way, decision]))
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

    /// Handles for one rate limit.
    pub fn limit(&self, rule: &str) -> LimitMeter {
        let decision = |decision| self.limit_decisions.with_label_values(&[rule, decision]);
        LimitMeter { admitted: decision("admitted"), refused: decision("refused") }
    }

    pub fn limit_fallback(&self, by: Fallback) {
        self.limit_fallbacks[by as usize].inc();
    }

    pub fn shed(&self, reason: Shed) {
        self.shed[reason as usize].inc();
    }

    /// Counts an answer that was put into a coding.
    pub fn compressed(&self, coding: Coding, before: usize, after: usize) {
        for (counter, bytes) in self.compression[coding as usize].iter().zip([before, after]) {
            counter.inc_by(bytes as u64);
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
}

impl Metrics {
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

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Handles for one server, method and tool.
pub struct Meter {
    outcomes: [IntCounter; 6],
    duration: Histogram,
    size: Histogram,
}

impl Meter {
    pub fn count(&self, outcome: Outcome, elapsed: Duration, bytes: usize) {
        self.outcomes[outcome as usize].inc();
        self.duration.observe(elapsed.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a histogram bucket needs no more than 53 bits")]
        self.size.observe(bytes as f64);
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

fn sheds(registry: &Registry) -> [IntCounter; 4] {
    let help = "Requests refused because there is more to do than can be done.";
    let family = counters(registry, "overload_refusals_total", help, &["reason"]);
    Shed::ALL.map(|reason| family.with_label_values(&[reason.name()]))
}

fn retries(registry: &Registry) -> [IntCounter; 4] {
    let family = counters(registry, "backend_retries_total", "Second attempts at other backends, and those not made.", &["kind"]);
    Retry::ALL.map(|kind| family.with_label_values(&[kind.name()]))
}

fn compression(registry: &Registry) -> [[IntCounter; 2]; Coding::ALL.len()] {
    let family = counters(registry, "compression_bytes_total", "Bytes of compressed answers.", &["encoding", "stage"]);
    Coding::ALL.map(|coding| ["before", "after"].map(|stage| family.with_label_values(&[coding.name(), stage])))
}

pub(super) fn register<C: Collector + 'static>(registry: &Registry, collector: C) {
    registry.register(Box::new(collector)).expect("each family has its own name");
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let counter = IntCounter::new(name, help).expect("a constant name");
    register(registry, counter.clone());
    counter
}

pub(super) fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let family = IntCounterVec::new(Opts::new(name, help), labels).expect("constant names");
    register(registry, family.clone());
    family
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect("a constant name");
    register(registry, gauge.clone());
    gauge
}

pub(super) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let family = IntGaugeVec::new(Opts::new(name, help), labels).expect("constant names");
    register(registry, family.clone());
    family
}

pub(super) fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let family = HistogramVec::new(options, labels).expect("constant names and rising buckets");
    register(registry, family.clone());
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_exposed() {
        let metrics = Metrics::new();
        metrics.meter("files", "tools/call", "read").count(Outcome::ToolError, Duration::from_millis(3), 300);
        metrics.backend("one").count(Ending::Status(404), Duration::from_millis(3));
        let text = String::from_utf8(metrics.expose()).unwrap();
        assert!(text.contains(r#"mcp_requests_total{method="tools/call",outcome="tool_error",server="files",tool="read"} 1"#), "{text}");
        assert!(text.contains(r#"backend_requests_total{backend="one",status="4xx"} 1"#));
        metrics.forget_backend("one");
        assert!(!String::from_utf8(metrics.expose()).unwrap().contains("backend=\"one\""));
    }
}
