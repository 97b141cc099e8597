//! Records made while running (managed keys, registered backends), kept in a file for one node or in Redis for replicas.
//! Both change one record at a time and atomically, and tell cheaply whether anything changed since they were last read.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::private;
use super::redis::Redis;

/// Attempts at a record that others change at the same time.
const ATTEMPTS: usize = 5;

/// Replaces a record if it is still what was read. A record that is new or goes takes its last use with it.
const REPLACE: &str = r"
local old = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if old ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
if old == '' or ARGV[3] == '' then redis.call('HDEL', KEYS[3], ARGV[1]) end
redis.call('SET', KEYS[2], ARGV[4])
return 1";

/// What can be kept.
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The word for its kind in the names of Redis keys.
    const KIND: &'static str;
}

/// All records by id.
pub type Records<R> = BTreeMap<String, R>;

/// What a record becomes: `None` to leave it, `Some(None)` to remove it.
pub type Change<R> = Arc<dyn Fn(Option<&R>) -> Option<Option<R>> + Send + Sync>;

/// A store of records.
pub enum Store<R> {
    File(PathBuf),
    Redis(Box<Redis>, Names<R>),
}

/// Redis keys: a hash of records by id, the name of its state, a hash of last uses. The state has a random name, because
/// a count would begin anew in a Redis that lost its data, and could be the one we saw.
pub struct Names<R> {
    records: String,
    version: String,
    pub used: String,
    of: std::marker::PhantomData<fn() -> R>,
}

impl<R: Record> Default for Names<R> {
    fn default() -> Self {
        // One slot of a cluster for all three.
        let records = format!("{{mcp-gateway:{}}}", R::KIND);
        Self { version: format!("{records}:version"), used: format!("{records}:used"), records, of: std::marker::PhantomData }
    }
}

/// The records as of a version.
pub struct Changed<R> {
    pub version: String,
    pub records: Records<R>,
}

impl<R: Record> Store<R> {
    pub fn in_redis(redis: Redis) -> Self {
        Self::Redis(Box::new(redis), Names::default())
    }

    /// The records, where they can be had without waiting for anybody.
    pub fn read_now(&self) -> Option<Result<Records<R>, String>> {
        match self {
            Self::File(path) => Some(read(path)),
            Self::Redis(..) => None,
        }
    }

    /// The records if they changed since version `seen`.
    ///
    /// # Errors
    /// Why the store cannot be read.
    pub async fn changed(&self, seen: Option<&str>) -> Result<Option<Changed<R>>, String> {
        let version = match self {
            Self::File(path) => beside(path, |path| Ok(stamp(path))).await?,
            Self::Redis(redis, names) => redis.query::<Option<String>>(redis::cmd("GET").arg(&names.version)).await?.unwrap_or_default(),
        };
        if seen == Some(version.as_str()) {
            return Ok(None);
        }
        let records = match self {
            Self::File(path) => beside(path, read).await?,
            Self::Redis(redis, names) => fetch(redis, names).await?,
        };
        Ok(Some(Changed { version, records }))
    }

    /// Changes one record; tells whether there was something to change.
    ///
    /// # Errors
    /// Why the store cannot be written.
    pub async fn update(&self, id: &str, change: Change<R>) -> Result<bool, String> {
        match self {
            Self::File(path) => {
                let id = id.to_owned();
                beside(path, move |path| locked(path, |records| apply(records, &id, &change))).await
            }
            Self::Redis(redis, names) => replace(redis, names, id, &change).await,
        }
    }
}

/// Changes the records of a file, all at once.
///
/// # Errors
/// Why the file cannot be written.
pub async fn rewrite<R: Record>(path: &Path, change: impl FnOnce(&mut Records<R>) -> bool + Send + 'static) -> Result<bool, String> {
    beside(path, move |path| locked(path, change)).await
}

/// Works on a file on a thread of its own: a lock or a disk that makes us wait must not keep the tasks beside us from
/// running.
async fn beside<T: Send + 'static>(path: &Path, work: impl FnOnce(&Path) -> Result<T, String> + Send + 'static) -> Result<T, String> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || work(&path)).await.map_err(|e| e.to_string())?
}

fn apply<R>(records: &mut Records<R>, id: &str, change: &Change<R>) -> bool {
    match change(records.get(id)) {
        None => false,
        Some(Some(record)) => {
            records.insert(id.to_owned(), record);
            true
        }
        Some(None) => records.remove(id).is_some(),
    }
}

async fn fetch<R: Record>(redis: &Redis, names: &Names<R>) -> Result<Records<R>, String> {
    let texts: Vec<(String, String)> = redis.query(redis::cmd("HGETALL").arg(&names.records)).await?;
    let mut records = Records::new();
    for (id, text) in texts {
        let record: R = serde_json::from_str(&text)
            .map_err(|e| format!("{}: the record `{id}` cannot be read: {}", names.records, private::place(&e)))?;
        records.insert(id, record);
    }
    Ok(records)
}

async fn replace<R: Record>(redis: &Redis, names: &Names<R>, id: &str, change: &Change<R>) -> Result<bool, String> {
    let script = redis::Script::new(REPLACE);
    for _ in 0..ATTEMPTS {
        let old: Option<String> = redis.query(redis::cmd("HGET").arg(&names.records).arg(id)).await?;
        let record = old.as_deref().map(serde_json::from_str::<R>).transpose().map_err(|e| private::place(&e))?;
        let Some(new) = change(record.as_ref()) else { return Ok(false) };
        if record.is_none() && new.is_none() {
            return Ok(false);
        }
        let new = new.map(|record| serde_json::to_string(&record)).transpose().map_err(|e| e.to_string())?;
        let mut call = script.key(&names.records);
        let state = uuid::Uuid::new_v4().to_string();
        call.key(&names.version).key(&names.used).arg(id).arg(old.unwrap_or_default()).arg(new.unwrap_or_default()).arg(state);
        if redis.invoke::<u8>(&call).await? == 1 {
            return Ok(true);
        }
    }
    Err(format!("the record `{id}` is being changed by others"))
}

/// Tells one state of the file from another.
fn stamp(path: &Path) -> String {
    std::fs::metadata(path)
        .map_or_else(|_| "absent".to_owned(), |meta| format!("{}-{}.{}-{}", meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

fn read<R: Record>(path: &Path) -> Result<Records<R>, String> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| format!("{}: {}", path.display(), private::place(&e))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Records::new()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Changes the file under a lock and by renaming, so that no process ever reads half and no change is lost.
fn locked<R: Record>(path: &Path, change: impl FnOnce(&mut Records<R>) -> bool) -> Result<bool, String> {
    let fault = |e: std::io::Error| format!("{}: {e}", path.display());
    let _lock = private::lock(path).map_err(fault)?;
    let mut records = read(path)?;
    if !change(&mut records) {
        return Ok(false);
    }
    let text = serde_json::to_vec_pretty(&records).map_err(|e| e.to_string())?;
    private::replace(path, &text).map_err(fault)?;
    Ok(true)
}
