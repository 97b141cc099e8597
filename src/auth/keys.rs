//! Keys made through the admin API. A record holds hashes, never keys; the store is a file for one node or Redis for
//! replicas, watched so that a key made or revoked anywhere is known everywhere within a second. What is known goes on
//! serving while the store cannot be asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::api_key::{Entry, Table};
use super::key_store::{self, Store};
use crate::config::identity::Standing;
use crate::config::key_hash;
use crate::digest;
use crate::reject::{Code, Reject, Verdict};
use crate::store::records::{self, Changed};

/// How often the store is looked at: a change is effective within twice that.
const LOOK: Duration = Duration::from_millis(400);
/// How often the times of last use are written.
const USE: Duration = Duration::from_secs(5);
/// How our keys begin, so that scanners for leaked secrets and people recognise them.
pub const PREFIX: &str = "mgk_";

/// One key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    #[serde(flatten)]
    pub standing: Standing,
    /// Unix times in seconds.
    pub created: i64,
    pub expires: Option<i64>,
    pub last_used: Option<i64>,
    /// The current secret last; earlier ones while they overlap.
    pub secrets: Vec<Secret>,
}

/// One secret of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// `sha256:` and hex digits.
    pub hash: String,
    /// When it ends, after a rotation.
    pub until: Option<i64>,
}

/// All keys by id.
pub type Records = records::Records<Record>;

/// What an administrator wants.
pub enum Wish {
    Create(Standing, String, Option<i64>),
    Revoke(String),
    /// The old secret stays good for so many seconds.
    Rotate(String, i64),
}

/// A key just made, shown once.
#[derive(Serialize)]
pub struct Made {
    pub id: String,
    /// `None` after a revocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

type Told = oneshot::Sender<Verdict<Made>>;

/// The managed keys.
pub struct Managed {
    store: Store,
    table: ArcSwap<Table>,
    records: ArcSwap<Records>,
    /// Times of last use that other replicas saw.
    used: ArcSwap<HashMap<String, i64>>,
    known: AtomicBool,
    wishes: mpsc::Sender<(Wish, Told)>,
    /// Taken by `tend`.
    wished: Mutex<Option<mpsc::Receiver<(Wish, Told)>>>,
}

impl Managed {
    /// Reads what can be read at once (a file).
    pub fn new(store: Store) -> Arc<Self> {
        let (wishes, receiver) = mpsc::channel(16);
        let managed = Self {
            table: ArcSwap::default(),
            records: ArcSwap::default(),
            used: ArcSwap::default(),
            known: AtomicBool::new(false),
            wishes,
            wished: Mutex::new(Some(receiver)),
            store,
        };
        match managed.store.read_now() {
            Some(Ok(records)) => managed.learn(records),
            Some(Err(cause)) => log::error!("managed keys: {cause}"),
            None => {}
        }
        Arc::new(managed)
    }

    /// The key of a digest.
    pub fn find(&self, digest: &[u8; 32]) -> Option<Arc<Entry>> {
        self.table.load().find(digest).cloned()
    }

    /// Whether the store was ever read, so that an unknown key is a wrong one.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// All keys, with the time of last use as this process saw it.
    pub fn list(&self) -> Vec<Record> {
        let (table, others) = (self.table.load(), self.used.load());
        let here = |record: &Record| table.entries().filter(|entry| entry.id == record.id).filter_map(|entry| entry.used()).max();
        let there = |record: &Record| others.get(&record.id).copied().filter(|at| *at >= record.created);
        let used = |record: &Record| here(record).max(there(record)).max(record.last_used);
        self.records.load().values().map(|record| Record { last_used: used(record), ..record.clone() }).collect()
    }

    /// Does what an administrator wants, in the background service that owns the store.
    ///
    /// # Errors
    /// Why it was not done.
    pub async fn wish(&self, wish: Wish) -> Verdict<Made> {
        let gone = || Reject::new(Code::Internal, "the background service is not running");
        let (sender, receiver) = oneshot::channel();
        self.wishes.send((wish, sender)).await.map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }

    /// Keeps memory and store in step for as long as the task lives.
    pub async fn tend(self: Arc<Self>) {
        let taken = self.wished.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut wished) = taken else { return };
        let (mut look, mut usage) = (tokio::time::interval(LOOK), tokio::time::interval(USE));
        // After a store that hung, one look is enough.
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        usage.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = None;
        let mut failing = false;
        loop {
            tokio::select! {
                Some((wish, told)) = wished.recv() => {
                    let done = self.fulfil(wish).await;
                    self.look(&mut seen, &mut failing).await;
                    let _ = told.send(done);
                }
                _ = look.tick() => self.look(&mut seen, &mut failing).await,
                _ = usage.tick() => {
                    self.write_usage().await;
                    self.read_usage().await;
                }
            }
        }
    }

    async fn look(&self, seen: &mut Option<String>, failing: &mut bool) {
        let changed = self.store.changed(seen.as_deref()).await;
        if let Err(cause) = &changed
            && !*failing
        {
            log::error!("managed keys: {cause}; those known go on serving");
        }
        *failing = changed.is_err();
        if let Ok(Some(Changed { version, records })) = changed {
            *seen = Some(version);
            self.learn(records);
        }
    }

    fn learn(&self, records: Records) {
        let old = self.table.load();
        let mut table = Table::default();
        for record in records.values() {
            for secret in &record.secrets {
                let Ok(hash) = key_hash(&secret.hash) else { continue };
                let expires = [record.expires, secret.until].into_iter().flatten().min();
                let entry = Entry::new(&record.id, &record.standing, expires);
                old.find(&hash).and_then(|old| old.used()).into_iter().for_each(|at| entry.note(at));
                table.add(hash, entry);
            }
        }
        self.table.store(Arc::new(table));
        self.records.store(Arc::new(records));
        self.known.store(true, Ordering::Release);
    }

    async fn fulfil(&self, wish: Wish) -> Verdict<Made> {
        match wish {
            Wish::Create(standing, id, expires) => {
                let (key, secret) = mint();
                let created = jiff::Timestamp::now().as_second();
                let record = Record { id: id.clone(), standing, created, expires, last_used: None, secrets: vec![secret] };
                let made = self.store.update(&id, Arc::new(move |old| if old.is_some() { None } else { Some(Some(record.clone())) })).await;
                if made.map_err(unavailable)? {
                    Ok(Made { id, key: Some(key) })
                } else {
                    Err(Reject::new(Code::Conflict, "a key of this id exists; rotate or revoke it"))
                }
            }
            Wish::Revoke(id) => {
                let gone = self.store.update(&id, Arc::new(|old| old.map(|_| None))).await.map_err(unavailable)?;
                if gone { Ok(Made { id, key: None }) } else { Err(unknown()) }
            }
            Wish::Rotate(id, overlap) => {
                let (key, secret) = mint();
                let end = jiff::Timestamp::now().as_second().saturating_add(overlap);
                let rotated = self.store.update(&id, Arc::new(move |old| old.map(|old| Some(rotated(old, &secret, end))))).await;
                if rotated.map_err(unavailable)? { Ok(Made { id, key: Some(key) }) } else { Err(unknown()) }
            }
        }
    }

    async fn write_usage(&self) {
        let records = self.records.load();
        let table = self.table.load();
        let newer = table.entries().filter_map(|entry| Some((entry.id.clone(), entry.used()?)));
        let others = self.used.load();
        let known = |id: &String| records.get(id).map(|record| record.last_used.max(others.get(id).copied()));
        let newer: Vec<_> = newer.filter(|(id, at)| known(id).is_some_and(|known| known < Some(*at))).collect();
        if !newer.is_empty()
            && let Err(cause) = key_store::note_usage(&self.store, newer).await
        {
            log::debug!("managed keys: the times of last use were not written: {cause}");
        }
    }
}

impl Managed {
    async fn read_usage(&self) {
        if let Ok(used) = key_store::usage(&self.store).await {
            self.used.store(Arc::new(used));
        }
    }
}

fn rotated(old: &Record, fresh: &Secret, end: i64) -> Record {
    let now = jiff::Timestamp::now().as_second();
    let ending = |secret: &Secret| Secret { until: Some(secret.until.map_or(end, |until| until.min(end))), ..secret.clone() };
    let mut secrets: Vec<Secret> = old.secrets.iter().map(ending).filter(|secret| secret.until > Some(now)).collect();
    secrets.push(fresh.clone());
    Record { secrets, ..old.clone() }
}

fn unavailable(cause: String) -> Reject {
    Reject::new(Code::StoreUnavailable, "the key store cannot be written").because(cause)
}

fn unknown() -> Reject {
    Reject::new(Code::NotFound, "no managed key of this id")
}

/// A new key and what is stored of it: 256 random bits, so that no guessing and no slow hash matters.
pub fn mint() -> (String, Secret) {
    let mut random = [0; 32];
    SystemRandom::new().fill(&mut random).expect("the system has randomness");
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = format!("sha256:{}", digest::hex(&digest::sha256(key.as_bytes())));
    (key, Secret { hash, until: None })
}
