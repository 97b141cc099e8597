//! The page: what is asked of every request, in this order and no other. From where, how much already, who, where to, what,
//! may they, how often; then the lane. Each stage takes what an earlier one produced, so the compiler
//! keeps the order: nothing can be permitted before it is known who asks, and nothing is sent that was not judged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use pingora::protocols::http::ServerSession;

use super::audit::{self, Decision};
use super::body;
use super::ctx::{Ctx, Dialect};
use super::often::{self, Often};
use super::who::{self, Caller};
use crate::access;
use crate::call::{Call, Era};
use crate::config::Limits;
use crate::limit::Granted;
use crate::mcp::message::{Message, Payload};
use crate::mcp::rest::{self, Form};
use crate::mcp::session::Session;
use crate::mcp::{headers, message, strict};
use crate::page::Page;
use crate::principal::Principal;
use crate::reject::{Code, Reject, Verdict};
use crate::route::{self, Route};
use crate::snapshot::{Phase, State};
use crate::upstream::pool::Pool;

/// What is to be done for a request that may go on.
pub enum Plan<'b> {
    /// Pass through to the server (native POST, GET and DELETE).
    Native(Native<'b>),
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
    /// Whether the answer may list what the caller is not to see.
    pub may_list: bool,
    /// The upstream session it belongs to.
    pub session: Option<Session>,
    /// What was judged is what is sent: the body as it was read.
    pub body: Bytes,
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
}

/// The only revision with batches; it has no version header, so most requests of it are taken for it by default.
const LAST_WITH_BATCHES: &str = "2025-03-26";

/// Judges a request. `path` is its path; `read` is where its body is put for the plan to borrow from.
///
/// # Errors
/// The refusal for the client.
pub async fn admit<'b>(state: &State, client: &mut ServerSession, ctx: &mut Ctx, path: &'b str, read: &'b mut Bytes) -> Verdict<Plan<'b>> {
    let snapshot = Arc::clone(&ctx.snapshot);
    let limits = &snapshot.config.server.limits;
    // The path decides the dialect of every refusal, so it is looked at first, though not yet acted on.
    let found = route::find(&client.req_header().method, path);
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
    if route.is_open() {
        return Ok(Plan::Page(route, None));
    }
    // How much already.
    often::make_room(state, ctx, limits, &client.req_header().method, route).await?;
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
        *read = body::read(client, limits).await?;
        strict::check(read)?;
    }
    let read: &'b Bytes = read;
    match route {
        Route::Rest { form, .. } => {
            let token = who::token(&pool, &caller.principal, &client.req_header().headers);
            let affinity = who::affinity(&pool, &caller.principal, ctx, &client.req_header().headers);
            rest(state, client, ctx, caller, pool, read, form).await.map(|plan| Plan::Rest(Rest { token, affinity, ..plan }))
        }
        _ => native(state, client, ctx, caller, pool, read).await.map(Plan::Native),
    }
}

async fn rest<'b>(
    state: &State,
    client: &ServerSession,
    ctx: &mut Ctx,
    caller: Caller,
    pool: Arc<Pool>,
    body: &'b Bytes,
    form: Form,
) -> Verdict<Rest<'b>> {
    // May they: each request on its own, so that one that is refused does not take a batch with it.
    let judged = |ctx: &Ctx, request: rest::Request<'b>| {
        let call = request.call();
        permit(ctx, &caller, &pool, &call)?;
        audit::tell(ctx, &Decision::admitted(Some(&pool.server), Some(&call)));
        Ok(request)
    };
    // How often.
    let often = Often { state, headers: &client.req_header().headers, principal: &caller.principal, server: &pool.server };
    let mut granted = Granted::default();
    let payload = match rest::Payload::read(body)? {
        rest::Payload::One(request) => {
            let request = judged(ctx, request)?;
            granted = often.admit(ctx, &request.call()).await?;
            rest::Payload::One(request)
        }
        rest::Payload::Batch(requests) => {
            let mut admitted = Vec::with_capacity(requests.len());
            for request in requests {
                let request = match request.and_then(|request| judged(ctx, request)) {
                    Ok(request) => often.admit(ctx, &request.call()).await.map(|more| {
                        granted.join(more);
                        request
                    }),
                    refused => refused,
                };
                admitted.push(request);
            }
            rest::Payload::Batch(admitted)
        }
    };
    ctx.notice = granted.notice.take();
    Ok(Rest { granted, pool, principal: caller.principal, token: None, affinity: None, payload, form })
}

async fn native<'b>(
    state: &State,
    client: &ServerSession,
    ctx: &mut Ctx,
    caller: Caller,
    pool: Arc<Pool>,
    body: &'b Bytes,
) -> Verdict<Native<'b>> {
    if !pool.takes_native() {
        let detail = format!("`{}` is served over REST only; use POST /api/mcp/{}", pool.server, pool.server);
        return Err(Reject::new(Code::UnknownServer, detail));
    }
    let request = client.req_header();
    headers::tells_one_version(&request.headers)?;
    let payload = if request.method == Method::POST { Some(message::Payload::read(body)?) } else { None };
    let message = payload.as_ref().and_then(Payload::one);
    if payload.as_ref().is_some_and(Payload::is_modern_batch)
        || (payload.is_some() && message.is_none() && headers::version(&request.headers).is_some_and(|version| version > LAST_WITH_BATCHES))
    {
        return Err(Reject::new(Code::InvalidRequest, "this revision has no batches"));
    }
    let call = message.and_then(Message::call);
    if let (Some(call), Era::Modern) = (&call, headers::era(&request.headers, message.and_then(Message::version))) {
        // A modern message is judged by its body, so its headers must not tell otherwise.
        headers::agree(&request.headers, call)?;
    }
    // May they: every message of a batch, or none of it is sent, since a part would be another request.
    let batch = payload.as_ref().map(Payload::batched).unwrap_or_default();
    let calls = || call.iter().chain(&batch);
    calls().try_for_each(|call| permit(ctx, &caller, &pool, call))?;
    let session = session(state, &pool, &caller.principal, &request.headers).inspect_err(|reject| {
        audit::tell(ctx, &Decision { server: Some(&pool.server), ..Decision::refused(reject.code, "not a session of the caller's here") });
    })?;
    calls().for_each(|call| audit::tell(ctx, &Decision::admitted(Some(&pool.server), Some(call))));
    if calls().next().is_none() {
        audit::tell(ctx, &Decision::admitted(Some(&pool.server), None));
    }
    // How often: of a batch all or nothing, as with permission.
    let often = Often { state, headers: &request.headers, principal: &caller.principal, server: &pool.server };
    let mut granted = often.admit_all(ctx, calls()).await?;
    ctx.notice = granted.notice.take();
    if call.as_ref().is_some_and(Call::stays) {
        ctx.place = None;
    }
    // A stream may replay what was asked elsewhere.
    let may_list = request.method == Method::GET || calls().any(|call| !call.is_named);
    let token = who::token(&pool, &caller.principal, &request.headers);
    let affinity = who::affinity(&pool, &caller.principal, ctx, &request.headers);
    Ok(Native { granted, pool, principal: caller.principal, token, affinity, call, may_list, session, body: body.clone() })
}

/// May they, and are the arguments such as the tool takes.
fn permit(ctx: &Ctx, caller: &Caller, pool: &Pool, call: &Call<'_>) -> Verdict<()> {
    caller.may(ctx, &pool.server, call)?;
    if ctx.snapshot.config.server.validate_arguments { pool.check_arguments(call) } else { Ok(()) }
}

/// Opens the session id the client holds. One we did not give, or gave for another server or to somebody else, is
/// answered as a session that ended, which makes every client initialize anew.
fn session(state: &State, pool: &Pool, principal: &Principal, headers: &HeaderMap) -> Verdict<Option<Session>> {
    let Some(token) = headers.get(headers::SESSION) else { return Ok(None) };
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
