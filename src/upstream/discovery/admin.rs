//! Backends registered through the admin listener. What is registered is kept as it was written, its secrets with it, in
//! a file of ours alone or in the Redis that replicas share, and looked at again and again, so that what one replica
//! registers all serve.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::{Feed, Outage, Place, Registry, Set, known};
use crate::observe::upstream::DiscoveryMeter;
use crate::reject::{Code, Reject, Verdict};
use crate::store::records::{self, Changed, Records, Store};
use crate::store::redis::Redis;

/// How often the store is looked at.
const LOOK: Duration = Duration::from_millis(400);

/// One registration as it is stored.
#[derive(Serialize, Deserialize)]
pub struct Record {
    /// As it was put, credentials included.
    backend: Box<RawValue>,
}

impl records::Record for Record {
    const KIND: &'static str = "backends";
}

/// What an administrator wants.
pub enum Wish {
    /// A backend of this name, as it was written.
    Put(String, Box<RawValue>),
    Remove(String),
}

/// A wish fulfilled.
pub struct Done {
    /// Whether there was none of this name.
    pub new: bool,
    /// The version of the registry that has it.
    pub version: u64,
}

type Asked = (Wish, oneshot::Sender<Verdict<Done>>);

/// Where wishes are brought, and fulfilled by whoever runs the feed.
pub struct Office {
    wishes: mpsc::Sender<Asked>,
    wished: Mutex<mpsc::Receiver<Asked>>,
}

impl Default for Office {
    fn default() -> Self {
        let (wishes, receiver) = mpsc::channel(16);
        Self { wishes, wished: Mutex::new(receiver) }
    }
}

impl Office {
    /// Has a wish fulfilled in the background service, which owns the store.
    ///
    /// # Errors
    /// Why it was not.
    pub async fn wish(&self, wish: Wish) -> Verdict<Done> {
        let gone = || Reject::new(Code::Internal, "the background service is not running");
        let (sender, receiver) = oneshot::channel();
        self.wishes.send((wish, sender)).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }
}

/// The registrations of a file, as a start finds them.
pub fn recall(feed: &Feed, file: &Path) -> Set {
    match Store::<Record>::File(file.to_owned()).read_now() {
        Some(Ok(records)) => known::found(feed, written(&records)),
        Some(Err(cause)) => {
            log::error!("discovery, admin: {cause}");
            Set::new()
        }
        None => Set::new(),
    }
}

fn written(records: &Records<Record>) -> Vec<(String, String)> {
    records.iter().map(|(name, record)| (name.clone(), record.backend.get().to_owned())).collect()
}

/// Keeps the registry in step with the store, and fulfils wishes, for as long as the task lives.
pub async fn run(feed: Feed, place: Place, registry: Arc<Registry>, meter: DiscoveryMeter) {
    let store = match &place {
        Place::File(path) => Store::File(path.clone()),
        Place::Redis(conf) => match Redis::new(conf) {
            Ok(redis) => Store::in_redis(redis),
            Err(cause) => return log::error!("discovery, admin: {cause}"),
        },
    };
    // Held while this runs: a successor waits until it ended.
    let mut wished = registry.office.wished.lock().await;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut desk = Desk { feed: &feed, store, registry: &registry, meter, seen: None, outage: Outage::new("admin") };
    loop {
        tokio::select! {
            Some((wish, told)) = wished.recv() => {
                let done = desk.fulfil(wish).await;
                let version = desk.look().await;
                let _ = told.send(done.map(|new| Done { new, version }));
            }
            _ = look.tick() => { desk.look().await; }
        }
    }
}

struct Desk<'r> {
    feed: &'r Feed,
    store: Store<Record>,
    registry: &'r Registry,
    meter: DiscoveryMeter,
    seen: Option<String>,
    outage: Outage<'r>,
}

impl Desk<'_> {
    /// Takes over what changed; the version that has it.
    async fn look(&mut self) -> u64 {
        match self.store.changed(self.seen.as_deref()).await {
            Ok(changed) => {
                self.outage.end();
                self.meter.up.set(1);
                if let Some(Changed { version, records }) = changed {
                    self.seen = Some(version);
                    let mut set = known::found(self.feed, written(&records));
                    self.meter.rejected.inc_by((records.len() - set.len()) as u64);
                    // What could be used when it was registered goes on, though a file it names is gone since.
                    let known = self.registry.set(self.feed).into_iter();
                    for (name, found) in known.filter(|(name, _)| records.contains_key(name)) {
                        set.entry(name).or_insert(found);
                    }
                    self.meter.found(set.len());
                    return self.registry.put(self.feed, set);
                }
            }
            Err(cause) => {
                self.outage.begin(cause);
                self.meter.up.set(0);
            }
        }
        self.registry.version()
    }

    /// Tells whether the backend is new.
    async fn fulfil(&self, wish: Wish) -> Verdict<bool> {
        let unavailable = |cause: String| Reject::new(Code::StoreUnavailable, "the registered backends cannot be written").because(cause);
        match wish {
            Wish::Put(name, written) => {
                let new = Arc::new(std::sync::atomic::AtomicBool::new(false));
                let note = Arc::clone(&new);
                let change = move |old: Option<&Record>| {
                    note.store(old.is_none(), std::sync::atomic::Ordering::Relaxed);
                    Some(Some(Record { backend: written.clone() }))
                };
                self.store.update(&name, Arc::new(change)).await.map_err(unavailable)?;
                Ok(new.load(std::sync::atomic::Ordering::Relaxed))
            }
            Wish::Remove(name) => {
                let gone = self.store.update(&name, Arc::new(|old| old.map(|_| None))).await.map_err(unavailable)?;
                if gone { Ok(false) } else { Err(Reject::new(Code::NotFound, "no backend of this name is registered")) }
            }
        }
    }
}
