//! Opening a native pass-through: what goes upstream of it, and what is not for the client to see of the answer. The body
//! goes upstream byte for byte as it was judged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue, InvalidHeaderValue};
use http::{HeaderMap, StatusCode};

use super::refuse;
use super::tries::{self, Attempt, Span, Stop, Tries};
use crate::call::Call;
use crate::config::FORWARDED;
use crate::egress::{Client, Failure, Incoming, Outgoing, Target};
use crate::mcp::headers;
use crate::mcp::session::Session;
use crate::observe::metrics::Metrics;
use crate::observe::trace::{REQUEST_ID, Traceparent};
use crate::reject::{Code, Reject, Verdict};
use crate::route::rule::Choice;
use crate::transform::Headers;
use crate::upstream::ask::{Trace, Trouble};
use crate::upstream::backend::Backend;
use crate::upstream::exchange::OnBehalf;
use crate::upstream::pool::{Ask, Member, Pool, Want};
use crate::upstream::trial::Trial;

/// A native request, judged.
pub struct Native<'n> {
    pub pool: &'n Pool,
    pub method: &'static str,
    /// The client's header lines that go upstream (see [`forwarded`]).
    pub lines: Vec<u8>,
    pub body: Bytes,
    /// What is asked, by a single request or notification.
    pub call: Option<&'n Call<'n>>,
    /// What the caller is known by, where it should meet the same backend again.
    pub affinity: Option<u64>,
    pub metrics: &'n Metrics,
    /// The time it has until an answer begins, whoever gives it.
    pub span: Span,
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
    /// In flight until the answer is through, and judged by how it ends.
    pub trial: Trial,
    /// Whether it stays open for as long as the client likes.
    pub stays: bool,
}

impl Open<'_> {
    pub fn backend(&self) -> &Arc<Backend> {
        &self.trial.backend
    }
}

/// A native request and the client it is sent with.
struct Opening<'o, 'n, 'c> {
    native: &'o Native<'n>,
    client: &'c Client,
}

impl<'c> Attempt for Opening<'_, '_, 'c> {
    type Answer = Incoming<'c>;

    async fn send(&self, member: &Member, trial: &Trial) -> Result<Incoming<'c>, Stop> {
        Ok(self.native.send(self.client, member, &trial.target).await?)
    }

    /// A server's failure is passed on, unless another backend may be asked.
    fn failure(answer: &Incoming<'c>) -> Option<Trouble> {
        Some(answer.status()).filter(StatusCode::is_server_error).map(Trouble::Status)
    }
}

impl Native<'_> {
    /// Sends the request and returns once the answer's header is there.
    ///
    /// # Errors
    /// The refusal for the client.
    pub async fn open<'c>(&self, client: &'c Client) -> Verdict<Open<'c>> {
        let (incoming, trial) = match self.session {
            Some(session) => self.resume(client, session).await?,
            None => self.tries().run(&Opening { native: self, client }).await?,
        };
        Ok(Open { incoming, trial, stays: self.ask().stays })
    }

    fn ask(&self) -> Ask<'_> {
        let is_tool = self.call.is_some_and(|call| call.method == "tools/call");
        Ask {
            clock: self.trace.clock,
            want: Want::Native,
            among: self.choice.and_then(|choice| choice.among.as_ref()),
            tool: self.call.filter(|_| is_tool).and_then(|call| call.name.as_deref()),
            affinity: self.affinity,
            stays: self.method == "GET" || self.call.is_some_and(Call::stays),
        }
    }

    /// How long a backend has: by its own configuration, or by the rule that chose it.
    pub fn timeout(&self, backend: &Backend) -> Duration {
        self.choice.and_then(|choice| choice.timeout).unwrap_or(backend.conf.timeout)
    }

    /// Whether it may be executed twice, which nothing within a session is: nobody else could.
    fn is_safe(&self) -> bool {
        self.session.is_none() && self.call.is_some_and(|call| tries::is_safe(self.pool, &call.method, call.name.as_deref()))
    }

    fn tries(&self) -> Tries<'_> {
        let span = (!self.ask().stays).then_some(self.span);
        Tries { pool: self.pool, ask: self.ask(), safe: self.is_safe(), span, metrics: self.metrics }
    }

    async fn resume<'c>(&self, client: &'c Client, session: &Session) -> Verdict<(Incoming<'c>, Trial)> {
        let gone = || Reject::new(Code::UnknownSession, "the backend of this session is gone; initialize again");
        let member = self.pool.member(&session.backend).ok_or_else(gone)?;
        let target = member.backend.target_at(&session.address).ok_or_else(gone)?;
        let begun = self.pool.resume(member, target, self.ask()).await;
        let mut trial = begun.map_err(|why| tries::nobody(why, self.pool, self.ask(), self.metrics))?;
        match self.send(client, member, &trial.target).await {
            Ok(incoming) => {
                if let Some(trouble) = Opening::failure(&incoming) {
                    trial.judge(tries::verdict(&trouble));
                }
                Ok((incoming, trial))
            }
            Err(trouble) => {
                if matches!(trouble, Trouble::Failure(Failure::NotSent(_))) {
                    trial.miss();
                }
                trial.judge(tries::verdict(&trouble));
                Err(refuse(&trouble, &member.backend))
            }
        }
    }

    async fn send<'c>(&self, client: &'c Client, member: &Member, target: &Arc<Target>) -> Result<Incoming<'c>, Trouble> {
        let backend = &member.backend;
        let credential = backend.credential(client, self.on_behalf).await?;
        let begun = self.trace.begin(self.method, backend);
        let head = self
            .head(member, credential.as_ref(), self.trace.parent(begun.as_ref()))
            .map_err(|_| Trouble::Protocol("a header value that cannot be sent"))?;
        let started = Instant::now();
        let wait = tries::patience(self.pool, self.timeout(backend), self.is_safe());
        let sent = client.send(target, head, self.body.clone(), wait).await;
        self.trace.end(begun.as_ref(), backend, &sent, started);
        // The credential it refuses is ours, and where it points to is behind us: neither concerns the client.
        match sent.as_ref().map(Incoming::status) {
            Ok(status @ StatusCode::UNAUTHORIZED) => {
                backend.refused(self.on_behalf).await;
                return Err(Trouble::Refused(status));
            }
            Ok(status) if status.is_redirection() && status != StatusCode::NOT_MODIFIED => return Err(Trouble::Status(status)),
            _ => {}
        }
        Ok(sent?)
    }

    fn head(&self, member: &Member, credential: Option<&HeaderValue>, traceparent: Traceparent) -> Result<Outgoing, InvalidHeaderValue> {
        let mut head = Outgoing::to_backend(self.method, &member.path, &member.backend.authority);
        head.lines(&self.lines);
        if self.method == "POST" {
            head.header(&header::CONTENT_TYPE, &HeaderValue::from_static("application/json"));
        }
        if let Some(session) = self.session {
            head.text(&headers::SESSION, &session.id)?;
        }
        if let Some(bearer) = credential {
            head.header(&header::AUTHORIZATION, bearer);
        }
        head.header(&REQUEST_ID, self.trace.request_id);
        head.trace(traceparent);
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
    *name != headers::SESSION && (text.starts_with("mcp-") || FORWARDED.contains(&text))
}
