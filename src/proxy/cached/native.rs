//! Native requests and the cache. A miss is passed on as it came: of its answer is read ahead only what shows whether it
//! can be kept, which for an event stream is its first message. Whoever waits for it, or comes later, gets JSON.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};

use super::{Cached, late};
use crate::cache::fill::Elsewhere;
use crate::cache::key::{Asked, Form};
use crate::cache::{Bypass, Cache, Fill, Hit, Question, Step, Wish};
use crate::call::Era;
use crate::copy;
use crate::egress::{Failure, Incoming};
use crate::exchange::native::{self, Open};
use crate::exchange::sight::Sight;
use crate::exchange::tries::Span;
use crate::mcp::members::Members;
use crate::mcp::message::{Message, Payload, Response};
use crate::mcp::{method, sse};
use crate::observe::trace::Context;
use crate::page::Page;
use crate::proxy::admit::Native;
use crate::proxy::ctx::Ctx;
use crate::proxy::native::{self as lane, for_caller, span};
use crate::reject::{Code, Reject, Verdict};
use crate::route::rule::Choice;
use crate::snapshot::State;
use crate::transform;
use crate::upstream::ask::Trace;
use crate::upstream::breaker;
use crate::upstream::exchange::OnBehalf;
use crate::upstream::pool::Pool;
use crate::verbatim::Verbatim;

/// The params of a request without any.
static NO_MEMBERS: Members<'static> = Members(Vec::new());

/// What the cache says to a native request.
pub enum Said {
    /// Nothing: its kind is none that is kept, or it is not for the cache.
    Go,
    /// Answer with this.
    Answer(Given),
    /// Ask, and tell the cache.
    Ask(Fill),
    Refuse(Reject),
}

/// An answer made of what was kept, and who once gave it.
pub struct Given {
    pub page: Page,
    pub backend: Arc<str>,
}

/// What came of asking.
pub enum Filled<'s> {
    /// An answer, none of it taken.
    Opened(Box<Open<'s>>),
    /// It failed, and what is past its time is given instead.
    Given(Box<Given>),
    Refused(Reject),
}

/// Asks the cache for what it has.
///
/// # Errors
/// A question that somebody must ask, or wait for.
pub fn peek(
    ctx: &mut Ctx,
    cache: &Arc<Cache>,
    headers: &HeaderMap,
    plan: &Native<'_>,
    sight: Option<&Sight>,
    now: Instant,
) -> Result<Said, Arc<Wish>> {
    let Some(question) = question(ctx, cache, headers, plan) else { return Ok(Said::Go) };
    if plan.session.is_some() && !cache.conf.sessions {
        question.bypassed(Bypass::Session);
        ctx.cached = Some(Cached::bypass(Bypass::Session));
        return Ok(Said::Go);
    }
    if let Some(hit) = cache.fresh(&question, now) {
        return Ok(answered(ctx, plan, &hit, sight));
    }
    let wish = Arc::new(cache.wish(question));
    match cache.peek(&wish) {
        Some(step) => Ok(said(ctx, headers, plan, sight, step)),
        None => Err(wish),
    }
}

/// Asks the cache, and waits for others who ask the same.
pub async fn look(
    ctx: &mut Ctx,
    cache: &Arc<Cache>,
    headers: &HeaderMap,
    plan: &Native<'_>,
    sight: Option<&Sight>,
    wish: &Arc<Wish>,
) -> Said {
    let wait = plan.choice().and_then(|choice| choice.timeout).unwrap_or(ctx.snapshot.config.server.limits.request_timeout);
    let step = cache.look(wish, ctx.arrival.started + wait).await;
    said(ctx, headers, plan, sight, step)
}

/// What a step means for a native request.
fn said(ctx: &mut Ctx, headers: &HeaderMap, plan: &Native<'_>, sight: Option<&Sight>, step: Step) -> Said {
    match step {
        Step::Hit(mut hit) => {
            if let Some(fill) = hit.renew.take().filter(|_| plan.session.is_none()) {
                tokio::spawn(Renewal::of(ctx, headers, plan).run(*fill));
            }
            answered(ctx, plan, &hit, sight)
        }
        Step::Pass(why) => {
            ctx.cached = Some(Cached::bypass(why));
            Said::Go
        }
        Step::Late => {
            ctx.cached = Some(Cached::miss(false));
            Said::Refuse(late())
        }
        Step::Ask(fill) => {
            ctx.cached = Some(Cached::miss(false));
            Said::Ask(fill)
        }
    }
}

pub(super) fn question<'a>(ctx: &mut Ctx, cache: &Cache, headers: &'a HeaderMap, plan: &'a Native<'_>) -> Option<Question<'a>> {
    let call = plan.call.as_ref()?;
    let method = method::find(&call.method)?;
    // What is no request is not answered.
    let message = plan.message.as_ref().filter(|message| message.id.is_some())?;
    let params = message.params.as_ref();
    let asked = Asked {
        form: Form::Native,
        server: &plan.pool.server,
        method,
        name: call.name.as_deref(),
        params: params.map_or(&NO_MEMBERS, |params| &params.members),
        meta: params.and_then(|params| params.meta.as_ref()),
        principal: &plan.principal,
        on_behalf: plan.token.is_some(),
        among: plan.choice().and_then(|choice| choice.among.as_ref()),
        added: plan.upstream().map_or(&[][..], |upstream| upstream.set.as_slice()),
        headers,
    };
    cache.question(&asked, &plan.pool.server, &plan.pool.cached).unwrap_or_else(|why| {
        ctx.cached = Some(Cached::bypass(why));
        None
    })
}

fn answered(ctx: &mut Ctx, plan: &Native<'_>, hit: &Hit, sight: Option<&Sight>) -> Said {
    given(ctx, plan, hit, sight).map_or_else(Said::Refuse, Said::Answer)
}

/// The caller's answer made of what was kept.
fn given(ctx: &mut Ctx, plan: &Native<'_>, hit: &Hit, sight: Option<&Sight>) -> Verdict<Given> {
    let id = plan.message.as_ref().and_then(|message| message.id);
    let (told, parts) = (hit.entry.told(hit.age), &hit.entry.result);
    let [begin, middle] = [r#"{"jsonrpc":"2.0","id":"#, r#","result":"#];
    let written = id.map_or("null", Verbatim::get);
    let mut body = Vec::with_capacity(begin.len() + written.len() + middle.len() + parts.size(told) + 1);
    for text in [begin, written, middle] {
        body.extend_from_slice(text.as_bytes());
    }
    let at = body.len();
    parts.write(told, &mut body);
    if sight.is_some() || plan.shapes().is_some() {
        let broken = || Reject::new(Code::Internal, "what was kept of an answer cannot be read");
        let result = std::str::from_utf8(&body[at..]).map_err(|_| broken())?;
        let changed = for_caller(sight, plan.shapes(), id, result).map_err(|_| broken())?;
        if let Some(changed) = changed {
            body.truncate(at);
            copy::append(&mut body, changed.as_bytes());
        }
    }
    body.push(b'}');
    ctx.cached = Some(Cached::hit(hit));
    Ok(Given { page: Page::json(200, body), backend: Arc::clone(&hit.entry.backend) })
}

/// Asks and tells the cache what came; where that is a failure, what is past its time may stand in for it.
pub async fn fill<'s>(state: &'s State, ctx: &mut Ctx, plan: &Native<'_>, cache: &Cache, fill: Fill, headers: &HeaderMap) -> Filled<'s> {
    let (opened, timeout) = {
        let native = lane::question(state, ctx, plan, headers, "POST");
        let opened = native.open(&state.shared.client).await.map_err(|reject| Choice::explain(plan.choice(), reject));
        let timeout = opened.as_ref().map_or(Duration::ZERO, |opened| native.timeout(opened.backend()));
        (opened, timeout)
    };
    let mut opened = match opened {
        Ok(opened) if !opened.incoming.status().is_server_error() => opened,
        Ok(opened) => {
            return match instead(ctx, plan, fill) {
                Some(given) => Filled::Given(Box::new(given)),
                None => Filled::Opened(Box::new(opened)),
            };
        }
        Err(reject) if reject.code.status() < 500 => return Filled::Refused(reject),
        Err(reject) => return instead(ctx, plan, fill).map_or(Filled::Refused(reject), |given| Filled::Given(Box::new(given))),
    };
    match told(cache, plan.message.as_ref(), &mut opened, fill, timeout).await {
        Ok(stored) => {
            ctx.cached = Some(Cached::miss(stored));
            Filled::Opened(Box::new(opened))
        }
        Err(broken) => {
            let (failure, fill) = *broken;
            opened.trial.judge(breaker::Verdict::Failed);
            let reject = crate::exchange::refuse(&failure.into(), opened.backend());
            instead(ctx, plan, fill).map_or(Filled::Refused(reject), |given| Filled::Given(Box::new(given)))
        }
    }
}

/// The caller's answer made of what is past its time.
fn instead(ctx: &mut Ctx, plan: &Native<'_>, fill: Fill) -> Option<Given> {
    let hit = fill.fail()?;
    let sight = if plan.may_list { Sight::of(&ctx.snapshot, &plan.principal, &plan.pool.server) } else { None };
    given(ctx, plan, &hit, sight.as_ref()).ok()
}

/// Reads ahead what shows whether an answer can be kept, and tells the cache; all of it stays to be relayed. What broke
/// before that comes back with the turn.
async fn told(
    cache: &Cache,
    message: Option<&Message<'_>>,
    opened: &mut Open<'_>,
    fill: Fill,
    timeout: Duration,
) -> Result<bool, Box<(Failure, Fill)>> {
    let Some((message, id)) = message.and_then(|message| Some((message, message.id?))) else { return Ok(false) };
    let seen = tokio::time::timeout(timeout, ahead(&mut opened.incoming, id, cache.conf.max_entry)).await;
    let result = match seen.unwrap_or(Err(Failure::TimedOut)) {
        Ok(result) => result,
        Err(failure) => return Err(Box::new((failure, fill))),
    };
    if let Some(Ok(members)) = result.as_deref().map(serde_json::from_str::<Members<'_>>) {
        return Ok(fill.keep(&members, is_modern(message), opened.backend().label()));
    }
    fill.release();
    Ok(false)
}

/// Whether the request is one that modern servers answer, who say how long their answers are fresh.
fn is_modern(message: &Message<'_>) -> bool {
    message.version().is_some_and(|version| crate::mcp::era_of(version) == Era::Modern)
}

/// The result that answers `id`, where it can be made out without holding anything back that is more than `most` bytes.
async fn ahead(incoming: &mut Incoming<'_>, id: Verbatim<'_>, most: usize) -> Result<Option<String>, Failure> {
    let coded = incoming.text("content-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("identity"));
    if incoming.status() != http::StatusCode::OK || coded || incoming.announced().is_some_and(|length| length > most) {
        return Ok(None);
    }
    if !incoming.is_event_stream() {
        let mut whole = Vec::new();
        while let Some(piece) = incoming.look_ahead().await? {
            copy::append(&mut whole, &piece);
            if whole.len() > most {
                return Ok(None);
            }
        }
        return Ok(result(&whole, id));
    }
    let mut decoder = sse::Decoder::new(most);
    let mut seen = 0;
    while let Some(piece) = incoming.look_ahead().await? {
        seen += piece.len();
        decoder.push(&piece);
        loop {
            match decoder.event() {
                // A priming event says nothing.
                Ok(Some(event)) if event.data.trim_ascii().is_empty() => {}
                // The first message is the answer, or there are others, which must not wait.
                Ok(Some(event)) => return Ok(result(&event.data, id)),
                Ok(None) if seen <= most => break,
                Ok(None) | Err(sse::TooLarge) => return Ok(None),
            }
        }
    }
    Ok(None)
}

fn result(message: &[u8], id: Verbatim<'_>) -> Option<String> {
    let response: Response<'_> = serde_json::from_slice(message).ok()?;
    let answers = response.id.is_some_and(|told| transform::plain(told) == transform::plain(id));
    let result = response.result.filter(|_| answers && response.error.is_none() && response.method.is_none())?;
    Some(result.get().to_owned())
}

/// Everything to ask the same again when its caller has been answered, or before anybody asks.
pub(super) struct Renewal {
    state: Arc<State>,
    pool: Arc<Pool>,
    lines: Vec<u8>,
    body: Bytes,
    token: Option<String>,
    affinity: Option<u64>,
    choice: Option<Choice>,
    /// The time it has as a whole.
    most: Duration,
    cache: Option<Arc<Cache>>,
    request_id: HeaderValue,
    context: Context,
    in_background: bool,
}

impl Renewal {
    pub(super) fn of(ctx: &Ctx, headers: &HeaderMap, plan: &Native<'_>) -> Self {
        Self {
            state: Arc::clone(ctx.state()),
            pool: Arc::clone(&plan.pool),
            lines: native::forwarded(headers, false, plan.upstream()),
            body: plan.body.clone(),
            token: plan.token.clone(),
            affinity: plan.affinity,
            choice: plan.choice().cloned(),
            most: span(ctx, plan).most,
            cache: ctx.snapshot.cache.clone(),
            request_id: ctx.arrival.request_id.clone(),
            context: ctx.arrival.context,
            in_background: false,
        }
    }

    /// Asked by the background service, over its own connections.
    pub(super) fn in_background(self) -> Self {
        Self { in_background: true, ..self }
    }

    pub(super) async fn run(self, fill: Fill) {
        let payload = Payload::read(&self.body).ok();
        let message = payload.as_ref().and_then(Payload::one);
        let call = message.and_then(Message::call);
        let (Some(call), Some(cache)) = (&call, &self.cache) else { return };
        let native = native::Native {
            pool: &self.pool,
            method: "POST",
            lines: self.lines.clone(),
            body: self.body.clone(),
            call: Some(call),
            affinity: self.affinity,
            metrics: &self.state.shared.metrics,
            session: None,
            on_behalf: self.token.as_deref().map(OnBehalf::new),
            trace: Trace { request_id: &self.request_id, context: self.context, noted: None, clock: None },
            choice: self.choice.as_ref(),
            span: Span { began: Instant::now(), most: self.most },
        };
        let Elsewhere::Nothing(fill) = fill.elsewhere().await else { return };
        let Ok(mut opened) = native.open(self.state.shared.client(self.in_background)).await else { return };
        if opened.incoming.status().is_server_error() {
            return;
        }
        let timeout = native.timeout(opened.backend());
        let told = told(cache, message, &mut opened, fill, timeout).await;
        let Open { incoming, mut trial, .. } = opened;
        trial.judge(if told.is_ok() { breaker::Verdict::Passed } else { breaker::Verdict::Failed });
        if told.is_ok() {
            incoming.release().await;
        }
    }
}
