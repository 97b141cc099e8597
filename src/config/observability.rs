//! Written `observability:` → the checked model: the log, metrics, traces. Who is told of the last two is in
//! `super::collector` and `super::datadog`.

use serde::Serialize;

use super::collector::{self, OtlpMetrics, Tracing};
use super::datadog::{self, Datadog};
use super::reader::Section;

/// What we tell about ourselves.
#[derive(Debug, Clone, Serialize)]
pub struct Observability {
    pub log: Log,
    /// Whether `/metrics` is answered on the public listener. Those below are told all the same.
    pub metrics: bool,
    /// `None`: no collector is told of metrics.
    pub otlp_metrics: Option<OtlpMetrics>,
    /// `None`: no Datadog agent is told of metrics.
    pub datadog: Option<Datadog>,
    /// `None`: no collector is told of traces.
    pub tracing: Option<Tracing>,
}

/// The log on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Log {
    /// `info`, or module by module as in `info,pingora_proxy=warn`.
    pub level: String,
    pub json: bool,
}

pub(super) fn observability(section: Section<'_>) -> Observability {
    let (log, metrics) = (section.section("log"), section.section("metrics"));
    let tracing = collector::tracing(&section);
    let observability = Observability {
        log: Log {
            level: log.parse("level", level).unwrap_or_else(|| "info".to_owned()),
            json: log.choice("format", &[("json", true), ("text", false)]).unwrap_or(true),
        },
        metrics: metrics.bool("enabled").unwrap_or(true),
        otlp_metrics: collector::metrics(&metrics, tracing.as_ref()),
        datadog: datadog::datadog(&section),
        tracing,
    };
    log.finish();
    metrics.finish();
    section.finish();
    observability
}

fn level(text: &str) -> Result<String, String> {
    env_filter::Builder::new()
        .try_parse(text)
        .map(|_| text.to_ascii_lowercase())
        .map_err(|_| format!("`{text}` is not a log level: error, warn, info, debug, trace, or module=level,…"))
}
