//! What is kept of an answer, and what it weighs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::key::{self, Key};
use super::marks::Mark;
use super::parts::Parts;
use crate::mcp::method::METHODS;

/// What an entry takes beside its texts: its own structs, those of the table it stands in, and what the allocator rounds up.
/// Measured as resident memory less texts and `UNUSED`: 423 to 457 over 30,000 to 100,000 entries of 20 bytes and of 300 in
/// one member or four.
const OVERHEAD: usize = 450;
/// The allocator leaves one byte unused for so many of texts of mixed lengths: it rounds them up, and where one was dropped
/// the next may not fit. Measured as what is resident after minutes of answers of 10 to 14,000 bytes, each asked for once.
const UNUSED: usize = 7;

/// What an entry weighs at most whose answer has so many bytes, in few members.
pub(super) const fn most(answer: usize) -> usize {
    weight(answer + key::LONGEST)
}

const fn weight(texts: usize) -> usize {
    texts + texts / UNUSED + OVERHEAD
}

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
    pub fn told(&self, age: Duration) -> Option<u64> {
        let left = self.ttl.saturating_sub(age);
        self.is_hinted.then(|| left.as_secs().saturating_mul(1000).saturating_add(left.subsec_millis().into()))
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

    /// Counts an answer that was given of it.
    pub fn touch(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
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

impl Slot {
    /// What it takes under a key, in bytes.
    pub(super) fn weight(&self, key: &Key) -> usize {
        let kept = match self {
            Self::Kept(entry) => entry.result.weight() + entry.backend.len() + entry.name.as_ref().map_or(0, |name| name.len()),
            Self::Private(_) | Self::Passed => 0,
        };
        weight(key.bytes() + kept)
    }
}
