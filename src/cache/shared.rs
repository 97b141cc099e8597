//! The tier that replicas share, in Redis. It saves asking upstream again and is never needed: what it costs is bounded, a
//! Redis that fails is left alone for a while, and what it gives is believed only where it is whole, under the very
//! question that was asked, and not declared void since.
//!
//! What is void is a number for each server and method, and one for all, which every entry carries as they stood when it was
//! asked for. Whoever voids raises one, so no replica takes the entry over any more, whatever became of the message that
//! tells it to the memory of the others. A replica that could not raise a number takes nothing over before it has raised
//! the one for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::entry::{Entry, Slot};
use super::key::Key;
use super::parts::Parts;
use super::{Cache, Wish};
use crate::config;
use crate::digest::{hex, sha256};
use crate::mcp::method::{METHODS, Method};
use crate::observe::cache::CacheMeter;
use crate::store::guarded::{Guarded, PAUSE};
use crate::store::redis::Redis;

/// Texts above this size are compressed.
const LONG: usize = 4 << 10;
/// What an entry may take beside its answer.
const AROUND: usize = 64 << 10;
/// No server is called that.
const ALL: &str = "*";
const EPOCHS: &str = "mcp-gateway:cache:epochs";
pub(super) const CHANNEL: &str = "mcp-gateway:cache:void";
/// The first byte of a value.
const PLAIN: u8 = b'p';
const ZSTD: u8 = b'z';

/// The entries of all replicas.
pub struct Tier {
    redis: Guarded,
    compresses: bool,
    max_entry: usize,
    meter: Arc<CacheMeter>,
    /// Voids that are being told.
    voiding: AtomicUsize,
    /// A void could not be told.
    is_behind: AtomicBool,
}

/// The numbers of a server's method and of all.
pub type Epoch = (i64, i64);

/// The head of a value; the result stands behind it.
#[derive(Serialize, Deserialize)]
struct Head {
    /// The question in full: its digest alone could be another's.
    key: String,
    backend: String,
    is_hinted: bool,
    is_private: bool,
    /// It says only that the answer is private.
    is_marker: bool,
    epoch: Epoch,
    /// When it was kept and how long it is fresh, in milliseconds, the former since 1970.
    kept: u64,
    ttl: u64,
}

/// What the tier knows of a question.
pub struct Known {
    /// What stands there and counts, and how long ago it was kept.
    pub slot: Option<Slot>,
    /// The number that an answer asked for now carries.
    pub epoch: Epoch,
}

impl Tier {
    /// # Errors
    /// When the URL of the store is not one.
    pub fn new(store: &config::Redis, conf: &config::cache::Cache, meter: &Arc<CacheMeter>) -> Result<Self, String> {
        Ok(Self {
            redis: Guarded::new(store, "cache", "until it answers, each replica keeps for itself")?,
            compresses: conf.redis.is_some_and(|shared| shared.compression),
            max_entry: conf.max_entry,
            meter: Arc::clone(meter),
            voiding: AtomicUsize::new(0),
            is_behind: AtomicBool::new(false),
        })
    }

    /// Has it wait for the store no longer than this.
    pub fn set_timeout(&self, timeout: Duration) {
        self.redis.set_timeout(timeout);
    }

    /// What is known of a question; `None` while the store cannot be asked.
    pub async fn look(&self, key: &Key, wish: &Wish, asked: u64) -> Option<Known> {
        if self.voiding.load(Ordering::SeqCst) > 0 {
            return None;
        }
        let (field, name, mut pipe) = (field(&wish.server, wish.method), name(key), redis::pipe());
        let was_behind = self.is_behind.swap(false, Ordering::SeqCst);
        if was_behind {
            raise(&mut pipe, ALL);
        }
        // One that was lost begins later than any that was given before.
        let now = millis(SystemTime::now());
        pipe.hset_nx(EPOCHS, &field, now).ignore().hset_nx(EPOCHS, ALL, now).ignore();
        pipe.hget(EPOCHS, &field).hget(EPOCHS, ALL).get(&name);
        let answered = self.redis.ask(self.redis.redis().pipeline::<(i64, i64, Option<Vec<u8>>)>(&pipe)).await;
        if answered.is_none() && was_behind {
            self.is_behind.store(true, Ordering::SeqCst);
        }
        let (own, all, value) = answered?;
        let epoch = (own, all);
        let slot = value.and_then(|value| {
            let read = self.read(&value, key, wish, asked);
            if read.is_err() {
                self.meter.garbage.inc();
                self.forget(name);
            }
            read.ok().filter(|(carried, _)| *carried == epoch).map(|(_, slot)| slot)
        });
        wish.meter.found_elsewhere(slot.is_some());
        Some(Known { slot, epoch })
    }

    /// Keeps what stands under a key of a question.
    pub async fn keep(&self, key: &Key, slot: &Slot, epoch: Epoch, stays: Duration) {
        let Some(value) = self.written(key, slot, epoch) else { return };
        let ttl = match slot {
            Slot::Kept(entry) => entry.ttl,
            Slot::Private(ttl) => *ttl,
            Slot::Passed => return,
        };
        let mut pipe = redis::pipe();
        let lasts = u64::try_from((ttl + stays).as_millis()).unwrap_or(u64::MAX).max(1);
        pipe.cmd("SET").arg(name(key)).arg(value).arg("PX").arg(lasts).ignore();
        let _ = self.redis.ask(self.redis.redis().pipeline::<()>(&pipe)).await;
    }

    /// Takes nothing over until the void that follows was told.
    pub fn begin_void(&self) {
        self.voiding.fetch_add(1, Ordering::SeqCst);
    }

    /// Raises the numbers of what is void, and tells the other replicas.
    pub(super) async fn void(&self, methods: &[&'static Method], told: &Told) {
        let mut pipe = redis::pipe();
        match &told.server {
            None => raise(&mut pipe, ALL),
            Some(server) => methods.iter().for_each(|method| raise(&mut pipe, &field(server, super::marks::place(method)))),
        }
        pipe.publish(CHANNEL, serde_json::to_string(told).unwrap_or_default()).ignore();
        if self.redis.ask(self.redis.redis().pipeline::<()>(&pipe)).await.is_none() {
            self.is_behind.store(true, Ordering::SeqCst);
        }
        self.voiding.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn redis(&self) -> &Arc<Redis> {
        self.redis.redis()
    }

    fn forget(&self, name: String) {
        let redis = Arc::clone(self.redis.redis());
        tokio::spawn(async move { redis.query::<()>(redis::cmd("DEL").arg(name)).await });
    }

    /// Reads a value: its number, and what it is.
    fn read(&self, value: &[u8], key: &Key, wish: &Wish, asked: u64) -> Result<(Epoch, Slot), ()> {
        let (form, rest) = value.split_first().ok_or(())?;
        let text = match *form {
            PLAIN => rest.to_vec(),
            // Bounded, whatever it says it would become.
            ZSTD => zstd::bulk::decompress(rest, self.max_entry + AROUND).map_err(drop)?,
            _ => return Err(()),
        };
        let text = String::from_utf8(text).map_err(drop)?;
        let (head, result) = text.split_once('\n').ok_or(())?;
        let head: Head = serde_json::from_str(head).map_err(drop)?;
        if head.key != key.text() {
            return Err(());
        }
        let ttl = Duration::from_millis(head.ttl);
        if head.is_marker {
            return Ok((head.epoch, Slot::Private(ttl)));
        }
        let result = Parts::of(&serde_json::from_str(result).map_err(drop)?);
        // Clocks of replicas differ; what seems to come from the future is new.
        let age = Duration::from_millis(millis(SystemTime::now()).saturating_sub(head.kept));
        let entry = Entry {
            server: Arc::clone(&wish.server),
            method: wish.method,
            name: wish.name.clone(),
            backend: crate::config::label(&head.backend, "name").map_err(drop)?.into(),
            result,
            is_hinted: head.is_hinted,
            is_private: head.is_private,
            asked,
            kept: Instant::now().checked_sub(age).ok_or(())?,
            ttl,
            hits: 0.into(),
            mark: Arc::clone(&wish.mark),
        };
        Ok((head.epoch, Slot::Kept(Arc::new(entry))))
    }

    fn written(&self, key: &Key, slot: &Slot, epoch: Epoch) -> Option<Vec<u8>> {
        let head = Head {
            key: key.text().to_owned(),
            backend: String::new(),
            is_hinted: false,
            is_private: true,
            is_marker: true,
            epoch,
            kept: millis(SystemTime::now()),
            ttl: 0,
        };
        let as_millis = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let (head, result) = match slot {
            Slot::Passed => return None,
            Slot::Private(ttl) => (Head { ttl: as_millis(*ttl), ..head }, None),
            Slot::Kept(entry) => {
                let ttl = as_millis(entry.ttl);
                let Entry { is_hinted, is_private, .. } = **entry;
                (Head { backend: entry.backend.to_string(), is_hinted, is_private, is_marker: false, ttl, ..head }, Some(&entry.result))
            }
        };
        let mut text = serde_json::to_vec(&head).ok()?;
        text.push(b'\n');
        if let Some(result) = result {
            result.write(None, &mut text);
        }
        let packed = (self.compresses && text.len() > LONG).then(|| zstd::bulk::compress(&text, 1).ok()).flatten();
        Some(match packed {
            Some(packed) => [&[ZSTD], packed.as_slice()].concat(),
            None => [&[PLAIN], text.as_slice()].concat(),
        })
    }
}

/// What a question is called in Redis.
fn name(key: &Key) -> String {
    format!("mcp-gateway:cache:{}", hex(&sha256(key.text().as_bytes())))
}

/// The number of what is void of a server's method.
fn field(server: &str, method: usize) -> String {
    format!("{server} {}", METHODS.get(method).map_or("", |method| method.mcp))
}

fn raise(pipe: &mut redis::Pipeline, field: &str) {
    pipe.hset_nx(EPOCHS, field, millis(SystemTime::now())).ignore().hincr(EPOCHS, field, 1).ignore();
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// What replicas tell each other is void.
#[derive(Serialize, Deserialize)]
pub(super) struct Told {
    pub server: Option<String>,
    pub methods: Vec<String>,
    pub name: Option<String>,
}

impl Cache {
    /// Takes what other replicas say is void, for as long as the task lives. What is said while the store cannot be asked is
    /// lost, and what it was about stays until its time is over.
    pub async fn tend(self: Arc<Self>) {
        let Some(tier) = &self.kept.tier else { return std::future::pending().await };
        loop {
            let heard = tier.redis().hear(CHANNEL, &mut |text| self.told(text)).await;
            log::debug!("cache: what other replicas say is not heard: {}", heard.err().unwrap_or_default());
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn told(&self, text: &[u8]) {
        let Ok(told) = serde_json::from_slice::<Told>(text) else {
            self.meter.garbage.inc();
            return;
        };
        self.kept.marks.void(told.server.as_deref(), |row| told.methods.iter().any(|method| method == row.mcp), told.name.as_deref());
        self.kept.voided.notify_one();
    }
}
