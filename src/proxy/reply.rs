//! Writing what we answer ourselves: pages, envelopes, refusals.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use http::response::Parts;
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType, OrErr as _, Result};

use super::ctx::{Ctx, Dialect};
use super::{coded, custom, refused};
use crate::access;
use crate::egress::Incoming;
use crate::mcp::message;
use crate::observe::clock::Stage;
use crate::observe::trace::REQUEST_ID;
use crate::page::Page;
use crate::reject::Reject;
use crate::turn;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// Fields that an answer may have from us: its id, what limits and cache say, `Vary`, and what Pingora adds.
const OURS: usize = 8;
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
/// Written at once, or up to twice as much where that is the rest: each write may wake the client.
pub const PIECE: usize = 64 << 10;
const EVENTS: &str = "text/event-stream";

/// Writes a whole answer and keeps the connection.
///
/// # Errors
/// When the client is gone.
pub async fn page(client: &mut ServerSession, ctx: &mut Ctx, page: Page) -> Result<()> {
    let status = StatusCode::from_u16(page.status).or_err(ErrorType::InternalError, "a status of our own")?;
    let mut head = begin(status, 2 + page.headers.len());
    head.headers.insert(header::CONTENT_TYPE, content_type(page.content_type)?);
    head.headers.insert(header::CONTENT_LENGTH, number(page.body.len()));
    head.headers.insert(&REQUEST_ID, ctx.arrival.request_id.clone());
    for (name, value) in page.headers {
        head.headers.append(name, value);
    }
    dress(&mut head, ctx);
    ctx.farewell(client);
    whole(client, ctx, head, page.body).await
}

/// Writes an answer that is there as a whole, its header dressed.
///
/// # Errors
/// When the client is gone.
pub async fn whole(client: &mut ServerSession, ctx: &mut Ctx, mut head: Parts, body: Bytes) -> Result<()> {
    let now = Instant::now();
    ctx.clock.enter_at(Stage::Answer, now);
    ctx.told.bytes = body.len();
    if let Some(choice) = coded::choose(&mut head, client, ctx, Some(body.len())) {
        // Boxed: its future is large, and most answers need none.
        return Box::pin(coded::write(client, ctx, head, body, choice)).await;
    }
    let is_head = client.req_header().method == http::Method::HEAD;
    // Not sent yet: that is what is worth waiting with, and all else is done while it is at hand.
    client.write_response_header(Box::new(head.into())).await?;
    turn::others_first(now).await;
    pieces(client, if is_head { Bytes::new() } else { body }).await
}

/// Writes a body in pieces, because the time a slow reader has is given to each write.
///
/// # Errors
/// When the client is gone.
pub async fn pieces(client: &mut ServerSession, mut rest: Bytes) -> Result<()> {
    while rest.len() > 2 * PIECE {
        client.write_response_body(rest.split_to(PIECE), false).await?;
    }
    client.write_response_body(rest, true).await
}

/// The end of a request whose client went away: nobody is left to be answered.
pub fn left() -> Box<Error> {
    Error::explain(ErrorType::ConnectionClosed, "the client left before the end").into_down()
}

/// Writes a refusal in the caller's dialect. `body` is what was read of the request, for the caller's id.
///
/// # Errors
/// When the client is gone.
pub async fn refuse(client: &mut ServerSession, ctx: &mut Ctx, reject: &Reject, body: &[u8]) -> Result<()> {
    ctx.clock.enter(Stage::Answer);
    // A client that waits for `100 Continue` sends no body now, and one that was read needs no draining.
    if super::body::waits_for_continue(client) && !client.is_body_done() {
        client.set_keepalive(None);
    } else {
        super::body::drain(client).await;
    }
    ctx.told.code = Some(reject.code.name());
    refused::whole(client, ctx, reject);
    let (content_type, text) = match ctx.dialect {
        Dialect::Rest => (PROBLEM, reject.problem(ctx.request_id())),
        Dialect::Native => (JSON, reject.rpc(message::id_of(body))),
    };
    let mut headers = Vec::new();
    if let Some(allow) = reject.allow {
        headers.push((header::ALLOW, HeaderValue::from_static(allow)));
    }
    if let Some(challenge) = reject.challenge.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
        headers.push((header::WWW_AUTHENTICATE, challenge));
    }
    if let Some(seconds) = reject.retry_seconds() {
        headers.push((header::RETRY_AFTER, HeaderValue::from(seconds)));
    }
    if let Some(limit) = &reject.limit {
        ctx.notice = None;
        ctx.told.limit = Some(limit.rule.clone());
        headers.extend(limit.headers.iter().flat_map(|(policy, state)| [(POLICY, policy.clone()), (LIMIT, state.clone())]));
    }
    page(client, ctx, Page { status: reject.code.status(), content_type: content_type.into(), headers, body: text.into() }).await
}

fn content_type(text: Cow<'static, str>) -> Result<HeaderValue> {
    match text {
        Cow::Borrowed(text) => Ok(HeaderValue::from_static(text)),
        Cow::Owned(text) => HeaderValue::from_str(&text).or_err(ErrorType::InternalError, "a content type of our own"),
    }
}

/// A number as the value of a header; `HeaderValue::from` allocates twice for it.
pub fn number(number: impl itoa::Integer) -> HeaderValue {
    HeaderValue::from_str(itoa::Buffer::new().format(number)).expect("digits")
}

/// A header with room for so many fields beside those that any answer of ours may have.
fn begin(status: StatusCode, fields: usize) -> Parts {
    let mut head = http::Response::new(()).into_parts().0;
    head.status = status;
    head.headers.reserve(OURS + fields);
    head
}

/// The header of an answer that is relayed: the upstream's, less what belongs to its connection.
pub fn relayed(incoming: &Incoming<'_>, ctx: &Ctx, client: &ServerSession) -> Parts {
    let theirs = incoming.headers();
    let nominated = nominated(theirs);
    let mut head = begin(incoming.status(), theirs.len());
    for (name, value) in theirs.iter().filter(|(name, _)| !is_private(name) && !nominated.contains(name)) {
        head.headers.append(name.clone(), value.clone());
    }
    head.headers.insert(&REQUEST_ID, ctx.arrival.request_id.clone());
    dress(&mut head, ctx);
    frame(&mut head, client);
    head
}

/// The header of an event stream of our own.
pub fn events(ctx: &Ctx, client: &ServerSession) -> Parts {
    let mut head = begin(StatusCode::OK, 2);
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENTS));
    head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    head.headers.insert(&REQUEST_ID, ctx.arrival.request_id.clone());
    dress(&mut head, ctx);
    frame(&mut head, client);
    head
}

/// What every answer gets: leave for a page of a listed origin to read it (CORS), what the API version tells of its end,
/// what the operator's rules change, what middleware adds, and how near the caller came to a limit.
fn dress(head: &mut Parts, ctx: &Ctx) {
    let headers = &mut head.headers;
    if let Some(notice) = &ctx.notice {
        headers.insert(POLICY, notice.policy());
        headers.insert(LIMIT, notice.state());
    }
    if let Some(cached) = &ctx.cached {
        cached.tell(headers);
    }
    for (name, value) in ctx.arrival.shared_with.iter().flat_map(access::shared_with) {
        headers.append(name, value);
    }
    for (name, value) in ctx.version.iter().flat_map(|version| &version.headers) {
        headers.append(name, value.clone());
    }
    for name in &ctx.downstream.remove {
        headers.remove(name);
    }
    for (name, value) in &ctx.downstream.set {
        headers.insert(name, value.clone());
    }
    custom::response(ctx, head);
}

/// Without a length an H1 body needs chunks, or it would end with the connection.
pub fn frame(head: &mut Parts, client: &ServerSession) {
    let bodiless = bodiless(head.status);
    if bodiless {
        // A length would announce a body that must not come (RFC 9110 §8.6).
        head.headers.remove(header::CONTENT_LENGTH);
    }
    let is_h11 = client.req_header().version == http::Version::HTTP_11;
    if is_h11 && !bodiless && !head.headers.contains_key(header::CONTENT_LENGTH) {
        head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Whether an answer of this status has no body.
pub fn bodiless(status: StatusCode) -> bool {
    matches!(status.as_u16(), 100..=199 | 204 | 304)
}

/// What stays behind: what concerns one connection only (RFC 9110 §7.6.1), and what would speak to the browser in our
/// name or about what is behind us.
fn is_private(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "proxy-authenticate" | "te" | "trailer" | "transfer-encoding" | "upgrade"
    ) || matches!(
        name,
        "set-cookie" | "clear-site-data" | "strict-transport-security" | "alt-svc" | "server" | "x-powered-by" | "www-authenticate"
    ) || name.starts_with("access-control-")
}

/// The headers that `Connection` declares to be of its kind.
fn nominated(headers: &http::HeaderMap) -> Vec<HeaderName> {
    let lists = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = lists.flat_map(|list| list.split(',')).map(str::trim);
    // A sender cannot declare away what frames the message.
    names.filter(|name| !name.eq_ignore_ascii_case("content-length")).filter_map(|name| name.parse().ok()).collect()
}
