//! Passive ejection: a backend that fails request after request, or more often than a share, is left out for a while,
//! whatever its health check says. It only says who deserves it; the pool sees to it that not too many are out at once.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::window::Window;
use crate::config::traffic::Outlier as Conf;

/// What passes show of one backend.
#[derive(Debug, Default)]
pub struct Outlier(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    failures: u32,
    window: Window,
    /// How often it was left out; forgiven one by one when it behaves.
    times: u32,
    until: Option<Instant>,
}

impl Outlier {
    /// Counts how a request ended; tells whether the backend is left out from now on.
    pub fn count(&self, now: Instant, conf: &Conf, failed: bool) -> bool {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.window.count(now, conf.interval, failed);
        if !failed {
            inner.failures = 0;
            return false;
        }
        inner.failures += 1;
        let is_out = inner.until.is_some_and(|until| now < until);
        let deserves =
            inner.failures >= conf.consecutive_failures || inner.window.exceeds(now, conf.interval, conf.failure_rate, conf.min_requests);
        if is_out || !deserves {
            return false;
        }
        // Good behaviour for as long as the last absence wipes the record.
        let forgiven = inner.until.is_some_and(|until| now > until + conf.ejection * inner.times);
        inner.times = if forgiven { 1 } else { (inner.times + 1).min(10) };
        inner.until = Some(now + conf.ejection * inner.times);
        inner.failures = 0;
        inner.window.clear();
        true
    }

    /// Lets it in again, since it shows other signs of being back.
    pub fn hasten(&self, now: Instant) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.until = inner.until.map(|until| until.min(now));
    }

    /// Until when it is left out, if it is.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).until.filter(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn failures_in_a_row_leave_a_backend_out_longer_each_time() {
        let s = Duration::from_secs;
        let conf =
            Conf { consecutive_failures: 3, failure_rate: 1.0, min_requests: 1000, interval: s(10), ejection: s(30), max_ejected: 0.5 };
        let (outlier, now) = (Outlier::default(), Instant::now());
        let fail = |at: u64| outlier.count(now + s(at), &conf, true);
        assert!(!fail(0) && !fail(0));
        outlier.count(now, &conf, false);
        assert!(!fail(0) && !fail(0) && fail(0), "in a row");
        assert!(outlier.until(now + s(29)).is_some() && outlier.until(now + s(30)).is_none());
        assert!(!fail(31) && !fail(31) && fail(31));
        assert!(outlier.until(now + s(90)).is_some() && outlier.until(now + s(91)).is_none(), "twice as long");
        assert!(!fail(500) && !fail(500) && fail(500));
        assert!(outlier.until(now + s(531)).is_none(), "forgiven");
    }
}
