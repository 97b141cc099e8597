//! The sets last told, on disk: one file for each feed in `discovery/` of the state directory. A start reads them, so that
//! a source that is down then costs nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Feed, Found, Place, Set};
use crate::store::private;

/// One file.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Which place it was told by.
    of: String,
    /// As they were written there.
    backends: BTreeMap<String, String>,
}

fn path(state_dir: &Path, label: &str) -> PathBuf {
    state_dir.join("discovery").join(format!("{label}.json"))
}

/// Writes a set.
pub fn keep(state_dir: &Path, label: &str, of: String, set: &Set) {
    let backends = set.iter().map(|(key, found)| (key.clone(), found.written.clone())).collect();
    let path = path(state_dir, label);
    let kept = serde_json::to_vec_pretty(&Kept { of, backends }).map_err(std::io::Error::other);
    let kept = kept.and_then(|text| private::lock(&path).and_then(|_lock| private::replace(&path, &text)));
    if let Err(error) = kept {
        log::warn!("discovery, {label}: {}: {error}; a start without it would know no backends", path.display());
    }
}

/// Reads the set of a feed; what cannot be read is told and missing.
pub fn recall(state_dir: &Path, feed: &Feed) -> Set {
    // The store itself is on this disk.
    if let Feed::Admin { place: Place::File(file), .. } = feed {
        return super::admin::recall(feed, file);
    }
    let path = path(state_dir, &feed.label());
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                log::warn!("discovery, {}: {}: {error}", feed.label(), path.display());
            }
            return Set::new();
        }
    };
    match serde_json::from_slice::<Kept>(&text) {
        Ok(kept) if kept.of == feed.identity() => found(feed, kept.backends),
        Ok(_) => Set::new(),
        Err(error) => {
            log::warn!("discovery, {}: {}: {}", feed.label(), path.display(), private::place(&error));
            Set::new()
        }
    }
}

/// Reads backends as they were written; what cannot be read is told and left out.
pub fn found(feed: &Feed, written: impl IntoIterator<Item = (String, String)>) -> Set {
    let read = |(key, written): (String, String)| match feed.read(&key, &written) {
        Ok(backend) => Some((key, Found { backend, written })),
        Err(message) => {
            log::warn!("discovery, {}: {message}", feed.label());
            None
        }
    };
    written.into_iter().filter_map(read).collect()
}
