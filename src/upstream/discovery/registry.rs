//! What the feeds last told, and which backends are being drained. Outlives reloads.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::admin::Office;
use super::known;
use super::{Feed, Set, Source, Sources};
use crate::config::{Backend, Config};

/// A burst of changes is one change when nothing came for so long,
const SETTLE: Duration = Duration::from_millis(100);
/// or when it has been waited so long for its end.
const LONGEST: Duration = Duration::from_millis(500);

/// Clashes remembered as told; more of them are told anew.
const CLASHES: usize = 1000;

/// Every set, by feed.
pub struct Registry {
    state_dir: PathBuf,
    known: Mutex<BTreeMap<(Source, String), Known>>,
    /// Counts what was told.
    version: watch::Sender<u64>,
    /// The version that is served.
    served: watch::Sender<u64>,
    draining: Mutex<BTreeSet<String>>,
    /// Name clashes that were told.
    clashes: Mutex<HashSet<String>>,
    /// Where backends are registered.
    pub office: Office,
}

struct Known {
    set: Set,
    /// What told it.
    feed: Feed,
    /// Whether it is on disk.
    kept: bool,
}

/// The backends to serve.
pub struct Merged {
    pub backends: Vec<Arc<Backend>>,
    /// Of those that are not configured.
    pub sources: Sources,
    version: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    pub fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            known: Mutex::default(),
            version: watch::Sender::new(0),
            served: watch::Sender::new(0),
            draining: Mutex::default(),
            clashes: Mutex::default(),
            office: Office::default(),
        }
    }

    /// Takes the whole set of a feed; the version it is part of.
    pub fn put(&self, feed: &Feed, set: Set) -> u64 {
        let place = (feed.source(), feed.label());
        let mut known = lock(&self.known);
        if known.get(&place).is_none_or(|old| old.set != set || old.feed != *feed) {
            known.insert(place, Known { set, feed: feed.clone(), kept: !feed.is_far() });
            self.version.send_modify(|version| *version += 1);
        }
        *self.version.borrow()
    }

    /// The version of what was told so far.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    /// What a feed last told.
    pub fn set(&self, feed: &Feed) -> Set {
        lock(&self.known).get(&(feed.source(), feed.label())).map(|known| known.set.clone()).unwrap_or_default()
    }

    /// The configured backends and those of its feeds. A name that several have goes to the first in the order of
    /// `Source`. Feeds not known yet bring what was remembered of them.
    pub fn merge(&self, config: &Config) -> Merged {
        let configured = &config.backends;
        let feeds = Feed::of(config);
        let mut known = lock(&self.known);
        for feed in &feeds {
            self.renew(&mut known, feed);
        }
        let mut merged = Merged { backends: configured.clone(), sources: Sources::new(), version: *self.version.borrow() };
        let mut holders: BTreeMap<String, String> =
            configured.iter().map(|backend| (backend.name.clone(), "the configuration".to_owned())).collect();
        let ours: HashSet<String> = feeds.iter().map(Feed::label).collect();
        for ((source, label), known) in known.iter().filter(|((_, label), _)| ours.contains(label)) {
            for (key, found) in &known.set {
                let name = &found.backend.name;
                if let Some(holder) = holders.get(name) {
                    self.clash(format!("backend {name}: {holder} has it, so that of {label} ({key}) is not used"));
                    continue;
                }
                holders.insert(name.clone(), format!("{label} ({key})"));
                merged.backends.push(Arc::clone(&found.backend));
                merged.sources.insert(name.clone(), *source);
            }
        }
        merged
    }

    /// Has a feed's set ready as its configuration is now: another place's set is not this one's, and what one and the same
    /// place told may read otherwise by another template.
    fn renew(&self, known: &mut BTreeMap<(Source, String), Known>, feed: &Feed) {
        let place = (feed.source(), feed.label());
        let set = match known.remove(&place) {
            Some(old) if old.feed == *feed => {
                known.insert(place, old);
                return;
            }
            Some(old) if old.feed.identity() == feed.identity() => {
                known::found(feed, old.set.into_iter().map(|(key, found)| (key, found.written)))
            }
            _ => known::recall(&self.state_dir, feed),
        };
        known.insert(place, Known { set, feed: feed.clone(), kept: true });
    }

    fn clash(&self, told: String) {
        let mut clashes = lock(&self.clashes);
        if clashes.len() >= CLASHES {
            clashes.clear();
        }
        if !clashes.contains(&told) {
            log::warn!("discovery, {told}");
            clashes.insert(told);
        }
    }

    /// Completes when more was told than is served, and nothing more is coming just now.
    pub async fn changed(&self) {
        let mut version = self.version.subscribe();
        let served = *self.served.borrow();
        // The sender lives as long as self, so this cannot fail.
        let _ = version.wait_for(|version| *version > served).await;
        let until = Instant::now() + LONGEST;
        while Instant::now() < until && tokio::time::timeout_at(until.min(Instant::now() + SETTLE), version.changed()).await.is_ok() {}
    }

    /// Notes that what was merged is served.
    pub fn serve(&self, merged: &Merged) {
        self.served.send_modify(|served| *served = merged.version.max(*served));
    }

    /// Notes that what was told so far cannot be served.
    pub fn give_up(&self) {
        let version = self.version();
        self.served.send_modify(|served| *served = version.max(*served));
    }

    /// Completes when a version is served.
    pub async fn served(&self, version: u64) {
        let mut served = self.served.subscribe();
        let _ = served.wait_for(|served| *served >= version).await;
    }

    /// Writes what changed to disk. Of a disk that fails only the next start knows.
    pub fn keep(&self) {
        let mut known = lock(&self.known);
        let due: Vec<_> = known.iter_mut().filter(|(_, known)| !known.kept).collect();
        let due: Vec<(String, String, Set)> = due
            .into_iter()
            .map(|((_, label), known)| {
                known.kept = true;
                (label.clone(), known.feed.identity(), known.set.clone())
            })
            .collect();
        drop(known);
        for (label, identity, set) in due {
            known::keep(&self.state_dir, &label, identity, &set);
        }
    }

    /// Forgets the sets of feeds that are configured no more.
    pub fn retain(&self, feeds: &[Feed]) {
        let labels: HashSet<String> = feeds.iter().map(Feed::label).collect();
        lock(&self.known).retain(|(_, label), _| labels.contains(label));
    }

    /// Begins or ends a drain.
    pub fn drain(&self, name: &str, draining: bool) {
        let mut names = lock(&self.draining);
        if draining {
            names.insert(name.to_owned());
        } else {
            names.remove(name);
        }
    }

    /// Every backend that is drained.
    pub fn draining(&self) -> Vec<String> {
        lock(&self.draining).iter().cloned().collect()
    }

    pub fn is_draining(&self, name: &str) -> bool {
        lock(&self.draining).contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::discovery::{Found, read};

    fn config(yaml: &str) -> Config {
        crate::config::parse("test", yaml, &|_| None).unwrap()
    }

    fn set(entries: &[(&str, &str)]) -> Set {
        let found = |(key, url): &(&str, &str)| {
            let written = format!("url: {url}");
            (key.to_string(), Found { backend: read("test", &written, key, Duration::from_secs(1)).unwrap(), written })
        };
        entries.iter().map(found).collect()
    }

    fn names(merged: &Merged) -> Vec<(String, String)> {
        merged.backends.iter().map(|backend| (backend.name.clone(), backend.url.host_str().unwrap().to_owned())).collect()
    }

    #[tokio::test]
    async fn a_name_goes_to_the_configuration_then_admin_then_etcd_and_the_set_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let yaml = format!(
            "server: {{ state_dir: {} }}\nbackends: [{{ name: a, url: 'http://file' }}]\ndiscovery: {{ etcd: {{ endpoints: ['http://x'] }} }}\n",
            dir.path().display()
        );
        let config = config(&yaml);
        let registry = Registry::new(dir.path().to_owned());
        let feeds = Feed::of(&config);
        registry.put(&feeds[1], set(&[("a", "http://etcd"), ("b", "http://etcd"), ("c", "http://etcd")]));
        let version = registry.put(&feeds[0], set(&[("b", "http://admin")]));
        assert_eq!(registry.put(&feeds[0], set(&[("b", "http://admin")])), version, "the same again is no change");
        let merged = registry.merge(&config);
        let expected = [("a", "file"), ("b", "admin"), ("c", "etcd")].map(|(name, host)| (name.to_owned(), host.to_owned()));
        assert_eq!(names(&merged), expected);
        assert_eq!(merged.sources.get("c"), Some(&Source::Etcd));
        registry.changed().await;
        registry.serve(&merged);
        registry.served(version).await;
        registry.keep();
        let again = Registry::new(dir.path().to_owned());
        let kept = again.merge(&config);
        assert_eq!(kept.sources.get("c"), Some(&Source::Etcd), "the next process begins with what was known");
        let other = Config { discovery: crate::config::Discovery { etcd: None, ..config.discovery.clone() }, ..config.clone() };
        assert!(!again.merge(&other).sources.contains_key("c"), "what is configured no more brings nothing");
    }
}
