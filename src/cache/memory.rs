//! What is kept in this process, bounded by its bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::key::Key;
use super::marks::Mark;
use super::parts::Parts;
use crate::mcp::method::METHODS;
use crate::observe::cache::CacheMeter;

/// What an entry takes beside its texts and members: its own structs, those of the table it stands in, and what the
/// allocator rounds up. Measured as resident memory: over 100,000 entries of 20 and of 300 bytes in one member and of 300
/// in four, what they weigh is 2 % too much, 1 % and nothing; over 20,000 of 3,000 bytes in two it is 7 % too little.
const OVERHEAD: usize = 610;
/// The allocator leaves one byte unused for so many of texts of mixed lengths: it rounds them up, and where one was dropped
/// the next may not fit. Measured as what is resident after minutes of answers of 10 to 14,000 bytes, each asked for once.
const UNUSED: usize = 7;

/// Answers given within an entry's time that make it a hot one.
const HOT: u64 = 3;

/// An answer as its server gave it, before anything was left out or changed for a caller.
pub struct Entry {
    pub server: Arc<str>,
    /// Its place in the table of methods.
    pub method: usize,
    /// The tool, prompt or resource.
    pub name: Option<Box<str>>,
    /// Who answered.
    pub backend: Arc<str>,
    /// The MCP result, less `ttlMs`.
    pub result: Parts,
    /// Whether the server told how long it is fresh, and so every caller is told.
    pub is_hinted: bool,
    /// For one caller only.
    pub is_private: bool,
    /// The moment it was asked for (see [`super::marks`]).
    pub asked: u64,
    pub kept: Instant,
    pub ttl: Duration,
    pub hits: AtomicU64,
    /// When answers of its server stopped being true.
    pub mark: Arc<Mark>,
}

impl Entry {
    pub fn age(&self) -> Duration {
        self.kept.elapsed()
    }

    /// Whether it was not declared void since it was asked for.
    pub fn counts(&self) -> bool {
        self.mark.holds(self.asked, self.method, self.name.as_deref())
    }

    /// How long it is still fresh; `None` if it is not.
    pub fn left(&self) -> Option<Duration> {
        self.ttl.checked_sub(self.age()).filter(|left| !left.is_zero())
    }

    /// What a caller of now is told of its time, if anything: what is left of it, in milliseconds.
    pub fn told(&self, age: Duration) -> Option<u128> {
        self.is_hinted.then(|| self.ttl.saturating_sub(age).as_millis())
    }

    /// Whether less than a tenth of its time is left.
    pub fn is_ending(&self) -> bool {
        self.ends_after(self.age())
    }

    /// Whether less than a tenth of its time is left at an age.
    pub fn ends_after(&self, age: Duration) -> bool {
        self.ttl.saturating_sub(age) < self.ttl / 10 || age >= self.ttl
    }

    /// Whether it is asked for often enough to be asked for anew ahead of time.
    pub fn is_hot(&self) -> bool {
        self.hits.load(Ordering::Relaxed) >= HOT
    }

    /// The name of its method.
    pub fn method_name(&self) -> &'static str {
        METHODS.get(self.method).map_or("", |method| method.mcp)
    }
}

/// What stands under a key.
#[derive(Clone)]
pub enum Slot {
    Kept(Arc<Entry>),
    /// The answer is private: look under the caller's own key.
    Private(Duration),
    /// The answer is none that is kept: ask without waiting for others who ask.
    Passed,
}

/// How long answers that are not kept are taken for such.
const PASSED: Duration = Duration::from_secs(10);

/// The table.
pub struct Memory {
    /// Keys are hashed by a seed of this process.
    table: Cache<Key, Slot, foldhash::quality::RandomState>,
}

struct Expires {
    /// How long entries stay past their time.
    stale: Duration,
}

impl Expiry<Key, Slot> for Expires {
    fn expire_after_create(&self, _: &Key, slot: &Slot, _: Instant) -> Option<Duration> {
        Some(match slot {
            Slot::Kept(entry) => entry.ttl + self.stale,
            Slot::Private(ttl) => *ttl + self.stale,
            Slot::Passed => PASSED,
        })
    }

    fn expire_after_update(&self, key: &Key, slot: &Slot, now: Instant, _: Option<Duration>) -> Option<Duration> {
        self.expire_after_create(key, slot, now)
    }
}

impl Memory {
    pub fn new(bytes: usize, stale: Duration, meter: &Arc<CacheMeter>) -> Self {
        let meter = Arc::clone(meter);
        let table = Cache::builder()
            .weigher(|key: &Key, slot: &Slot| u32::try_from(weight(key, slot)).unwrap_or(u32::MAX))
            .max_capacity(bytes as u64)
            // By use alone. The other policy lets one in that is asked for more often than all that it would take the place of
            // together: among many short answers a long list never is, however often it is asked for.
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(Expires { stale })
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    meter.evictions.inc();
                }
            })
            .build_with_hasher(foldhash::quality::RandomState::default());
        Self { table }
    }

    pub fn find(&self, key: &Key) -> Option<Slot> {
        self.table.get(key)
    }

    /// What is kept under a key and counts.
    pub fn entry(&self, key: &Key) -> Option<Arc<Entry>> {
        match self.table.get(key)? {
            Slot::Kept(entry) if entry.counts() => Some(entry),
            _ => None,
        }
    }

    pub fn put(&self, key: Key, slot: Slot) {
        self.table.insert(key, slot);
        // At once: what waits to be counted would be memory beyond the bound.
        self.table.run_pending_tasks();
    }

    pub fn drop_one(&self, key: &Key) {
        self.table.invalidate(key);
    }

    /// Lets go of the entries that `which` says; how many those were.
    pub fn drop_all(&self, which: impl Fn(&Entry) -> bool) -> usize {
        let found: Vec<_> = self.entries().into_iter().filter(|(_, entry)| which(entry)).collect();
        for (key, _) in &found {
            self.table.invalidate(&**key);
        }
        self.table.run_pending_tasks();
        found.len()
    }

    pub fn entries(&self) -> Vec<(Arc<Key>, Arc<Entry>)> {
        let kept = |(key, slot)| match slot {
            Slot::Kept(entry) => Some((key, entry)),
            Slot::Private(_) | Slot::Passed => None,
        };
        self.table.iter().filter_map(kept).collect()
    }

    /// The bytes that all of it takes.
    pub fn bytes(&self) -> u64 {
        self.table.run_pending_tasks();
        self.table.weighted_size()
    }
}

fn weight(key: &Key, slot: &Slot) -> usize {
    let kept = match slot {
        Slot::Kept(entry) => entry.result.weight() + entry.backend.len() + entry.name.as_ref().map_or(0, |name| name.len()),
        Slot::Private(_) | Slot::Passed => 0,
    };
    let texts = key.bytes() + kept;
    texts + texts / UNUSED + OVERHEAD
}

/// Counts a use; the table counts too, but for itself.
pub fn touch(entry: &Entry) {
    entry.hits.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::test_key;
    use crate::cache::marks::Marks;
    use crate::mcp::members::Members;
    use crate::observe::metrics::Metrics;

    const BOUND: usize = 1 << 20;

    fn slot(length: usize) -> Slot {
        let text = format!("{{\"content\":\"{}\"}}", "x".repeat(length));
        let result: Members<'_> = serde_json::from_str(&text).unwrap();
        Slot::Kept(Arc::new(Entry {
            server: "files".into(),
            method: 0,
            name: None,
            backend: "a".into(),
            result: Parts::of(&result),
            is_hinted: false,
            is_private: false,
            asked: 1,
            kept: Instant::now(),
            ttl: Duration::from_secs(3600),
            hits: 0.into(),
            mark: Marks::default().of("files"),
        }))
    }

    /// Asks for what is not kept and keeps it, as often as there are numbers.
    fn flood(memory: &Memory, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let key = test_key(&number.to_string());
            assert!(memory.find(&key).is_none());
            memory.put(key, slot(100));
        }
    }

    #[test]
    fn a_long_answer_finds_room_among_many_short_ones_and_what_is_used_keeps_it() {
        let memory = Memory::new(BOUND, Duration::ZERO, &Metrics::new().cache);
        let long = test_key("long");
        flood(&memory, 0..2_000);
        memory.put(long.clone(), slot(BOUND / 10));
        assert!(memory.find(&long).is_some());
        for round in 1..20 {
            flood(&memory, round * 2_000..round * 2_000 + 500);
            assert!(memory.find(&long).is_some(), "{round}");
            assert!((BOUND / 2..=BOUND).contains(&usize::try_from(memory.bytes()).unwrap()));
        }
        flood(&memory, 90_000..94_000);
        assert!(memory.find(&long).is_none(), "what nobody asks for makes room");
    }
}
