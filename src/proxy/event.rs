//! What analytics are told of a request: one event when it is over, or one for each element of a REST batch. Streams that
//! clients open with GET, and the ends of their sessions, are no requests to a server.

use std::time::Duration;

use http::Method;
use pingora::protocols::http::ServerSession;

use super::cached::Cached;
use super::ctx::{Ctx, Dialect};
use crate::analytics::{Event, brief};
use crate::call::Call;
use crate::exchange::call::Done;
use crate::mcp::method::{self, Named};
use crate::observe::metrics::Outcome;
use crate::reject::{Reject, Verdict};

/// Tells of a request that is over.
pub fn whole(client: &ServerSession, ctx: &Ctx, status: u16, elapsed: Duration) {
    let Some(analytics) = &ctx.snapshot.analytics else { return };
    // The labels of both lanes end so, and no other's does.
    let is_request = ctx.route.ends_with("/mcp/{server}") && client.req_header().method == Method::POST;
    if !is_request || ctx.told.itemised {
        return;
    }
    let told = &ctx.told;
    // What was refused before a lane has a code alone; what broke off before it has not even that.
    let early = if told.code.is_some() { Outcome::Refused } else { Outcome::Abandoned };
    analytics.tell(Event {
        name: told.method.as_deref().and_then(|method| name(method, told.name.as_deref())),
        method: told.method.as_deref().map(brief),
        backend: told.backend.as_deref().map(brief),
        outcome: told.outcome.unwrap_or(early).name(),
        status,
        code: told.code,
        limit: told.limit.as_deref().map(brief),
        cache: ctx.cached.as_ref().map(|cached| cached.word),
        bytes_in: client.body_bytes_read(),
        bytes_out: told.bytes,
        ..of(ctx, elapsed)
    });
}

/// Tells of one element of a batch that was answered; its status is what it would have had alone.
pub fn element(ctx: &Ctx, call: &Call<'_>, answer: &Verdict<Done>, outcome: Outcome, cached: Option<&Cached>) {
    let Some(analytics) = &ctx.snapshot.analytics else { return };
    let event = match answer {
        Ok(done) => Event { status: 200, backend: Some(brief(&done.backend)), bytes_out: done.body.len(), ..Event::default() },
        Err(reject) => refusal(reject),
    };
    let shared = of(ctx, ctx.arrival.started.elapsed());
    analytics.tell(Event {
        name: name(&call.method, call.name.as_deref()),
        method: Some(brief(&call.method)),
        backend: event.backend,
        outcome: outcome.name(),
        status: event.status,
        code: event.code,
        limit: event.limit,
        cache: cached.map(|cached| cached.word),
        bytes_out: event.bytes_out,
        ..shared
    });
}

/// Tells of one element of a batch that was refused before it was sent.
pub fn refused(ctx: &Ctx, reject: &Reject) {
    let Some(analytics) = &ctx.snapshot.analytics else { return };
    let Event { status, code, limit, .. } = refusal(reject);
    analytics.tell(Event { outcome: Outcome::Refused.name(), status, code, limit, ..of(ctx, ctx.arrival.started.elapsed()) });
}

fn refusal(reject: &Reject) -> Event {
    let limit = reject.limit.as_ref().map(|limit| brief(&limit.rule));
    Event { status: reject.code.status(), code: Some(reject.code.name()), limit, ..Event::default() }
}

/// What all events of a request have in common.
fn of(ctx: &Ctx, elapsed: Duration) -> Event {
    let identity = ctx.principal.as_deref().map(|principal| &principal.identity);
    Event {
        at: jiff::Timestamp::now(),
        request_id: brief(ctx.request_id()),
        lane: if ctx.dialect == Dialect::Native { "native" } else { "rest" },
        version: ctx.version.as_ref().map(|version| brief(&version.name)),
        tenant: identity.and_then(|identity| identity.tenant.as_deref()).map(brief),
        subject: identity.map(|identity| brief(&identity.subject)).filter(|subject| !subject.is_empty()),
        way: ctx.principal.as_deref().map(|principal| principal.way.name()),
        server: ctx.told.server.clone(),
        duration: elapsed,
        ..Event::default()
    }
}

/// The tool or prompt that is named; URIs may hold secrets, and stay out.
fn name(method: &str, name: Option<&str>) -> Option<Box<str>> {
    method::find(method).filter(|row| row.named == Named::Name)?;
    name.map(brief)
}
