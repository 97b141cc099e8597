//! REST calls and the cache.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::{HeaderMap, HeaderValue};

use super::{Cached, late};
use crate::cache::fill::Elsewhere;
use crate::cache::key::{Asked, Form};
use crate::cache::{Bypass, Cache, Fill, Hit, Question, Step, Wish, Witness};
use crate::exchange::call::{Call, Done, Raw};
use crate::mcp::members::Members;
use crate::mcp::rest::{self, Payload, Request};
use crate::observe::clock::Stage;
use crate::observe::trace::Context;
use crate::principal::Principal;
use crate::proxy::admit::Rest;
use crate::proxy::course::Course;
use crate::proxy::ctx::Ctx;
use crate::reject::{Reject, Verdict};
use crate::route::rule::Choice;
use crate::snapshot::{Snapshot, State};
use crate::upstream::ask::Trace;
use crate::upstream::exchange::OnBehalf;
use crate::upstream::pool::Pool;
use crate::verbatim::Verbatim;

/// An answer, and what the cache had to do with it; nothing where its kind is none that is kept.
pub type Answered = (Verdict<Done>, Option<Cached>);

/// What the cache knows of a call before anybody is asked.
pub enum Wished<'a> {
    /// Its kind is none that is kept, or there is no cache.
    Nothing,
    /// It is not for the cache.
    Bypassed(Bypass),
    /// What is looked for.
    Asked(Question<'a>),
}

impl Wished<'_> {
    /// The same for a caller who is told how it goes, which only the server can.
    #[must_use]
    pub fn without(self) -> Self {
        match self {
            Self::Asked(question) => {
                question.bypassed(Bypass::Progress);
                Self::Bypassed(Bypass::Progress)
            }
            other => other,
        }
    }

    /// Why the cache is not asked, where it might have been.
    pub fn bypassed(&self) -> Option<Cached> {
        if let Self::Bypassed(why) = self { Some(Cached::bypass(*why)) } else { None }
    }
}

/// What a call looks for in the cache.
pub fn wished<'a>(ctx: &Ctx, headers: &HeaderMap, plan: &'a Rest<'_>, course: Option<&'a Course>, request: &'a Request<'_>) -> Wished<'a> {
    let Some(cache) = &ctx.snapshot.cache else { return Wished::Nothing };
    match cache.question(&asked(plan, request, course, headers), &plan.pool.server, &plan.pool.cached) {
        Ok(None) => Wished::Nothing,
        Err(why) => Wished::Bypassed(why),
        Ok(Some(question)) => Wished::Asked(question),
    }
}

/// Answers a call from the cache, or asks and keeps what comes. `witness` is set while others wait for the answer.
pub async fn run(
    ctx: &Ctx,
    wished: Wished<'_>,
    plan: &Rest<'_>,
    course: Option<&Course>,
    call: Call<'_>,
    witness: &OnceLock<Witness>,
) -> Answered {
    // Boxed is whatever waits for others: their futures are large, and an answer that is there already needs none of them.
    let (question, cache) = match (wished, &ctx.snapshot.cache) {
        (Wished::Asked(question), Some(cache)) => (question, cache),
        (wished, _) => return (Box::pin(ask(&call)).await, wished.bypassed()),
    };
    call.trace.enter(Stage::Cache);
    if let Some(hit) = cache.fresh(&question, Instant::now()) {
        return found(ctx, plan, course, &call, hit);
    }
    let wish = Arc::new(cache.wish(question));
    match cache.peek(&wish) {
        Some(Step::Hit(hit)) => found(ctx, plan, course, &call, hit),
        Some(Step::Pass(why)) => (Box::pin(ask(&call)).await, Some(Cached::bypass(why))),
        _ => Box::pin(looked(ctx, plan, course, cache, wish, call, witness)).await,
    }
}

/// A request as the cache knows it.
pub(super) fn asked<'a, 'h>(
    plan: &'a Rest<'_>,
    request: &'a Request<'_>,
    course: Option<&'a Course>,
    headers: &'h HeaderMap,
) -> Asked<'a, 'h> {
    Asked {
        form: if request.method.paged && plan.form == rest::Form::V1 { Form::Whole } else { Form::One },
        server: &plan.pool.server,
        method: request.method,
        name: request.name(),
        params: &request.params,
        meta: None,
        principal: &plan.principal,
        on_behalf: plan.token.is_some(),
        among: course.and_then(|course| course.choice.as_ref()?.among.as_ref()),
        added: course.map_or(&[][..], |course| course.upstream.set.as_slice()),
        headers,
    }
}

/// Runs a call; a refusal that comes of the rule that chose where it goes names the rule.
async fn ask(call: &Call<'_>) -> Verdict<Done> {
    call.trace.enter(Stage::Upstream);
    call.run().await.map_err(|reject| Choice::explain(call.choice, reject))
}

async fn looked(
    ctx: &Ctx,
    plan: &Rest<'_>,
    course: Option<&Course>,
    cache: &Arc<Cache>,
    wish: Arc<Wish>,
    mut call: Call<'_>,
    witness: &OnceLock<Witness>,
) -> Answered {
    match cache.look(&wish, call.ends()).await {
        Step::Hit(hit) => found(ctx, plan, course, &call, hit),
        Step::Pass(why) => (ask(&call).await, Some(Cached::bypass(why))),
        Step::Late => (Err(late()), Some(Cached::miss(false))),
        Step::Ask(fill) => {
            let _ = witness.set(fill.witness());
            call.keeps = true;
            filled(&call, fill).await
        }
    }
}

/// The caller's answer made of what was kept; it is asked for again where it is due.
fn found(ctx: &Ctx, plan: &Rest<'_>, course: Option<&Course>, call: &Call<'_>, mut hit: Hit) -> Answered {
    if let Some(fill) = hit.renew.take() {
        tokio::spawn(Renewal::of(ctx, plan, course, call.request).run(*fill));
    }
    given(call, &hit)
}

fn given(call: &Call<'_>, hit: &Hit) -> Answered {
    let told = hit.entry.told(hit.age).map(|left| left.to_string());
    (call.given(&hit.entry.result.members(told.as_deref().map(Verbatim::found)), &hit.entry.backend), Some(Cached::hit(hit)))
}

async fn filled(call: &Call<'_>, fill: Fill) -> Answered {
    match ask(call).await {
        Ok(done) => {
            let stored = kept(&done, fill);
            (Ok(done), Some(Cached::miss(stored)))
        }
        Err(reject) => match failed(&reject, fill) {
            Some(hit) => given(call, &hit),
            None => (Err(reject), Some(Cached::miss(false))),
        },
    }
}

/// What can be given in place of a refusal.
fn failed(reject: &Reject, fill: Fill) -> Option<Hit> {
    if reject.rpc_error.is_none() && reject.code.status() >= 500 {
        return fill.fail();
    }
    // The server's answer, to this caller.
    fill.release();
    None
}

fn kept(done: &Done, fill: Fill) -> bool {
    let raw = done.raw.as_ref().and_then(|Raw { result, is_modern }| Some((serde_json::from_str::<Members<'_>>(result).ok()?, is_modern)));
    if let Some((result, is_modern)) = raw {
        return fill.keep(&result, *is_modern, &done.backend);
    }
    fill.pass();
    false
}

/// Everything to ask the same again when its caller has been answered, or before anybody asks.
pub(super) struct Renewal {
    state: Arc<State>,
    snapshot: Arc<Snapshot>,
    pool: Arc<Pool>,
    principal: Arc<Principal>,
    token: Option<String>,
    affinity: Option<u64>,
    form: rest::Form,
    course: Option<Course>,
    body: String,
    request_id: HeaderValue,
    context: Context,
    in_background: bool,
}

impl Renewal {
    pub(super) fn of(ctx: &Ctx, plan: &Rest<'_>, course: Option<&Course>, request: &Request<'_>) -> Self {
        Self {
            state: Arc::clone(ctx.state()),
            snapshot: Arc::clone(&ctx.snapshot),
            pool: Arc::clone(&plan.pool),
            principal: Arc::clone(&plan.principal),
            token: plan.token.clone(),
            affinity: plan.affinity,
            form: plan.form,
            course: course.cloned(),
            body: format!(r#"{{"method":"{}","params":{}}}"#, request.method.mcp, request.params.written()),
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
        // It was read before.
        let Ok(Payload::One(request)) = Payload::read(self.body.as_bytes()) else { return };
        let Elsewhere::Nothing(fill) = fill.elsewhere().await else { return };
        let done = self.call(&request).run().await;
        match done {
            Ok(done) => drop(kept(&done, fill)),
            Err(reject) => {
                log::debug!("an answer that is past its time could not be renewed: {reject}");
                drop(failed(&reject, fill));
            }
        }
    }

    fn call<'c>(&'c self, request: &'c Request<'c>) -> Call<'c> {
        let course = self.course.as_ref();
        Call {
            client: self.state.shared.client(self.in_background),
            snapshot: &self.snapshot,
            pool: &self.pool,
            request,
            form: self.form,
            owner: self.principal.binding(),
            on_behalf: self.token.as_deref().map(OnBehalf::new),
            sight: None,
            trace: Trace { request_id: &self.request_id, context: self.context, noted: None, clock: None },
            started: Instant::now(),
            affinity: self.affinity,
            metrics: &self.state.shared.metrics,
            notices: None,
            choice: course.and_then(|course| course.choice.as_deref()),
            shape: None,
            headers: course.map(|course| course.upstream.set.as_slice()).unwrap_or_default(),
            keeps: true,
        }
    }
}
