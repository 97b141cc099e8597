//! The arithmetic of rates: the generic cell rate algorithm (ITU-T I.371), which is a token bucket kept as one moment in
//! time. Exact, and pure: no clock, no store.

use std::time::Duration;

use crate::config::quota::Rate;

/// A rate as the algorithm wants it, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gcra {
    /// The time one request takes to be forgiven; rounded up, so that rounding admits nothing.
    pub interval: u64,
    /// The time a whole burst takes to be forgiven.
    pub tolerance: u64,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Admitted: the state to be kept, how many more would be admitted now.
    Admitted { state: u64, remaining: u64 },
    /// Refused: after this long it would be admitted.
    Refused { wait: Duration },
}

impl Gcra {
    pub fn new(rate: Rate) -> Self {
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = per.div_ceil(u64::from(rate.count)).max(1);
        Self { interval, tolerance: interval.saturating_mul(u64::from(rate.burst)) }
    }

    /// The price of `cost` requests. What costs more than a burst could never be paid, so it takes the whole of it.
    fn price(&self, cost: u32) -> u64 {
        self.interval.saturating_mul(u64::from(cost)).min(self.tolerance)
    }

    /// Decides on a request at `now`; `state` is what the last one left, 0 at first.
    pub fn decide(&self, state: u64, now: u64, cost: u32) -> Decision {
        let after = state.max(now).saturating_add(self.price(cost));
        let ahead = after - now;
        match self.tolerance.checked_sub(ahead) {
            Some(left) => Decision::Admitted { state: after, remaining: left / self.interval },
            None => Decision::Refused { wait: Duration::from_nanos(ahead - self.tolerance) },
        }
    }

    /// The state after an admitted request was taken back.
    pub fn undo(&self, state: u64, cost: u32) -> u64 {
        state.saturating_sub(self.price(cost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rates() -> impl Strategy<Value = Rate> {
        (1u32..2000, 1u64..100_000, 1u32..200).prop_map(|(count, per, burst)| Rate { count, per: Duration::from_millis(per), burst })
    }

    proptest! {
        #[test]
        fn it_is_a_token_bucket(rate in rates(), steps in proptest::collection::vec((0u64..500_000_000, 1u32..4), 1..300)) {
            let gcra = Gcra::new(rate);
            // The bucket holds time, so that nothing is rounded: full at `tolerance`, each request takes `interval`.
            let (mut bucket, mut state, mut now) = (gcra.tolerance, 0, 1_000);
            for (passes, cost) in steps {
                now += passes;
                bucket = gcra.tolerance.min(bucket + passes);
                let price = (gcra.interval * u64::from(cost)).min(gcra.tolerance);
                match gcra.decide(state, now, cost) {
                    Decision::Admitted { state: next, remaining } => {
                        prop_assert!(bucket >= price);
                        bucket -= price;
                        prop_assert_eq!(remaining, bucket / gcra.interval);
                        state = next;
                    }
                    Decision::Refused { wait } => {
                        prop_assert!(bucket < price);
                        prop_assert_eq!(u128::from(price - bucket), wait.as_nanos(), "a moment sooner it is refused, then admitted");
                    }
                }
            }
        }

        #[test]
        fn no_span_of_time_sees_more_than_its_share_and_a_burst(rate in rates(), steps in proptest::collection::vec(0u64..50_000_000, 1..400)) {
            let gcra = Gcra::new(rate);
            let (mut state, mut now, mut admitted) = (0, 0, Vec::new());
            for passes in steps {
                now += passes;
                if let Decision::Admitted { state: next, .. } = gcra.decide(state, now, 1) {
                    state = next;
                    admitted.push(now);
                }
            }
            for (i, from) in admitted.iter().enumerate() {
                for (j, to) in admitted.iter().enumerate().skip(i) {
                    let most = u64::from(rate.burst) + (to - from) / gcra.interval;
                    prop_assert!((j - i + 1) as u64 <= most, "{} in {} ns", j - i + 1, to - from);
                }
            }
        }

        #[test]
        fn what_is_taken_back_was_never_taken(rate in rates(), cost in 1u32..5, at in 1u64..1_000_000_000) {
            let gcra = Gcra::new(rate);
            let Decision::Admitted { state, .. } = gcra.decide(0, at, cost) else { return Ok(()) };
            prop_assert_eq!(gcra.undo(state, cost), at);
        }
    }
}
