//! How much already, and how often: the gateway's own load before anything is known of a caller, the limits of callers once
//! everything is.

use http::{HeaderMap, Method};

use super::ctx::Ctx;
use crate::call::Call;
use crate::config;
use crate::limit::Granted;
use crate::limit::rule::Asked;
use crate::observe::clock::Stage;
use crate::observe::metrics::Shed;
use crate::principal::Principal;
use crate::reject::{Code, Reject, Verdict};
use crate::route::Route;
use crate::snapshot::State;

/// Turns away floods, and a part of what comes while we cannot keep up.
///
/// # Errors
/// `rate_limited` for an address that floods us, `overloaded`.
pub fn hold_back(state: &State, ctx: &Ctx, limits: &config::Limits, route: Route<'_>) -> Verdict<()> {
    let metrics = &state.shared.metrics;
    if let Some(address) = ctx.arrival.client.address.filter(|_| limits.requests_per_ip > 0)
        && state.shared.coarse.exceeds(address, limits.requests_per_ip)
    {
        metrics.shed(Shed::Address);
        let detail = format!("more than {} requests of your address in a second", limits.requests_per_ip);
        return Err(Reject::new(Code::RateLimited, detail).retry_after(std::time::Duration::from_secs(1)));
    }
    if route.is_page() {
        return Ok(());
    }
    state.shared.lag.watch(limits.shed_lag);
    state.shared.lag.judge().inspect_err(|_| metrics.shed(Shed::Lag))
}

/// Finds a place for a request among what is under way. Asked for once its body is there: whoever sends one slowly must not
/// keep others out.
///
/// # Errors
/// `overloaded`.
pub async fn make_room(state: &State, ctx: &mut Ctx, limits: &config::Limits, method: &Method) -> Verdict<()> {
    // A stream stays for as long as its client likes.
    if *method != Method::GET {
        let waits = ctx.snapshot.gate.is_full();
        if waits {
            ctx.clock.enter(Stage::Queue);
        }
        ctx.place = ctx.snapshot.gate.enter(limits).await.inspect_err(|_| state.shared.metrics.shed(Shed::InFlight))?;
        if waits {
            ctx.clock.enter(Stage::Admit);
        }
    }
    Ok(())
}

/// What the limits look at beside the call.
#[derive(Clone, Copy)]
pub struct Often<'o> {
    pub state: &'o State,
    pub headers: &'o HeaderMap,
    pub principal: &'o Principal,
    pub server: &'o str,
}

impl Often<'_> {
    /// Admits one call; `route` is the routing rule that chose where it goes.
    ///
    /// # Errors
    /// `rate_limited`, or `store_unavailable`.
    pub async fn admit(&self, ctx: &Ctx, call: &Call<'_>, route: Option<&str>) -> Verdict<Granted> {
        let limits = &ctx.snapshot.limits;
        if limits.is_empty() {
            return Ok(Granted::default());
        }
        let (server, headers, client) = (self.server, self.headers, ctx.arrival.client.address);
        let asked = Asked { route, server, call, principal: self.principal, client, headers };
        limits.admit(&asked, &self.state.shared.metrics).await
    }

    /// Admits all calls, or none.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub async fn admit_all<'c>(&self, ctx: &Ctx, calls: impl Iterator<Item = &'c Call<'c>>, route: Option<&str>) -> Verdict<Granted> {
        let mut granted = Granted::default();
        for call in calls {
            match self.admit(ctx, call, route).await {
                Ok(more) => granted.join(more),
                Err(reject) => {
                    ctx.snapshot.limits.take_back(&granted);
                    return Err(reject);
                }
            }
        }
        Ok(granted)
    }
}
