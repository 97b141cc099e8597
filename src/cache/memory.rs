//! Where answers are kept in this process, bounded by their bytes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use lru::LruCache;

use super::entry::{self, Entry, Slot};
use super::key::Key;
use crate::observe::cache::CacheMeter;

/// How long answers that are not kept are taken for such.
const PASSED: Duration = Duration::from_secs(10);
/// Longest entries that each of several shards holds at least, so that few of them leave room for others.
const LONGEST_HELD: usize = 16;
/// Shards for each core, at most, while none of them is larger than the largest: one is locked for the time of a look.
const SHARDS: usize = 4;
/// Bytes of the largest shard, where the longest entries allow it: an overview looks at all of one while it is locked.
const LARGEST: usize = 32 << 20;
/// Entries that are over and let go of by one who brings another, and at once by others.
const TIDIED: (usize, usize) = (8, 1024);

/// What stands under a key.
struct Standing {
    slot: Slot,
    end: End,
    weight: usize,
}

/// When an entry is over, and a number of its own.
type End = (Instant, u64);

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
    table: LruCache<Arc<Key>, Standing, RandomState>,
    /// The same in the order in which they are over: what is over goes before what is not.
    ends: BTreeMap<End, Arc<Key>>,
    /// Of the last that came.
    number: u64,
    bytes: usize,
    bound: usize,
}

/// What was taken out, to be let go of when nothing is locked.
type Gone = Vec<(Arc<Key>, Standing)>;

impl Shard {
    fn new(bound: usize) -> Mutex<Self> {
        let table = LruCache::unbounded_with_hasher(RandomState::default());
        Mutex::new(Self { table, ends: BTreeMap::new(), number: 0, bytes: 0, bound })
    }

    /// Puts one in place of what stood there, unless all of it has no room for it; whether it stands.
    fn put(&mut self, key: Arc<Key>, mut standing: Standing, gone: &mut Gone) -> bool {
        gone.extend(self.take(&key));
        if standing.weight > self.bound {
            gone.push((key, standing));
            return false;
        }
        self.number += 1;
        standing.end.1 = self.number;
        self.bytes += standing.weight;
        self.ends.insert(standing.end, Arc::clone(&key));
        gone.extend(self.table.push(key, standing));
        true
    }

    fn take(&mut self, key: &Key) -> Option<(Arc<Key>, Standing)> {
        let taken = self.table.pop_entry(key)?;
        self.ends.remove(&taken.1.end);
        self.bytes -= taken.1.weight;
        Some(taken)
    }

    /// Takes out one that is over.
    fn take_over(&mut self, now: Instant) -> Option<(Arc<Key>, Standing)> {
        let (end, key) = self.ends.first_key_value()?;
        let key = (end.0 <= now).then(|| Arc::clone(key))?;
        self.take(&key)
    }

    /// Takes out what is over, up to so many.
    fn tidy(&mut self, now: Instant, most: usize, gone: &mut Gone) {
        gone.extend(std::iter::from_fn(|| self.take_over(now)).take(most));
    }

    /// Takes out what is over, and then the last, until the rest is within bounds; how many that were that are not over.
    fn make_room(&mut self, now: Instant, gone: &mut Gone) -> u64 {
        let mut evicted = 0;
        while self.bytes > self.bound {
            let over = self.take_over(now);
            evicted += u64::from(over.is_none());
            let Some(taken) = over.or_else(|| self.take_last()) else { break };
            gone.push(taken);
        }
        evicted
    }

    fn take_last(&mut self) -> Option<(Arc<Key>, Standing)> {
        let key = Arc::clone(self.table.peek_lru()?.0);
        self.take(&key)
    }

    fn kept(&self) -> impl Iterator<Item = (&Arc<Key>, &Arc<Entry>)> {
        self.table.iter().filter_map(|(key, standing)| match &standing.slot {
            Slot::Kept(entry) => Some((key, entry)),
            Slot::Private(_) | Slot::Passed => None,
        })
    }
}

impl Memory {
    /// A table of so many bytes, for answers of up to `longest`.
    pub fn new(bytes: usize, longest: usize, stale: Duration, meter: &Arc<CacheMeter>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = shards(bytes, longest, cores);
        let shard = || Shard::new(bytes / shards);
        Self { shards: std::iter::repeat_with(shard).take(shards).collect(), stale, meter: Arc::clone(meter) }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        locked(&self.shards[key.part_of(self.shards.len())])
    }

    /// What stands under a key at a moment; who asks takes it to the front.
    pub fn find(&self, key: &Key, now: Instant) -> Option<Slot> {
        let mut shard = self.shard(key);
        let standing = shard.table.get(key)?;
        (now < standing.end.0).then(|| standing.slot.clone())
    }

    /// What is kept under a key and counts.
    pub fn entry(&self, key: &Key) -> Option<Arc<Entry>> {
        match self.find(key, Instant::now())? {
            Slot::Kept(entry) if entry.counts() => Some(entry),
            _ => None,
        }
    }

    /// Keeps it; whether there is room for one of its length.
    pub fn put(&self, key: Key, slot: Slot) -> bool {
        self.put_at(key, slot, Instant::now())
    }

    fn put_at(&self, key: Key, slot: Slot, now: Instant) -> bool {
        let until = match &slot {
            Slot::Kept(entry) => entry.kept + entry.ttl + self.stale,
            Slot::Private(ttl) => now + *ttl + self.stale,
            Slot::Passed => now + PASSED,
        };
        let standing = Standing { weight: slot.weight(&key), slot, end: (until, 0) };
        let (key, mut gone) = (Arc::new(key), Gone::new());
        let mut shard = self.shard(&key);
        shard.tidy(now, TIDIED.0, &mut gone);
        let stands = shard.put(key, standing, &mut gone);
        let evicted = shard.make_room(now, &mut gone);
        drop(shard);
        self.meter.evictions.inc_by(evicted);
        stands
    }

    /// Lets go of the entries that `which` says, and of what is over; how many the former were.
    pub fn drop_all(&self, which: impl Fn(&Entry) -> bool) -> usize {
        let now = Instant::now();
        // What is meant is said while nothing is locked: it may take long.
        let meant = |(key, entry): &(Arc<Key>, Arc<Entry>)| which(entry) && self.drop_this(key, entry);
        self.shards.iter().map(|shard| kept(shard, now).iter().filter(|one| meant(one)).count()).sum()
    }

    /// Lets go of an entry unless another has taken its place; whether it stood there.
    pub fn drop_this(&self, key: &Key, entry: &Arc<Entry>) -> bool {
        let mut shard = self.shard(key);
        let stands = matches!(shard.table.peek(key), Some(Standing { slot: Slot::Kept(kept), .. }) if Arc::ptr_eq(kept, entry));
        let gone = if stands { shard.take(key) } else { None };
        drop(shard);
        gone.is_some()
    }

    /// What is kept and not over.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        let now = Instant::now();
        self.shards.iter().flat_map(|shard| kept(shard, now)).map(|(_, entry)| entry).collect()
    }

    /// The bytes that all of it takes.
    pub fn bytes(&self) -> u64 {
        self.bytes_at(Instant::now())
    }

    fn bytes_at(&self, now: Instant) -> u64 {
        self.shards.iter().map(|shard| tidied(shard, now).bytes as u64).sum()
    }
}

/// How many shards there are of so many bytes, for answers of up to `longest`.
fn shards(bytes: usize, longest: usize, cores: usize) -> usize {
    let most = bytes / (LONGEST_HELD * entry::most(longest));
    (cores * SHARDS).max(bytes / LARGEST).min(most).max(1)
}

fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Without what is over.
fn tidied(shard: &Mutex<Shard>, now: Instant) -> MutexGuard<'_, Shard> {
    loop {
        let (mut shard, mut gone) = (locked(shard), Gone::new());
        shard.tidy(now, TIDIED.1, &mut gone);
        if gone.is_empty() {
            return shard;
        }
        drop(shard);
    }
}

/// What a shard keeps that is not over.
fn kept(shard: &Mutex<Shard>, now: Instant) -> Vec<(Arc<Key>, Arc<Entry>)> {
    tidied(shard, now).kept().map(|(key, entry)| (Arc::clone(key), Arc::clone(entry))).collect()
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

    fn keys(prefix: &str, count: usize) -> Vec<Key> {
        (0..count).map(|number| test_key(&format!("{prefix}{number}"))).collect()
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
        assert!(memory.put(long.clone(), slot(BOUND / 10)) && memory.find(&long, Instant::now()).is_some());
        for round in 1..20 {
            flood(&memory, round * 2_000..round * 2_000 + 500);
            assert!(memory.find(&long, Instant::now()).is_some(), "{round}");
            assert!((BOUND / 2..=BOUND).contains(&usize::try_from(memory.bytes()).unwrap()));
        }
        flood(&memory, 90_000..94_000);
        assert!(memory.find(&long, Instant::now()).is_none(), "what nobody asks for makes room");
        let before = memory.bytes();
        assert!(!memory.put(test_key("longer"), slot(BOUND)) && memory.bytes() == before, "nothing makes room in vain");
    }

    #[test]
    fn what_is_over_is_found_by_nobody() {
        let (stale, now) = (Duration::from_secs(60), Instant::now());
        let memory = Memory::new(BOUND, BOUND / 4, stale, &Metrics::new().cache);
        let (kept, passed, private) = (test_key("kept"), test_key("passed"), test_key("private"));
        memory.put(kept.clone(), slot(100));
        memory.put(passed.clone(), Slot::Passed);
        memory.put(private.clone(), Slot::Private(Duration::from_secs(300)));
        for (later, there) in [(0, [true; 3]), (70, [true, false, true]), (365, [true, false, false]), (3665, [false; 3])] {
            let at = now + Duration::from_secs(later);
            assert_eq!([&kept, &passed, &private].map(|key| memory.find(key, at).is_some()), there, "{later}");
        }
    }

    #[test]
    fn what_is_over_makes_room_before_what_is_not() {
        let meter = Metrics::new().cache;
        let memory = Memory::new(BOUND, BOUND / 4, Duration::ZERO, &meter);
        let (first, now) = (test_key("first"), Instant::now());
        let most = BOUND / slot(100).weight(&first);
        // Nobody asks for the first again, so it is last of all, and it is not over.
        memory.put_at(first.clone(), slot(100), now);
        for key in keys("passed", most * 2) {
            memory.put_at(key, Slot::Passed, now);
        }
        assert!(meter.evictions.get() > 0 && memory.find(&first, now).is_none());
        let (later, before, count) = (now + PASSED, meter.evictions.get(), most - 100);
        memory.put_at(first.clone(), slot(100), later);
        for key in keys("kept", count) {
            memory.put_at(key, slot(100), later);
        }
        assert!(memory.find(&first, later).is_some() && meter.evictions.get() == before);
        let weights = |shard: &Shard| shard.table.iter().map(|(_, standing)| standing.weight as u64).sum::<u64>();
        assert_eq!(memory.bytes_at(later), weights(&locked(&memory.shards[0])));
        assert_eq!(locked(&memory.shards[0]).ends.len(), count + 1);
        assert_eq!(memory.bytes_at(later + Duration::from_secs(3600)), 0);
    }

    #[test]
    fn what_is_dropped_is_what_was_meant_and_still_stands() {
        let memory = Memory::new(64 << 20, 1 << 10, Duration::ZERO, &Metrics::new().cache);
        let keys = keys("", 100);
        for key in &keys {
            memory.put(key.clone(), slot(100));
        }
        assert!(memory.shards.iter().filter(|shard| locked(shard).bytes > 0).count() > 1);
        let old = memory.entry(&keys[0]).unwrap();
        memory.put(keys[0].clone(), slot(100));
        assert!(!memory.drop_this(&keys[0], &old), "another has its place");
        assert!(memory.drop_this(&keys[1], &memory.entry(&keys[1]).unwrap()));
        assert_eq!(memory.entries().len(), 99);
        // Whoever judges may ask: nothing is locked meanwhile.
        assert_eq!(memory.drop_all(|entry| memory.bytes() > 0 && *entry.server != *"files"), 0);
        assert_eq!((memory.drop_all(|_| true), memory.bytes()), (99, 0));
    }

    #[test]
    fn shards_are_neither_too_small_for_what_is_longest_nor_too_large_to_be_looked_at() {
        for (bytes, longest) in [(1 << 20, 1 << 18), (1 << 20, 100), (64 << 20, 1 << 20), (16 << 30, 1 << 20), (4 << 30, 1 << 30)] {
            let count = shards(bytes, longest, 8);
            assert!(count == 1 || bytes / count >= LONGEST_HELD * longest, "{bytes} {longest}");
            assert!(bytes / count <= LARGEST * 2 || bytes / (count + 1) < LONGEST_HELD * entry::most(longest), "{bytes} {longest}");
        }
        assert_eq!((shards(64 << 20, 1 << 20, 8), shards(64 << 20, 1 << 14, 8), shards(16 << 30, 1 << 20, 8)), (3, 32, 512));
    }
}
