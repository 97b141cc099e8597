//! The REST lane: single calls, batches, and calls whose progress is streamed.

use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use futures::{FutureExt as _, StreamExt as _};
use http::{HeaderMap, header};
use pingora::Result;
use pingora::protocols::http::ServerSession;
use tokio::sync::mpsc;

use super::admit::Rest;
use super::cached;
use super::course::Course;
use super::ctx::Ctx;
use super::event;
use super::record::outcome_of;
use super::refused;
use super::reply::{self, left};
use crate::cache::Witness;
use crate::exchange::call::{Call, Done};
use crate::exchange::relay;
use crate::exchange::sight::Sight;
use crate::mcp::message::Response;
use crate::mcp::rest::{Payload, Request};
use crate::mcp::sse;
use crate::observe::clock::Stage;
use crate::observe::metrics::Outcome;
use crate::page::Page;
use crate::reject::{Code, Reject, Verdict};
use crate::snapshot::State;
use crate::upstream::exchange::OnBehalf;

/// Elements of one batch that run at the same time.
const AT_ONCE: usize = 8;
/// Bytes of all the answers of one batch.
const MAX_BATCH_ANSWER: usize = 64 << 20;
/// Notifications that may wait for a slow reader before the server has to.
const NOTICES: usize = 64;

/// Serves a REST request to its end.
///
/// # Errors
/// The inner error is a refusal to be written; the outer one means the connection must be closed.
pub async fn serve(state: &State, client: &mut ServerSession, ctx: &mut Ctx, plan: &Rest<'_>) -> Result<Verdict<()>> {
    match &plan.payload {
        Payload::One(request) if wants_events(client) => Box::pin(streamed(state, client, ctx, plan, request)).await.map(Ok),
        Payload::One(request) => single(state, client, ctx, plan, request).await,
        Payload::Batch(requests) => Box::pin(batch(state, client, ctx, plan, requests)).await,
    }
}

/// Events are for callers who ask for nothing else; whoever takes JSON as well gets one whole answer.
fn wants_events(client: &ServerSession) -> bool {
    let accepts = client.req_header().headers.get_all(header::ACCEPT);
    let accepts = |kind: &str| accepts.iter().any(|value| value.to_str().is_ok_and(|text| text.contains(kind)));
    accepts("text/event-stream") && !accepts("application/json") && !accepts("*/*")
}

async fn single(state: &State, client: &mut ServerSession, ctx: &mut Ctx, plan: &Rest<'_>, request: &Request<'_>) -> Result<Verdict<()>> {
    let witness = OnceLock::new();
    let answer = {
        let course = plan.courses.first();
        let wished = cached::rest::wished(ctx, &client.req_header().headers, plan, course, request);
        let call = call(state, ctx, plan, request, course, None);
        let run = std::pin::pin!(cached::rest::run(ctx, wished, plan, course, call, &witness));
        attended(state, client, run, &witness).await
    };
    let (answer, cached) = match answer.inspect_err(|_| abandoned(state, ctx, plan, request))? {
        Ok(answered) => answered,
        Err(reject) => (Err(reject), None),
    };
    ctx.cached = cached;
    record(state, ctx, plan, request, &answer);
    match answer {
        Ok(done) => {
            ctx.told.backend = Some(done.backend);
            reply::page(client, ctx, Page::json(200, done.body)).await.map(Ok)
        }
        Err(reject) => Ok(Err(reject)),
    }
}

/// The caller's headers, where the cache looks at them.
fn headers(ctx: &Ctx, client: &ServerSession) -> HeaderMap {
    if ctx.snapshot.cache.is_some() { client.req_header().headers.clone() } else { HeaderMap::new() }
}

/// Runs `work` unless the client leaves or the process closes first; dropping it closes the upstream connection. Where
/// others wait for what comes of it, it goes on without the client.
async fn attended<T>(
    state: &State,
    client: &mut ServerSession,
    mut work: Pin<&mut impl Future<Output = T>>,
    witness: &OnceLock<Witness>,
) -> Result<Verdict<T>> {
    tokio::select! {
        biased;
        done = &mut work => return Ok(Ok(done)),
        () = state.shared.life.closing() => return Ok(Err(closing())),
        () = relay::departure(client) => {}
    }
    if witness.get().is_some_and(Witness::is_awaited) {
        tokio::select! {
            biased;
            _ = work => {}
            () = state.shared.life.closing() => {}
        }
    }
    Err(left())
}

fn closing() -> Reject {
    Reject::new(Code::Draining, "this gateway stopped before the answer; the request may have been executed")
        .retry_after(Duration::from_secs(1))
}

fn call<'c>(
    state: &'c State,
    ctx: &'c Ctx,
    plan: &'c Rest<'_>,
    request: &'c Request<'c>,
    course: Option<&'c Course>,
    notices: Option<mpsc::Sender<Bytes>>,
) -> Call<'c> {
    Call {
        client: &state.shared.client,
        snapshot: &ctx.snapshot,
        pool: &plan.pool,
        request,
        form: plan.form,
        owner: plan.principal.binding(),
        on_behalf: plan.token.as_deref().map(OnBehalf::new),
        sight: if request.method.paged { Sight::of(&ctx.snapshot, &plan.principal, &plan.pool.server) } else { None },
        trace: ctx.trace(),
        started: ctx.arrival.started,
        affinity: plan.affinity,
        metrics: &state.shared.metrics,
        notices,
        choice: course.and_then(|course| course.choice.as_deref()),
        shape: course.map(|course| &course.shape),
        headers: course.map(|course| course.upstream.set.as_slice()).unwrap_or_default(),
        keeps: false,
    }
}

/// What the elements of a batch share.
struct Together {
    /// Bytes that are left for answers.
    room: AtomicUsize,
    /// Whether any did not go well.
    partly: AtomicBool,
    cached: cached::Several,
}

/// All elements of a batch, concurrently but bounded; the answers are in the order of the questions.
async fn batch(
    state: &State,
    client: &mut ServerSession,
    ctx: &mut Ctx,
    plan: &Rest<'_>,
    requests: &[Verdict<Request<'_>>],
) -> Result<Verdict<()>> {
    let headers = headers(ctx, client);
    ctx.clock.enter(Stage::Upstream);
    let together =
        Together { room: AtomicUsize::new(MAX_BATCH_ANSWER), partly: AtomicBool::new(false), cached: cached::Several::default() };
    let answers = {
        let ctx = &*ctx;
        // Boxed, because the compiler cannot yet see that the bare futures are `Send` (rust-lang/rust#102211).
        let courses = plan.courses.iter().map(Some).chain(std::iter::repeat(None));
        let elements = requests.iter().zip(courses);
        let elements: Vec<_> =
            elements.map(|(request, course)| element(state, ctx, &headers, plan, request, course, &together).boxed()).collect();
        let work = stream::iter(elements).buffered(AT_ONCE).collect::<Vec<_>>();
        attended(state, client, std::pin::pin!(work), &OnceLock::new()).await?
    };
    let answers = match answers {
        Ok(answers) => answers,
        Err(reject) => return Ok(Err(reject)),
    };
    ctx.told.itemised = true;
    ctx.told.partly = together.partly.into_inner();
    ctx.cached = together.cached.told();
    let mut body = b"[".to_vec();
    body.extend_from_slice(&answers.join(&b','));
    body.push(b']');
    reply::page(client, ctx, Page::json(200, body)).await.map(Ok)
}

/// One element of a batch: its envelope or its problem.
async fn element(
    state: &State,
    ctx: &Ctx,
    headers: &HeaderMap,
    plan: &Rest<'_>,
    request: &Verdict<Request<'_>>,
    course: Option<&Course>,
    together: &Together,
) -> Vec<u8> {
    let request = match request {
        Ok(request) => request,
        Err(reject) => {
            event::refused(ctx, reject);
            together.partly.store(true, Ordering::Relaxed);
            refused::element(ctx, reject, None);
            together.cached.note(None);
            return reject.problem(ctx.request_id());
        }
    };
    let mut call = call(state, ctx, plan, request, course, None);
    // Others run at the same time, and one clock tells of one thing.
    call.trace.clock = None;
    let wished = cached::rest::wished(ctx, headers, plan, course, request);
    let (answer, cached) = cached::rest::run(ctx, wished, plan, course, call, &OnceLock::new()).await;
    let outcome = count(state, ctx, plan, request, &answer);
    together.partly.fetch_or(outcome != Outcome::Ok, Ordering::Relaxed);
    event::element(ctx, &request.call(), &answer, outcome, cached.as_ref());
    together.cached.note(cached.as_ref());
    match answer {
        Err(reject) => {
            refused::element(ctx, &reject, Some(&request.call()));
            reject.problem(ctx.request_id())
        }
        Ok(done) => {
            let take = |room: usize| room.checked_sub(done.body.len());
            if together.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                return done.body;
            }
            let detail = "it was executed, but the answers of this batch exceed 64 MiB; ask in smaller batches";
            Reject::new(Code::BodyTooLarge, detail).problem(ctx.request_id())
        }
    }
}

/// A call whose notifications are sent as they come, and then the envelope or the problem as the last event.
async fn streamed(state: &State, client: &mut ServerSession, ctx: &mut Ctx, plan: &Rest<'_>, request: &Request<'_>) -> Result<()> {
    ctx.farewell(client);
    let course = plan.courses.first();
    // Progress is what is asked for, and what is kept has none.
    let wished = cached::rest::wished(ctx, &client.req_header().headers, plan, course, request).without();
    ctx.cached = wished.bypassed();
    let head = reply::events(ctx, client);
    client.write_response_header(Box::new(head.into())).await?;
    let (sender, mut notices) = mpsc::channel(NOTICES);
    let mut bytes = 0;
    let answer = {
        let call = call(state, ctx, plan, request, course, Some(sender));
        let unseen = OnceLock::new();
        let run = async { cached::rest::run(ctx, wished, plan, course, call, &unseen).await.0 };
        let mut run = std::pin::pin!(run);
        let mut closes = std::pin::pin!(state.shared.life.closing());
        loop {
            tokio::select! {
                biased;
                Some(notice) = notices.recv() => bytes += write_notice(client, &notice).await?,
                answer = &mut run => break Some(answer),
                () = &mut closes => break Some(Err(closing())),
                () = relay::departure(client) => break None,
            }
        }
    };
    let Some(answer) = answer else {
        abandoned(state, ctx, plan, request);
        return Err(left());
    };
    while let Ok(notice) = notices.try_recv() {
        bytes += write_notice(client, &notice).await?;
    }
    ctx.clock.enter(Stage::Answer);
    record(state, ctx, plan, request, &answer);
    let last = match answer {
        Ok(done) => sse::encode("result", &done.body),
        Err(reject) => {
            ctx.told.code = Some(reject.code.name());
            refused::element(ctx, &reject, Some(&request.call()));
            sse::encode("error", &reject.problem(ctx.request_id()))
        }
    };
    ctx.told.bytes = bytes + last.len();
    client.write_response_body(last.into(), true).await
}

/// Writes a notification as an event named after its method: `progress`, `message` (a log line), …
async fn write_notice(client: &mut ServerSession, notice: &Bytes) -> Result<usize> {
    let Ok(message) = serde_json::from_slice::<Response<'_>>(notice) else { return Ok(0) };
    let method = message.method.as_deref().unwrap_or_default();
    let name =
        method.strip_prefix("notifications/").unwrap_or(method).replace(|c: char| !c.is_ascii_alphanumeric() && c != '/' && c != '_', "");
    let event = sse::encode(&name, message.params.map_or("{}", |params| params.get()).as_bytes());
    let length = event.len();
    client.write_response_body(event.into(), false).await?;
    Ok(length)
}

fn record(state: &State, ctx: &mut Ctx, plan: &Rest<'_>, request: &Request<'_>, answer: &Verdict<Done>) {
    ctx.told.outcome = Some(count(state, ctx, plan, request, answer));
}

/// Counts a call whose caller left.
fn abandoned(state: &State, ctx: &mut Ctx, plan: &Rest<'_>, request: &Request<'_>) {
    plan.pool.meter(&state.shared.metrics, &request.call()).count(Outcome::Abandoned, ctx.arrival.started.elapsed(), 0);
    cached::settle(ctx, &plan.pool, &request.call(), Outcome::Abandoned);
    ctx.told.outcome = Some(Outcome::Abandoned);
}

fn count(state: &State, ctx: &Ctx, plan: &Rest<'_>, request: &Request<'_>, answer: &Verdict<Done>) -> Outcome {
    let (outcome, bytes) = match answer {
        Ok(done) => (done.outcome, done.body.len()),
        Err(reject) => (outcome_of(reject), 0),
    };
    let call = request.call();
    plan.pool.meter(&state.shared.metrics, &call).count(outcome, ctx.arrival.started.elapsed(), bytes);
    cached::settle(ctx, &plan.pool, &call, outcome);
    outcome
}
