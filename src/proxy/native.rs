//! The native lane: open the pass-through, seal the session id on its way back, relay.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::HeaderValue;
use http::response::Parts;
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType, Result};
use prometheus::IntGauge;
use serde::Deserialize;

use super::admit::Native;
use super::cached::native::Said;
use super::cached::serve::Peeked;
use super::ctx::Ctx;
use super::record::outcome_of;
use super::reply::{self, left};
use super::{cached, coded};
use crate::cache::notices::Notices;
use crate::egress::Failure;
use crate::exchange::native::{self, Open};
use crate::exchange::relay::{self, End, Patience, Returns, Way};
use crate::exchange::sight::Sight;
use crate::exchange::tries;
use crate::mcp::rewrite::{self, Unreadable};
use crate::mcp::session::Session;
use crate::mcp::{filter, headers};
use crate::observe::clock::Stage;
use crate::observe::metrics::Outcome;
use crate::reject::{Code, Reject, Verdict};
use crate::route::rule::Choice;
use crate::snapshot::State;
use crate::transform::Shapes;
use crate::upstream::breaker;
use crate::upstream::exchange::OnBehalf;
use crate::verbatim::Verbatim;

/// Bytes of the longest list that is filtered.
const MAX_LIST: usize = 16 << 20;
/// Answers up to this size are looked at for how the call ended; failures are short.
const JUDGED: usize = 8 << 10;

/// Serves a native request to its end.
///
/// # Errors
/// The inner error is a refusal to be written; the outer one means the connection must be closed.
pub async fn serve(state: &State, client: &mut ServerSession, ctx: &mut Ctx, plan: &Native<'_>) -> Result<Verdict<()>> {
    let cache = ctx.snapshot.cache.clone().filter(|_| plan.call.is_some());
    let said = cache.as_ref().map(|cache| cached::serve::peek(client, ctx, plan, cache));
    // Boxed is whatever waits for others: their futures are large, and an answer that is there already needs none of them.
    let (outcome, served) = match (said, &cache) {
        (Some(Peeked::Said(Said::Answer(answer))), _) => cached::serve::given(client, ctx, answer).await,
        (Some(peeked), Some(cache)) => Box::pin(cached::serve::kept(state, client, ctx, plan, cache, peeked)).await,
        _ => Box::pin(asked(state, client, ctx, plan)).await,
    };
    record(state, ctx, plan, outcome);
    served
}

/// How a request ended, and what is to be done about it.
pub type Served = (Outcome, Result<Verdict<()>>);

/// Answers by asking a backend.
pub async fn asked(state: &State, client: &mut ServerSession, ctx: &mut Ctx, plan: &Native<'_>) -> Served {
    ctx.clock.enter(Stage::Upstream);
    match open(state, client, ctx, plan).await {
        Some(Ok(opened)) => answer(state, client, ctx, plan, opened).await,
        Some(Err(reject)) => (outcome_of(&reject), Ok(Err(reject))),
        None => (Outcome::Abandoned, Err(left())),
    }
}

/// Hands an opened answer on; tells how the call ended beside what is to be done about it.
pub async fn answer(state: &State, client: &mut ServerSession, ctx: &mut Ctx, plan: &Native<'_>, opened: Open<'_>) -> Served {
    ctx.told.backend = Some(Arc::clone(opened.backend().label()));
    let status = opened.incoming.status();
    let head = match head(state, client, ctx, plan, &opened) {
        Ok(head) => head,
        Err(reject) => return (outcome_of(&reject), Ok(Err(reject))),
    };
    let sight = restricted(ctx, plan);
    if sight.is_some() || plan.shapes().is_some() {
        return Box::pin(rewritten(state, client, ctx, plan, opened, head, sight)).await;
    }
    let is_short = opened.incoming.announced().is_some_and(|length| length <= JUDGED) && !opened.incoming.is_event_stream();
    if !is_short {
        return relayed(state, client, ctx, &plan.pool.server, opened, head).await;
    }
    let timeout = timeout(plan, &opened);
    let Open { incoming, mut trial, .. } = opened;
    let collected = tokio::select! {
        biased;
        collected = tokio::time::timeout(timeout, incoming.collect(JUDGED)) => collected.unwrap_or(Err(Failure::TimedOut)),
        () = relay::departure(client) => return (Outcome::Abandoned, Err(left())),
    };
    trial.judge(collected.as_ref().map_or_else(tries::failed, |_| breaker::Verdict::Passed));
    match collected {
        Ok(body) => {
            let outcome = judge(status, &body);
            (outcome, reply::whole(client, ctx, head, body).await.map(Ok))
        }
        Err(failure) => {
            let reject = crate::exchange::refuse(&failure.into(), &trial.backend);
            (Outcome::Failed, Ok(Err(reject)))
        }
    }
}

/// The header for the client, the session id sealed.
fn head(state: &State, client: &mut ServerSession, ctx: &Ctx, plan: &Native<'_>, opened: &Open<'_>) -> Verdict<Parts> {
    ctx.farewell(client);
    let mut head = reply::relayed(&opened.incoming, ctx, client);
    seal(state, plan, opened, &mut head)?;
    Ok(head)
}

/// Opens the exchange unless the client leaves first.
async fn open<'s>(state: &'s State, client: &mut ServerSession, ctx: &Ctx, plan: &Native<'_>) -> Option<Verdict<Open<'s>>> {
    let request = client.req_header();
    let native = question(state, ctx, plan, &request.headers, method(&request.method));
    tokio::select! {
        biased;
        opened = native.open(&state.shared.client) => Some(opened.map_err(|reject| Choice::explain(plan.choice(), reject))),
        () = relay::departure(client) => None,
    }
}

/// The request as it is sent.
pub fn question<'q>(state: &'q State, ctx: &'q Ctx, plan: &'q Native<'_>, headers: &HeaderMap, method: &'static str) -> native::Native<'q> {
    native::Native {
        pool: &plan.pool,
        method,
        lines: native::forwarded(headers, method == "GET", plan.upstream()),
        body: plan.body.clone(),
        call: plan.call.as_ref(),
        affinity: plan.affinity,
        metrics: &state.shared.metrics,
        session: plan.session.as_ref(),
        on_behalf: plan.token.as_deref().map(OnBehalf::new),
        trace: ctx.trace(),
        choice: plan.choice(),
        span: span(ctx, plan),
    }
}

/// The time for all attempts: by the rule that chose where it goes, else as every request, but no less than one backend may
/// take by its own configuration.
pub fn span(ctx: &Ctx, plan: &Native<'_>) -> tries::Span {
    let longest = plan.pool.members.iter().map(|member| member.backend.conf.timeout).max().unwrap_or_default();
    let most = plan.choice().and_then(|choice| choice.timeout);
    let most = most.unwrap_or_else(|| ctx.snapshot.config.server.limits.request_timeout.max(longest));
    tries::Span { began: ctx.arrival.started, most }
}

/// The methods that lead here (see `route`).
fn method(method: &http::Method) -> &'static str {
    match *method {
        http::Method::GET => "GET",
        http::Method::DELETE => "DELETE",
        _ => "POST",
    }
}

/// Replaces the upstream's session id by a sealed one that names its backend.
fn seal(state: &State, plan: &Native<'_>, opened: &Open<'_>, head: &mut Parts) -> Verdict<()> {
    if !opened.incoming.headers().contains_key(&headers::SESSION) {
        return Ok(());
    }
    let id = opened.incoming.text(&headers::SESSION).unwrap_or_default();
    let address = opened.incoming.address().to_string();
    let session = Session { backend: opened.backend().name().to_owned(), address, id: id.to_owned() };
    let sealed = state.shared.sealer.seal(&plan.pool.server, plan.principal.binding(), &session);
    let sealed = sealed.and_then(|token| HeaderValue::from_str(&token).ok());
    let sealed = sealed.ok_or_else(|| Reject::new(Code::BackendFailed, "the backend gave a session id that cannot be carried"))?;
    head.headers.insert(&headers::SESSION, sealed);
    Ok(())
}

async fn relayed(
    state: &State,
    client: &mut ServerSession,
    ctx: &mut Ctx,
    server: &Arc<str>,
    mut opened: Open<'_>,
    mut head: Parts,
) -> Served {
    let is_stream = opened.incoming.is_event_stream();
    if is_stream {
        begun(&mut opened);
    }
    let mut encoder = match coded::relayed(&mut head, client, ctx, opened.incoming.announced()) {
        Ok(encoder) => encoder,
        Err(failure) => return (Outcome::Failed, Err(failure)),
    };
    let Open { incoming, mut trial, .. } = opened;
    let status = head.status;
    let limits = &ctx.snapshot.config.server.limits;
    let patience = if is_stream { Patience::Idle(limits.stream_idle, returns(client)) } else { Patience::Whole(limits.request_timeout) };
    ctx.clock.enter(Stage::Answer);
    if client.write_response_header(Box::new(head.into())).await.is_err() {
        return (Outcome::Abandoned, Err(left()));
    }
    let _counted = is_stream.then(|| Streaming::begin(state));
    let mut notices = noticing(ctx, server).filter(|_| is_stream);
    let mut seen = |chunk: &[u8]| notices.iter_mut().for_each(|notices| notices.pass(chunk));
    let way = encoder.as_deref_mut().map_or(Way::AsItIs, Way::Coded);
    let end = relay::body(client, incoming, patience, &state.shared.life, way, &mut trial, &mut seen).await;
    trial.judge(how(&end));
    let ended = settle(ctx, status, end);
    if let Some(encoder) = &encoder {
        coded::note(ctx, encoder);
    }
    ended
}

/// Whether the client takes up its stream again, by the revision its headers claim.
fn returns(client: &ServerSession) -> Returns {
    Returns::of(headers::version(&client.req_header().headers))
}

/// Notes that an answer begins as a stream. One that stays for as long as its client likes answered with that; any other
/// has not answered before its end.
fn begun(opened: &mut Open<'_>) {
    if opened.stays { opened.trial.judge(breaker::Verdict::Passed) } else { opened.trial.vouch() }
}

/// Whoever watches a stream of a server for what it says has changed.
fn noticing(ctx: &Ctx, server: &Arc<str>) -> Option<Notices> {
    ctx.snapshot.cache.as_ref().map(|cache| Notices::new(cache, server))
}

/// What the end of an answer says about its backend.
fn how(end: &End) -> breaker::Verdict {
    match end {
        End::Whole { .. } => breaker::Verdict::Passed,
        End::Cut { .. } => breaker::Verdict::Failed,
        End::Closed { .. } | End::ClientGone { .. } => breaker::Verdict::Void,
    }
}

fn settle(ctx: &mut Ctx, status: http::StatusCode, end: End) -> Served {
    ctx.told.bytes = end.bytes();
    match end {
        End::Whole { .. } | End::Closed { .. } => (judge(status, &[]), Ok(Ok(()))),
        End::ClientGone { .. } => (Outcome::Abandoned, Err(left())),
        End::Cut { cause, .. } => (Outcome::Failed, Err(Error::explain(ErrorType::ReadError, cause).into_up())),
    }
}

/// What of a server the caller sees, where that is not all and the answer may show it.
pub fn restricted(ctx: &Ctx, plan: &Native<'_>) -> Option<Sight> {
    if !plan.may_list {
        return None;
    }
    Sight::of(&ctx.snapshot, &plan.principal, &plan.pool.server)
}

/// A result less what the caller may not see, and as the operator's rules have it; `None` if that is all of it.
///
/// # Errors
/// [`Unreadable`].
pub fn for_caller(
    sight: Option<&Sight>,
    shapes: Option<&Shapes>,
    id: Option<Verbatim<'_>>,
    result: &str,
) -> std::result::Result<Option<String>, Unreadable> {
    let seen = sight.map(|sight| filter::written(result, &|kind, name| sight.keeps(kind, name))).transpose()?.flatten();
    let changed = shapes.map(|shapes| shapes.result(id, seen.as_deref().unwrap_or(result))).transpose()?.flatten();
    Ok(changed.or(seen))
}

/// How long a whole answer may take.
fn timeout(plan: &Native<'_>, opened: &Open<'_>) -> Duration {
    plan.choice().and_then(|choice| choice.timeout).unwrap_or(opened.backend().conf.timeout)
}

/// Hands on an answer less what the caller may not use, and as the operator's rules have it.
async fn rewritten(
    state: &State,
    client: &mut ServerSession,
    ctx: &mut Ctx,
    plan: &Native<'_>,
    mut opened: Open<'_>,
    mut head: Parts,
    sight: Option<Sight>,
) -> Served {
    let status = head.status;
    let rewrite = |id: Option<Verbatim<'_>>, text: &str| for_caller(sight.as_ref(), plan.shapes(), id, text);
    let unreadable = || Reject::new(Code::BackendFailed, format!("backend {} gave an answer that cannot be read", opened.backend().name()));
    // A coding we did not ask for hides what is in it.
    if opened.incoming.text("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return (Outcome::Failed, Ok(Err(unreadable())));
    }
    if opened.incoming.is_event_stream() {
        // Its length changes, and without one its end must be told by chunks, or a part would pass for the whole.
        head.headers.remove(http::header::CONTENT_LENGTH);
        reply::frame(&mut head, client);
        ctx.clock.enter(Stage::Answer);
        if client.write_response_header(Box::new(head.into())).await.is_err() {
            return (Outcome::Abandoned, Err(left()));
        }
        let _counted = Streaming::begin(state);
        let patience = Patience::Idle(ctx.snapshot.config.server.limits.stream_idle, returns(client));
        let mut stream = rewrite::Stream::new(&rewrite);
        begun(&mut opened);
        let Open { incoming, mut trial, .. } = opened;
        let mut notices = noticing(ctx, &plan.pool.server);
        let mut seen = |chunk: &[u8]| notices.iter_mut().for_each(|notices| notices.pass(chunk));
        let end = relay::body(client, incoming, patience, &state.shared.life, Way::Rewritten(&mut stream), &mut trial, &mut seen).await;
        trial.judge(how(&end));
        return settle(ctx, status, end);
    }
    let unreadable = unreadable();
    let timeout = timeout(plan, &opened);
    let Open { incoming, mut trial, .. } = opened;
    let collected = tokio::select! {
        biased;
        collected = tokio::time::timeout(timeout, incoming.collect(MAX_LIST)) => collected.unwrap_or(Err(Failure::TimedOut)),
        () = relay::departure(client) => return (Outcome::Abandoned, Err(left())),
    };
    trial.judge(collected.as_ref().map_or_else(tries::failed, |_| breaker::Verdict::Passed));
    let body = match collected {
        Ok(body) => body,
        Err(failure) => return (Outcome::Failed, Ok(Err(crate::exchange::refuse(&failure.into(), &trial.backend)))),
    };
    let kept = match rewrite::message(&body, &rewrite) {
        Ok(kept) => kept,
        // A failure in plain words lists nothing.
        Err(Unreadable) if !status.is_success() => None,
        Err(Unreadable) => return (Outcome::Failed, Ok(Err(unreadable))),
    };
    let body = kept.map_or(body, Bytes::from);
    let outcome = judge(status, body.get(..JUDGED).map_or(&body[..], |_| &[]));
    head.headers.remove(http::header::TRANSFER_ENCODING);
    if !reply::bodiless(status) {
        head.headers.insert(http::header::CONTENT_LENGTH, reply::number(body.len()));
    }
    (outcome, reply::whole(client, ctx, head, body).await.map(Ok))
}

/// Counts an open stream for as long as it lives.
struct Streaming(IntGauge);

impl Streaming {
    fn begin(state: &State) -> Self {
        let gauge = state.shared.metrics.open_streams.clone();
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Deserialize)]
struct Glance<'b> {
    #[serde(borrow)]
    error: Option<Verbatim<'b>>,
    #[serde(default)]
    result: Option<ResultGlance>,
}

#[derive(Deserialize)]
struct ResultGlance {
    #[serde(rename = "isError", default)]
    is_error: bool,
}

/// How a call ended, by its status and, where it is short, its answer.
fn judge(status: http::StatusCode, answer: &[u8]) -> Outcome {
    if status.is_server_error() {
        return Outcome::Failed;
    }
    match serde_json::from_slice::<Glance<'_>>(answer) {
        Ok(Glance { error: Some(_), .. }) => Outcome::ServerError,
        Ok(Glance { result: Some(ResultGlance { is_error: true }), .. }) => Outcome::ToolError,
        _ if status.is_client_error() => Outcome::ServerError,
        _ => Outcome::Ok,
    }
}

fn record(state: &State, ctx: &mut Ctx, plan: &Native<'_>, outcome: Outcome) {
    ctx.told.outcome = Some(outcome);
    let Some(call) = &plan.call else { return };
    plan.pool.meter(&state.shared.metrics, call).count(outcome, ctx.arrival.started.elapsed(), ctx.told.bytes);
    cached::settle(ctx, &plan.pool, call, outcome);
}
