//! Our own outgoing HTTP/1.1 over Pingora's pooled transport: one request, one answer, deadlines on every step, and an
//! error that tells whether anything was sent. The request path and the background probes use the same code.
//!
//! Header and body go out in one write: Pingora's client session flushes the header by itself, which costs a system
//! call here and a packet at the backend for every request (measured: three sends for each proxied call, now two).

pub mod dial;
pub mod web;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{self, AsHeaderName, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::time::timeout;
use pingora::upstreams::peer::{HttpPeer, Peer as _};
use pingora::{Error, ErrorType};
use tokio::io::AsyncWriteExt as _;

use crate::copy;
use crate::observe::trace::Traceparent;

/// How we call ourselves.
pub const AGENT: &str = concat!("mcp-gateway/", env!("CARGO_PKG_VERSION"));
/// What tells our own admin listener, and other gateways, who asks (RFC 9110 §7.6.3).
const VIA: &[u8] = b"via: 1.1 mcp-gateway\r\n";
/// Bodies up to this size are copied behind the header to go out in the same write.
const TOGETHER: usize = 16 << 10;

/// How an exchange failed; what matters is whether the backend may have executed the request.
#[derive(Debug)]
pub enum Failure {
    /// Nothing reached the backend: safe to try elsewhere.
    NotSent(String),
    /// The backend was given the request and broke off.
    Broken(String),
    /// The backend was given the request and did not answer in time.
    TimedOut,
    /// The answer is larger than we accept.
    TooLarge,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(cause) => write!(f, "cannot connect: {cause}"),
            Self::Broken(cause) => write!(f, "connection broken: {cause}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::TooLarge => f.write_str("answer too large"),
        }
    }
}

/// A dial target with the key of its idle connections, computed once.
#[derive(Debug, Clone)]
pub struct Target {
    pub peer: HttpPeer,
    pub address: SocketAddr,
    key: u64,
}

impl Target {
    /// `address` is that of `peer`.
    pub fn new(peer: HttpPeer, address: SocketAddr) -> Arc<Self> {
        let key = peer.reuse_hash();
        Arc::new(Self { peer, address, key })
    }
}

/// A request as it goes over the wire, written header by header.
#[derive(Debug, Clone)]
pub struct Outgoing {
    wire: BytesMut,
}

impl Outgoing {
    /// `path` is a request target of our own making: configured, without spaces or control characters.
    pub fn new(method: &'static str, path: &str, host: &HeaderValue) -> Self {
        let mut wire = BytesMut::with_capacity(1024);
        for part in [method.as_bytes(), b" ", path.as_bytes(), b" HTTP/1.1\r\nhost: ", host.as_bytes(), b"\r\n"] {
            wire.extend_from_slice(part);
        }
        Self { wire }
    }

    /// As [`Self::new`], for a backend, which may be anybody: also ourselves.
    pub fn to_backend(method: &'static str, path: &str, host: &HeaderValue) -> Self {
        let mut head = Self::new(method, path, host);
        head.lines(VIA);
        head
    }

    /// Adds a header; a `HeaderValue` cannot hold a line break.
    pub fn header(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.line(name.as_str(), value.as_bytes());
    }

    fn line(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.wire.extend_from_slice(part);
        }
    }

    /// Adds the header that names our span.
    pub fn trace(&mut self, traceparent: Traceparent) {
        self.line("traceparent", traceparent.as_bytes());
    }

    /// Adds a header whose value is not checked yet.
    ///
    /// # Errors
    /// When the value cannot stand in a header.
    pub fn text(&mut self, name: impl AsRef<str>, value: &str) -> Result<(), http::header::InvalidHeaderValue> {
        self.line(name.as_ref(), HeaderValue::from_str(value)?.as_bytes());
        Ok(())
    }

    /// Adds header lines that were written before, each with its line break.
    pub fn lines(&mut self, lines: &[u8]) {
        self.wire.extend_from_slice(lines);
    }

    fn end(&mut self, body: usize) {
        if body > 0 {
            self.header(&header::CONTENT_LENGTH, &HeaderValue::from(body));
        }
        self.wire.extend_from_slice(b"\r\n");
    }
}

/// A pooled HTTP client. Its connections live on the runtimes that opened them, so it must not be used by a service that
/// outlives another (the proxy and h2c services, which share one, end together).
#[derive(Clone)]
pub struct Client {
    transport: Arc<TransportConnector>,
}

impl Client {
    /// `pool` bounds the idle connections kept, over all backends.
    pub fn new(pool: usize) -> Self {
        Self { transport: Arc::new(TransportConnector::new(Some(ConnectorOptions::new(pool)))) }
    }

    /// Sends a request whole and waits for the answer's header, all within `wait`. 1xx answers are skipped.
    ///
    /// # Errors
    /// [`Failure::NotSent`] when connecting or writing failed, so that no backend can have seen the whole request;
    /// otherwise what broke.
    pub async fn send<'c>(&'c self, target: &Arc<Target>, head: Outgoing, body: Bytes, wait: Duration) -> Result<Incoming<'c>, Failure> {
        let until = Instant::now() + wait;
        let left = || until.saturating_duration_since(Instant::now());
        let (mut stream, connect) = match self.transport.reused_stream(&target.peer).await {
            Some(stream) => (stream, None),
            // Boxed: the future of a new connection is large, and most requests need none.
            None => match timeout(wait, Box::pin(self.transport.new_stream(&target.peer))).await {
                Ok(connected) => (connected.map_err(|e| Failure::NotSent(e.to_string()))?, Some(wait.saturating_sub(left()))),
                Err(_) => return Err(Failure::NotSent("no connection in time".to_owned())),
            },
        };
        match timeout(left(), write(&mut stream, head, body)).await {
            Ok(Ok(())) => {}
            // Not all of it left, and an incomplete request cannot be executed.
            Ok(Err(error)) => return Err(Failure::NotSent(error.to_string())),
            Err(_) => return Err(Failure::TimedOut),
        }
        let mut session = HttpSession::new_with_options(stream, &target.peer);
        session.read_timeout = Some(wait);
        let left = left();
        let mut incoming =
            Incoming { client: self, target: Arc::clone(target), session: Some(session), ahead: VecDeque::new(), ended: false, connect };
        // Around the whole header: a read timeout starts anew with every byte that drips in.
        timeout(left, incoming.read_header()).await.unwrap_or(Err(Failure::TimedOut))?;
        Ok(incoming)
    }
}

async fn write(stream: &mut Stream, mut head: Outgoing, body: Bytes) -> std::io::Result<()> {
    head.end(body.len());
    if body.len() <= TOGETHER {
        head.wire.extend_from_slice(&body);
        stream.write_all(&head.wire).await?;
    } else {
        stream.write_all(&head.wire).await?;
        stream.write_all(&body).await?;
    }
    stream.flush().await
}

fn classify(error: &Error) -> Failure {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::TimedOut,
        // The kind only: Pingora's message quotes what it could not parse, which may be somebody's data.
        kind => Failure::Broken(kind.as_str().to_owned()),
    }
}

/// An answer whose header has arrived. Dropped before its end it closes the connection, which is how a client's
/// disconnect reaches the backend.
pub struct Incoming<'c> {
    client: &'c Client,
    target: Arc<Target>,
    /// Present until `finish`.
    session: Option<HttpSession>,
    /// What was looked at of the body and is still to be read.
    ahead: VecDeque<Bytes>,
    /// The end was seen.
    ended: bool,
    /// What connecting took; `None`: there was a connection.
    pub connect: Option<Duration>,
}

impl Incoming<'_> {
    fn session(&mut self) -> &mut HttpSession {
        self.session.as_mut().expect("held until finish consumes self")
    }

    async fn read_header(&mut self) -> Result<(), Failure> {
        loop {
            self.session().read_response().await.map_err(|e| classify(&e))?;
            if !self.status().is_informational() {
                return Ok(());
            }
        }
    }

    pub fn status(&self) -> StatusCode {
        self.header().map_or(StatusCode::BAD_GATEWAY, |header| header.status)
    }

    pub fn headers(&self) -> &HeaderMap {
        static NONE: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);
        self.header().map_or(&NONE, |header| &header.headers)
    }

    pub fn header(&self) -> Option<&ResponseHeader> {
        self.session.as_ref().and_then(HttpSession::resp_header)
    }

    /// Who answers.
    pub fn address(&self) -> SocketAddr {
        self.target.address
    }

    /// The value of a header, if it is text.
    pub fn text(&self, name: impl AsHeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// Whether the body is an event stream.
    pub fn is_event_stream(&self) -> bool {
        const KIND: &[u8] = b"text/event-stream";
        let kind = self.headers().get(http::header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
        kind.trim_ascii_start().get(..KIND.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(KIND))
    }

    /// How long a single read may take from now on.
    pub fn set_wait(&mut self, wait: Duration) {
        self.session().read_timeout = Some(wait);
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// What broke; the connection must not be used again.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match self.ahead.pop_front() {
            Some(piece) => Ok(Some(piece)),
            None if self.ended => Ok(None),
            None => self.session().read_body_bytes().await.map_err(|e| classify(&e)),
        }
    }

    /// Looks at the next piece of the body without taking it; `None` at its end.
    ///
    /// # Errors
    /// What broke; nothing more can be read.
    pub async fn look_ahead(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.ended {
            return Ok(None);
        }
        let piece = self.session().read_body_bytes().await.map_err(|e| classify(&e))?;
        self.ended = piece.is_none();
        self.ahead.extend(piece.clone());
        Ok(piece)
    }

    /// The whole body, up to `limit` bytes; the connection goes back to the pool.
    ///
    /// # Errors
    /// What broke, or [`Failure::TooLarge`].
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, Failure> {
        let mut whole = BytesMut::with_capacity(self.announced().unwrap_or_default().min(limit));
        let ahead = std::mem::take(&mut self.ahead);
        // Whoever looked was bounded as well.
        for piece in &ahead {
            copy::append(&mut whole, piece);
        }
        while !self.ended
            && let Some(piece) = self.session().read_body_ref().await.map_err(|e| classify(&e))?
        {
            if whole.len() + piece.len() > limit {
                return Err(Failure::TooLarge);
            }
            copy::append(&mut whole, piece);
        }
        self.finish().await;
        Ok(whole.freeze())
    }

    /// Gives the connection back if the body's end was seen; what was looked at is dropped.
    pub async fn release(self) {
        if self.ended {
            self.finish().await;
        }
    }

    /// The body's length as the header tells it.
    pub fn announced(&self) -> Option<usize> {
        self.text(&header::CONTENT_LENGTH)?.parse().ok()
    }

    /// Gives the connection back after the body's end was seen.
    pub async fn finish(mut self) {
        let Some(mut session) = self.session.take() else { return };
        session.respect_keepalive();
        let ours = self.target.peer.options.idle_timeout;
        let idle = advertised(&session).map_or(ours, |theirs| ours.map(|ours| ours.min(theirs)));
        if let Some(stream) = session.reuse().await {
            self.client.transport.release_stream(stream, self.target.key, idle);
        }
    }
}

/// How long the server keeps an idle connection (`Keep-Alive: timeout=5`), less a second, so that we never write into one
/// that it is just closing.
fn advertised(session: &HttpSession) -> Option<Duration> {
    let value = session.get_header("keep-alive")?.to_str().ok()?;
    let seconds: u64 = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?.parse().ok()?;
    Some(Duration::from_secs(seconds.saturating_sub(1)))
}
