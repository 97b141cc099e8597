//! The page: what is asked of every request, in this order and no other. From where, how much already, who, where to,
//! what, which way, may they, how often; then the lane. Each stage takes what an earlier one produced, so the compiler
//! keeps the order: nothing can be permitted before it is known who asks, and nothing is sent that was not judged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use pingora::protocols::http::ServerSession;

use super::audit::{self, Decision};
use super::body::{self, Body};
use super::course::{self, Course, Courses, Decided, Http};
use super::ctx::{Ctx, Dialect};
use super::custom;
use super::often::{self, Often};
use super::who::{self, Caller};
use crate::access;
use crate::call::{Call, Era};
use crate::config::Limits;
use crate::limit::Granted;
use crate::mcp::members::Members;
use crate::mcp::message::{Message, Payload};
use crate::mcp::rest::{self, Form};
use crate::mcp::session::Session;
use crate::mcp::strict::{self, Checked};
use crate::mcp::{headers, message};
use crate::observe::clock::Stage;
use crate::page::Page;
use crate::principal::Principal;
use crate::reject::{Code, Reject, Verdict};
use crate::route::rule::Choice;
use crate::route::{self, Route};
use crate::snapshot::{Phase, State};
use crate::transform::{Headers, Shapes};
use crate::upstream::pool::Pool;

/// What is to be done for a request that may go on.
pub enum Plan<'b> {
    /// Pass through to the server (native POST, GET and DELETE).
    Native(Box<Native<'b>>),
    /// Translate, ask, and answer in an envelope.
    Rest(Rest<'b>),
    /// Answer from what is known; to whom, where that matters.
    Page(Route<'b>, Option<Arc<Principal>>),
    /// Answer with this.
    Answer(Page),
}

/// A native request, judged.
pub struct Native<'b> {
    /// What it took of the limits; its places are given back with it.
    pub granted: Granted,
    pub pool: Arc<Pool>,
    pub principal: Arc<Principal>,
    /// The caller's token, where a backend is asked on its behalf.
    pub token: Option<String>,
    /// What the caller is known by, where it should meet the same backend again.
    pub affinity: Option<u64>,
    /// What is asked, by a single request or notification.
    pub call: Option<Call<'b>>,
    /// The message of such a request.
    pub message: Option<Message<'b>>,
    /// Whether the answer may list what the caller is not to see.
    pub may_list: bool,
    /// The upstream session it belongs to.
    pub session: Option<Session>,
    /// What was judged is what is sent: the body as it was read, or as the operator's rules changed it.
    pub body: Bytes,
    /// Where it may go and what is changed of it, where anything was to be decided.
    pub decided: Option<Box<Decided>>,
}

impl Native<'_> {
    pub fn choice(&self) -> Option<&Choice> {
        self.decided.as_ref()?.choice.as_deref()
    }

    pub fn shapes(&self) -> Option<&Shapes> {
        self.decided.as_ref()?.shapes.as_ref()
    }

    /// Headers that change on the way to the server.
    pub fn upstream(&self) -> Option<&Headers> {
        self.decided.as_ref().map(|decided| &decided.upstream)
    }
}

/// A REST request, judged.
pub struct Rest<'b> {
    /// What it took of the limits; its places are given back with it.
    pub granted: Granted,
    pub pool: Arc<Pool>,
    pub principal: Arc<Principal>,
    /// The caller's token, where a backend is asked on its behalf.
    pub token: Option<String>,
    /// What the caller is known by, where it should meet the same backend again.
    pub affinity: Option<u64>,
    pub payload: rest::Payload<'b>,
    pub form: Form,
    /// Which way each request goes; empty where nothing was to be decided.
    pub courses: Vec<Course>,
}

/// What is known of a request before its message is understood.
struct Known<'r> {
    state: &'r State,
    caller: Caller,
    pool: Arc<Pool>,
    courses: &'r Courses<'r>,
    headers: &'r HeaderMap,
}

impl Known<'_> {
    /// How often the caller may.
    fn often(&self) -> Often<'_> {
        Often { state: self.state, headers: self.headers, principal: &self.caller.principal, server: &self.pool.server }
    }
}

/// The only revision with batches; it has no version header, so most requests of it are taken for it by default.
const LAST_WITH_BATCHES: &str = "2025-03-26";

/// Judges a request. `path` is its path; `read` is where its body is put for the plan to borrow from.
///
/// # Errors
/// The refusal for the client.
pub async fn admit<'b>(state: &State, client: &mut ServerSession, ctx: &mut Ctx, path: &'b str, read: &'b mut Body) -> Verdict<Plan<'b>> {
    let snapshot = Arc::clone(&ctx.snapshot);
    let limits = &snapshot.config.server.limits;
    // The path decides the dialect of every refusal, so it is looked at first, though not yet acted on.
    let found = route::find(&client.req_header().method, path, &snapshot.versions);
    ctx.dialect = if path.starts_with("/mcp/") { Dialect::Native } else { Dialect::Rest };
    // From where.
    judge_headers(client, limits)?;
    let request = client.req_header();
    ctx.arrival.client = snapshot.access.client(address(client), is_tls(client), &request.headers);
    ctx.arrival.shared_with = snapshot.access.judge(ctx.arrival.client, host(client), &request.headers)?;
    if let Some(page) = access::preflight(&request.method, &request.headers) {
        return Ok(Plan::Answer(page));
    }
    if state.shared.life.phase() >= Phase::Draining && !matches!(found, Ok(route) if route.is_page()) {
        return Err(Reject::new(Code::Draining, "this gateway is about to stop").retry_after(Duration::from_secs(1)));
    }
    let route = found?;
    ctx.route = route.label();
    ctx.version = if let Route::Rest { version, .. } = route { snapshot.versions.find(version).cloned() } else { None };
    if route.is_open() {
        return Ok(Plan::Page(route, None));
    }
    // How much already.
    often::hold_back(state, ctx, limits, route)?;
    // Who.
    let caller = who::recognise(state, client, ctx, route).await?;
    // Where to. Whether a server exists is for those to know who may use it.
    let (Route::Rest { server, .. } | Route::Native { server }) = route else {
        audit::tell(ctx, &Decision::admitted(None, None));
        return Ok(Plan::Page(route, Some(caller.principal)));
    };
    caller.enter(ctx, server)?;
    let pool = snapshot.upstream.pool(server).ok_or_else(|| Reject::unknown_server(server))?;
    ctx.told.server = Some(Arc::clone(&pool.server));
    // What.
    if client.req_header().method == Method::POST {
        body::expect(client.req_header(), limits)?;
        ctx.clock.enter(Stage::Body);
        *read = Body::new(body::read(client, limits).await?);
        ctx.clock.enter(Stage::Admit);
    }
    let read: &'b Body = read;
    let checked = if client.req_header().method == Method::POST { Some(strict::check(read.read())?) } else { None };
    often::make_room(state, ctx, limits, &client.req_header().method).await?;
    // Which way.
    let request = client.req_header();
    let http = Http { method: &request.method, path, headers: &request.headers, client: ctx.arrival.client.address };
    let (principal, version) = (Arc::clone(&caller.principal), ctx.version.clone());
    let asked = Arc::clone(&pool);
    let courses = Courses::new(&snapshot, &state.shared.extensions, version.as_deref(), http, &principal, &asked);
    let known = Known { state, caller, pool, courses: &courses, headers: &request.headers };
    match route {
        Route::Rest { form, .. } => {
            let token = who::token(&known.pool, &principal, &request.headers);
            let affinity = who::affinity(&known.pool, &principal, ctx, &request.headers);
            rest(ctx, known, read, checked, form).await.map(|plan| Plan::Rest(Rest { token, affinity, ..plan }))
        }
        _ => native(client, ctx, known, read, checked).await.map(|plan| Plan::Native(Box::new(plan))),
    }
}

async fn rest<'b>(ctx: &mut Ctx, known: Known<'_>, body: &'b Body, checked: Option<Checked<'b>>, form: Form) -> Verdict<Rest<'b>> {
    let course::Rest { payload, mut courses } = course::rest(ctx, known.courses, body, checked)?;
    let mut granted = Granted::default();
    if let rest::Payload::One(request) = &payload {
        ctx.asks(&request.call());
        let meta = request.params.get("_meta").and_then(|meta| serde_json::from_str::<Members<'_>>(meta.get()).ok());
        ctx.adopt(meta.as_ref().and_then(|meta| meta.get("traceparent")));
    }
    let payload = match payload {
        rest::Payload::One(request) => rest::Payload::One(judge(ctx, &known, request, courses.first_mut(), &mut granted).await?),
        rest::Payload::Batch(requests) => {
            let mut judged = Vec::with_capacity(requests.len());
            for (at, request) in requests.into_iter().enumerate() {
                judged.push(match request {
                    Ok(request) => judge(ctx, &known, request, courses.get_mut(at), &mut granted).await,
                    Err(reject) => Err(reject),
                });
            }
            rest::Payload::Batch(judged)
        }
    };
    ctx.notice = granted.notice.take();
    Ok(Rest { granted, pool: known.pool, principal: known.caller.principal, token: None, affinity: None, payload, form, courses })
}

/// May they, and how often: each request on its own, so that one that is refused does not take a batch with it.
async fn judge<'b>(
    ctx: &Ctx,
    known: &Known<'_>,
    request: rest::Request<'b>,
    course: Option<&mut Course>,
    granted: &mut Granted,
) -> Verdict<rest::Request<'b>> {
    let call = request.call();
    permit(ctx, &known.caller, &known.pool, &call)?;
    let choice = course.as_ref().and_then(|course| course.choice.clone());
    if let Some(course) = course {
        course.upstream.then(&custom(ctx, known, Some(&call)).await?);
    }
    audit::tell(ctx, &Decision::admitted(Some(&known.pool.server), Some(&call)));
    granted.join(known.often().admit(ctx, &call, name(choice.as_deref())).await?);
    Ok(request)
}

async fn native<'b>(
    client: &ServerSession,
    ctx: &mut Ctx,
    known: Known<'_>,
    body: &'b Body,
    checked: Option<Checked<'b>>,
) -> Verdict<Native<'b>> {
    let pool = Arc::clone(&known.pool);
    if !pool.takes_native() {
        let detail = format!("`{}` is served over REST only; use POST /api/mcp/{}", pool.server, pool.server);
        return Err(Reject::new(Code::UnknownServer, detail));
    }
    let request = client.req_header();
    headers::tells_one_version(&request.headers)?;
    let asked = checked.map(message::Payload::of).transpose()?;
    let message = asked.as_ref().and_then(Payload::one);
    if asked.as_ref().is_some_and(Payload::is_modern_batch)
        || (asked.is_some() && message.is_none() && headers::version(&request.headers).is_some_and(|version| version > LAST_WITH_BATCHES))
    {
        return Err(Reject::new(Code::InvalidRequest, "this revision has no batches"));
    }
    let call = message.and_then(Message::call);
    if let (Some(call), Era::Modern) = (&call, headers::era(&request.headers, message.and_then(Message::version))) {
        // A modern message is judged by its body, so its headers must not tell otherwise.
        headers::agree(&request.headers, call)?;
    }
    let course::Native { payload, call, mut decided, body } = course::native(ctx, known.courses, asked, call, body)?;
    if let Some(call) = &call {
        ctx.asks(call);
    }
    let parent = payload.as_ref().and_then(Payload::one).and_then(Message::traceparent);
    ctx.adopt(parent);
    let body = ctx.stamp(body, parent);
    // May they: every message of a batch, or none of it is sent, since a part would be another request.
    let batch = payload.as_ref().map(Payload::batched).unwrap_or_default();
    let calls = || call.iter().chain(&batch);
    calls().try_for_each(|call| permit(ctx, &known.caller, &pool, call))?;
    let session = session(known.state, &pool, &known.caller.principal, &request.headers).inspect_err(|reject| {
        audit::tell(ctx, &Decision { server: Some(&pool.server), ..Decision::refused(reject.code, "not a session of the caller's here") });
    })?;
    let none = calls().next().is_none();
    let asked = || calls().map(Some).chain(none.then_some(None));
    if let Some(decided) = &mut decided {
        for call in asked() {
            decided.upstream.then(&custom(ctx, &known, call).await?);
        }
    }
    asked().for_each(|call| audit::tell(ctx, &Decision::admitted(Some(&pool.server), call)));
    // How often: of a batch all or nothing, as with permission.
    let choice = decided.as_ref().and_then(|decided| decided.choice.as_deref());
    // What is no request is one of no method: streams, their ends, and answers to the server.
    let other = Call::other();
    let counted = calls().chain(none.then_some(&other));
    let mut granted = known.often().admit_all(ctx, counted, name(choice)).await?;
    ctx.notice = granted.notice.take();
    if call.as_ref().is_some_and(Call::stays) {
        ctx.place = None;
    }
    // A stream may replay what was asked elsewhere.
    let may_list = request.method == Method::GET || calls().any(|call| !call.is_named);
    let token = who::token(&pool, &known.caller.principal, &request.headers);
    let affinity = who::affinity(&pool, &known.caller.principal, ctx, &request.headers);
    let principal = known.caller.principal;
    let message = payload.and_then(Payload::into_one);
    Ok(Native { granted, pool, principal, token, affinity, call, message, may_list, session, body, decided })
}

/// What the rule is called that chose where a request goes.
fn name(choice: Option<&Choice>) -> Option<&str> {
    choice?.route.as_deref()
}

/// What middleware compiled in says to a call that is permitted: headers for the server, or a refusal.
async fn custom(ctx: &Ctx, known: &Known<'_>, call: Option<&Call<'_>>) -> Verdict<Headers> {
    let asked = custom::request(&known.state.shared.extensions.middleware, &known.courses.asking(call)).await;
    asked.inspect_err(|reject| {
        let refused = Decision::refused(reject.code, "refused by middleware");
        audit::tell(ctx, &Decision { server: Some(&known.pool.server), call, ..refused });
    })
}

/// May they, and are the arguments such as the tool takes.
fn permit(ctx: &Ctx, caller: &Caller, pool: &Pool, call: &Call<'_>) -> Verdict<()> {
    caller.may(ctx, &pool.server, call)?;
    if ctx.snapshot.config.server.validate_arguments { pool.check_arguments(call) } else { Ok(()) }
}

/// Opens the session id the client holds. One we did not give, or gave for another server or to somebody else, is
/// answered as a session that ended, which makes every client initialize anew.
fn session(state: &State, pool: &Pool, principal: &Principal, headers: &HeaderMap) -> Verdict<Option<Session>> {
    let Some(token) = headers.get(&headers::SESSION) else { return Ok(None) };
    let opened = token.to_str().ok().and_then(|token| state.shared.sealer.open(&pool.server, principal.binding(), token));
    match opened {
        Some(session) => Ok(Some(session)),
        None => Err(Reject::new(Code::UnknownSession, "unknown session; initialize again")),
    }
}

fn judge_headers(client: &ServerSession, limits: &Limits) -> Verdict<()> {
    if client.req_header().version == http::Version::HTTP_11 && host(client).is_none() {
        return Err(Reject::new(Code::InvalidRequest, "an HTTP/1.1 request has exactly one Host header"));
    }
    let headers = &client.req_header().headers;
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if size > limits.headers {
        let detail = format!("the request headers exceed {} bytes (server.limits.headers)", limits.headers);
        return Err(Reject::new(Code::HeadersTooLarge, detail));
    }
    Ok(())
}

fn address(client: &ServerSession) -> Option<std::net::IpAddr> {
    Some(client.client_addr()?.as_inet()?.ip())
}

fn is_tls(client: &ServerSession) -> bool {
    client.digest().is_some_and(|digest| digest.ssl_digest.is_some())
}

/// `Host`, or `:authority` on HTTP/2; `None` when there is none or more than one.
fn host(client: &ServerSession) -> Option<&str> {
    let request = client.req_header();
    let mut hosts = request.headers.get_all(http::header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) => request.uri.authority().map(http::uri::Authority::as_str),
        _ => None,
    }
}
