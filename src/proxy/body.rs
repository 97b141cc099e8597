//! Reading a request body whole, within its limits, and letting go of one that will not be read.

use std::sync::OnceLock;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

use crate::config::Limits;
use crate::copy;
use crate::reject::{Code, Reject, Verdict};

/// The longest a client may take to send a body, however large the request's own time is: a slow sender holds a
/// connection and its buffers all that time.
const SLOWEST: Duration = Duration::from_secs(30);
/// What is read of an unwanted body, so that the client sees our answer instead of a reset.
const DRAIN: usize = 256 << 10;
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// How long a client that is still sending is listened to after its answer, in silence and in all.
const LINGER_SILENT: Duration = Duration::from_secs(2);
const LINGER: Duration = Duration::from_secs(10);
/// What it may send meanwhile.
const LINGER_BYTES: usize = 64 << 20;

/// A request's body: as it was read, and as the operator's rules changed it.
#[derive(Default)]
pub struct Body {
    read: Bytes,
    changed: OnceLock<Bytes>,
}

impl Body {
    pub fn new(read: Bytes) -> Self {
        Self { read, changed: OnceLock::new() }
    }

    /// As the caller sent it.
    pub fn read(&self) -> &Bytes {
        &self.read
    }

    /// Keeps it as it was changed, for the plan to borrow from as well.
    pub fn change(&self, body: Bytes) -> &Bytes {
        self.changed.get_or_init(|| body)
    }
}

/// Judges the headers that describe the body.
///
/// # Errors
/// `unsupported_media_type` or `body_too_large`.
pub fn expect(request: &RequestHeader, limits: &Limits) -> Verdict<()> {
    let value = |name| request.headers.get(name).map(http::HeaderValue::as_bytes);
    if !value(header::CONTENT_TYPE).is_some_and(is_json) {
        return Err(Reject::new(Code::UnsupportedMediaType, "Content-Type must be application/json"));
    }
    if value(header::CONTENT_ENCODING).is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(Reject::new(Code::UnsupportedMediaType, "compressed request bodies are not accepted"));
    }
    if announced(request).is_some_and(|length| length > limits.body) {
        return Err(too_large(limits));
    }
    Ok(())
}

fn is_json(kind: &[u8]) -> bool {
    let essence = kind.split(|byte| *byte == b';').next().unwrap_or(kind);
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

fn announced(request: &RequestHeader) -> Option<usize> {
    request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(limits: &Limits) -> Reject {
    Reject::new(Code::BodyTooLarge, format!("the request body exceeds {} bytes (server.limits.body)", limits.body))
}

/// Reads the whole body.
///
/// # Errors
/// `body_too_large`, `request_timeout`, or `invalid_request` when the client breaks off.
pub async fn read(client: &mut ServerSession, limits: &Limits) -> Verdict<Bytes> {
    if waits_for_continue(client) {
        // Pingora never answers this for us.
        client.write_continue_response().await.map_err(|e| Reject::new(Code::InvalidRequest, "the client went away").because(e))?;
    }
    let mut gathered = std::pin::pin!(gather(client, limits));
    // What came with the header needs no clock.
    if let Poll::Ready(read) = futures::poll!(&mut gathered) {
        return read;
    }
    let patience = SLOWEST.min(limits.request_timeout);
    // H2 bodies have no read timeout of their own, hence one around the whole.
    tokio::time::timeout(patience, gathered).await.unwrap_or_else(|_| {
        Err(Reject::new(Code::RequestTimeout, format!("the request body did not arrive within {} s", patience.as_secs())))
    })
}

async fn gather(client: &mut ServerSession, limits: &Limits) -> Verdict<Bytes> {
    let broken = |e| Reject::new(Code::InvalidRequest, "the request body broke off").because(e);
    let Some(first) = client.read_request_body().await.map_err(broken)? else { return Ok(Bytes::new()) };
    if first.len() > limits.body {
        return Err(too_large(limits));
    }
    let mut whole = BytesMut::new();
    while let Some(chunk) = client.read_request_body().await.map_err(broken)? {
        if first.len().max(whole.len()) + chunk.len() > limits.body {
            return Err(too_large(limits));
        }
        if whole.is_empty() {
            whole.reserve(announced(client.req_header()).unwrap_or_default().min(limits.body));
            copy::append(&mut whole, &first);
        }
        copy::append(&mut whole, &chunk);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

/// Reads on a little before a refusal is written: what is read to its end keeps the connection.
pub async fn drain(client: &mut ServerSession) {
    let whole = tokio::time::timeout(DRAIN_TIME, discard(client, DRAIN)).await.unwrap_or(false);
    if !whole {
        client.set_keepalive(None);
    }
}

/// Listens on to a client that has its answer and is still sending. Closing on unread bytes resets the connection, and
/// the reset may overtake the answer: the client would never see why it was refused (RFC 9112 §9.6; what nginx calls
/// `lingering_close`).
pub async fn linger(client: &mut ServerSession) {
    // Who waits for `100 Continue` sends nothing more.
    if client.is_body_done() || client.response_written().is_none() || waits_for_continue(client) {
        return;
    }
    let _ = tokio::time::timeout(LINGER, async {
        let mut left = LINGER_BYTES;
        while let Ok(Ok(Some(piece))) = tokio::time::timeout(LINGER_SILENT, client.read_request_body()).await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    })
    .await;
}

/// Whether the client sends its body only when told to (RFC 9110 §10.1.1).
pub fn waits_for_continue(client: &ServerSession) -> bool {
    client.req_header().headers.get(header::EXPECT).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// Reads at most so many bytes; whether that was all there is.
async fn discard(client: &mut ServerSession, most: usize) -> bool {
    let mut discarded = 0;
    while discarded <= most {
        match client.read_request_body().await {
            Ok(Some(chunk)) => discarded += chunk.len(),
            Ok(None) => return true,
            // What follows a broken framing is not the next request, whatever it looks like.
            Err(_) => return false,
        }
    }
    false
}
