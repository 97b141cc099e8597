//! One request at one backend: in flight for as long as this lives, and judged once, for the breakers and for passive
//! ejection.

use std::sync::Arc;
use std::time::Instant;

use super::backend::Backend;
use super::breaker::{Breaker, State, Ticket, Verdict};
use super::policy::{Policy, ToolGuard};
use crate::config::traffic::Breaker as Conf;
use crate::egress::Target;
use crate::room::Place;

/// A request that a backend was chosen for.
pub struct Trial {
    pub backend: Arc<Backend>,
    /// The address it goes to.
    pub target: Arc<Target>,
    policy: Arc<Policy>,
    ticket: Option<Ticket>,
    tool: Option<(Arc<ToolGuard>, Ticket)>,
    judged: bool,
    reached: bool,
    place: Option<Place>,
}

impl Trial {
    /// Begins it, unless a breaker does not let it through any more.
    pub fn begin(
        backend: &Arc<Backend>,
        target: Arc<Target>,
        policy: &Arc<Policy>,
        tool: Option<&Arc<ToolGuard>>,
        place: Option<Place>,
    ) -> Option<Self> {
        let now = Instant::now();
        let ticket = match &policy.breaker.backend {
            Some(conf) => Some(backend.record.breaker.enter(now, conf)?),
            None => None,
        };
        let (backend, policy) = (Arc::clone(backend), Arc::clone(policy));
        let mut trial = Self { backend, target, policy, ticket, tool: None, judged: false, reached: true, place };
        trial.backend.meter.in_flight.inc();
        if let Some(guard) = tool {
            // Dropped, it gives back what it took.
            trial.tool = Some((Arc::clone(guard), guard.breaker.enter(now, &guard.conf)?));
        }
        Some(trial)
    }

    /// Says how it went; only the first word counts.
    pub fn judge(&mut self, verdict: Verdict) {
        if std::mem::replace(&mut self.judged, true) {
            return;
        }
        let now = Instant::now();
        let name = self.backend.name();
        if let Some((guard, ticket)) = &self.tool {
            let verdict = if self.reached { verdict } else { Verdict::Void };
            settle(&guard.breaker, now, &guard.conf, *ticket, verdict, name, &guard.name);
        }
        // A tool that is watched by itself answers for itself: its failures are not to close its neighbours.
        let verdict = if self.tool.is_some() && self.reached && verdict == Verdict::Failed { Verdict::Void } else { verdict };
        if let (Some(ticket), Some(conf)) = (self.ticket, &self.policy.breaker.backend) {
            settle(&self.backend.record.breaker, now, conf, ticket, verdict, name, "");
        }
        let Some(conf) = self.policy.balancer.outlier.as_ref().filter(|_| verdict != Verdict::Void) else { return };
        if self.backend.record.outlier.count(now, conf, verdict == Verdict::Failed) {
            log::warn!("backend {name}: failed too often; left out for a while, unless too many others are");
        }
    }

    /// Notes that the backend could not be reached, for which none of its tools has to answer.
    pub fn miss(&mut self) {
        self.reached = false;
    }

    /// Notes that an answer begins that may go on for long. A probe has shown enough with it, since others wait for its
    /// word; any other request is judged by how it ends.
    pub fn vouch(&mut self) {
        let now = Instant::now();
        let probes = |breaker: &Breaker| breaker.state(now) == State::HalfOpen;
        if probes(&self.backend.record.breaker) || self.tool.as_ref().is_some_and(|(guard, _)| probes(&guard.breaker)) {
            self.judge(Verdict::Passed);
        }
    }

    /// Whether it takes a place that others may wait for.
    pub fn has_place(&self) -> bool {
        self.place.is_some()
    }

    /// Gives its place to others: what is left of it takes nothing, or little, of the backend.
    pub fn leave(&mut self) {
        self.place = None;
    }
}

fn settle(breaker: &Breaker, now: Instant, conf: &Conf, ticket: Ticket, verdict: Verdict, backend: &str, tool: &str) {
    let Some(state) = breaker.settle(now, conf, ticket, verdict) else { return };
    let of = if tool.is_empty() { String::new() } else { format!(" of {tool}") };
    match state {
        State::Open => {
            let wait = conf.recovery_timeout;
            log::warn!("backend {backend}: circuit breaker{of} open for {wait:?}: it failed too often, as told before");
        }
        state => log::warn!("backend {backend}: circuit breaker{of} {}", state.name()),
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.judge(Verdict::Void);
        self.backend.meter.in_flight.dec();
    }
}
