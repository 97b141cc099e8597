//! Where managed keys are kept. Both stores change one record at a time and atomically, and tell cheaply whether
//! anything changed since they were last read.

use std::collections::HashMap;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::keys::{Record, Records};
use crate::store::redis::Redis;

/// Redis: a hash of records by id, the name of its state, a hash of last uses. The state has a random name, because a
/// count would begin anew in a Redis that lost its data, and could be the one we saw.
const KEYS: &str = "{mcp-gateway:keys}";
const VERSION: &str = "{mcp-gateway:keys}:version";
const USED: &str = "{mcp-gateway:keys}:used";
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

/// What a record becomes: `None` to leave it, `Some(None)` to remove it.
pub type Change = Arc<dyn Fn(Option<&Record>) -> Option<Option<Record>> + Send + Sync>;

/// A store of managed keys.
pub enum Store {
    File(PathBuf),
    Redis(Box<Redis>),
}

/// The records as of a version.
pub struct Changed {
    pub version: String,
    pub records: Records,
}

impl Store {
    /// The records, where they can be had without waiting for anybody.
    pub fn read_now(&self) -> Option<Result<Records, String>> {
        match self {
            Self::File(path) => Some(read(path)),
            Self::Redis(_) => None,
        }
    }

    /// The records if they changed since version `seen`.
    ///
    /// # Errors
    /// Why the store cannot be read.
    pub async fn changed(&self, seen: Option<&str>) -> Result<Option<Changed>, String> {
        let version = match self {
            Self::File(path) => beside(path, |path| Ok(stamp(path))).await?,
            Self::Redis(redis) => redis.query::<Option<String>>(redis::cmd("GET").arg(VERSION)).await?.unwrap_or_default(),
        };
        if seen == Some(version.as_str()) {
            return Ok(None);
        }
        let records = match self {
            Self::File(path) => beside(path, read).await?,
            Self::Redis(redis) => fetch(redis).await?,
        };
        Ok(Some(Changed { version, records }))
    }

    /// Changes one record; tells whether there was something to change.
    ///
    /// # Errors
    /// Why the store cannot be written.
    pub async fn update(&self, id: &str, change: Change) -> Result<bool, String> {
        match self {
            Self::File(path) => {
                let id = id.to_owned();
                beside(path, move |path| locked(path, |records| apply(records, &id, &change))).await
            }
            Self::Redis(redis) => replace(redis, id, &change).await,
        }
    }

    /// When keys were last used, on any replica, where that is kept beside the records.
    ///
    /// # Errors
    /// Why the store cannot be read.
    pub async fn usage(&self) -> Result<HashMap<String, i64>, String> {
        match self {
            Self::File(_) => Ok(HashMap::new()),
            Self::Redis(redis) => redis.query(redis::cmd("HGETALL").arg(USED)).await,
        }
    }

    /// Writes when keys were last used.
    ///
    /// # Errors
    /// Why the store cannot be written.
    pub async fn note_usage(&self, used: Vec<(String, i64)>) -> Result<(), String> {
        match self {
            Self::File(path) => beside(path, move |path| locked(path, |records| note(records, &used))).await.map(drop),
            Self::Redis(redis) => redis.query(redis::cmd("HSET").arg(USED).arg(used)).await,
        }
    }
}

/// Works on a file on a thread of its own: a lock or a disk that makes us wait must not keep the tasks beside us from
/// running.
async fn beside<T: Send + 'static>(path: &Path, work: impl FnOnce(&Path) -> Result<T, String> + Send + 'static) -> Result<T, String> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || work(&path)).await.map_err(|e| e.to_string())?
}

fn apply(records: &mut Records, id: &str, change: &Change) -> bool {
    match change(records.get(id)) {
        None => false,
        Some(Some(record)) => {
            records.insert(id.to_owned(), record);
            true
        }
        Some(None) => records.remove(id).is_some(),
    }
}

fn note(records: &mut Records, used: &[(String, i64)]) -> bool {
    for (id, at) in used {
        if let Some(record) = records.get_mut(id) {
            record.last_used = record.last_used.max(Some(*at));
        }
    }
    true
}

async fn fetch(redis: &Redis) -> Result<Records, String> {
    let texts: Vec<(String, String)> = redis.query(redis::cmd("HGETALL").arg(KEYS)).await?;
    let mut records = Records::new();
    for (id, text) in texts {
        let record: Record = serde_json::from_str(&text).map_err(|e| format!("{KEYS}: the record `{id}` cannot be read: {e}"))?;
        records.insert(id, record);
    }
    Ok(records)
}

async fn replace(redis: &Redis, id: &str, change: &Change) -> Result<bool, String> {
    let script = redis::Script::new(REPLACE);
    for _ in 0..ATTEMPTS {
        let old: Option<String> = redis.query(redis::cmd("HGET").arg(KEYS).arg(id)).await?;
        let record = old.as_deref().map(serde_json::from_str::<Record>).transpose().map_err(|e| e.to_string())?;
        let Some(new) = change(record.as_ref()) else { return Ok(false) };
        let new = new.map(|record| serde_json::to_string(&record)).transpose().map_err(|e| e.to_string())?;
        let mut call = script.key(KEYS);
        let state = uuid::Uuid::new_v4().to_string();
        call.key(VERSION).key(USED).arg(id).arg(old.unwrap_or_default()).arg(new.unwrap_or_default()).arg(state);
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

fn read(path: &Path) -> Result<Records, String> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Records::new()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Changes the file under a lock and by renaming, so that no process ever reads half and no change is lost.
fn locked(path: &Path, change: impl FnOnce(&mut Records) -> bool) -> Result<bool, String> {
    let fault = |e: std::io::Error| format!("{}: {e}", path.display());
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(fault)?;
    let private = |path: &Path| std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let lock = private(&path.with_extension("lock")).map_err(fault)?;
    lock.lock().map_err(fault)?;
    let mut records = read(path)?;
    if !change(&mut records) {
        return Ok(false);
    }
    let draft = path.with_extension("draft");
    let mut file = private(&draft).map_err(fault)?;
    file.write_all(&serde_json::to_vec_pretty(&records).map_err(|e| e.to_string())?).map_err(fault)?;
    file.sync_all().map_err(fault)?;
    std::fs::rename(&draft, path).map_err(fault)?;
    Ok(true)
}
