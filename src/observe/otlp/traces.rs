//! Telling a collector of requests that are over: in batches, in the background, never
//! waited for. A collector that is away costs what does not fit into the queue meanwhile, and is asked again ever more
//! seldom.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Code;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prometheus::IntCounterVec;
use prost::Message as _;
use tokio::sync::mpsc;

use super::super::labels::Ending;
use super::super::spans::{Attempt, Finished, Value};
use super::{LATEST, Poster, Sent, pair, scope};
use crate::config::Tracing;
use crate::egress::Client;

/// Requests told at a time, and how long the first of them waits for others.
const BATCH: usize = 512;
const WAIT: Duration = Duration::from_secs(2);
/// From one look for others to the next. The queue has room for what comes meanwhile.
const NAP: Duration = Duration::from_millis(50);
/// How long a collector is left alone after it failed, at least.
const SOONEST: Duration = Duration::from_secs(1);
/// Times one batch is sent.
const TRIES: usize = 4;

/// Sends what is queued to one collector.
pub struct Exporter {
    poster: Poster,
    /// Spans by what became of them.
    counted: IntCounterVec,
    /// Where batches are put together, one after another: some hundred kilobytes that the system would else clear for each.
    request: ExportTraceServiceRequest,
    /// Where it is written.
    written: BytesMut,
}

impl Exporter {
    /// # Errors
    /// When the collector's URL or a header cannot be written into a request.
    pub fn new(conf: &Tracing, counted: &IntCounterVec) -> Result<Self, String> {
        let poster = Poster::new(&conf.collector, "observability.tracing", "/v1/traces")?;
        let told = ScopeSpans { scope: Some(scope()), ..ScopeSpans::default() };
        let told = ResourceSpans { resource: Some(poster.resource()), scope_spans: vec![told], ..ResourceSpans::default() };
        let request = ExportTraceServiceRequest { resource_spans: vec![told] };
        Ok(Self { poster, counted: counted.clone(), request, written: BytesMut::new() })
    }

    /// Sends until the process is about to end; then what is left, once.
    pub async fn run(mut self, client: Arc<Client>, mut queue: mpsc::Receiver<Finished>, stopping: impl Future<Output = ()>) {
        let mut stopping = std::pin::pin!(stopping);
        let (mut pause, mut batch, mut stopped) = (SOONEST, Vec::new(), false);
        while !stopped {
            tokio::select! {
                biased;
                () = &mut stopping => stopped = true,
                () = gather(&mut queue, &mut batch) => {}
            }
            if !stopped {
                stopped = self.send(&client, std::mem::take(&mut batch), &mut pause, stopping.as_mut()).await;
            }
        }
        while let Ok(finished) = queue.try_recv() {
            batch.push(finished);
        }
        while !batch.is_empty() {
            let rest = batch.split_off(batch.len().min(BATCH));
            let first = std::mem::replace(&mut batch, rest);
            let spans = count(&first);
            let body = self.encoded(first);
            let told = matches!(self.poster.post(&client, body).await, Sent::Taken);
            self.count(if told { "exported" } else { "failed" }, spans);
        }
    }

    /// Sends a batch, some times; whether the process is about to end.
    async fn send(
        &mut self,
        client: &Client,
        batch: Vec<Finished>,
        pause: &mut Duration,
        mut stopping: Pin<&mut impl Future<Output = ()>>,
    ) -> bool {
        let (requests, spans) = (batch.len(), count(&batch));
        let body = self.encoded(batch);
        for attempt in 1..=TRIES {
            match self.poster.post(client, body.clone()).await {
                Sent::Taken => {
                    *pause = SOONEST;
                    self.count("exported", spans);
                    return false;
                }
                Sent::Refused(why) => {
                    log::warn!("the collector of traces refused {requests} requests: {why}");
                    break;
                }
                Sent::Later(why, _) if attempt == TRIES => {
                    log::warn!("the collector of traces cannot be reached, {requests} requests are not told: {why}");
                }
                Sent::Later(why, wait) => {
                    log::debug!("the collector of traces: {why}");
                    tokio::select! {
                        () = tokio::time::sleep(wait.unwrap_or(*pause).min(LATEST)) => {}
                        () = stopping.as_mut() => {
                            self.count("failed", spans);
                            return true;
                        }
                    }
                    *pause = (*pause * 2).min(LATEST);
                }
            }
        }
        self.count("failed", spans);
        false
    }

    fn count(&self, result: &str, spans: usize) {
        self.counted.with_label_values(&[result]).inc_by(spans as u64);
    }

    fn encoded(&mut self, batch: Vec<Finished>) -> Bytes {
        let mut batch = batch.into_iter().flat_map(spans);
        told(&mut self.request).for_each(|told| told.extend(&mut batch));
        self.written.reserve(self.request.encoded_len());
        // There is room for it.
        let _ = self.request.encode(&mut self.written);
        told(&mut self.request).for_each(Vec::clear);
        self.written.split().freeze()
    }
}

/// Where the spans of a request to the collector are.
fn told(request: &mut ExportTraceServiceRequest) -> impl Iterator<Item = &mut Vec<Span>> {
    request.resource_spans.iter_mut().flat_map(|told| &mut told.scope_spans).map(|told| &mut told.spans)
}

/// How many spans a batch has.
fn count(batch: &[Finished]) -> usize {
    batch.iter().map(|finished| 1 + finished.attempts.len()).sum()
}

/// Waits for the first request, and a little for others. What it took so far stays where it is given up.
async fn gather(queue: &mut mpsc::Receiver<Finished>, batch: &mut Vec<Finished>) {
    if queue.recv_many(batch, BATCH).await == 0 {
        return std::future::pending().await;
    }
    // Others are looked for from time to time: to be woken for each of them costs more than to tell of it.
    let until = Instant::now() + WAIT;
    while batch.len() < BATCH && Instant::now() < until {
        tokio::time::sleep(NAP).await;
        while batch.len() < BATCH
            && let Ok(finished) = queue.try_recv()
        {
            batch.push(finished);
        }
    }
}

/// The span of a request, and those of its attempts.
fn spans(mut finished: Finished) -> Vec<Span> {
    let context = finished.context;
    let name = std::mem::take(&mut finished.name);
    let server = Span {
        span_id: context.span.to_be_bytes().to_vec(),
        parent_span_id: context.parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        name,
        kind: SpanKind::Server.into(),
        start_time_unix_nano: finished.nanos(finished.began),
        end_time_unix_nano: finished.nanos(finished.ended),
        attributes: finished.attributes.iter().map(|(name, value)| pair(name, value)).collect(),
        status: finished.failed.then(failure),
        ..blank(&finished)
    };
    let last = finished.attempts.len().checked_sub(1);
    let attempts = finished.attempts.iter().enumerate().map(|(at, attempt)| asked(&finished, attempt, at, Some(at) == last));
    std::iter::once(server).chain(attempts).collect()
}

/// The span of one attempt. The last one lasts until its answer was passed on; when that began is an event of it.
fn asked(finished: &Finished, attempt: &Attempt, at: usize, is_last: bool) -> Span {
    let mut attributes = vec![
        pair("http.request.method", attempt.method.into()),
        pair("mcp_gateway.backend", (*attempt.backend).into()),
        pair("mcp_gateway.attempt", Value::Number(i64::try_from(at + 1).unwrap_or(i64::MAX))),
    ];
    let (fault, fine) = match attempt.ended {
        Some((_, Ending::Status(status))) => {
            attributes.push(pair("http.response.status_code", Value::Number(status.into())));
            ((status >= 400).then(|| status.to_string()), status < 400)
        }
        Some((_, Ending::Unreachable)) => (Some("unreachable".to_owned()), false),
        Some((_, Ending::Broken)) => (Some("broken".to_owned()), false),
        None => (Some("abandoned".to_owned()), false),
    };
    attributes.extend(fault.as_ref().map(|fault| pair("error.type", fault.as_str().into())));
    let answered = attempt.ended.map_or(finished.ended, |(at, _)| at);
    let event = Event { time_unix_nano: finished.nanos(answered), name: "answer began".into(), ..Event::default() };
    Span {
        span_id: attempt.span.to_be_bytes().to_vec(),
        parent_span_id: finished.context.span.to_be_bytes().to_vec(),
        name: attempt.method.into(),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: finished.nanos(attempt.began),
        end_time_unix_nano: finished.nanos(if is_last && fine { finished.ended } else { answered }),
        attributes,
        events: if fine { vec![event] } else { Vec::new() },
        status: fault.is_some().then(failure),
        ..blank(finished)
    }
}

fn blank(finished: &Finished) -> Span {
    Span { trace_id: finished.context.trace.to_be_bytes().to_vec(), ..Span::default() }
}

fn failure() -> Status {
    Status { code: Code::Error.into(), ..Status::default() }
}
