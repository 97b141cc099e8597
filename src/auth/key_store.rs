//! Where managed keys are kept, and the times of their last use, which change too often to be part of the record where
//! many write.

use std::collections::HashMap;

use super::keys::Record;
use crate::store::records::{self, rewrite};

/// A store of managed keys.
pub type Store = records::Store<Record>;

impl records::Record for Record {
    const KIND: &'static str = "keys";
}

/// When keys were last used, on any replica, where that is kept beside the records.
///
/// # Errors
/// Why the store cannot be read.
pub async fn usage(store: &Store) -> Result<HashMap<String, i64>, String> {
    match store {
        Store::File(_) => Ok(HashMap::new()),
        Store::Redis(redis, names) => redis.query(redis::cmd("HGETALL").arg(&names.used)).await,
    }
}

/// Writes when keys were last used.
///
/// # Errors
/// Why the store cannot be written.
pub async fn note_usage(store: &Store, used: Vec<(String, i64)>) -> Result<(), String> {
    match store {
        Store::File(path) => rewrite(path, move |records| note(records, &used)).await.map(drop),
        Store::Redis(redis, names) => redis.query(redis::cmd("HSET").arg(&names.used).arg(used)).await,
    }
}

fn note(records: &mut records::Records<Record>, used: &[(String, i64)]) -> bool {
    for (id, at) in used {
        if let Some(record) = records.get_mut(id) {
            record.last_used = record.last_used.max(Some(*at));
        }
    }
    true
}
