//! Every metric of the gateway, one field each. Label values come from configuration and catalogue names only, so that
//! no client can make series. Hot paths keep handles (`Meter`, `BackendMeter`), because looking one up by labels costs
//! more than counting.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use super::analytics::AnalyticsMeter;
use super::cache::CacheMeter;
use super::export::Exports;
use super::instance::InstanceMeter;
pub use super::labels::{Fallback, Outcome, Shed};
use super::upstream::UpstreamMeter;
use crate::coding::Coding;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Upper bounds of latency buckets, in seconds.
pub(super) const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Tools of one server with series of their own: a server may list others every time it is asked.
const TOOLS: usize = 1000;
/// Upper bounds of size buckets, in bytes.
const BYTES: &[f64] = &[256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

/// Handles for the decisions of one rate limit.
pub struct LimitMeter {
    admitted: IntCounter,
    refused: IntCounter,
}

impl LimitMeter {
    /// Requests admitted and refused so far.
    pub fn totals(&self) -> [u64; 2] {
        [self.admitted.get(), self.refused.get()]
    }

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
    /// The tools of each server that have series.
    called: Mutex<HashMap<String, HashSet<String>>>,
    mcp_requests: IntCounterVec,
    mcp_duration: HistogramVec,
    mcp_size: HistogramVec,
    pub upstream: UpstreamMeter,
    limit_decisions: IntCounterVec,
    limit_fallbacks: [IntCounter; 3],
    pub limit_store_up: IntGauge,
    shed: [IntCounter; 4],
    /// By what became of them.
    pub spans: IntCounterVec,
    auth_decisions: IntCounterVec,
    pub tenant_requests: IntCounterVec,
    pub instance: InstanceMeter,
    pub open_streams: IntGauge,
    /// By coding: before, after.
    compression: [[IntCounter; 2]; Coding::ALL.len()],
    pub cache: Arc<CacheMeter>,
    pub analytics: Arc<AnalyticsMeter>,
    pub connections: IntGauge,
    pub connections_refused: IntCounter,
    pub exports: Exports,
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
            http_requests: counters(
                r,
                "http_requests_total",
                "HTTP requests by route and status, 0 where nothing was answered.",
                &["method", "route", "status"],
            ),
            http_duration: histograms(
                r,
                "http_request_duration_seconds",
                "Time to the end of the answer; streams that clients hold open are left out.",
                &["route"],
                SECONDS,
            ),
            called: Mutex::default(),
            mcp_requests: counters(r, "mcp_requests_total", "MCP requests by how they ended.", &["server", "method", "tool", "outcome"]),
            mcp_duration: histograms(
                r,
                "mcp_request_duration_seconds",
                "Time to the end of an MCP answer, whether from a backend or the cache.",
                &["server", "method", "tool"],
                SECONDS,
            ),
            mcp_size: histograms(r, "mcp_response_size_bytes", "Size of MCP answers as they are sent.", &["server", "tool"], BYTES),
            upstream: UpstreamMeter::new(r),
            limit_decisions: counters(r, "rate_limit_decisions_total", "Requests judged by a rate limit.", &["rule", "decision"]),
            limit_fallbacks: {
                let family =
                    counters(r, "rate_limit_fallbacks_total", "Decisions made without the shared store, by what stood in for it.", &["by"]);
                Fallback::ALL.map(|by| family.with_label_values(&[by.name()]))
            },
            limit_store_up: gauge(r, "rate_limit_store_up", "1 while the store of rate limits answers, or none is shared."),
            shed: sheds(r),
            spans: counters(r, "trace_spans_total", "Spans told to the collector, or not: exported, failed, dropped.", &["result"]),
            auth_decisions: counters(
                r,
                "auth_decisions_total",
                "Callers admitted or refused, by the way they showed who they are; unavailable: it could not be found out.",
                &["way", "decision"],
            ),
            tenant_requests: counters(
                r,
                "tenant_requests_total",
                "Requests of tenants that the configuration names, others as one.",
                &["tenant", "status"],
            ),
            instance: InstanceMeter::new(r),
            open_streams: gauge(r, "open_streams", "Event streams being relayed."),
            compression: compression(r),
            cache: Arc::new(CacheMeter::new(r)),
            analytics: Arc::new(AnalyticsMeter::new(r)),
            connections: gauge(r, "open_connections", "Open client connections."),
            connections_refused: counter(r, "connections_refused_total", "Client connections closed at a connection limit."),
            exports: Exports::new(r),
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

    /// Handles for one server, method and tool; `tool` is empty for methods that name none. Beyond [`TOOLS`] tools of a
    /// server the others share their series.
    pub fn meter(&self, server: &str, method: &str, tool: &str) -> Meter {
        let tool = if self.has_room_for(server, tool) { tool } else { "other" };
        Meter {
            outcomes: Outcome::ALL.map(|outcome| self.mcp_requests.with_label_values(&[server, method, tool, outcome.name()])),
            duration: self.mcp_duration.with_label_values(&[server, method, tool]),
            size: self.mcp_size.with_label_values(&[server, tool]),
        }
    }

    /// Notes a tool that was called, if it is one of the first.
    fn has_room_for(&self, server: &str, tool: &str) -> bool {
        let mut called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        let tools = called.entry(server.to_owned()).or_default();
        let has_room = tools.len() < TOOLS || tools.contains(tool);
        if has_room {
            tools.insert(tool.to_owned());
        }
        has_room
    }

    /// Handles for the decisions of one way to authenticate: admitted, refused, unavailable.
    pub fn decisions(&self, way: &str) -> [IntCounter; 3] {
        ["admitted", "refused", "unavailable"].map(|decision| self.auth_decisions.with_label_values(&[way, decision]))
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

fn sheds(registry: &Registry) -> [IntCounter; 4] {
    let help = "Requests refused because there is more to do than can be done.";
    let family = counters(registry, "overload_refusals_total", help, &["reason"]);
    Shed::ALL.map(|reason| family.with_label_values(&[reason.name()]))
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
    use crate::observe::upstream::Ending;

    #[test]
    fn what_is_counted_is_exposed() {
        let metrics = Metrics::new();
        metrics.meter("files", "tools/call", "read").count(Outcome::ToolError, Duration::from_millis(3), 300);
        metrics.upstream.backend("one").count(Ending::Status(404), Duration::from_millis(3));
        let text = String::from_utf8(metrics.expose()).unwrap();
        assert!(text.contains(r#"mcp_requests_total{method="tools/call",outcome="tool_error",server="files",tool="read"} 1"#), "{text}");
        assert!(text.contains(r#"backend_requests_total{backend="one",status="4xx"} 1"#));
        metrics.upstream.forget_backend("one");
        assert!(!String::from_utf8(metrics.expose()).unwrap().contains("backend=\"one\""));
    }
    #[test]
    fn a_server_that_lists_ever_new_tools_makes_so_many_series_and_no_more() {
        let metrics = Metrics::new();
        for number in 0..TOOLS + 50 {
            metrics.meter("files", "tools/call", &format!("tool-{number}")).count(Outcome::Ok, Duration::ZERO, 0);
        }
        metrics.meter("files", "tools/call", "tool-0").count(Outcome::Ok, Duration::ZERO, 0);
        metrics.meter("others", "tools/call", "tool-0").count(Outcome::Ok, Duration::ZERO, 0);
        let text = String::from_utf8(metrics.expose()).unwrap();
        let of = |server: &str, tool: &str| {
            let series = format!(r#"mcp_requests_total{{method="tools/call",outcome="ok",server="{server}",tool="{tool}"}} "#);
            text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u32>().ok())
        };
        assert_eq!([of("files", "tool-0"), of("files", "other"), of("others", "tool-0")], [Some(2), Some(50), Some(1)]);
        assert_eq!(text.matches("mcp_response_size_bytes_count{server=\"files\"").count(), TOOLS + 1);
    }
}
