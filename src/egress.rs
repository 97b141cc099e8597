//! Our own outgoing HTTP over Pingora's pooled `Connector`: one request, one answer, deadlines on every step, and an
//! error that tells whether anything was sent. The request path and the background probes use the same code.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

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

/// A pooled HTTP client. Each runtime that uses one needs its own, since pooled connections live on its reactor.
pub struct Client {
    connector: Connector<()>,
}

impl Client {
    /// `pool` bounds the idle connections kept, over all backends.
    pub fn new(pool: usize) -> Self {
        Self { connector: Connector::new(Some(ConnectorOptions::new(pool))) }
    }

    /// Sends a request whole and waits up to `wait` for the answer's header. 1xx answers are skipped.
    ///
    /// # Errors
    /// [`Failure::NotSent`] when connecting failed or not even the header could be written, otherwise what broke.
    pub async fn send<'c>(
        &'c self,
        peer: &Arc<HttpPeer>,
        head: Box<RequestHeader>,
        body: Bytes,
        wait: Duration,
    ) -> Result<Incoming<'c>, Failure> {
        let (mut session, _reused) = self.connector.get_http_session(&**peer).await.map_err(|e| Failure::NotSent(e.to_string()))?;
        session.set_read_timeout(Some(wait));
        session.set_write_timeout(Some(wait));
        session.write_request_header(head).await.map_err(|e| Failure::NotSent(e.to_string()))?;
        if !body.is_empty() {
            session.write_request_body(body, true).await.map_err(|e| classify(&e))?;
        }
        session.finish_request_body().await.map_err(|e| classify(&e))?;
        let mut incoming = Incoming { client: self, peer: Arc::clone(peer), session: Some(session) };
        incoming.read_header().await?;
        Ok(incoming)
    }
}

fn classify(error: &Error) -> Failure {
    match error.etype() {
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::TimedOut,
        _ => Failure::Broken(error.to_string()),
    }
}

/// An answer whose header has arrived. Dropped before its end it closes the connection, which is how a client's
/// disconnect reaches the backend.
pub struct Incoming<'c> {
    client: &'c Client,
    peer: Arc<HttpPeer>,
    /// Present until `finish`.
    session: Option<HttpSession>,
}

impl Incoming<'_> {
    fn session(&mut self) -> &mut HttpSession {
        self.session.as_mut().expect("held until finish consumes self")
    }

    async fn read_header(&mut self) -> Result<(), Failure> {
        loop {
            self.session().read_response_header().await.map_err(|e| classify(&e))?;
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

    fn header(&self) -> Option<&pingora::http::ResponseHeader> {
        self.session.as_ref().and_then(HttpSession::response_header)
    }

    /// The value of a header, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// Whether the body is an event stream.
    pub fn is_event_stream(&self) -> bool {
        self.text("content-type").is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
    }

    /// How long a single read may take from now on.
    pub fn set_wait(&mut self, wait: Duration) {
        self.session().set_read_timeout(Some(wait));
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// What broke; the connection must not be used again.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        self.session().read_response_body().await.map_err(|e| classify(&e))
    }

    /// The whole body, up to `limit` bytes; the connection goes back to the pool.
    ///
    /// # Errors
    /// What broke, or [`Failure::TooLarge`].
    pub async fn collect(mut self, limit: usize) -> Result<Bytes, Failure> {
        let Some(first) = self.chunk().await? else {
            self.finish().await;
            return Ok(Bytes::new());
        };
        let mut rest = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if rest.is_empty() {
                rest.reserve(self.announced().unwrap_or_default().min(limit));
                rest.extend_from_slice(&first);
            }
            if rest.len() + chunk.len() > limit {
                return Err(Failure::TooLarge);
            }
            rest.extend_from_slice(&chunk);
        }
        self.finish().await;
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    }

    /// The body's length as the header tells it.
    pub fn announced(&self) -> Option<usize> {
        self.text("content-length")?.parse().ok()
    }

    /// Gives the connection back after the body's end was seen.
    pub async fn finish(mut self) {
        if let Some(session) = self.session.take() {
            let idle = self.peer.options.idle_timeout;
            self.client.connector.release_http_session(session, &*self.peer, idle).await;
        }
    }
}
