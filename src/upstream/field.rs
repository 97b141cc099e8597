//! The members of a pool as one request finds them: who can serve it now, who is passed over and why. Built for each
//! choice from what the backends tell at that moment; nothing here is kept.

use std::time::{Duration, Instant};

use super::balance::{Balance, Contenders, Standing};
use super::pool::{Ask, Member, NoChoice, Pool, Tried};
use crate::config::traffic::Strategy;

/// Weights are multiplied by this, so that a slow start can take small shares of small weights.
const SCALE: u32 = 100;

/// One request's view of a pool.
pub(super) struct Field<'f> {
    pool: &'f Pool,
    ask: Ask<'f>,
    tried: &'f Tried,
    now: Instant,
    /// Health is not believed: too few are healthy for it to be true.
    pub panics: bool,
    /// Bit by bit, who is left out for failing more than the others. Pools of more than 64 members look at the first 64.
    ejected: u64,
    reach: Reach,
}

/// Who is considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Those of our own zone with a place free.
    Near,
    /// Those with a place free.
    Free,
    /// All that are known to speak what is wanted.
    Any,
    /// Those as well of whom that is not known.
    Strange,
}

impl<'f> Field<'f> {
    pub fn new(pool: &'f Pool, ask: Ask<'f>, tried: &'f Tried) -> Self {
        let mut field = Self { pool, ask, tried, now: Instant::now(), panics: false, ejected: 0, reach: Reach::Any };
        let balancer = &pool.policy.balancer;
        if balancer.panic_threshold > 0.0 {
            let able = field.members().filter(|member| member.can(ask));
            let (healthy, all) = able.fold((0_u32, 0_u32), |(h, n), member| (h + u32::from(member.backend.is_healthy()), n + 1));
            field.panics = f64::from(healthy) < balancer.panic_threshold * f64::from(all);
        }
        if let Some(outlier) = balancer.outlier.as_ref().filter(|_| !field.panics) {
            field.ejected = field.ejected(outlier.max_ejected);
        }
        field
    }

    /// The member to be asked.
    pub fn choose(&mut self, balance: &Balance) -> Option<usize> {
        let near = self.stays_near();
        for reach in [Reach::Near, Reach::Free, Reach::Any, Reach::Strange] {
            if reach == Reach::Near && !near {
                continue;
            }
            self.reach = reach;
            let chosen = balance.pick(&self.pool.policy.balancer.strategy, self.ask.affinity, self);
            if chosen.is_some() {
                return chosen;
            }
        }
        None
    }

    /// All who could be asked, full or not.
    pub fn eligible(&mut self) -> Vec<usize> {
        self.reach = Reach::Strange;
        (0..self.count()).filter(|i| self.standing(*i) == Standing::Good).collect()
    }

    /// Why nobody could be chosen.
    pub fn why_nobody(&self) -> NoChoice {
        let able = (0..self.count()).filter(|i| self.is_up(*i) && self.member(*i).can(self.ask));
        let untried = able.filter(|i| !self.tried.all_of(*i, self.member(*i)));
        let waits = untried.filter_map(|i| self.member(i).wait(self.ask, &self.pool.policy, self.now));
        waits.min().map_or(NoChoice::Nobody, NoChoice::Open)
    }

    fn members(&self) -> impl Iterator<Item = &'f Member> + Clone + use<'f> {
        self.pool.members.iter()
    }

    fn member(&self, index: usize) -> &'f Member {
        &self.pool.members[index]
    }

    fn is_up(&self, index: usize) -> bool {
        let backend = &self.member(index).backend;
        // In a panic too, nobody is asked who never showed to be what is looked for.
        !backend.is_draining() && ((self.panics && backend.was_healthy()) || (backend.is_healthy() && self.ejected & bit(index) == 0))
    }

    /// Those who deserve to be out, the earliest first, as long as not too many are. The share is of those who could serve:
    /// who is down already must not make an ejection the end of all.
    fn ejected(&self, share: f64) -> u64 {
        let able = self.members().enumerate().filter(|(_, member)| member.can(self.ask) && member.backend.is_healthy());
        let deserving = able.clone().filter_map(|(i, member)| Some((member.backend.record.outlier.until(self.now)?, i)));
        let mut deserving: Vec<_> = deserving.collect();
        if deserving.is_empty() {
            return 0;
        }
        deserving.sort_unstable();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a few")]
        let most = (share * able.clone().count() as f64) as usize;
        // A small share of a few is one of them, as long as another is left.
        let most = if share > 0.0 && able.count() > 1 { most.max(1) } else { most };
        deserving.iter().take(most).fold(0, |bits, (_, i)| bits | bit(*i))
    }

    /// Whether the request stays in our own zone: always while enough of it can serve, then in proportion.
    fn stays_near(&self) -> bool {
        let balancer = &self.pool.policy.balancer;
        let Some(zone) = &balancer.zone else { return false };
        let near = (0..self.count()).filter(|i| self.is_near(*i, zone) && self.member(*i).can(self.ask));
        let (able, all) = near.fold((0_u64, 0_u64), |(able, all), i| {
            let weight = u64::from(self.member(i).backend.conf.weight);
            (able + if self.is_up(i) { weight } else { 0 }, all + weight)
        });
        #[expect(clippy::cast_precision_loss, reason = "weights are small")]
        let share = if all == 0 { 0.0 } else { able as f64 / all as f64 };
        share > 0.0 && (share >= balancer.spill_below || fastrand::f64() * balancer.spill_below < share)
    }

    fn is_near(&self, index: usize, zone: &str) -> bool {
        self.member(index).backend.conf.zone.as_deref() == Some(zone)
    }
}

impl Contenders for Field<'_> {
    fn count(&self) -> usize {
        self.pool.members.len()
    }

    fn standing(&self, index: usize) -> Standing {
        let member = self.member(index);
        if !self.is_up(index) {
            return Standing::Out;
        }
        let far = || self.pool.policy.balancer.zone.as_deref().is_some_and(|zone| !self.is_near(index, zone));
        let passed = !member.can(self.ask)
            || self.tried.all_of(index, member)
            || member.wait(self.ask, &self.pool.policy, self.now).is_some()
            || (matches!(self.reach, Reach::Near | Reach::Free) && member.is_full(self.ask))
            || (self.reach == Reach::Near && far())
            || (self.reach != Reach::Strange && member.is_stranger());
        if passed { Standing::Passed } else { Standing::Good }
    }

    fn weight(&self, index: usize) -> u32 {
        let backend = &self.member(index).backend;
        let slow = self.pool.policy.balancer.slow_start;
        let whole = backend.conf.weight * SCALE;
        // Whoever is found by what the caller is stays the same while it starts.
        if slow.is_zero() || matches!(self.pool.policy.balancer.strategy, Strategy::ConsistentHash(_)) {
            return whole;
        }
        ramped(whole, backend.healthy_for(), slow)
    }

    fn load(&self, index: usize) -> i64 {
        self.member(index).backend.meter.in_flight.get()
    }

    fn name(&self, index: usize) -> &str {
        self.member(index).backend.name()
    }
}

fn bit(index: usize) -> u64 {
    u32::try_from(index).ok().and_then(|index| 1_u64.checked_shl(index)).unwrap_or(0)
}

/// The share of its weight that somebody has after `age` of a slow start: a tenth at first, then in proportion.
fn ramped(whole: u32, age: Duration, slow: Duration) -> u32 {
    let share = (age.as_secs_f64() / slow.as_secs_f64()).clamp(0.1, 1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most `whole`")]
    let weight = (f64::from(whole) * share) as u32;
    weight.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_start_takes_a_growing_share() {
        let (s, slow) = (Duration::from_secs, Duration::from_secs(30));
        let shares: Vec<_> = [0, 1, 6, 15, 30, 100].map(|age| ramped(100, s(age), slow)).into();
        assert_eq!(shares, [10, 10, 20, 50, 100, 100]);
    }
}
