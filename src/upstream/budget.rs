//! How often is tried again: each request pays in a share of a retry, each retry takes one out. When everything fails,
//! retries add that share to the load and no more, instead of multiplying it when backends are weakest.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Retries that are always there, however few requests came before, and how many come back each second.
const RESERVE: f64 = 10.0;
const REFILL: f64 = 1.0;
/// Retries saved up at most, as a multiple of the reserve.
const MOST: f64 = 100.0;

/// The retries of one pool.
#[derive(Debug)]
pub struct Budget(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    left: f64,
    refilled: Instant,
}

impl Default for Budget {
    fn default() -> Self {
        Self(Mutex::new(Inner { left: RESERVE, refilled: Instant::now() }))
    }
}

impl Budget {
    /// A request pays in.
    pub fn deposit(&self, share: f64) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.left = (inner.left + share).min(MOST);
    }

    /// Takes out one retry, if there is one.
    pub fn withdraw(&self, now: Instant) -> bool {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refill = now.saturating_duration_since(inner.refilled).as_secs_f64() * REFILL;
        inner.refilled = now;
        if inner.left < RESERVE {
            inner.left = (inner.left + refill).min(RESERVE);
        }
        let has = inner.left >= 1.0;
        if has {
            inner.left -= 1.0;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn retries_are_a_share_of_requests_beside_a_small_reserve() {
        let (budget, now) = (Budget::default(), Instant::now());
        let mut retries = 0;
        for _ in 0..10_000 {
            budget.deposit(0.2);
            retries += u32::from(budget.withdraw(now));
        }
        assert!((2_000..=2_010).contains(&retries), "{retries}");
        let later = |s| (0..100).filter(|_| budget.withdraw(now + Duration::from_secs(s))).count();
        assert_eq!((later(5), later(1000)), (5, 10));
    }
}
