//! A bound on what is told of crowds: so many in each second, and no more. What comes on top is for counters to tell.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many in a second.
pub struct PerSecond {
    most: usize,
    /// When the second began, and how many came in it.
    counted: Mutex<(Option<Instant>, usize)>,
}

impl PerSecond {
    pub const fn new(most: usize) -> Self {
        Self { most, counted: Mutex::new((None, 0)) }
    }

    /// Whether one more is told.
    pub fn takes(&self) -> bool {
        self.takes_at(Instant::now())
    }

    fn takes_at(&self, now: Instant) -> bool {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.0.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            *counted = (Some(now), 0);
        }
        counted.1 += 1;
        counted.1 <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_takes_as_many() {
        let (few, begun) = (PerSecond::new(3), Instant::now());
        let taken = |ms| (0..5).filter(|_| few.takes_at(begun + Duration::from_millis(ms))).count();
        assert_eq!([0, 999, 1000, 1999, 9000].map(taken), [3, 0, 3, 0, 3]);
    }
}
