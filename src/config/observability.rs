//! Written `observability:` → the checked model: the log, metrics, traces.

use std::time::Duration;

use serde::Serialize;
use url::Url;

use super::check::backend_url;
use super::log::{self, Log};
use super::reader::Section;
use super::{Secret, Timespan};

/// What we tell about ourselves.
#[derive(Debug, Clone, Serialize)]
pub struct Observability {
    pub log: Log,
    /// Whether `/metrics` is answered on the public listener.
    pub metrics: bool,
    /// `None`: no collector is told of traces.
    pub tracing: Option<Tracing>,
}

/// Where traces are told, by OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tracing {
    /// The collector; `/v1/traces` is added.
    pub otlp: Url,
    /// The share of traces that begin here and are told: 0 to 1. Those of callers are as their `traceparent` says, and
    /// failures are always told.
    pub sample: f64,
    /// What is sent with each batch, to authenticate.
    pub headers: Vec<(String, Secret)>,
    /// `service.name`
    pub service: String,
    /// For one batch.
    pub timeout: Timespan,
}

pub(super) fn observability(section: Section<'_>) -> Observability {
    section.not_yet(&["datadog"]);
    let metrics = section.section("metrics");
    let observability = Observability {
        log: log::log(&section.section("log")),
        metrics: metrics.bool("enabled").unwrap_or(true),
        tracing: tracing(&section),
    };
    metrics.finish();
    section.finish();
    observability
}

fn tracing(observability: &Section<'_>) -> Option<Tracing> {
    let section = observability.section("tracing");
    let enabled = section.bool("enabled").unwrap_or_else(|| observability.has("tracing"));
    let headers = section.section("headers");
    let tracing = Tracing {
        otlp: section.parse("otlp", backend_url).unwrap_or_else(|| Url::parse(COLLECTOR).expect("a URL")),
        sample: section.share("sample").unwrap_or(0.1),
        headers: headers.named_texts().iter().filter_map(|(name, value)| header(&headers, name, value)).collect(),
        service: section.string("service").unwrap_or_else(|| "mcp-gateway".to_owned()),
        timeout: Timespan(section.duration("timeout").unwrap_or(Duration::from_secs(5))),
    };
    section.finish();
    enabled.then_some(tracing)
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

/// What belongs to the connection or the message, and is written by us.
const FRAMING: &[&str] = &["host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "te", "trailer"];

/// Where collectors listen unless they are told otherwise (OTLP 1.x).
const COLLECTOR: &str = "http://localhost:4318";
