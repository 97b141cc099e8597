//! Where answers meet content codings (`server.compression`): whether an answer may be coded and its caller takes one, and
//! the headers that say so. What is there as a whole is coded at once up to 64 KiB and in pieces above, what is relayed in
//! pieces as they come (`exchange/relay`), so that no answer is held for it a second time. Event streams never are: what
//! they say must not wait.

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::response::Parts;
use pingora::protocols::http::ServerSession;
use pingora::{ErrorType, OrErr as _, Result};

use super::ctx::Ctx;
use super::reply::{PIECE, bodiless, frame, number, pieces};
use crate::coding::accept::Accepted;
use crate::coding::encoder::Encoder;
use crate::coding::{Coding, Level};

/// Fields that speak of the very bytes of a body, which are others once it is coded.
const OF_BYTES: [HeaderName; 5] = [
    header::CONTENT_RANGE,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];
const ACCEPT_ENCODING: HeaderValue = HeaderValue::from_static("Accept-Encoding");
const BUG: &str = "a content coding failed";

/// A coding that the caller of an answer takes.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    coding: Coding,
    level: Level,
    /// Whether the caller refuses the bytes as they are.
    only: bool,
}

/// What was put into a coding, for the access log.
#[derive(Debug, Clone, Copy)]
pub struct Coded {
    pub coding: Coding,
    /// Bytes afterwards.
    pub bytes: usize,
}

/// Decides about an answer whose header is otherwise as it will be; `length` is that of the body, where it is known. What
/// could have been coded says so to caches (`Vary`), also where it is not.
pub fn choose(head: &mut Parts, client: &ServerSession, ctx: &Ctx, length: Option<usize>) -> Option<Choice> {
    let conf = ctx.snapshot.config.server.compression.as_ref()?;
    if !may_be_coded(head) {
        return None;
    }
    if !varies(head) {
        head.headers.append(header::VARY, ACCEPT_ENCODING);
    }
    let request = client.req_header();
    let fields = request.headers.get_all(header::ACCEPT_ENCODING);
    // HTTP/1.0 knows no chunks, without which a part passes for the whole.
    if fields.iter().next().is_none() || request.version < http::Version::HTTP_11 || is_kept_as_it_is(&request.headers) {
        return None;
    }
    let accepted = Accepted::read(fields.iter().map(HeaderValue::as_bytes));
    let only = accepted.refuses_identity();
    if length.is_some_and(|length| length == 0 || (length < conf.min_size && !only)) {
        return None;
    }
    accepted.choose(&conf.algorithms).map(|coding| Choice { coding, level: conf.level, only })
}

/// Makes the header that of a coded answer of unknown length, and gives what codes it.
///
/// # Errors
/// When there is no memory.
fn begin(head: &mut Parts, client: &ServerSession, choice: Choice, length: Option<usize>) -> Result<Encoder> {
    let encoder = Encoder::new(choice.coding, choice.level, length).or_err(ErrorType::InternalError, BUG)?;
    say(head, choice.coding);
    frame(head, client);
    Ok(encoder)
}

/// What codes an answer that is relayed, if anything does; `length` is that of the body, where its server tells it.
///
/// # Errors
/// As [`begin`].
pub fn relayed(head: &mut Parts, client: &ServerSession, ctx: &Ctx, length: Option<usize>) -> Result<Option<Box<Encoder>>> {
    let Some(choice) = choose(head, client, ctx, length) else { return Ok(None) };
    Ok(Some(Box::new(begin(head, client, choice, length)?)))
}

/// Notes what became of an answer.
pub fn note(ctx: &mut Ctx, encoder: &Encoder) {
    let (before, after) = encoder.bytes();
    ctx.told.bytes = before;
    ctx.told.coded = Some(Coded { coding: encoder.coding(), bytes: after });
    ctx.state().shared.metrics.compressed(encoder.coding(), before, after);
}

/// Writes an answer that is there as a whole.
///
/// # Errors
/// When the client is gone.
pub async fn write(client: &mut ServerSession, ctx: &mut Ctx, mut head: Parts, body: Bytes, choice: Choice) -> Result<()> {
    if client.req_header().method == http::Method::HEAD {
        // How long it would be is known only once it is coded (RFC 9110 §9.3.2).
        head.headers.remove(header::CONTENT_LENGTH);
        client.write_response_header(Box::new(head.into())).await?;
        return client.write_response_body(Bytes::new(), true).await;
    }
    if body.len() > PIECE {
        return long(client, ctx, head, body, choice).await;
    }
    let mut encoder = Encoder::new(choice.coding, choice.level, Some(body.len())).or_err(ErrorType::InternalError, BUG)?;
    let coded = at_once(&mut encoder, &body).or_err(ErrorType::InternalError, BUG)?;
    if coded.len() >= body.len() && !choice.only {
        client.write_response_header(Box::new(head.into())).await?;
        return pieces(client, body).await;
    }
    say(&mut head, choice.coding);
    head.headers.insert(header::CONTENT_LENGTH, number(coded.len()));
    note(ctx, &encoder);
    client.write_response_header(Box::new(head.into())).await?;
    client.write_response_body(coded, true).await
}

fn at_once(encoder: &mut Encoder, body: &[u8]) -> std::io::Result<Bytes> {
    let begun = encoder.push(body)?;
    let rest = encoder.finish()?;
    Ok(if begun.is_empty() { rest } else { [begun, rest].concat().into() })
}

/// Codes and writes piece by piece: a long answer takes a worker's time from others, and memory for its coded form.
async fn long(client: &mut ServerSession, ctx: &mut Ctx, mut head: Parts, mut body: Bytes, choice: Choice) -> Result<()> {
    let mut encoder = begin(&mut head, client, choice, Some(body.len()))?;
    client.write_response_header(Box::new(head.into())).await?;
    while !body.is_empty() {
        let piece = body.split_to(PIECE.min(body.len()));
        let coded = encoder.push(&piece).or_err(ErrorType::InternalError, BUG)?;
        if !coded.is_empty() {
            client.write_response_body(coded, false).await?;
        }
        tokio::task::yield_now().await;
    }
    let rest = encoder.finish().or_err(ErrorType::InternalError, BUG)?;
    note(ctx, &encoder);
    client.write_response_body(rest, true).await
}

/// The fields of a coded answer (RFC 9110 §8.4). Its length is another, and a strong entity tag would be that of other
/// bytes (§8.8.3).
fn say(head: &mut Parts, coding: Coding) {
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.remove(header::ACCEPT_RANGES);
    let tag = head.headers.get(header::ETAG).map(HeaderValue::as_bytes).filter(|tag| !tag.starts_with(b"W/"));
    if let Some(weak) = tag.and_then(|tag| HeaderValue::from_bytes(&[b"W/", tag].concat()).ok()) {
        head.headers.insert(header::ETAG, weak);
    }
}

fn may_be_coded(head: &Parts) -> bool {
    !bodiless(head.status)
        && head.status != http::StatusCode::PARTIAL_CONTENT
        && !head.headers.contains_key(header::CONTENT_ENCODING)
        && !OF_BYTES.iter().any(|name| head.headers.contains_key(name))
        && !is_kept_as_it_is(&head.headers)
        && head.headers.get(header::CONTENT_TYPE).is_some_and(|kind| is_text(kind.as_bytes()))
}

/// Whether a media type is one of text, which is what codings shorten; and not one of events.
fn is_text(kind: &[u8]) -> bool {
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is = |known: &[u8]| kind.eq_ignore_ascii_case(known);
    let ends = |known: &[u8]| kind.len() > known.len() && kind[kind.len() - known.len()..].eq_ignore_ascii_case(known);
    let is_any_text = kind.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"text/")) && !is(b"text/event-stream");
    is_any_text || is(b"application/json") || is(b"application/javascript") || is(b"application/xml") || ends(b"+json") || ends(b"+xml")
}

/// Whether `Cache-Control` forbids to change the bytes (RFC 9111 §5.2.1.6, §5.2.2.6).
fn is_kept_as_it_is(headers: &http::HeaderMap) -> bool {
    let directives = headers.get_all(header::CACHE_CONTROL).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    directives.map(<[u8]>::trim_ascii).any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// Whether `Vary` names it already.
fn varies(head: &Parts) -> bool {
    let names = head.headers.get_all(header::VARY).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    names.map(<[u8]>::trim_ascii).any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(status: u16, fields: &[(&'static str, &str)]) -> Parts {
        let (mut head, ()) = http::Response::builder().status(status).body(()).unwrap().into_parts();
        for (name, value) in fields {
            head.headers.append(*name, value.parse().unwrap());
        }
        head
    }

    #[test]
    fn text_may_be_coded_and_events_and_what_is_coded_or_bound_to_its_bytes_may_not() {
        for kind in [
            "application/json",
            "APPLICATION/JSON; charset=utf-8",
            "application/problem+json",
            "text/plain; version=0.0.4",
            "text/html",
            "text/javascript",
            "image/svg+xml",
        ] {
            assert!(may_be_coded(&head(200, &[("content-type", kind)])), "{kind}");
        }
        for kind in ["text/event-stream", "Text/Event-Stream ; charset=utf-8", "image/png", "application/octet-stream", "+json", ""] {
            assert!(!may_be_coded(&head(200, &[("content-type", kind)])), "{kind}");
        }
        let json = ("content-type", "application/json");
        assert!(!may_be_coded(&head(200, &[])), "nobody says what it is");
        for status in [204, 206, 304] {
            assert!(!may_be_coded(&head(status, &[json])), "{status}");
        }
        for field in [
            ("content-encoding", "gzip"),
            ("content-encoding", "identity"),
            ("cache-control", "max-age=1, No-Transform"),
            ("content-digest", "sha-256=:AAAA:"),
            ("content-range", "bytes 0-1/2"),
        ] {
            assert!(!may_be_coded(&head(200, &[json, field])), "{field:?}");
        }
        assert!(may_be_coded(&head(404, &[json, ("cache-control", "no-store, max-age=0")])));
    }

    #[test]
    fn a_coded_answer_has_no_length_no_ranges_and_a_weak_tag() {
        let mut strong = head(200, &[("etag", "\"abc\""), ("content-length", "10"), ("accept-ranges", "bytes")]);
        say(&mut strong, Coding::Brotli);
        assert_eq!(
            (&strong.headers[header::ETAG], &strong.headers[header::CONTENT_ENCODING]),
            (&"W/\"abc\"".parse().unwrap(), &"br".parse().unwrap())
        );
        assert!(!strong.headers.contains_key(header::CONTENT_LENGTH) && !strong.headers.contains_key(header::ACCEPT_RANGES));
        let mut weak = head(200, &[("etag", "W/\"abc\"")]);
        say(&mut weak, Coding::Gzip);
        assert_eq!(weak.headers[header::ETAG], "W/\"abc\"");
    }

    #[test]
    fn what_varies_already_is_not_told_twice() {
        for value in ["Accept-Encoding", "origin, ACCEPT-ENCODING", "*"] {
            assert!(varies(&head(200, &[("vary", "Origin"), ("vary", value)])), "{value}");
        }
        assert!(!varies(&head(200, &[("vary", "Origin, Accept")])));
    }
}
