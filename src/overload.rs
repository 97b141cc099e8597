//! What keeps the gateway itself from drowning: how much is under way in all, and refusing a part of what comes as soon
//! as its own workers fall behind. Pages (`/health`, `/metrics`, …) never wait here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::Limits;
use crate::reject::{Code, Reject, Verdict};
use crate::room::{Full, Place, Room};

/// How often the lag is measured.
const TICK: Duration = Duration::from_millis(20);
/// The share of requests refused grows and shrinks by this with each tick. It grows faster than it shrinks: latency
/// that collapsed takes longer to come back than a few refusals too many.
const GROW: f64 = 0.05;
const SHRINK: f64 = 0.02;
/// A few are always let through, to see whether it got better.
const MOST: f64 = 0.95;

/// How much may be under way in all.
#[derive(Debug, Default)]
pub struct Gate {
    room: Option<Arc<Room>>,
    size: usize,
}

impl Gate {
    /// The gate for `limits`; that of `old` goes on if it is as wide.
    pub fn new(limits: &Limits, old: Option<&Self>) -> Self {
        let size = limits.in_flight;
        let kept = old.filter(|old| old.size == size).and_then(|old| old.room.clone());
        let room = kept.or_else(|| (size > 0).then(|| Arc::new(Room::new(size))));
        Self { room, size }
    }

    /// Whether a request may have to wait.
    pub fn is_full(&self) -> bool {
        self.room.as_ref().is_some_and(|room| room.is_full())
    }

    /// Lets a request in, perhaps after a short wait.
    ///
    /// # Errors
    /// `overloaded`.
    pub async fn enter(&self, limits: &Limits) -> Verdict<Option<Place>> {
        let Some(room) = &self.room else { return Ok(None) };
        room.enter(&limits.queue).await.map(Some).map_err(|full| {
            let how = if full == Full::Queue { "and as many wait" } else { "and none ended in time" };
            refused(format!("this gateway has all the requests it may have, {how}"))
        })
    }
}

fn refused(detail: impl Into<std::borrow::Cow<'static, str>>) -> Reject {
    Reject::new(Code::Overloaded, detail).retry_after(Duration::from_secs(1))
}

/// How far the workers are behind: the time between when a task should run and when it does.
#[derive(Debug, Default)]
pub struct Lag {
    watched: AtomicBool,
    /// Microseconds, smoothed.
    late: AtomicU64,
    /// The share of requests to be refused, in millionths.
    shed: AtomicU64,
    /// Microseconds of lag from which on requests are refused.
    limit: AtomicU64,
}

impl Lag {
    /// Has the runtime it is called on measured, once and for as long as that lives. `limit` is from where on requests are
    /// refused; zero never.
    pub fn watch(self: &Arc<Self>, limit: Duration) {
        self.limit.store(micros(limit), Ordering::Relaxed);
        if !self.watched.load(Ordering::Relaxed) && !self.watched.swap(true, Ordering::Relaxed) {
            tokio::spawn(Arc::clone(self).measure());
        }
    }

    /// Refuses a share of requests while the workers are behind.
    ///
    /// # Errors
    /// `overloaded`.
    pub fn judge(&self) -> Verdict<()> {
        let shed = self.shed.load(Ordering::Relaxed);
        if shed > 0 && fastrand::u64(0..1_000_000) < shed { Err(refused("this gateway cannot keep up")) } else { Ok(()) }
    }

    async fn measure(self: Arc<Self>) {
        loop {
            let before = Instant::now();
            tokio::time::sleep(TICK).await;
            self.note(before.elapsed().saturating_sub(TICK));
        }
    }

    fn note(&self, late: Duration) {
        let smoothed = (self.late.load(Ordering::Relaxed) * 3 + micros(late)) / 4;
        self.late.store(smoothed, Ordering::Relaxed);
        let limit = self.limit.load(Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let before = self.shed.load(Ordering::Relaxed) as f64 / 1e6;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a million")]
        self.shed.store((next_share(before, smoothed, limit) * 1e6) as u64, Ordering::Relaxed);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The share to refuse after a tick with so much lag.
fn next_share(before: f64, late: u64, limit: u64) -> f64 {
    match late {
        _ if limit == 0 => 0.0,
        late if late > limit => (before + GROW).min(MOST),
        late if late > limit / 2 => before,
        _ => (before - SHRINK).max(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_that_stays_is_answered_by_refusing_more_and_forgiven_slowly() {
        let lag = Lag::default();
        lag.limit.store(100_000, Ordering::Relaxed);
        assert!((0..1000).all(|_| lag.judge().is_ok()));
        for _ in 0..10 {
            lag.note(Duration::from_secs(1));
        }
        let refused = (0..10_000).filter(|_| lag.judge().is_err()).count();
        assert!((3_500..6_000).contains(&refused), "{refused}");
        for _ in 0..100 {
            lag.note(Duration::from_secs(1));
        }
        assert!((0..10_000).any(|_| lag.judge().is_ok()), "some always pass");
        for _ in 0..100 {
            lag.note(Duration::ZERO);
        }
        assert!((0..1000).all(|_| lag.judge().is_ok()));
    }
}
