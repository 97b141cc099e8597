//! Smooth weighted round robin over whoever is eligible right now. Each choice raises every eligible member by its
//! weight and lowers the chosen one by their sum, so the shares are exact over any full cycle, spread evenly within it
//! (nginx's algorithm), and stay exact among the rest when a member drops out. Pingora's own `RoundRobin` sends bursts
//! and ignores weights once it falls back from an unhealthy choice.

use std::sync::Mutex;

/// Whether a member can be chosen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    /// Not for this request, but for others.
    Passed,
    /// For nobody: it is down.
    Out,
}

/// The turn-taking state of one pool.
#[derive(Debug)]
pub struct Balance {
    weights: Vec<u32>,
    /// How far each member is ahead (negative) or behind its share.
    credit: Mutex<Vec<i64>>,
}

impl Balance {
    pub fn new(weights: Vec<u32>) -> Self {
        let credit = Mutex::new(vec![0; weights.len()]);
        Self { weights, credit }
    }

    /// The index of the next member in turn among those of good standing, if there is one.
    pub fn pick(&self, standing: impl Fn(usize) -> Standing) -> Option<usize> {
        let mut credit = self.credit.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (mut total, mut best) = (0, None);
        for (i, weight) in self.weights.iter().enumerate() {
            match standing(i) {
                Standing::Good => {}
                Standing::Passed => continue,
                // Who comes back starts even: a credit from before would be paid out as a burst.
                Standing::Out => {
                    credit[i] = 0;
                    continue;
                }
            }
            credit[i] += i64::from(*weight);
            total += i64::from(*weight);
            if best.is_none_or(|b: usize| credit[i] > credit[b]) {
                best = Some(i);
            }
        }
        let best = best?;
        credit[best] -= total;
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(balance: &Balance, rounds: u32, alive: impl Fn(usize) -> bool) -> Vec<u32> {
        let mut shares = vec![0; balance.weights.len()];
        for _ in 0..rounds {
            shares[balance.pick(|i| if alive(i) { Standing::Good } else { Standing::Out }).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn choices_are_spread_not_bundled() {
        let balance = Balance::new(vec![3, 1]);
        let order: Vec<_> = (0..4).map(|_| balance.pick(|_| Standing::Good).unwrap()).collect();
        assert_eq!(order, [0, 0, 1, 0]);
    }

    #[test]
    fn nobody_eligible_is_no_choice() {
        assert_eq!(Balance::new(vec![1, 1]).pick(|_| Standing::Out), None);
        assert_eq!(Balance::new(vec![]).pick(|_| Standing::Good), None);
    }

    proptest! {
        #[test]
        fn shares_are_exact_over_a_cycle_also_after_a_death(weights in proptest::collection::vec(1u32..20, 2..6), before in 0u32..50, dead in 0usize..6) {
            let dead = dead % weights.len();
            let balance = Balance::new(weights.clone());
            shares(&balance, before, |_| true);
            // One cycle evens out what the death interrupted; from then on the shares are exact.
            let alive: u32 = weights.iter().enumerate().filter(|(i, _)| *i != dead).map(|(_, w)| w).sum();
            shares(&balance, alive, |i| i != dead);
            let ten = shares(&balance, 10 * alive, |i| i != dead);
            for (i, share) in ten.iter().enumerate() {
                let expected = if i == dead { 0 } else { 10 * weights[i] };
                prop_assert!(share.abs_diff(expected) <= 1 + u32::try_from(weights.len()).unwrap(), "{ten:?} for {weights:?} without {dead}");
            }
        }
    }
}
