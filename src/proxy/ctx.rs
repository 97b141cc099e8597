//! What one request gathers on its way, grouped by who fills it in.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderValue;
use pingora::protocols::http::ServerSession;

use super::cached::Cached;
use super::coded::Coded;
use crate::access::Client;
use crate::call::Call;
use crate::extend::Middleware;
use crate::limit::Notice;
use crate::mcp::members::plain;
use crate::mcp::method;
use crate::observe::clock::Clock;
use crate::observe::metrics::Outcome;
use crate::observe::spans::Attempts;
use crate::observe::trace::Context;
use crate::principal::Principal;
use crate::room::Place;
use crate::route::version::Version;
use crate::snapshot::{Phase, Snapshot, State};
use crate::transform::Headers;
use crate::upstream::ask::Trace;
use crate::verbatim::Verbatim;

/// Per-request context; made by Pingora before anything is known.
pub struct Ctx {
    /// The configuration this request is served by, whatever is published meanwhile.
    pub snapshot: Arc<Snapshot>,
    pub arrival: Arrival,
    /// Where its time goes.
    pub clock: Clock,
    /// How it is spoken to: decided by the path, needed by every refusal.
    pub dialect: Dialect,
    /// The `route` label.
    pub route: &'static str,
    /// Who asks, once that is known.
    pub principal: Option<Arc<Principal>>,
    pub told: Told,
    /// What the cache had to do with its answer.
    pub cached: Option<Cached>,
    /// How near it came to a rate limit.
    pub notice: Option<Notice>,
    /// Its place among what is under way in all.
    pub place: Option<Place>,
    /// The version of the REST API it is asked under.
    pub version: Option<Arc<Version>>,
    /// Headers that change on the way to the caller.
    pub downstream: Headers,
    /// Who was asked, where a collector of traces may be told.
    pub attempts: Option<Attempts>,
    state: Arc<State>,
    counted: bool,
}

/// What was fixed when the request came in.
pub struct Arrival {
    pub started: Instant,
    pub request_id: HeaderValue,
    pub context: Context,
    /// The real client.
    pub client: Client,
    /// The origin of a page of another site that may read the answer.
    pub shared_with: Option<HeaderValue>,
}

/// The form of answers and refusals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// JSON, refusals as problem+json.
    Rest,
    /// JSON-RPC.
    Native,
}

/// What the access log and the metrics say when it is over.
#[derive(Default)]
pub struct Told {
    pub server: Option<Arc<str>>,
    pub method: Option<Cow<'static, str>>,
    pub name: Option<String>,
    pub backend: Option<Arc<str>>,
    /// The routing rule.
    pub rule: Option<Arc<str>>,
    pub outcome: Option<Outcome>,
    /// The code of a refusal.
    pub code: Option<&'static str>,
    /// The rate limit that refused it.
    pub limit: Option<String>,
    /// Bytes of the answer, before any coding.
    pub bytes: usize,
    /// The coding it went in.
    pub coded: Option<Coded>,
    /// Its elements were written down one by one.
    pub itemised: bool,
    /// Some of them did not go well.
    pub partly: bool,
}

impl Ctx {
    pub fn new(state: &Arc<State>) -> Self {
        let started = Instant::now();
        Self {
            snapshot: state.snapshot(),
            arrival: Arrival {
                started,
                request_id: HeaderValue::from_static("-"),
                context: Context::default(),
                client: Client { peer: None, address: None, tls: false },
                shared_with: None,
            },
            clock: Clock::start(started),
            dialect: Dialect::Rest,
            route: "other",
            principal: None,
            told: Told::default(),
            cached: None,
            notice: None,
            place: None,
            version: None,
            downstream: Headers::default(),
            attempts: state.shared.spans.as_ref().map(|_| Attempts::default()),
            state: Arc::clone(state),
            counted: false,
        }
    }

    /// Continues the trace that a message names in its `_meta`, where its headers name none.
    pub fn adopt(&mut self, traceparent: Option<Verbatim<'_>>) {
        let named =
            traceparent.filter(|_| self.arrival.context.parent.is_none()).and_then(plain).and_then(|text| Context::within(text.as_bytes()));
        if let Some(context) = named {
            self.arrival.context = context;
        }
    }

    /// A body whose `_meta` names our span instead of the caller's, where ours is told of. The new name is as long as the old.
    pub fn stamp(&self, body: &Bytes, traceparent: Option<Verbatim<'_>>) -> Bytes {
        let old = traceparent.filter(|_| self.attempts.is_some()).and_then(plain);
        let Some(old) = old else { return body.clone() };
        let ours = self.arrival.context.traceparent();
        let ours = ours.as_bytes();
        let old = Some(old).filter(|old| old.len() == ours.len());
        let place = old.and_then(|old| (old.as_ptr() as usize).checked_sub(body.as_ptr() as usize));
        let Some(place) = place.filter(|place| place + ours.len() <= body.len()) else { return body.clone() };
        let mut changed = body.to_vec();
        changed[place..place + ours.len()].copy_from_slice(ours);
        changed.into()
    }

    /// Notes what is asked.
    pub fn asks(&mut self, call: &Call<'_>) {
        self.told.method = Some(method::find(&call.method).map_or_else(|| call.method.to_string().into(), |known| known.mcp.into()));
        self.told.name = call.name.clone().map(Cow::into_owned);
    }

    /// Counts the request as under way until the context is dropped.
    pub fn begin(&mut self) {
        if !self.counted {
            self.counted = true;
            self.state.shared.life.begin();
        }
    }

    /// Counts it as under way no longer.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.state.shared.life.end();
        }
    }

    /// Ends keep-alive if the process began to stop while the request was served.
    pub fn farewell(&self, client: &mut ServerSession) {
        if self.state.shared.life.phase() > Phase::Serving {
            client.set_keepalive(None);
        }
    }

    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// The middleware compiled in.
    pub fn middleware(&self) -> &[Arc<dyn Middleware>] {
        &self.state.shared.extensions.middleware
    }

    pub fn trace(&self) -> Trace<'_> {
        let Arrival { request_id, context, .. } = &self.arrival;
        Trace { request_id, context: *context, noted: self.attempts.as_ref(), clock: Some(&self.clock) }
    }

    pub fn request_id(&self) -> &str {
        self.arrival.request_id.to_str().unwrap_or("-")
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        self.end();
    }
}
