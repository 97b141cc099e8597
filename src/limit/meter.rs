//! What is counted, in one shape for both stores: a rate or a quota, and the few numbers that are its state.

use std::time::Duration;

use super::gcra::{Decision, Gcra};
use crate::config::quota::{Quota, Rate};

/// A way of counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    Rate(Gcra),
    /// So many in each window of the clock.
    Quota {
        count: u64,
        /// Nanoseconds.
        window: u64,
    },
}

/// What is kept of one count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cell {
    /// A rate's state, or the number of the window.
    at: u64,
    /// What the window has used.
    used: u64,
}

/// The clocks: nanoseconds since the process began, and since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub steady: u64,
    pub wall: u64,
}

/// What is left after an admitted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    pub requests: u64,
    /// Until all that was used is there again.
    pub reset: Duration,
}

impl Meter {
    pub fn rate(rate: Rate) -> Self {
        Self::Rate(Gcra::new(rate))
    }

    pub fn quota(quota: Quota) -> Self {
        Self::Quota { count: u64::from(quota.count), window: u64::try_from(quota.window.as_nanos()).unwrap_or(u64::MAX).max(1) }
    }

    pub const fn is_rate(&self) -> bool {
        matches!(self, Self::Rate(_))
    }

    /// The most that is admitted at once.
    pub fn most(&self) -> u64 {
        match self {
            Self::Rate(gcra) => gcra.tolerance / gcra.interval,
            Self::Quota { count, .. } => *count,
        }
    }

    /// Takes `cost` requests from the count.
    ///
    /// # Errors
    /// After how long they would be admitted.
    pub fn take(&self, cell: &mut Cell, now: Now, cost: u32) -> Result<Left, Duration> {
        match self {
            Self::Rate(gcra) => match gcra.decide(cell.at, now.steady, cost) {
                Decision::Admitted { state, remaining } => {
                    cell.at = state;
                    Ok(Left { requests: remaining, reset: Duration::from_nanos(state - now.steady) })
                }
                Decision::Refused { wait } => Err(wait),
            },
            Self::Quota { count, window } => {
                let number = now.wall / window;
                if cell.at != number {
                    *cell = Cell { at: number, used: 0 };
                }
                let ends = Duration::from_nanos(window - now.wall % window);
                let after = cell.used + u64::from(cost).min(*count);
                if after > *count {
                    return Err(ends);
                }
                cell.used = after;
                Ok(Left { requests: count - after, reset: ends })
            }
        }
    }

    /// Gives back what was taken.
    pub fn give_back(&self, cell: &mut Cell, cost: u32) {
        match self {
            Self::Rate(gcra) => cell.at = gcra.undo(cell.at, cost),
            Self::Quota { .. } => cell.used = cell.used.saturating_sub(u64::from(cost)),
        }
    }

    /// Whether a count says no more than a new one would.
    pub fn is_stale(&self, cell: Cell, now: Now) -> bool {
        match self {
            Self::Rate(_) => cell.at <= now.steady,
            Self::Quota { window, .. } => cell.at != now.wall / window,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_begins_anew_with_each_window_of_the_clock() {
        let meter = Meter::quota(Quota { count: 3, window: Duration::from_secs(60) });
        let at = |seconds: u64| Now { steady: 0, wall: seconds * 1_000_000_000 };
        let mut cell = Cell::default();
        assert_eq!(meter.take(&mut cell, at(100), 2), Ok(Left { requests: 1, reset: Duration::from_secs(20) }));
        assert_eq!(meter.take(&mut cell, at(110), 2), Err(Duration::from_secs(10)));
        meter.give_back(&mut cell, 1);
        assert!(meter.take(&mut cell, at(110), 2).is_ok());
        assert!(!meter.is_stale(cell, at(119)) && meter.is_stale(cell, at(120)));
        assert!(meter.take(&mut cell, at(120), 9).is_ok(), "what costs more than all takes all");
    }
}
