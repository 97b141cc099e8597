//! The acts of a request. Pingora calls the phases below in the order they stand here; the policy is `admit`, the lanes
//! are `native` and `rest` (before them `cached`, where answers are kept), what is known is answered by the sidecar's pages, and `record` has the last word.
//!
//! Every request is answered from inside `request_filter`, over the pooled `Connector` where a backend is needed, so
//! `upstream_peer` is never reached: see `exchange` for what that buys. GET streams and DELETE go the same way, because
//! only there can a stream be ended cleanly on drain and one piece of code decide what goes upstream.

pub mod admit;
pub mod audit;
pub mod body;
pub mod cached;
pub mod coded;
pub mod course;
pub mod ctx;
pub mod custom;
mod event;
mod line;
pub mod native;
mod often;
pub mod record;
mod refused;
pub mod reply;
pub mod rest;
mod told;
pub mod who;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::modules::http::HttpModules;
use pingora::protocols::http::ServerSession;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use self::admit::Plan;
use self::body::Body;
use self::ctx::Ctx;
use crate::observe::spans::Spans;
use crate::observe::trace;
use crate::page::Page;
use crate::principal::Principal;
use crate::reject::{Reject, Verdict};
use crate::route::Route;
use crate::sidecar;
use crate::snapshot::State;

/// How long a client may take to read what is written to it.
const SLOWEST_READER: Duration = Duration::from_secs(30);

/// The proxy: Pingora's phases over our state.
pub struct Gateway {
    pub state: Arc<State>,
}

#[async_trait]
impl ProxyHttp for Gateway {
    /// Boxed, because Pingora moves it from one future into another on its way.
    type CTX = Box<Ctx>;

    fn new_ctx(&self) -> Box<Ctx> {
        Box::new(Ctx::new(&self.state))
    }

    /// No modules: that for compression would hold back event streams (see `coded` for ours).
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    /// The header block has arrived: disarms its deadline (see `bootstrap/listen`).
    fn on_connection_reuse(&self, _session: &mut Session, _ctx: &mut Box<Ctx>, deadline: Box<dyn Any + Send + Sync>) {
        drop(deadline);
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<()> {
        let headers = &session.req_header().headers;
        ctx.arrival.request_id = trace::request_id(headers);
        let context = trace::Context::of(headers, || self.state.shared.spans.as_ref().is_some_and(Spans::chance));
        ctx.arrival.context = context;
        ctx.begin();
        let client = session.as_downstream_mut();
        client.set_write_timeout(Some(SLOWEST_READER));
        client.set_pipelining_enabled(true);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Box<Ctx>) -> Result<bool> {
        let client = session.as_downstream_mut();
        let path = client.req_header().uri.path().to_owned();
        let mut body = Bytes::new();
        if let Err(reject) = self.serve(client, ctx, &path, &mut body).await? {
            if reject.code.status() >= 500 {
                log::warn!("{} {path}: {reject}", ctx.request_id());
            }
            Box::pin(reply::refuse(client, ctx, &reject, &body)).await?;
        }
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut Box<Ctx>) -> Result<Box<HttpPeer>> {
        Error::e_explain(ErrorType::InternalError, "every request is answered in request_filter")
    }

    /// A broken exchange can only be shown to the client by breaking off as well.
    async fn fail_to_proxy(&self, _session: &mut Session, _error: &Error, _ctx: &mut Box<Ctx>) -> FailToProxy {
        FailToProxy { error_code: 0, can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _session: &Session, _ctx: &Box<Ctx>, _error: &Error) -> bool {
        // The access record carries it.
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Box<Ctx>) {
        record::write(&self.state, session.as_downstream(), ctx, error);
        told::tell(&self.state, session.as_downstream(), ctx);
        // Last, so that it counts for nobody's latency, and holds up no end of the process.
        ctx.end();
        body::linger(session.as_downstream_mut()).await;
    }
}

impl Gateway {
    async fn serve(&self, client: &mut ServerSession, ctx: &mut Ctx, path: &str, body: &mut Bytes) -> Result<Verdict<()>> {
        let mut read = Body::default();
        let judged = admit::admit(&self.state, client, ctx, path, &mut read).await;
        let plan = match judged {
            Ok(plan) => plan,
            Err(reject) => {
                body.clone_from(read.read());
                return Ok(Err(reject));
            }
        };
        match &plan {
            Plan::Native(plan) => {
                *body = plan.body.clone();
                native::serve(&self.state, client, ctx, plan).await
            }
            Plan::Rest(plan) => rest::serve(&self.state, client, ctx, plan).await,
            Plan::Answer(page) => reply::page(client, ctx, page.clone()).await.map(Ok),
            Plan::Page(route, principal) => match self.page(client, ctx, *route, principal.as_deref()) {
                Ok(page) => reply::page(client, ctx, page).await.map(Ok),
                Err(reject) => Ok::<_, Box<Error>>(Err::<(), Reject>(reject)),
            },
        }
    }

    fn page(&self, client: &ServerSession, ctx: &Ctx, route: Route<'_>, principal: Option<&Principal>) -> Verdict<Page> {
        if let Route::ProtectedResource(path) = route {
            return sidecar::protected_resource(&ctx.snapshot, &who::base(client, ctx, route), path);
        }
        sidecar::page(&self.state, &ctx.snapshot, route, principal)
    }
}
