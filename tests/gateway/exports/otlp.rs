//! What a collector gets by OTLP.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, HistogramDataPoint, NumberDataPoint, ResourceMetrics};

use super::{exports, is_restless, says_what_changed, start, traffic};
use crate::support::collector::{Collector, FINE, HANG, pairs};
use crate::support::eventually;
use crate::support::exposition::{self, Series, float};
use crate::support::load::Load;
use crate::support::stub::Stub;

/// The name of a series with its labels, and what was told of it.
type Told = BTreeMap<Name, f64>;
type Name = (String, BTreeMap<String, String>);

pub fn batches(collector: &Collector) -> usize {
    collector.told.metrics.lock().expect("no panic while held").len()
}

/// The value that was told last.
pub fn value(collector: &Collector, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    last(collector)?.get(&(name.to_owned(), labels)).copied()
}

fn last(collector: &Collector) -> Option<Told> {
    collector.told.metrics.lock().expect("no panic while held").last().map(taken_apart)
}

/// A batch as Prometheus would show it.
fn taken_apart(batch: &ResourceMetrics) -> Told {
    let mut told = Told::new();
    for metric in batch.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
        assert!(!metric.description.is_empty(), "{}", metric.name);
        let number = |point: &NumberDataPoint| match point.value {
            Some(Value::AsDouble(value)) => ((metric.name.clone(), pairs(&point.attributes).into_iter().collect()), value),
            other => panic!("{other:?}"),
        };
        match metric.data.as_ref().expect("data") {
            Data::Gauge(gauge) => told.extend(gauge.data_points.iter().map(number)),
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == i32::from(AggregationTemporality::Cumulative));
                told.extend(sum.data_points.iter().map(number));
            }
            Data::Histogram(histogram) => {
                assert_eq!(histogram.aggregation_temporality, i32::from(AggregationTemporality::Cumulative));
                histogram.data_points.iter().for_each(|point| told.extend(of_histogram(&metric.name, point)));
            }
            other => panic!("{other:?}"),
        }
    }
    told
}

fn of_histogram(name: &str, point: &HistogramDataPoint) -> Vec<(Name, f64)> {
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    let labels: BTreeMap<_, _> = pairs(&point.attributes).into_iter().collect();
    let series = |suffix: &str, value: f64| ((format!("{name}{suffix}"), labels.clone()), value);
    let mut all = vec![series("_count", float(point.count)), series("_sum", point.sum.expect("a sum"))];
    let bounds = point.explicit_bounds.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
    let mut upto = 0;
    for (bound, inside) in bounds.zip(&point.bucket_counts) {
        upto += inside;
        let mut series = series("_bucket", float(upto));
        series.0.1.insert("le".to_owned(), bound);
        all.push(series);
    }
    assert_eq!(upto, point.count, "{name}");
    all
}

/// Waits until what a collector was told last is what the metrics say.
async fn agree(gateway: &crate::support::gateway::Gateway, collector: &Collector) {
    eventually("the collector knows what the metrics say", async || {
        let (shown, told) = (exposition::of(gateway).await, last(collector)?);
        let known = |series: &Series| {
            let told = told.get(&(series.name.clone(), series.labels.clone()));
            told.is_some_and(|told| (told - series.value).abs() <= 1e-9 * series.value.abs())
        };
        let all = shown.iter().filter(|series| !is_restless(series)).all(known);
        // Restless ones are there as well.
        let count = shown.iter().filter(|series| told.contains_key(&(series.name.clone(), series.labels.clone()))).count();
        (all && count == shown.len() && count == told.len()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_collector_is_told_what_the_metrics_say_of_the_same_service_as_traces() {
    let (stub, collector) = (Stub::start().await, Collector::start().await);
    let url = &collector.url;
    let otlp = format!("{{ endpoint: \"{url}\", interval: 100ms, headers: {{ x-team: canary-of-the-header }} }}");
    // Closed on the public listener only.
    let settings = format!("metrics: {{ enabled: false, otlp: {otlp} }}, tracing: {{ otlp: \"{url}\", sample: 1, service: edge }}");
    let gateway = start(&stub, &settings).await;
    traffic(&gateway, &stub).await;
    agree(&gateway, &collector).await;
    let load = Load::on(&gateway);
    load.more(300).await;
    assert_eq!(load.end().await.1, 0);
    agree(&gateway, &collector).await;
    collector.trace("tools/call regional").await;
    let batch = collector.told.metrics.lock().expect("no panic while held").last().cloned().expect("a batch");
    let [scope] = &batch.scope_metrics[..] else { panic!("one scope") };
    let about = scope.scope.clone().expect("a scope");
    assert_eq!((about.name.as_str(), about.version.as_str()), ("mcp-gateway", env!("CARGO_PKG_VERSION")));
    let resource = pairs(&batch.resource.expect("a resource").attributes);
    assert_eq!((resource["service.name"].as_str(), resource["service.version"].as_str()), ("edge", env!("CARGO_PKG_VERSION")));
    assert_eq!(resource, collector.told.spans.lock().expect("no panic while held")[0].1, "of the same service and instance as traces");
    let unit = |name: &str| scope.metrics.iter().find(|metric| metric.name == name).expect("known").unit.clone();
    let units = ["http_request_duration_seconds", "mcp_response_size_bytes", "process_cpu_seconds_total", "open_streams"].map(unit);
    assert_eq!(units, ["s", "By", "s", ""]);
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos()).expect("before 2554");
    for metric in &scope.metrics {
        let times: Vec<_> = match metric.data.as_ref().expect("data") {
            Data::Sum(sum) => sum.data_points.iter().map(|point| (point.start_time_unix_nano, point.time_unix_nano)).collect(),
            Data::Histogram(all) => all.data_points.iter().map(|point| (point.start_time_unix_nano, point.time_unix_nano)).collect(),
            _ => continue,
        };
        let within = |(began, at): &(u64, u64)| began < at && *at <= now && *began > now - 600_000_000_000;
        assert!(times.iter().all(within), "{}: {times:?}", metric.name);
    }
    let sent = collector.told.headers.lock().expect("no panic while held").clone();
    assert_eq!(sent["content-type"], "application/x-protobuf");
    let shown =
        crate::support::http().get(format!("{}/admin/config", gateway.admin)).send().await.expect("an answer").text().await.expect("text");
    assert!(shown.contains("x-team") && !shown.contains("canary-of-the-header"), "{shown}");
    assert!(!gateway.said().await.iter().any(|line| line.contains("canary-of-the-header")));
}

#[tokio::test]
async fn a_collector_that_refuses_hangs_or_is_gone_costs_no_request_and_is_told_when_it_is_back() {
    let (stub, collector) = (Stub::start().await, Collector::start().await);
    let address = collector.url.trim_start_matches("http://").to_owned();
    let gateway = start(&stub, &format!("metrics: {{ otlp: {{ endpoint: \"{}\", interval: 100ms }} }}", collector.url)).await;
    let load = Load::on(&gateway);
    load.more(100).await;
    eventually("it is told", async || (exports(&gateway, "otlp", "ok").await > 0).then_some(())).await;
    let before = gateway.resident();
    let fails = async |what: &str| {
        let counted = exports(&gateway, "otlp", "failed").await;
        eventually(what, async || (exports(&gateway, "otlp", "failed").await > counted + 2).then_some(())).await;
        load.more(100).await;
    };
    let works = async |what: &str| {
        let counted = exports(&gateway, "otlp", "ok").await;
        eventually(what, async || (exports(&gateway, "otlp", "ok").await > counted + 1).then_some(())).await;
    };
    for status in [503, 400, HANG] {
        collector.told.status.store(status, Ordering::SeqCst);
        fails("that it is not told is counted").await;
        collector.told.status.store(FINE, Ordering::SeqCst);
        works("it is told again").await;
    }
    drop(collector);
    fails("that it is gone is counted").await;
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown <= 32 << 10, "{grown} KiB more");
    let again = Collector::at(&address).await;
    works("it is told where it was").await;
    let (asked, failed) = load.end().await;
    assert_eq!(failed, 0, "of {asked}");
    agree(&gateway, &again).await;
    says_what_changed(&gateway, "otlp", "the collector of metrics at http://", 4).await;
}

#[tokio::test]
async fn what_was_counted_last_is_told_at_the_end() {
    let (stub, collector) = (Stub::start().await, Collector::start().await);
    let mut gateway = start(&stub, &format!("metrics: {{ otlp: \"{}\" }}", collector.url)).await;
    gateway.call("stub", "echo", serde_json::json!({})).await;
    assert_eq!(batches(&collector), 0, "within a minute");
    gateway.process.signal("TERM");
    assert!(gateway.process.child.wait().await.expect("it ends").success());
    let labels = [("server", "stub"), ("method", "tools/call"), ("tool", "echo"), ("outcome", "ok")];
    assert_eq!(value(&collector, "mcp_requests_total", &labels), Some(1.0));
}
