//! Telling a collector of the metrics that `/metrics` shows, under the same names: counters as cumulative sums, gauges, and
//! histograms with their buckets, all since the process began. As each batch holds everything that was counted so far, a
//! batch that was not taken costs nothing but its moment: it is not kept and not sent again, the next one says it all.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};
use prometheus::proto::{self, MetricFamily, MetricType};
use prost::Message as _;

use super::{Poster, Sent, pair, scope};
use crate::config::OtlpMetrics;
use crate::egress::Client;
use crate::observe::export::{Teller, buckets};

/// Tells one collector.
pub struct Metrics {
    client: Arc<Client>,
    /// When this process began to count, in nanoseconds since 1970.
    began: u64,
    poster: Option<Poster>,
    /// Until when it asked to be left alone, and why.
    pause: Option<(Instant, String)>,
}

impl Metrics {
    pub fn new(client: Arc<Client>, began: SystemTime) -> Self {
        Self { client, began: nanos(began), poster: None, pause: None }
    }

    fn encoded(&self, poster: &Poster, families: &[MetricFamily]) -> Bytes {
        let span = (self.began, nanos(SystemTime::now()));
        let metrics = families.iter().filter_map(|family| metric(family, span)).collect();
        let scoped = ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() };
        let told = ResourceMetrics { resource: Some(poster.resource()), scope_metrics: vec![scoped], ..ResourceMetrics::default() };
        ExportMetricsServiceRequest { resource_metrics: vec![told] }.encode_to_vec().into()
    }
}

impl Teller for Metrics {
    type Conf = OtlpMetrics;

    fn turn_to(&mut self, conf: &OtlpMetrics, _: Option<&[MetricFamily]>) -> Result<String, String> {
        (self.poster, self.pause) = (None, None);
        self.poster = Some(Poster::new(&conf.collector, "observability.metrics.otlp", "/v1/metrics")?);
        Ok(format!("the collector of metrics at {}", conf.collector.otlp))
    }

    async fn tell(&mut self, families: Vec<MetricFamily>) -> Result<(), String> {
        let Some(poster) = &self.poster else { return Ok(()) };
        if let Some((until, why)) = &self.pause
            && Instant::now() < *until
        {
            return Err(why.clone());
        }
        self.pause = None;
        match poster.post(&self.client, self.encoded(poster, &families)).await {
            Sent::Taken => Ok(()),
            Sent::Refused(why) => Err(why),
            Sent::Later(why, wait) => {
                self.pause = wait.and_then(|wait| Some((Instant::now().checked_add(wait.min(super::LATEST))?, why.clone())));
                Err(why)
            }
        }
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A family as one metric, over a span of time. Summaries and untyped ones do not occur.
fn metric(family: &MetricFamily, span: (u64, u64)) -> Option<Metric> {
    let temporality = AggregationTemporality::Cumulative.into();
    let numbers = |value: fn(&proto::Metric) -> f64| family.get_metric().iter().map(|metric| number(metric, value(metric), span)).collect();
    let data = match family.get_field_type() {
        MetricType::COUNTER => Data::Sum(Sum {
            data_points: numbers(|metric| metric.get_counter().get_value()),
            aggregation_temporality: temporality,
            is_monotonic: true,
        }),
        MetricType::GAUGE => Data::Gauge(Gauge { data_points: numbers(|metric| metric.get_gauge().get_value()) }),
        MetricType::HISTOGRAM => Data::Histogram(Histogram {
            data_points: family.get_metric().iter().map(|metric| histogram(metric, span)).collect(),
            aggregation_temporality: temporality,
        }),
        MetricType::SUMMARY | MetricType::UNTYPED => return None,
    };
    let (name, description) = (family.name().to_owned(), family.help().to_owned());
    Some(Metric { unit: unit(&name).to_owned(), name, description, data: Some(data), ..Metric::default() })
}

/// The unit that a name tells, by UCUM.
fn unit(name: &str) -> &'static str {
    let name = name.trim_end_matches("_total");
    if name.ends_with("_seconds") {
        "s"
    } else if name.ends_with("_bytes") {
        "By"
    } else {
        ""
    }
}

fn number(metric: &proto::Metric, value: f64, (began, now): (u64, u64)) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(metric),
        start_time_unix_nano: began,
        time_unix_nano: now,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn histogram(metric: &proto::Metric, (began, now): (u64, u64)) -> HistogramDataPoint {
    let histogram = metric.get_histogram();
    let (explicit_bounds, bucket_counts) = buckets(histogram);
    HistogramDataPoint {
        attributes: attributes(metric),
        start_time_unix_nano: began,
        time_unix_nano: now,
        count: histogram.get_sample_count(),
        sum: Some(histogram.get_sample_sum()),
        bucket_counts,
        explicit_bounds,
        ..HistogramDataPoint::default()
    }
}

fn attributes(metric: &proto::Metric) -> Vec<KeyValue> {
    metric.get_label().iter().map(|label| pair(label.name(), label.value().into())).collect()
}
