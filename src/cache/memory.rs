//! Where answers are kept in this process, bounded by their bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use lru::LruCache;

use super::entry::{Entry, Slot};
use super::key::Key;
use crate::observe::cache::CacheMeter;

/// How long answers that are not kept are taken for such.
const PASSED: Duration = Duration::from_secs(10);
/// Longest entries that each of several shards holds at least, so that few of them leave room for others.
const LONGEST_HELD: usize = 8;
/// Shards for each core, at most: one is locked for the time of a look.
const SHARDS: usize = 4;
/// Entries that are over and let go of by one who brings another, and by one who asks how many bytes there are.
const TIDIED: (usize, usize) = (8, 1024);

/// What stands under a key.
struct Standing {
    slot: Slot,
    until: Instant,
    weight: usize,
}

/// The table. Whatever was not asked for longest makes room, which is all that counts: where it counts as well how often one
/// is asked for, a long list among many short answers never finds room (such was the case here).
pub struct Memory {
    shards: Box<[Mutex<Shard>]>,
    /// How long entries stay past their time.
    stale: Duration,
    meter: Arc<CacheMeter>,
}

struct Shard {
    /// In the order in which they were asked for. The hash of a key is a secret one of this process already.
    table: LruCache<Key, Standing, RandomState>,
    bytes: usize,
    bound: usize,
}

/// What was taken out, to be let go of when nothing is locked.
type Gone = Vec<(Key, Standing)>;

impl Shard {
    fn put(&mut self, key: Key, standing: Standing, gone: &mut Gone) {
        gone.extend(self.take(&key));
        // One that all of it has no room for takes nobody else's.
        if standing.weight > self.bound {
            return;
        }
        self.bytes += standing.weight;
        gone.extend(self.table.push(key, standing));
    }

    fn take(&mut self, key: &Key) -> Option<(Key, Standing)> {
        let taken = self.table.pop_entry(key)?;
        self.bytes -= taken.1.weight;
        Some(taken)
    }

    /// Takes out the last where `which` says so.
    fn take_last(&mut self, which: impl Fn(&Self, &Standing) -> bool) -> Option<(Key, Standing)> {
        let (_, last) = self.table.peek_lru()?;
        if !which(self, last) {
            return None;
        }
        let taken = self.table.pop_lru()?;
        self.bytes -= taken.1.weight;
        Some(taken)
    }

    /// Takes out what is over, up to so many, as far as it is last.
    fn tidy(&mut self, now: Instant, most: usize, gone: &mut Gone) {
        gone.extend(std::iter::from_fn(|| self.take_last(|_, last| last.until <= now)).take(most));
    }

    /// What is kept and not over.
    fn kept(&self, now: Instant) -> impl Iterator<Item = (&Key, &Arc<Entry>)> {
        self.table.iter().filter_map(move |(key, standing)| match &standing.slot {
            Slot::Kept(entry) if now < standing.until => Some((key, entry)),
            _ => None,
        })
    }

    /// Takes out the last until the rest is within bounds; how many that were that are not over.
    fn make_room(&mut self, now: Instant, gone: &mut Gone) -> usize {
        let before = gone.len();
        gone.extend(std::iter::from_fn(|| self.take_last(|shard, _| shard.bytes > shard.bound)));
        gone[before..].iter().filter(|(_, standing)| now < standing.until).count()
    }
}

impl Memory {
    /// A table of so many bytes, in which one entry takes up to `longest`.
    pub fn new(bytes: usize, longest: usize, stale: Duration, meter: &Arc<CacheMeter>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = (bytes / (longest * LONGEST_HELD).max(1)).clamp(1, cores * SHARDS);
        let shard =
            || Mutex::new(Shard { table: LruCache::unbounded_with_hasher(RandomState::default()), bytes: 0, bound: bytes / shards });
        Self { shards: std::iter::repeat_with(shard).take(shards).collect(), stale, meter: Arc::clone(meter) }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        locked(&self.shards[key.part_of(self.shards.len())])
    }

    /// What stands under a key at a moment; who asks takes it to the front.
    pub fn find(&self, key: &Key, now: Instant) -> Option<Slot> {
        let mut shard = self.shard(key);
        let standing = shard.table.get(key)?;
        if now < standing.until {
            return Some(standing.slot.clone());
        }
        let over = shard.take(key);
        drop(shard);
        drop(over);
        None
    }

    /// What is kept under a key and counts.
    pub fn entry(&self, key: &Key) -> Option<Arc<Entry>> {
        match self.find(key, Instant::now())? {
            Slot::Kept(entry) if entry.counts() => Some(entry),
            _ => None,
        }
    }

    pub fn put(&self, key: Key, slot: Slot) {
        let now = Instant::now();
        let until = match &slot {
            Slot::Kept(entry) => entry.kept + entry.ttl + self.stale,
            Slot::Private(ttl) => now + *ttl + self.stale,
            Slot::Passed => now + PASSED,
        };
        let standing = Standing { weight: slot.weight(&key), slot, until };
        let mut gone = Gone::new();
        let mut shard = self.shard(&key);
        shard.tidy(now, TIDIED.0, &mut gone);
        shard.put(key, standing, &mut gone);
        let evicted = shard.make_room(now, &mut gone);
        drop(shard);
        self.meter.evictions.inc_by(evicted as u64);
    }

    pub fn drop_one(&self, key: &Key) {
        let gone = self.shard(key).take(key);
        drop(gone);
    }

    /// Lets go of the entries that `which` says; how many those were.
    pub fn drop_all(&self, which: impl Fn(&Entry) -> bool) -> usize {
        let now = Instant::now();
        // What is meant is said while nothing is locked: it may take long.
        let cloned = |(key, entry): (&Key, &Arc<Entry>)| (key.clone(), Arc::clone(entry));
        let found = self.shards.iter().flat_map(|shard| locked(shard).kept(now).map(cloned).collect::<Vec<_>>());
        found.filter(|(key, entry)| which(entry) && self.drop_this(key, entry)).count()
    }

    /// Lets go of an entry unless another has taken its place.
    fn drop_this(&self, key: &Key, entry: &Arc<Entry>) -> bool {
        let mut shard = self.shard(key);
        let stands = matches!(shard.table.peek(key), Some(Standing { slot: Slot::Kept(kept), .. }) if Arc::ptr_eq(kept, entry));
        let gone = if stands { shard.take(key) } else { None };
        drop(shard);
        gone.is_some()
    }

    /// What is kept and not over.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        let now = Instant::now();
        let entries = |shard| locked(shard).kept(now).map(|(_, entry)| Arc::clone(entry)).collect::<Vec<_>>();
        self.shards.iter().flat_map(entries).collect()
    }

    /// The bytes that all of it takes.
    pub fn bytes(&self) -> u64 {
        let now = Instant::now();
        let tidied = |shard| {
            let (mut shard, mut gone) = (locked(shard), Gone::new());
            shard.tidy(now, TIDIED.1, &mut gone);
            let bytes = shard.bytes as u64;
            drop(shard);
            bytes
        };
        self.shards.iter().map(tidied).sum()
    }
}

fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::test_key;
    use crate::cache::marks::Marks;
    use crate::cache::parts::Parts;
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
            assert!(memory.find(&key, Instant::now()).is_none());
            memory.put(key, slot(100));
        }
    }

    #[test]
    fn a_long_answer_finds_room_among_many_short_ones_and_what_is_used_keeps_it() {
        let memory = Memory::new(BOUND, BOUND / 4, Duration::ZERO, &Metrics::new().cache);
        let long = test_key("long");
        flood(&memory, 0..2_000);
        memory.put(long.clone(), slot(BOUND / 10));
        assert!(memory.find(&long, Instant::now()).is_some());
        for round in 1..20 {
            flood(&memory, round * 2_000..round * 2_000 + 500);
            assert!(memory.find(&long, Instant::now()).is_some(), "{round}");
            assert!((BOUND / 2..=BOUND).contains(&usize::try_from(memory.bytes()).unwrap()));
        }
        flood(&memory, 90_000..94_000);
        assert!(memory.find(&long, Instant::now()).is_none(), "what nobody asks for makes room");
    }

    #[test]
    fn what_is_over_is_found_by_nobody_and_let_go_of() {
        let (stale, now) = (Duration::from_secs(60), Instant::now());
        let memory = Memory::new(BOUND, BOUND / 4, stale, &Metrics::new().cache);
        let (kept, passed, private) = (test_key("kept"), test_key("passed"), test_key("private"));
        memory.put(kept.clone(), slot(100));
        memory.put(passed.clone(), Slot::Passed);
        memory.put(private.clone(), Slot::Private(Duration::from_secs(300)));
        let there = |later: Duration| [&kept, &passed, &private].map(|key| memory.find(key, now + later).is_some());
        assert_eq!(there(Duration::ZERO), [true; 3]);
        assert_eq!(there(PASSED + stale), [true, false, true]);
        assert_eq!(there(Duration::from_secs(365)), [true, false, false]);
        assert_eq!(there(Duration::from_secs(3665)), [false; 3]);
        assert_eq!(memory.bytes(), 0, "who finds it over lets go of it");
    }

    #[test]
    fn what_is_over_makes_room_before_it_is_asked_for() {
        let memory = Memory::new(BOUND, BOUND / 4, Duration::ZERO, &Metrics::new().cache);
        for number in 0..20 {
            memory.put(test_key(&number.to_string()), Slot::Passed);
        }
        memory.put(test_key("kept"), slot(100));
        let later = Instant::now() + PASSED;
        let tidied = |most| {
            let mut gone = Gone::new();
            locked(&memory.shards[0]).tidy(later, most, &mut gone);
            gone.len()
        };
        assert_eq!((tidied(8), tidied(100), tidied(100)), (8, 12, 0));
        assert!(memory.find(&test_key("kept"), later).is_some());
        assert_eq!(memory.bytes(), slot(100).weight(&test_key("kept")) as u64);
    }

    #[test]
    fn what_gives_way_is_counted_unless_it_is_over() {
        let memory = Memory::new(BOUND, BOUND / 4, Duration::ZERO, &Metrics::new().cache);
        memory.put(test_key("passed"), Slot::Passed);
        memory.put(test_key("kept"), slot(100));
        let (mut shard, mut gone) = (locked(&memory.shards[0]), Gone::new());
        shard.bound = 0;
        assert_eq!((shard.make_room(Instant::now() + PASSED, &mut gone), gone.len(), shard.bytes), (1, 2, 0));
    }

    #[test]
    fn what_is_dropped_is_what_was_meant_and_still_stands() {
        let memory = Memory::new(16 << 20, 1 << 10, Duration::ZERO, &Metrics::new().cache);
        assert!(memory.shards.len() > 1);
        let keys: Vec<Key> = (0..100).map(|number| test_key(&number.to_string())).collect();
        for key in &keys {
            memory.put(key.clone(), slot(100));
        }
        let (old, new) = (memory.entry(&keys[0]).unwrap(), slot(100));
        memory.put(keys[0].clone(), new);
        assert!(!memory.drop_this(&keys[0], &old), "another has its place");
        memory.drop_one(&keys[1]);
        assert_eq!(memory.entries().len(), 99);
        assert_eq!((memory.drop_all(|entry| *entry.server != *"files"), memory.drop_all(|_| true), memory.bytes()), (0, 99, 0));
    }
}
