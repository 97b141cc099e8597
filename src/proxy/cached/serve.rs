//! Serving a native request with a cache.

use std::sync::Arc;

use pingora::protocols::http::ServerSession;

use super::native::{self, Filled, Given, Said};
use crate::cache::{Cache, Fill, Wish};
use crate::exchange::relay;
use crate::exchange::sight::Sight;
use crate::observe::clock::Stage;
use crate::observe::metrics::Outcome;
use crate::proxy::admit::Native;
use crate::proxy::ctx::Ctx;
use crate::proxy::native::{Served, answer, asked, restricted};
use crate::proxy::record::outcome_of;
use crate::proxy::reply::{self, left};
use crate::snapshot::State;

/// What the cache says at once.
pub enum Peeked {
    Said(Said),
    /// Somebody must ask, or is asking. With it comes what the caller sees of the server.
    Unsaid(Arc<Wish>, Option<Sight>),
}

/// Asks the cache for what it has.
pub fn peek(client: &ServerSession, ctx: &mut Ctx, plan: &Native<'_>, cache: &Arc<Cache>) -> Peeked {
    let sight = restricted(ctx, plan);
    let now = ctx.clock.enter(Stage::Cache);
    match native::peek(ctx, cache, &client.req_header().headers, plan, sight.as_ref(), now) {
        Ok(said) => Peeked::Said(said),
        Err(wish) => Peeked::Unsaid(wish, sight),
    }
}

/// Answers as the cache says, or asks and keeps what comes.
pub async fn kept(
    state: &State,
    client: &mut ServerSession,
    ctx: &mut Ctx,
    plan: &Native<'_>,
    cache: &Arc<Cache>,
    peeked: Peeked,
) -> Served {
    let said = match peeked {
        Peeked::Said(said) => said,
        Peeked::Unsaid(wish, sight) => {
            let headers = client.req_header().headers.clone();
            tokio::select! {
                biased;
                said = native::look(ctx, cache, &headers, plan, sight.as_ref(), &wish) => said,
                () = relay::departure(client) => return (Outcome::Abandoned, Err(left())),
            }
        }
    };
    match said {
        Said::Go => asked(state, client, ctx, plan).await,
        Said::Refuse(reject) => (outcome_of(&reject), Ok(Err(reject))),
        Said::Answer(answer) => given(client, ctx, answer).await,
        Said::Ask(fill) => filled(state, client, ctx, plan, cache, fill).await,
    }
}

/// Writes an answer that was kept.
pub async fn given(client: &mut ServerSession, ctx: &mut Ctx, answer: Given) -> Served {
    ctx.told.backend = Some(answer.backend);
    (Outcome::Ok, reply::page(client, ctx, answer.page).await.map(Ok))
}

/// Asks, tells the cache what came, and relays it. Where others wait for it, asking goes on without the client.
async fn filled(state: &State, client: &mut ServerSession, ctx: &mut Ctx, plan: &Native<'_>, cache: &Arc<Cache>, fill: Fill) -> Served {
    ctx.clock.enter(Stage::Upstream);
    let witness = fill.witness();
    let outcome = {
        let lines = client.req_header().headers.clone();
        let mut filling = Box::pin(native::fill(state, ctx, plan, cache, fill, &lines));
        let mut outcome = tokio::select! {
            biased;
            filled = &mut filling => Some(filled),
            () = relay::departure(client) => None,
        };
        if outcome.is_none() && witness.is_awaited() {
            let _ = filling.await;
            outcome = None;
        }
        outcome
    };
    match outcome {
        None => (Outcome::Abandoned, Err(left())),
        Some(Filled::Given(answer)) => given(client, ctx, *answer).await,
        Some(Filled::Opened(opened)) => answer(state, client, ctx, plan, *opened).await,
        Some(Filled::Refused(reject)) => (outcome_of(&reject), Ok(Err(reject))),
    }
}
