//! The keys as they are in etcd, and the backends they are. A value that is no backend is told, and the last good one of
//! its key stays.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{Feed, Found, Registry, Set};
use super::api::{Event, Events, List, Tip};
use crate::observe::upstream::DiscoveryMeter;

/// Every key below the prefix.
pub struct Keys<'r> {
    feed: &'r Feed,
    registry: &'r Registry,
    meter: &'r DiscoveryMeter,
    interval: Duration,
    known: BTreeMap<String, Key>,
    /// The revision they are of.
    revision: i64,
}

#[derive(Default)]
struct Key {
    /// The value, also one that is no backend.
    value: Vec<u8>,
    /// The last good one.
    found: Option<Found>,
}

impl<'r> Keys<'r> {
    pub fn new(feed: &'r Feed, interval: Duration, registry: &'r Registry, meter: &'r DiscoveryMeter) -> Self {
        let remembered = registry.set(feed).into_iter();
        let known: BTreeMap<_, _> =
            remembered.map(|(key, found)| (key, Key { value: found.written.clone().into_bytes(), found: Some(found) })).collect();
        meter.found(known.len());
        let mut keys = Self { feed, registry, meter, interval, known, revision: 0 };
        keys.read_anew();
        keys
    }

    /// What was remembered was perhaps read under another configuration.
    fn read_anew(&mut self) {
        for (key, known) in &mut self.known {
            if let Some(found) = &mut known.found
                && let Ok(backend) = super::read(key, &found.written, self.interval)
            {
                found.backend = backend;
            }
        }
    }

    /// Takes a whole list.
    pub fn replace(&mut self, list: List) {
        let mut old = std::mem::take(&mut self.known);
        for (key, value) in list.values {
            let known = old.remove(&key).unwrap_or_default();
            self.known.insert(key.clone(), known);
            self.set(&key, value);
        }
        self.revision = list.revision;
        self.publish();
    }

    /// Takes changes.
    pub fn change(&mut self, events: Events) {
        let any = !events.changes.is_empty();
        for change in events.changes {
            match change {
                Event::Put(key, value) => self.set(&key, value),
                Event::Delete(key) => drop(self.known.remove(&key)),
            }
        }
        self.revision = self.revision.max(events.revision);
        if any {
            self.publish();
        }
    }

    /// Whether nothing is missing of what was there at `tip`.
    pub fn has(&self, tip: &Tip) -> bool {
        tip.newest <= self.revision && (self.revision > tip.revision || tip.count == self.known.len())
    }

    fn set(&mut self, key: &str, value: Vec<u8>) {
        let known = self.known.entry(key.to_owned()).or_default();
        if known.value == value && (known.found.is_some() || !value.is_empty()) {
            return;
        }
        let text = std::str::from_utf8(&value).map_err(|_| format!("etcd key {}: not text", key.escape_debug()));
        match text.and_then(|text| Ok((super::read(key, text, self.interval)?, text.to_owned()))) {
            Ok((backend, written)) => known.found = Some(Found { backend, written }),
            Err(message) => {
                let stays = if known.found.is_some() { "its last good value stays" } else { "it is left out" };
                log::error!("discovery, {message}; {stays}");
                self.meter.rejected.inc();
            }
        }
        known.value = value;
    }

    fn publish(&self) {
        let found = |(key, known): (&String, &Key)| known.found.clone().map(|found| (key.clone(), found));
        let set: Set = self.known.iter().filter_map(found).collect();
        self.meter.found(set.len());
        self.registry.put(self.feed, set);
    }
}
