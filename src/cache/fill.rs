//! What becomes of an answer: it is kept where its fate says, and whoever waits is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::{Entry, Slot};
use super::flight::{Settled, Turn, Witness};
use super::freshness::{self, Fate};
use super::key::Key;
use super::parts::Parts;
use super::shared::Epoch;
use super::{Cache, Hit, Wish};
use crate::mcp::members::Members;
use crate::observe::cache::Looked;

/// The turn to ask, and where the answer goes.
pub struct Fill {
    cache: Arc<Cache>,
    wish: Arc<Wish>,
    turn: Turn,
    /// When it was asked, by the clock of marks and by that of the wall.
    asked: u64,
    began: Instant,
    /// What can be given where asking fails.
    stale: Option<Arc<Entry>>,
    /// Whether it is asked ahead of time, so that what is about to end elsewhere is no answer.
    is_ahead: bool,
    /// The number that the answer carries in the shared store; `None` if it is not to go there.
    epoch: Option<Epoch>,
}

/// What the shared store says.
pub enum Elsewhere {
    /// Nothing: ask.
    Nothing(Fill),
    Kept(Arc<Entry>),
    /// The answer is private: look under the caller's own key.
    Private,
}

impl Fill {
    pub(super) fn new(cache: &Arc<Cache>, wish: &Arc<Wish>, turn: Turn, stale: Option<Arc<Entry>>) -> Self {
        let asked = cache.kept.marks.now();
        Self { cache: Arc::clone(cache), wish: Arc::clone(wish), turn, asked, began: Instant::now(), stale, is_ahead: false, epoch: None }
    }

    pub(super) fn ahead(self) -> Self {
        Self { is_ahead: true, ..self }
    }

    /// Sees whether somebody waits for the answer, so that it must come even if who asked has gone.
    pub fn witness(&self) -> Witness {
        self.turn.witness()
    }

    /// Looks whether another replica has an answer, and takes it over.
    pub async fn elsewhere(mut self) -> Elsewhere {
        let Some(tier) = &self.cache.kept.tier else { return Elsewhere::Nothing(self) };
        let Some(known) = tier.look(self.turn.key(), &self.wish, self.asked).await else { return Elsewhere::Nothing(self) };
        match known.slot {
            Some(Slot::Kept(entry)) if self.lasts(&entry) && entry.counts() => {
                self.cache.kept.memory.put(self.turn.key().clone(), Slot::Kept(Arc::clone(&entry)));
                self.turn.settle(Settled::Kept(Arc::clone(&entry)));
                Elsewhere::Kept(entry)
            }
            Some(slot @ Slot::Private(_)) if self.wish.own.as_ref() != Some(self.turn.key()) => {
                self.cache.kept.memory.put(self.turn.key().clone(), slot);
                self.turn.settle(Settled::Private);
                Elsewhere::Private
            }
            _ => {
                self.epoch = Some(known.epoch);
                Elsewhere::Nothing(self)
            }
        }
    }

    fn lasts(&self, entry: &Entry) -> bool {
        if self.is_ahead { !entry.is_ending() } else { entry.left().is_some() }
    }

    /// Takes the answer of a backend, keeps it if it may be kept, and tells whoever waits; whether it is kept.
    pub fn keep(self, result: &Members<'_>, is_modern: bool, backend: &Arc<str>) -> bool {
        let fate = freshness::judge(result, is_modern, self.wish.wanted);
        let size: usize = result.0.iter().map(|(name, raw)| name.len() + raw.get().len() + 4).sum();
        let own = self.wish.own.clone();
        if let (Fate::Private(ttl), None) = (fate, &own) {
            // Of others there may be answers of their own.
            self.cache.kept.memory.put(self.wish.first.clone(), Slot::Private(ttl));
            self.turn.settle(Settled::Private);
            return false;
        }
        let (ttl, key) = match fate {
            Fate::Shared(ttl) => (ttl, Some(self.wish.first.clone())),
            Fate::Private(ttl) => (ttl, own),
            Fate::Passed => (Duration::ZERO, None),
        };
        let Some(key) = key.filter(|_| size <= self.cache.conf.max_entry) else {
            self.pass();
            return false;
        };
        let Self { cache, wish, turn, asked, began, epoch, .. } = self;
        wish.meter.filled(began.elapsed());
        let is_private = key != wish.first || matches!(fate, Fate::Private(_));
        let entry = Arc::new(entry(&wish, result, backend, is_private, asked, ttl));
        if key == wish.first || Some(&key) == Some(turn.key()) {
            let is_stored = put(&cache, &key, &Slot::Kept(Arc::clone(&entry)), epoch);
            turn.settle(Settled::Kept(entry));
            is_stored
        } else {
            let is_stored = put(&cache, &key, &Slot::Kept(entry), epoch);
            put(&cache, &wish.first, &Slot::Private(ttl), epoch);
            turn.settle(Settled::Private);
            is_stored
        }
    }

    /// Tells whoever waits that the answer is none for him.
    pub fn pass(self) {
        let stands = || self.cache.kept.memory.entry(self.turn.key()).is_some_and(|entry| entry.left().is_some());
        if self.is_ahead && stands() {
            // What was asked for too early takes nothing away.
            return self.release();
        }
        self.cache.kept.memory.put(self.turn.key().clone(), Slot::Passed);
        self.turn.settle(Settled::Passed);
    }

    /// Tells whoever waits to ask for himself: what came says nothing of the next answer.
    pub fn release(self) {
        self.turn.settle(Settled::Passed);
    }

    /// Asking failed: what is given in place of an answer, to everybody who waits, if there is anything; otherwise the next
    /// asks.
    pub fn fail(self) -> Option<Hit> {
        let entry = self.stale?;
        if !entry.counts() {
            return None;
        }
        self.turn.settle(Settled::Kept(Arc::clone(&entry)));
        self.wish.meter.looked(Looked::Stale);
        Some(Hit { is_stale: true, ..Hit::of(entry) })
    }
}

/// Keeps it here and, where it may go there, in the shared store; whether there is room for it.
fn put(cache: &Arc<Cache>, key: &Key, slot: &Slot, epoch: Option<Epoch>) -> bool {
    let stands = cache.kept.memory.put(key.clone(), slot.clone());
    let Some(epoch) = epoch else { return stands };
    let (cache, key, slot) = (Arc::clone(cache), key.clone(), slot.clone());
    tokio::spawn(async move {
        if let Some(tier) = &cache.kept.tier {
            tier.keep(&key, &slot, epoch, cache.conf.stays()).await;
        }
    });
    true
}

fn entry(wish: &Wish, result: &Members<'_>, backend: &Arc<str>, is_private: bool, asked: u64, ttl: Duration) -> Entry {
    let is_hinted = result.get("ttlMs").is_some();
    Entry {
        server: Arc::clone(&wish.server),
        method: wish.method,
        name: wish.name.clone(),
        backend: Arc::clone(backend),
        result: Parts::of(result),
        is_hinted,
        is_private,
        asked,
        kept: Instant::now(),
        ttl,
        hits: 0.into(),
        mark: Arc::clone(&wish.mark),
    }
}
