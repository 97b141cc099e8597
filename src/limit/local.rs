//! Counts in this process: exact, sharded by key so that callers do not wait for each other, and bounded, since keys are
//! what callers send.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use foldhash::quality::RandomState;

use super::meter::{Cell, Left, Meter, Now};

const SHARDS: usize = 64;
/// Counts kept in one shard. Beyond, newcomers share one count for each rule: nobody can make room by inventing keys.
const MOST: usize = 16_384;
/// Nanoseconds between two sweeps of a full shard.
const SWEEP_AGAIN: u64 = 1_000_000_000;

/// The counts of one process.
pub struct Local {
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
    under_way: Vec<Mutex<HashMap<Vec<u8>, u32>>>,
    origin: Instant,
}

#[derive(Default)]
struct Shard {
    counts: HashMap<Vec<u8>, (Meter, Cell), RandomState>,
    /// Counts after which stale ones are looked for.
    sweep_at: usize,
    /// When a full shard was last swept, on the steady clock.
    swept: u64,
}

impl Default for Local {
    fn default() -> Self {
        Self {
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            under_way: (0..SHARDS).map(|_| Mutex::default()).collect(),
            origin: Instant::now(),
        }
    }
}

impl Local {
    /// Takes `cost` requests from the count of `key`, whose first eight bytes name the rule.
    ///
    /// # Errors
    /// After how long they would be admitted.
    pub fn take(&self, key: &[u8], meter: &Meter, cost: u32) -> Result<Left, Duration> {
        let now = self.now(meter);
        self.with(key, meter, now, |cell| meter.take(cell, now, cost))
    }

    /// Gives back what was taken.
    pub fn give_back(&self, key: &[u8], meter: &Meter, cost: u32) {
        self.with(key, meter, self.now(meter), |cell| meter.give_back(cell, cost));
    }

    /// Takes one of `limit` places; `None` if all are taken.
    pub fn enter(self: &Arc<Self>, key: Vec<u8>, limit: u32) -> Option<Slot> {
        let shard = self.shard(&key);
        {
            let mut under_way = lock(&self.under_way[shard]);
            let count = under_way.entry(key.clone()).or_default();
            if *count >= limit {
                return None;
            }
            *count += 1;
        }
        Some(Slot { local: Arc::clone(self), shard, key })
    }

    /// The clocks, of which a rate looks at one only.
    fn now(&self, meter: &Meter) -> Now {
        Now { steady: nanos(self.origin.elapsed()), wall: if meter.is_rate() { 0 } else { wall() } }
    }

    fn shard(&self, key: &[u8]) -> usize {
        usize::try_from(self.hasher.hash_one(key)).unwrap_or_default() % SHARDS
    }

    fn with<T>(&self, key: &[u8], meter: &Meter, now: Now, work: impl FnOnce(&mut Cell) -> T) -> T {
        let mut shard = lock(&self.shards[self.shard(key)]);
        if let Some((known, cell)) = shard.counts.get_mut(key) {
            if known != meter {
                // The rule was changed; what was counted under the old one says nothing about the new.
                (*known, *cell) = (*meter, Cell::default());
            }
            return work(cell);
        }
        shard.make_room(now.steady);
        let key = if shard.counts.len() < MOST { key } else { &key[..key.len().min(8)] };
        let (_, cell) = shard.counts.entry(key.to_vec()).or_insert((*meter, Cell::default()));
        work(cell)
    }
}

impl Shard {
    /// Drops what is stale, now and then, so that it costs little for each newcomer.
    fn make_room(&mut self, steady: u64) {
        let is_full = self.counts.len() >= MOST;
        let not_yet = self.counts.len() < self.sweep_at.max(64) && !is_full;
        // Nothing may be stale in a full one, and newcomers keep coming.
        if not_yet || (is_full && steady < self.swept + SWEEP_AGAIN) {
            return;
        }
        let now = Now { steady, wall: wall() };
        self.counts.retain(|_, (meter, cell)| !meter.is_stale(*cell, now));
        self.sweep_at = self.counts.len() * 2;
        self.swept = steady;
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970.
fn wall() -> u64 {
    nanos(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request under way, counted until dropped.
pub struct Slot {
    local: Arc<Local>,
    shard: usize,
    key: Vec<u8>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut under_way = lock(&self.local.under_way[self.shard]);
        if let Some(count) = under_way.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::quota::Rate;

    fn meter(count: u32, burst: u32) -> Meter {
        Meter::rate(Rate { count, per: Duration::from_secs(3600), burst })
    }

    #[test]
    fn callers_on_many_threads_get_no_more_than_the_burst() {
        let (local, meter) = (Local::default(), meter(1, 500));
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..1000).filter(|_| local.take(b"rule....k", &meter, 1).is_ok()).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 500);
    }

    #[test]
    fn invented_keys_neither_fill_memory_nor_escape_the_rule() {
        let (local, meter) = (Local::default(), meter(1, 1));
        let admitted = (0..2 * SHARDS * MOST).filter(|i| local.take(format!("rule....{i}").as_bytes(), &meter, 1).is_ok()).count();
        let kept: usize = local.shards.iter().map(|shard| lock(shard).counts.len()).sum();
        assert!(kept <= SHARDS * (MOST + 1), "{kept}");
        assert!(admitted <= SHARDS * (MOST + 1), "{admitted}");
    }

    #[test]
    fn what_is_stale_makes_room() {
        let (local, meter) = (Local::default(), Meter::rate(Rate { count: 1000, per: Duration::from_millis(1), burst: 1 }));
        for i in 0..200_000 {
            let _ = local.take(format!("rule....{i}").as_bytes(), &meter, 1);
        }
        let kept: usize = local.shards.iter().map(|shard| lock(shard).counts.len()).sum();
        assert!(kept <= SHARDS * 200, "{kept}");
    }

    #[test]
    fn places_are_given_back() {
        let local = Arc::new(Local::default());
        let one = local.enter(b"k".to_vec(), 1);
        assert!(one.is_some() && local.enter(b"k".to_vec(), 1).is_none() && local.enter(b"l".to_vec(), 1).is_some());
        drop(one);
        assert!(local.enter(b"k".to_vec(), 1).is_some());
        assert!(local.under_way.iter().all(|shard| lock(shard).is_empty()));
    }
}
