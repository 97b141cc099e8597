//! Opening a native pass-through: which backend, which headers, what to do when it cannot be reached. The body goes
//! upstream byte for byte as it was judged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, InvalidHeaderValue};
use http::{HeaderMap, StatusCode};

use super::{may_go_elsewhere, refuse};
use crate::config::FORWARDED;
use crate::egress::{Client, Incoming, Outgoing, Target};
use crate::mcp::headers;
use crate::mcp::session::Session;
use crate::reject::{Code, Reject, Verdict};
use crate::route::rule::Choice;
use crate::transform::Headers;
use crate::upstream::ask::{Trace, Trouble, Working, ending};
use crate::upstream::backend::Backend;
use crate::upstream::exchange::OnBehalf;
use crate::upstream::pool::{Ask, Member, Pool, Tried, Want};

/// A native request, judged.
pub struct Native<'n> {
    pub pool: &'n Pool,
    pub method: &'static str,
    /// The client's header lines that go upstream (see [`forwarded`]).
    pub lines: Vec<u8>,
    pub body: Bytes,
    /// The session it belongs to, which only its own backend can continue.
    pub session: Option<&'n Session>,
    /// The caller's token, for backends that are asked on its behalf.
    pub on_behalf: Option<OnBehalf<'n>>,
    pub trace: Trace<'n>,
    /// Where it may go.
    pub choice: Option<&'n Choice>,
}

/// An answer under way, and who gives it.
pub struct Open<'c> {
    pub incoming: Incoming<'c>,
    pub backend: Arc<Backend>,
    /// Counts the request as in flight until its answer is through.
    pub working: Working,
}

impl Native<'_> {
    /// Sends the request and returns once the answer's header is there.
    ///
    /// # Errors
    /// The refusal for the client.
    pub async fn open<'c>(&self, client: &'c Client) -> Verdict<Open<'c>> {
        match self.session {
            Some(session) => self.resume(client, session).await,
            None => self.choose(client).await,
        }
    }

    /// How long a backend has: by its own configuration, or by the rule that chose it.
    pub fn timeout(&self, backend: &Backend) -> Duration {
        self.choice.and_then(|choice| choice.timeout).unwrap_or(backend.conf.timeout)
    }

    async fn resume<'c>(&self, client: &'c Client, session: &Session) -> Verdict<Open<'c>> {
        let gone = || Reject::new(Code::UnknownSession, "the backend of this session is gone; initialize again");
        let member = self.pool.member(&session.backend).ok_or_else(gone)?;
        let target = member.backend.target_at(&session.address).ok_or_else(gone)?;
        self.send(client, member, target).await.map_err(|trouble| refuse(&trouble, &member.backend))
    }

    async fn choose<'c>(&self, client: &'c Client) -> Verdict<Open<'c>> {
        let mut tried = Tried::default();
        while let Some((index, member)) =
            self.pool.pick(Ask { want: Want::Native, among: self.choice.and_then(|choice| choice.among.as_ref()) }, &tried)
        {
            let sent = match member.backend.target() {
                Some(target) => self.send(client, member, target).await,
                None => Err(Trouble::NotReady),
            };
            match sent {
                Ok(open) => return Ok(open),
                Err(trouble) if may_go_elsewhere(&trouble) => {
                    log::warn!("backend {}: {trouble}; trying another", member.backend.name());
                    tried.note(index);
                }
                Err(trouble) => return Err(refuse(&trouble, &member.backend)),
            }
        }
        Err(Reject::no_healthy_backend(&self.pool.server))
    }

    async fn send<'c>(&self, client: &'c Client, member: &Member, target: Arc<Target>) -> Result<Open<'c>, Trouble> {
        let backend = &member.backend;
        let credential = backend.credential(client, self.on_behalf).await?;
        let head = self.head(member, credential.as_ref()).map_err(|_| Trouble::Protocol("a header value that cannot be sent"))?;
        let working = Working::on(backend);
        let started = Instant::now();
        let sent = client.send(&target, head, self.body.clone(), self.timeout(backend)).await;
        backend.meter.count(ending(&sent), started.elapsed());
        // The credential it refuses is ours, and where it points to is behind us: neither concerns the client.
        match sent.as_ref().map(Incoming::status) {
            Ok(status @ StatusCode::UNAUTHORIZED) => {
                backend.refused(self.on_behalf).await;
                return Err(Trouble::Refused(status));
            }
            Ok(status) if status.is_redirection() && status != StatusCode::NOT_MODIFIED => return Err(Trouble::Status(status)),
            _ => {}
        }
        Ok(Open { incoming: sent?, backend: Arc::clone(backend), working })
    }

    fn head(&self, member: &Member, credential: Option<&HeaderValue>) -> Result<Outgoing, InvalidHeaderValue> {
        let mut head = Outgoing::new(self.method, &member.path, &member.backend.authority);
        head.lines(&self.lines);
        if self.method == "POST" {
            head.header("content-type", &HeaderValue::from_static("application/json"));
        }
        if let Some(session) = self.session {
            head.text(headers::SESSION, &session.id)?;
        }
        if let Some(bearer) = credential {
            head.header("authorization", bearer);
        }
        head.header("x-request-id", self.trace.request_id);
        head.header("traceparent", self.trace.traceparent);
        Ok(head)
    }
}

/// The lines of a client's headers that go upstream, written once for every attempt. Only a GET takes a stream up again:
/// what a POST might replay was not judged with it. `changed` are headers that the operator's rules change.
pub fn forwarded(headers: &HeaderMap, is_get: bool, changed: Option<&Headers>) -> Vec<u8> {
    let mut lines = Vec::with_capacity(512);
    let goes = |name: &HeaderName| {
        is_forwarded(name) && (is_get || name != "last-event-id") && !changed.is_some_and(|changed| changed.replaces(name))
    };
    let kept = headers.iter().filter(|(name, _)| goes(name));
    for (name, value) in kept.chain(changed.iter().flat_map(|changed| changed.set.iter().map(|(name, value)| (name, value)))) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
    lines
}

/// What of a client's headers goes upstream: what MCP and tracing need, by name. A list of what is let through cannot
/// forget a credential, as lists of what is held back do; so `Authorization`, cookies, `Origin` and whatever else a
/// client sends stays here.
fn is_forwarded(name: &HeaderName) -> bool {
    let text = name.as_str();
    match text {
        headers::SESSION => false,
        _ => text.starts_with("mcp-") || FORWARDED.contains(&text),
    }
}
