//! Whose turn it is among those that can serve right now.
//!
//! Weighted round robin is smooth: each choice raises every eligible member by its weight and lowers the chosen one by
//! their sum, so the shares are exact over any full cycle, spread evenly within it (nginx's algorithm), and stay exact
//! among the rest when a member drops out. Pingora's own `RoundRobin` sends bursts and ignores weights once it falls back
//! from an unhealthy choice. Consistent hashing is by highest score (rendezvous): a member that goes moves only its own
//! callers, and replicas agree without telling each other.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Mutex;

use crate::config::traffic::Strategy;

/// Whether a member can be chosen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// Not for this request, but for others.
    Passed,
    /// For nobody: it is down.
    Out,
}

/// What a choice looks at.
pub trait Contenders {
    fn count(&self) -> usize;
    fn standing(&self, index: usize) -> Standing;
    /// Its share at this moment, in any unit.
    fn weight(&self, index: usize) -> u32;
    /// Requests it is working on.
    fn load(&self, index: usize) -> i64;
    fn name(&self, index: usize) -> &str;
}

/// The turn-taking state of one pool.
#[derive(Debug)]
pub struct Balance {
    /// How far each member is ahead (negative) or behind its share.
    credit: Mutex<Vec<i64>>,
}

impl Balance {
    pub fn new(members: usize) -> Self {
        Self { credit: Mutex::new(vec![0; members]) }
    }

    /// The index of the member to be asked, if any is of good standing. `affinity` is what the caller is known by, for
    /// consistent hashing; without it the turn decides.
    pub fn pick(&self, strategy: &Strategy, affinity: Option<u64>, all: &impl Contenders) -> Option<usize> {
        match (strategy, affinity) {
            (Strategy::ConsistentHash(_), Some(affinity)) => by_hash(affinity, all),
            (Strategy::LeastRequests, _) => less_busy(all),
            (Strategy::Random, _) => random(all, None),
            (Strategy::WeightedRoundRobin | Strategy::ConsistentHash(_), _) => self.in_turn(all),
        }
    }

    fn in_turn(&self, all: &impl Contenders) -> Option<usize> {
        let mut credit = self.credit.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (mut total, mut best) = (0, None);
        for i in 0..all.count() {
            match all.standing(i) {
                Standing::Good => {}
                Standing::Passed => continue,
                // Who comes back starts even: a credit from before would be paid out as a burst.
                Standing::Out => {
                    credit[i] = 0;
                    continue;
                }
            }
            let weight = i64::from(all.weight(i));
            credit[i] += weight;
            total += weight;
            if best.is_none_or(|b: usize| credit[i] > credit[b]) {
                best = Some(i);
            }
        }
        let best = best?;
        credit[best] -= total;
        Some(best)
    }
}

fn good(all: &impl Contenders) -> impl Iterator<Item = usize> {
    (0..all.count()).filter(|i| all.standing(*i) == Standing::Good)
}

/// One of good standing by weight, other than `but`.
fn random(all: &impl Contenders, but: Option<usize>) -> Option<usize> {
    let eligible = || good(all).filter(|i| Some(*i) != but);
    let total: u64 = eligible().map(|i| u64::from(all.weight(i))).sum();
    let mut left = fastrand::u64(0..total.max(1));
    // Standings may change while we look; then the last one is as good as any.
    let mut last = None;
    for i in eligible() {
        let weight = u64::from(all.weight(i));
        if left < weight {
            return Some(i);
        }
        left -= weight;
        last = Some(i);
    }
    last
}

/// The better of two (Mitzenmacher): nearly as good as asking all, and no herd runs to whoever was least busy last.
fn less_busy(all: &impl Contenders) -> Option<usize> {
    let one = random(all, None)?;
    let Some(two) = random(all, Some(one)) else { return Some(one) };
    // (load + 1) / weight, compared without dividing.
    let cost = |i: usize, other: usize| i128::from(all.load(i) + 1) * i128::from(all.weight(other));
    Some(if cost(two, one) < cost(one, two) { two } else { one })
}

fn by_hash(affinity: u64, all: &impl Contenders) -> Option<usize> {
    let score = |i: usize| {
        let mut hasher = DefaultHasher::new();
        affinity.hash(&mut hasher);
        all.name(i).hash(&mut hasher);
        // A number between 0 and 1, never 0; the logarithm makes shares come out by weight.
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what a float holds")]
        let uniform = ((hasher.finish() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -f64::from(all.weight(i)) / uniform.ln()
    };
    good(all).map(|i| (i, score(i))).max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::traffic::Affinity;
    use proptest::{prop_assert, prop_assert_eq, proptest};

    /// Members by weight, load and whether they live.
    struct Members(Vec<(u32, i64, bool)>);

    impl Members {
        fn of(weights: &[u32]) -> Self {
            Self(weights.iter().map(|weight| (*weight, 0, true)).collect())
        }
    }

    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

    impl Contenders for Members {
        fn count(&self) -> usize {
            self.0.len()
        }
        fn standing(&self, i: usize) -> Standing {
            if self.0[i].2 { Standing::Good } else { Standing::Out }
        }
        fn weight(&self, i: usize) -> u32 {
            self.0[i].0
        }
        fn load(&self, i: usize) -> i64 {
            self.0[i].1
        }
        fn name(&self, i: usize) -> &str {
            NAMES[i]
        }
    }

    fn shares(balance: &Balance, strategy: &Strategy, rounds: u64, all: &Members) -> Vec<u32> {
        let mut shares = vec![0; all.count()];
        for round in 0..rounds {
            shares[balance.pick(strategy, Some(round), all).unwrap()] += 1;
        }
        shares
    }

    const TURN: Strategy = Strategy::WeightedRoundRobin;
    const HASH: Strategy = Strategy::ConsistentHash(Affinity::Subject);

    #[test]
    fn choices_are_spread_not_bundled() {
        let (balance, all) = (Balance::new(2), Members::of(&[3, 1]));
        let order: Vec<_> = (0..4).map(|_| balance.pick(&TURN, None, &all).unwrap()).collect();
        assert_eq!(order, [0, 0, 1, 0]);
    }

    #[test]
    fn nobody_eligible_is_no_choice() {
        for strategy in [TURN, HASH, Strategy::LeastRequests, Strategy::Random] {
            assert_eq!(Balance::new(2).pick(&strategy, Some(1), &Members(vec![(1, 0, false), (1, 0, false)])), None);
            assert_eq!(Balance::new(0).pick(&strategy, Some(1), &Members::of(&[])), None);
        }
    }

    #[test]
    fn weights_hold_for_every_strategy_and_the_dead_get_nothing() {
        for strategy in [TURN, HASH, Strategy::Random] {
            let all = Members(vec![(6, 0, true), (3, 0, true), (9, 0, false), (1, 0, true)]);
            let shares = shares(&Balance::new(4), &strategy, 10_000, &all);
            for (share, expected) in shares.iter().zip([6_000_u32, 3_000, 0, 1_000]) {
                assert!(share.abs_diff(expected) <= expected / 10, "{strategy:?}: {shares:?}");
            }
        }
    }

    #[test]
    fn the_less_busy_of_two_is_asked_by_weight() {
        let balance = Balance::new(2);
        let pick = |members| balance.pick(&Strategy::LeastRequests, None, &Members(members));
        assert_eq!(pick(vec![(1, 5, true), (1, 4, true)]), Some(1));
        assert_eq!(pick(vec![(2, 5, true), (1, 4, true)]), Some(0), "6/2 against 5/1");
        assert_eq!(pick(vec![(1, 5, true), (1, 0, false)]), Some(0));
    }

    proptest! {
        #[test]
        fn shares_are_exact_over_a_cycle_also_after_a_death(weights in proptest::collection::vec(1u32..20, 2..6), before in 0u64..50, dead in 0usize..6) {
            let dead = dead % weights.len();
            let (balance, mut all) = (Balance::new(weights.len()), Members::of(&weights));
            shares(&balance, &TURN, before, &all);
            all.0[dead].2 = false;
            // One cycle evens out what the death interrupted; from then on the shares are exact.
            let alive: u32 = weights.iter().enumerate().filter(|(i, _)| *i != dead).map(|(_, w)| w).sum();
            shares(&balance, &TURN, u64::from(alive), &all);
            let ten = shares(&balance, &TURN, 10 * u64::from(alive), &all);
            for (i, share) in ten.iter().enumerate() {
                let expected = if i == dead { 0 } else { 10 * weights[i] };
                prop_assert!(share.abs_diff(expected) <= 1 + u32::try_from(weights.len()).unwrap(), "{ten:?} for {weights:?} without {dead}");
            }
        }

        #[test]
        fn a_death_moves_only_the_callers_of_the_dead(weights in proptest::collection::vec(1u32..20, 2..6), dead in 0usize..6, caller: u64) {
            let dead = dead % weights.len();
            let (balance, mut all) = (Balance::new(weights.len()), Members::of(&weights));
            let before = balance.pick(&HASH, Some(caller), &all).unwrap();
            all.0[dead].2 = false;
            let after = balance.pick(&HASH, Some(caller), &all).unwrap();
            prop_assert_eq!(after == before, before != dead);
        }
    }
}
