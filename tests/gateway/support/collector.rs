//! A collector that decodes the OTLP protobuf it is sent, and can be made to refuse or to hang.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use super::eventually;

/// Answers of [`Told::status`] that are none.
pub const FINE: u16 = 0;
pub const HANG: u16 = 1;

#[derive(Default)]
pub struct Told {
    pub spans: Mutex<Vec<(Span, HashMap<String, String>)>>,
    /// Batches of metrics, each of one resource.
    pub metrics: Mutex<Vec<ResourceMetrics>>,
    pub headers: Mutex<HeaderMap>,
    /// What it answers.
    pub status: AtomicU16,
}

/// A collector; it stops when dropped.
pub struct Collector {
    pub url: String,
    pub told: Arc<Told>,
    task: tokio::task::JoinHandle<()>,
}

pub fn pairs(attributes: &[KeyValue]) -> HashMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

/// Whether it takes what it is sent, and from whom.
async fn heard(told: &Told, headers: HeaderMap) -> Option<StatusCode> {
    match told.status.load(Ordering::SeqCst) {
        FINE => {
            *told.headers.lock().expect("no panic while held") = headers;
            None
        }
        HANG => std::future::pending().await,
        status => Some(StatusCode::from_u16(status).expect("a status")),
    }
}

async fn take_traces(State(told): State<Arc<Told>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if let Some(refusal) = heard(&told, headers).await {
        return refusal;
    }
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP protobuf");
    for resource in request.resource_spans {
        let about = pairs(&resource.resource.expect("a resource").attributes);
        let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| (span, about.clone()));
        told.spans.lock().expect("no panic while held").extend(spans);
    }
    StatusCode::OK
}

async fn take_metrics(State(told): State<Arc<Told>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if let Some(refusal) = heard(&told, headers).await {
        return refusal;
    }
    let request = ExportMetricsServiceRequest::decode(body).expect("OTLP protobuf");
    told.metrics.lock().expect("no panic while held").extend(request.resource_metrics);
    StatusCode::OK
}

impl Collector {
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0").await
    }

    pub async fn at(address: &str) -> Self {
        let told = Arc::new(Told::default());
        let listener = tokio::net::TcpListener::bind(address).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let router = axum::Router::new().route("/v1/traces", post(take_traces)).route("/v1/metrics", post(take_metrics));
        let router = router.with_state(Arc::clone(&told));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, told, task }
    }

    /// The spans of a trace that the name of one of them tells, once they are there.
    pub async fn trace(&self, name: &str) -> Vec<Span> {
        eventually(&format!("a trace with {name}"), async || {
            let spans = self.told.spans.lock().expect("no panic while held");
            let trace = spans.iter().find(|(span, _)| span.name == name)?.0.trace_id.clone();
            let mut all: Vec<Span> = spans.iter().filter(|(span, _)| span.trace_id == trace).map(|(span, _)| span.clone()).collect();
            all.sort_by_key(|span| (span.start_time_unix_nano, span.name != name));
            Some(all)
        })
        .await
    }

    pub fn names(&self) -> Vec<String> {
        self.told.spans.lock().expect("no panic while held").iter().map(|(span, _)| span.name.clone()).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}
