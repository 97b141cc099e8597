//! Looking for an answer: what is there, or the turn to ask for it.

use std::sync::Arc;
use std::time::Instant;

use super::entry::{Entry, Slot};
use super::fill::{Elsewhere, Fill};
use super::flight::{Part, Settled};
use super::key::Key;
use super::{Bypass, Cache, Hit, Step, Wish};
use crate::observe::cache::{Looked, ServerMeter};

/// Times a question is looked up again before it is asked without waiting for others.
const LOOKS: usize = 8;

/// What memory has of a question.
enum Found {
    Step(Step),
    /// Nothing that can be given; somebody must ask under this key. What is past its time may stand in for a failure.
    Nothing(Option<Arc<Entry>>),
}

impl Hit {
    pub(super) fn of(entry: Arc<Entry>) -> Self {
        Self::at(entry, Instant::now())
    }

    /// Given at a moment.
    pub(super) fn at(entry: Arc<Entry>, now: Instant) -> Self {
        let age = now.saturating_duration_since(entry.kept);
        Self { is_stale: age >= entry.ttl, age, entry, renew: None }
    }

    /// Counted as an answer that was given.
    pub(super) fn counted(self, meter: &ServerMeter, looked: Looked) -> Self {
        self.entry.touch();
        meter.hit(self.age);
        meter.looked(looked);
        self
    }
}

impl Cache {
    /// What can be said at once; `None` where somebody must ask, or is asking.
    pub fn peek(self: &Arc<Self>, wish: &Arc<Wish>) -> Option<Step> {
        match self.found(wish, &mut &wish.first) {
            Found::Step(step) => Some(counted(wish, step)),
            Found::Nothing(_) => None,
        }
    }

    /// Looks for an answer, waiting up to `until` for somebody who asks already.
    pub async fn look(self: &Arc<Self>, wish: &Arc<Wish>, until: Instant) -> Step {
        counted(wish, self.find(wish, until).await)
    }

    /// What memory has. `key` becomes the caller's own where the answer is private.
    fn found<'w>(self: &Arc<Self>, wish: &'w Arc<Wish>, key: &mut &'w Key) -> Found {
        let now = Instant::now();
        loop {
            return match self.kept.memory.find(key, now) {
                Some(Slot::Passed) => Found::Step(Step::Pass(Bypass::Uncacheable)),
                Some(Slot::Private(_)) => match wish.own.as_ref().filter(|own| own != key) {
                    Some(own) => {
                        *key = own;
                        continue;
                    }
                    None => Found::Step(Step::Pass(Bypass::Uncacheable)),
                },
                Some(Slot::Kept(entry)) => match self.usable(wish, key, entry, now) {
                    Ok(hit) => Found::Step(Step::Hit(hit)),
                    Err(stale) => Found::Nothing(stale),
                },
                None => Found::Nothing(None),
            };
        }
    }

    async fn find(self: &Arc<Self>, wish: &Arc<Wish>, until: Instant) -> Step {
        let mut key = &wish.first;
        for _ in 0..LOOKS {
            let stale = match self.found(wish, &mut key) {
                Found::Step(step) => return step,
                Found::Nothing(stale) => stale,
            };
            match self.kept.flights.join(key, until).await {
                Part::Ask(turn) => {
                    // Whoever had the turn before may have settled it just now.
                    if let Some(entry) = self.kept.memory.entry(key).filter(|entry| entry.left().is_some()) {
                        turn.settle(Settled::Kept(Arc::clone(&entry)));
                        return Step::Hit(Hit::of(entry));
                    }
                    match Fill::new(self, wish, turn, stale).elsewhere().await {
                        Elsewhere::Nothing(fill) => return Step::Ask(fill),
                        Elsewhere::Kept(entry) => return Step::Hit(Hit::of(entry)),
                        // It is another's, or this caller's under a key of its own.
                        Elsewhere::Private => {}
                    }
                }
                Part::Settled(Settled::Kept(entry)) if entry.counts() => return Step::Hit(Hit::of(entry)),
                // Private ones are looked for again, and so is what was declared void while we waited.
                Part::Settled(Settled::Kept(_) | Settled::Private) => {}
                Part::Settled(Settled::Passed) => return Step::Pass(Bypass::Uncacheable),
                Part::Late => return Step::Late,
            }
        }
        Step::Pass(Bypass::Uncacheable)
    }

    /// Whether a fresh answer is to be asked for anew, ahead of its end.
    pub(super) fn is_to_be_renewed(&self, hit: &Hit) -> bool {
        self.conf.refresh_ahead && hit.entry.ends_after(hit.age) && hit.entry.is_hot()
    }

    /// An entry as an answer, or what of it is left for where asking fails.
    fn usable(self: &Arc<Self>, wish: &Arc<Wish>, key: &Key, entry: Arc<Entry>, now: Instant) -> Result<Hit, Option<Arc<Entry>>> {
        if !entry.counts() {
            self.kept.memory.drop_this(key, &entry);
            return Err(None);
        }
        let mut hit = Hit::at(entry, now);
        if !hit.is_stale {
            let turn = self.is_to_be_renewed(&hit).then(|| self.kept.flights.try_join(key)).flatten();
            hit.renew = turn.map(|turn| Box::new(Fill::new(self, wish, turn, None).ahead()));
            return Ok(hit);
        }
        let over = hit.age.saturating_sub(hit.entry.ttl);
        if over < self.conf.stale.while_revalidate.0 {
            hit.renew = self.kept.flights.try_join(key).map(|turn| Box::new(Fill::new(self, wish, turn, None)));
            return Ok(hit);
        }
        Err(Some(hit.entry).filter(|_| over < self.conf.stale.if_error.0))
    }
}

/// Counts what a look led to.
fn counted(wish: &Wish, step: Step) -> Step {
    match step {
        Step::Hit(hit) => {
            let looked = if hit.is_stale { Looked::Stale } else { Looked::Hit };
            return Step::Hit(hit.counted(&wish.meter, looked));
        }
        Step::Ask(_) | Step::Late => wish.meter.looked(Looked::Miss),
        Step::Pass(why) => wish.meter.bypassed(why),
    }
    step
}
