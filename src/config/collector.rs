//! Written `observability.tracing:` and `observability.metrics.otlp:` → who is told by OTLP over HTTP, and of what.

use std::time::Duration;

use serde::Serialize;
use url::Url;

use super::check::backend_url;
use super::reader::Section;
use super::{Secret, Timespan};

/// Where collectors listen unless they are told otherwise (OTLP 1.x).
const DEFAULT: &str = "http://localhost:4318";
/// The longest wait for a collector unless it is told otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What belongs to the connection or the message, and is written by us.
const FRAMING: &[&str] = &["host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "te", "trailer"];

/// Who is told by OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Collector {
    /// Its base; `/v1/traces` or `/v1/metrics` is added.
    pub otlp: Url,
    /// What is sent with each batch, to authenticate.
    pub headers: Vec<(String, Secret)>,
    /// `service.name`
    pub service: String,
    /// For one batch.
    pub timeout: Timespan,
}

/// Where traces are told, by OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tracing {
    #[serde(flatten)]
    pub collector: Collector,
    /// The share of traces that begin here and are told: 0 to 1. Those of callers are as their `traceparent` says, and
    /// failures are always told.
    pub sample: f64,
}

/// Where metrics are told, by OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OtlpMetrics {
    #[serde(flatten)]
    pub collector: Collector,
    /// From one telling to the next; a collector that takes longer is given up.
    pub interval: Timespan,
}

pub(super) fn tracing(observability: &Section<'_>) -> Option<Tracing> {
    let section = observability.section("tracing");
    let enabled = section.bool("enabled").unwrap_or_else(|| observability.has("tracing"));
    let otlp = section.parse("otlp", backend_url).unwrap_or_else(default);
    let tracing = Tracing { collector: collector(&section, otlp, None), sample: section.share("sample").unwrap_or(0.1) };
    section.finish();
    enabled.then_some(tracing)
}

/// A URL, or a mapping with more about it. Whoever is told of traces is told of the same `service`.
pub(super) fn metrics(section: &Section<'_>, tracing: Option<&Tracing>) -> Option<OtlpMetrics> {
    let written = section.value("otlp")?;
    let service = tracing.map(|tracing| tracing.collector.service.as_str());
    if !written.is_mapping() {
        let otlp = section.parse("otlp", backend_url)?;
        let collector = Collector { otlp, headers: Vec::new(), service: named(service), timeout: Timespan(TIMEOUT) };
        return Some(OtlpMetrics { collector, interval: Timespan(Duration::from_secs(60)) });
    }
    let section = section.section("otlp");
    let otlp = section.parse("endpoint", backend_url).unwrap_or_else(default);
    let interval = interval(&section, 60);
    let collector = collector(&section, otlp, service);
    if section.has("timeout") && collector.timeout.0 > interval.0 {
        section.problem("timeout", "longer than the interval, at whose end the next batch is sent");
    }
    section.finish();
    Some(OtlpMetrics { collector, interval })
}

/// `interval`, of at least 100 ms.
pub(super) fn interval(section: &Section<'_>, seconds: u64) -> Timespan {
    let found = section.duration("interval");
    if found.is_some_and(|found| found < Duration::from_millis(100)) {
        section.problem("interval", "less than 100ms");
    }
    Timespan(found.unwrap_or(Duration::from_secs(seconds)))
}

fn collector(section: &Section<'_>, otlp: Url, service: Option<&str>) -> Collector {
    let headers = section.section("headers");
    Collector {
        otlp,
        headers: headers.named_texts().iter().filter_map(|(name, value)| header(&headers, name, value)).collect(),
        service: section.string("service").unwrap_or_else(|| named(service)),
        timeout: Timespan(section.duration("timeout").unwrap_or(TIMEOUT)),
    }
}

fn default() -> Url {
    Url::parse(DEFAULT).expect("a URL")
}

fn named(service: Option<&str>) -> String {
    service.unwrap_or("mcp-gateway").to_owned()
}

/// A header for the collector; `name_file` names a file that holds its value.
fn header(section: &Section<'_>, written: &str, value: &str) -> Option<(String, Secret)> {
    let (name, value) = match written.strip_suffix("_file") {
        None => (written, Ok(value.to_owned())),
        Some(name) => {
            (name, std::fs::read_to_string(value).map(|text| text.trim_end().to_owned()).map_err(|e| format!("cannot read {value}: {e}")))
        }
    };
    let value = value.map_err(|message| section.problem(written, message)).ok()?;
    let parsed = name.parse::<http::HeaderName>().ok().filter(|name| !FRAMING.contains(&name.as_str()));
    if parsed.is_none() || http::HeaderValue::from_str(&value).is_err() {
        section.problem(written, "not a header that can be sent");
        return None;
    }
    Some((name.to_owned(), Secret::new(value)))
}
