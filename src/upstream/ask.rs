//! One JSON-RPC request to one MCP server of one backend, in the backend's era, and the answer that belongs to it.
//! Exactly one upstream request, except where the server itself says that our session is gone: then a new session is
//! opened and the request, which was not executed, is sent once more. REST calls, the catalogue and health checks all
//! ask this way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::InvalidHeaderValue;
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::time::timeout;
use tokio::sync::mpsc;

use super::backend::Backend;
use super::cancel::Unanswered;
use super::facts::Speaks;
use super::session_pool::{Abandoned, Session, Slot};
use crate::call::Era;
use crate::egress::{Client, Failure, Incoming, Outgoing, Target};
use crate::mcp::message::Response;
use crate::mcp::{self, headers};
use crate::observe::clock::{Clock, Stage};
use crate::observe::spans::{Attempts, Begun};
use crate::observe::trace::{Context, REQUEST_ID, Traceparent};
use crate::observe::upstream::Ending;

/// The largest answer read into memory.
pub(super) const MAX_ANSWER: usize = 16 << 20;
/// What every Streamable HTTP request must accept.
const JSON_OR_EVENTS: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
/// How long we wait for a session to open.
pub(super) const OPENING: Duration = Duration::from_secs(10);

/// A name or session id of the server's own that no header can carry.
pub(super) const UNSENDABLE: Trouble = Trouble::Protocol("a header value that cannot be sent");

/// Who hears notifications, as JSON-RPC messages.
pub type Ear<'q> = &'q (dyn Fn(&[u8]) + Sync);

/// What is asked.
pub struct Question<'q> {
    pub server: &'q str,
    /// Whose session with a legacy server is used: sessions may hold state of their owner. Empty is ours and everybody's.
    pub owner: &'q str,
    pub method: &'q str,
    /// `Authorization`, where it is not our own question.
    pub credential: Option<&'q HeaderValue>,
    /// The tool, prompt, URI or task, for `Mcp-Name`.
    pub name: Option<&'q str>,
    /// `Mcp-Param-*` headers, and what the operator's rules add.
    pub params: &'q [(String, String)],
    /// Other headers: those of the operator's rules.
    pub headers: &'q [(HeaderName, HeaderValue)],
    /// Writes the body for an era and message id.
    pub encode: &'q (dyn Fn(Era, u64) -> Vec<u8> + Sync),
    pub trace: Option<Trace<'q>>,
    pub deadline: Instant,
    /// Takes the notifications that come before the answer, as JSON-RPC messages.
    pub notices: Option<mpsc::Sender<Bytes>>,
    /// Sees them, whether anybody takes them or not.
    pub heard: Option<Ear<'q>>,
}

/// Whose request this is, told upstream.
#[derive(Clone, Copy)]
pub struct Trace<'q> {
    pub request_id: &'q HeaderValue,
    /// The trace, and our own span in it.
    pub context: Context,
    /// Where it is kept who was asked; `None`: nobody is told.
    pub noted: Option<&'q Attempts>,
    /// Where its time is kept; `None`: it is not the only one of its request.
    pub clock: Option<&'q Clock>,
}

impl Trace<'_> {
    /// Notes that a backend is asked now.
    pub fn begin(&self, method: &'static str, backend: &Backend) -> Option<Begun> {
        self.noted.map(|attempts| attempts.begin(self.context, method, backend.label()))
    }

    /// What the backend is told is the parent of what it does.
    pub fn parent(&self, begun: Option<&Begun>) -> Traceparent {
        begun.map_or_else(|| self.context.traceparent(), |begun| begun.traceparent)
    }

    /// Counts and notes how it went.
    pub fn end(&self, begun: Option<&Begun>, backend: &Backend, sent: &Result<Incoming<'_>, Failure>, started: Instant) {
        let (ending, ended) = (ending(sent), Instant::now());
        let took = ended.saturating_duration_since(started);
        backend.meter.count(ending, took);
        if let (Some(attempts), Some(begun)) = (self.noted, begun) {
            attempts.end(begun, (ended, ending));
        }
        let connect = match sent {
            Ok(incoming) => incoming.connect,
            Err(Failure::NotSent(_)) => Some(took),
            Err(_) => None,
        };
        self.clock.iter().for_each(|clock| clock.asked(connect));
    }

    /// The request waits for something else from now on.
    pub fn enter(&self, stage: Stage) {
        self.clock.iter().for_each(|clock| _ = clock.enter(stage));
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Trouble {
    /// The backend has no healthy address, or was never reached so far.
    NotReady,
    Failure(Failure),
    /// 401 or 403: our credential.
    Refused(StatusCode),
    /// An HTTP status with no JSON-RPC message in it.
    Status(StatusCode),
    /// What came is not MCP.
    Protocol(&'static str),
    /// The server does not know our session.
    SessionLost,
    /// No token on the caller's behalf, and why.
    NoToken(String),
    /// Nobody could be asked for one.
    NoExchange(String),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotReady => f.write_str("not reached yet"),
            Self::Failure(failure) => failure.fmt(f),
            Self::Refused(status) => write!(f, "our credential was refused with {status}"),
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Protocol(what) => write!(f, "broke the protocol: {what}"),
            Self::NoToken(cause) | Self::NoExchange(cause) => f.write_str(cause),
            Self::SessionLost => f.write_str("lost our session twice"),
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// A server's answer to request `id`; read it with [`crate::mcp::message::Answer`].
#[derive(Debug)]
pub struct Reply {
    pub id: u64,
    pub body: Bytes,
}

/// Asks, in the era the backend is known to speak, at one of its addresses.
///
/// # Errors
/// Why no answer came. A JSON-RPC error is an answer.
pub async fn ask(client: &Client, backend: &Backend, target: &Arc<Target>, question: &Question<'_>) -> Result<Reply, Trouble> {
    let Some(Speaks::Mcp(era)) = backend.speaks() else { return Err(Trouble::NotReady) };
    ask_at(client, backend, target, era, question).await
}

/// Asks at one address, healthy or not, in a given era.
///
/// # Errors
/// As [`ask`].
pub async fn ask_at(client: &Client, backend: &Backend, target: &Arc<Target>, era: Era, question: &Question<'_>) -> Result<Reply, Trouble> {
    let exchange = Exchange { client, backend, target, question };
    // Around all of it, since timeouts of single reads start anew with every byte that drips in.
    let asked = async {
        match era {
            Era::Modern => exchange.attempt(Manner::Modern).await,
            Era::Legacy => exchange.in_session().await,
        }
    };
    timeout(exchange.remaining(), asked).await.unwrap_or(Err(Trouble::Failure(Failure::TimedOut)))
}

/// Our session with a legacy server, opened if there is none yet.
///
/// # Errors
/// Why the server could not be asked to initialize.
pub async fn session(client: &Client, backend: &Backend, target: &Arc<Target>, question: &Question<'_>) -> Result<Arc<Session>, Trouble> {
    let exchange = Exchange { client, backend, target, question };
    exchange.slot().obtain(exchange.open()).await
}

/// Tells a server that one of our sessions ended. A server that cannot be told ends it by itself in time.
pub async fn end(client: &Client, backend: &Backend, abandoned: &Abandoned) {
    let Some(id) = &abandoned.session.id else { return };
    let Some(target) = backend.target_at(&abandoned.place.address.to_string()) else { return };
    let mut head = backend.request("DELETE", &abandoned.place.path, JSON_OR_EVENTS);
    let written = head.text(&headers::SESSION, id).and_then(|()| head.text(&headers::VERSION, &abandoned.session.version));
    if written.is_ok()
        && let Ok(incoming) = client.send(&target, head, Bytes::new(), OPENING).await
    {
        let _ = timeout(OPENING, incoming.collect(MAX_ANSWER)).await;
    }
}

/// As whom a message is sent.
#[derive(Clone, Copy)]
pub(super) enum Manner<'s> {
    /// `initialize`: no revision is agreed yet.
    Opening,
    Legacy(&'s Session),
    Modern,
}

impl<'s> Manner<'s> {
    pub(super) fn session(self) -> Option<&'s Session> {
        match self {
            Self::Legacy(session) => Some(session),
            Self::Opening | Self::Modern => None,
        }
    }
}

/// One attempt's surroundings.
pub(super) struct Exchange<'a, 'q> {
    pub(super) client: &'a Client,
    pub(super) backend: &'a Backend,
    pub(super) target: &'a Arc<Target>,
    pub(super) question: &'a Question<'q>,
}

impl Exchange<'_, '_> {
    /// Servers behind one endpoint share a session; another address of the same name is another endpoint.
    pub(super) fn slot(&self) -> Arc<Slot> {
        self.backend.record.sessions.slot(self.target.address, self.backend.mcp_path(self.question.server), self.question.owner)
    }

    async fn in_session(&self) -> Result<Reply, Trouble> {
        let slot = self.slot();
        let session = match slot.current() {
            Some(session) => session,
            None => Box::pin(slot.obtain(self.open())).await.map_err(unsent)?,
        };
        match self.attempt(Manner::Legacy(&session)).await {
            Err(Trouble::SessionLost) => {
                slot.forget(&session);
                Box::pin(self.again(&slot)).await
            }
            other => other,
        }
    }

    /// The one repetition: the server said that it did not execute the request for want of a session.
    async fn again(&self, slot: &Slot) -> Result<Reply, Trouble> {
        let session = slot.obtain(self.open()).await.map_err(unsent)?;
        self.attempt(Manner::Legacy(&session)).await
    }

    /// Opens a session: `initialize`, then `notifications/initialized`.
    pub(super) async fn open(&self) -> Result<Session, Trouble> {
        let params = format!(
            r#"{{"protocolVersion":"{}","capabilities":{{}},"clientInfo":{}}}"#,
            mcp::LEGACY,
            serde_json::to_string(&mcp::rest::OurName::default()).unwrap_or_default()
        );
        let id = next_id();
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"initialize","params":{params}}}"#);
        let incoming = self.post(body.into(), Manner::Opening, OPENING).await?;
        let session_id = incoming.text(&headers::SESSION).map(str::to_owned);
        let answer = self.answer(incoming, id, Manner::Opening).await?;
        let (version, server) = negotiated(&answer).ok_or(Trouble::Protocol("initialize was not answered with a result"))?;
        let session = Session { id: session_id, version, server };
        let ready = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
        self.post(ready, Manner::Legacy(&session), OPENING).await?.collect(MAX_ANSWER).await?;
        Ok(session)
    }

    async fn attempt(&self, manner: Manner<'_>) -> Result<Reply, Trouble> {
        let id = next_id();
        let era = if manner.session().is_some() { Era::Legacy } else { Era::Modern };
        let body = (self.question.encode)(era, id);
        let unanswered = Unanswered::of(self, id, manner);
        let exchanged = async { self.answer(self.post(body.into(), manner, self.remaining()).await?, id, manner).await };
        let result = exchanged.await;
        if !matches!(result, Err(Trouble::Failure(Failure::TimedOut))) {
            unanswered.settle();
        }
        result.map(|body| Reply { id, body })
    }

    pub(super) fn remaining(&self) -> Duration {
        self.question.deadline.saturating_duration_since(Instant::now())
    }

    pub(super) async fn post(&self, body: Bytes, manner: Manner<'_>, wait: Duration) -> Result<Incoming<'_>, Trouble> {
        let trace = self.question.trace;
        let begun = trace.and_then(|trace| trace.begin("POST", self.backend));
        let head = self.head_of("POST", manner, begun.as_ref()).map_err(|_| UNSENDABLE)?;
        let wait = wait.min(self.remaining());
        if wait.is_zero() {
            return Err(Failure::TimedOut.into());
        }
        let started = Instant::now();
        let result = self.client.send(self.target, head, body, wait).await;
        // Probes of our own are not traffic.
        if let Some(trace) = trace {
            trace.end(begun.as_ref(), self.backend, &result, started);
        }
        Ok(result?)
    }

    pub(super) fn head(&self, method: &'static str, manner: Manner<'_>) -> Result<Outgoing, InvalidHeaderValue> {
        self.head_of(method, manner, None)
    }

    fn head_of(&self, method: &'static str, manner: Manner<'_>, begun: Option<&Begun>) -> Result<Outgoing, InvalidHeaderValue> {
        let path = self.backend.mcp_path(self.question.server);
        let credential = self.question.credential.or(self.backend.bearer.as_ref());
        let mut head = self.backend.request_with(method, &path, JSON_OR_EVENTS, credential);
        if let Some(trace) = self.question.trace {
            head.header(&REQUEST_ID, trace.request_id);
            head.trace(trace.parent(begun));
        }
        for (name, value) in self.question.headers {
            head.header(name, value);
        }
        match manner {
            Manner::Opening => {}
            Manner::Legacy(session) => {
                head.text(&headers::VERSION, &session.version)?;
                if let Some(id) = &session.id {
                    head.text(&headers::SESSION, id)?;
                }
            }
            Manner::Modern => self.modern_head(&mut head)?,
        }
        Ok(head)
    }

    fn modern_head(&self, head: &mut Outgoing) -> Result<(), InvalidHeaderValue> {
        head.header(&headers::VERSION, &HeaderValue::from_static(mcp::MODERN));
        head.text(&headers::METHOD, self.question.method)?;
        if let Some(name) = self.question.name {
            head.text(&headers::NAME, &headers::encode(name))?;
        }
        self.question.params.iter().try_for_each(|(name, value)| head.text(name, value))
    }
}

/// What the want of a session means for the request that needed one: nothing of it was sent.
fn unsent(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Failure(failure @ (Failure::Broken(_) | Failure::TimedOut)) => {
            Failure::NotSent(format!("no session could be opened: {failure}")).into()
        }
        other => other,
    }
}

/// How an upstream request ended, for the metrics.
fn ending(result: &Result<Incoming<'_>, Failure>) -> Ending {
    match result {
        Ok(incoming) => Ending::Status(incoming.status().as_u16()),
        Err(Failure::NotSent(_)) => Ending::Unreachable,
        Err(_) => Ending::Broken,
    }
}

/// Ids of our own requests; never the client's, which may collide.
pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The revision and the server's own name.
fn negotiated(answer: &[u8]) -> Option<(String, String)> {
    #[derive(serde::Deserialize)]
    struct Initialized {
        #[serde(rename = "protocolVersion")]
        version: String,
        #[serde(rename = "serverInfo", default)]
        info: Info,
    }
    #[derive(serde::Deserialize, Default)]
    struct Info {
        name: String,
    }
    let message: Response<'_> = serde_json::from_slice(answer).ok()?;
    let result: Initialized = serde_json::from_str(message.result?.get()).ok()?;
    // It goes out again as a header value.
    result.version.bytes().all(|b| b.is_ascii_graphic()).then_some((result.version, result.info.name))
}
