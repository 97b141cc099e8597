//! Written `observability:` → the checked model: the log, metrics, traces. Who is told of the last two is in
//! `super::collector` and `super::datadog`.

use serde::Serialize;

use super::collector::{self, OtlpMetrics, Tracing};
use super::datadog::{self, Datadog};
use super::log::{self, Log};
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

pub(super) fn observability(section: Section<'_>) -> Observability {
    let metrics = section.section("metrics");
    let tracing = collector::tracing(&section);
    let observability = Observability {
        log: log::log(&section.section("log")),
        metrics: metrics.bool("enabled").unwrap_or(true),
        otlp_metrics: collector::metrics(&metrics, tracing.as_ref()),
        datadog: datadog::datadog(&section),
        tracing,
    };
    metrics.finish();
    section.finish();
    observability
}
