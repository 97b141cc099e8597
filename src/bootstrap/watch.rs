//! Noticing that files changed. Directories are watched rather than files, because editors and Kubernetes replace
//! a file (or the link it hides behind) instead of writing into it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// A burst of events is one change.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches the directories of some files.
pub struct Watch {
    /// Kept alive: dropping it ends the watching.
    _watcher: Option<RecommendedWatcher>,
    events: mpsc::Receiver<()>,
}

impl Watch {
    /// Watching is a convenience: where the system refuses it, `SIGHUP` still reloads, and that is said.
    pub fn start<'f>(files: impl IntoIterator<Item = &'f PathBuf>) -> Self {
        let (sender, events) = mpsc::channel(1);
        let files: Vec<&PathBuf> = files.into_iter().collect();
        let directories: BTreeSet<PathBuf> = files.iter().map(|file| directory(file)).collect();
        let names = files.iter().filter_map(|file| Some(file.file_name()?.to_owned())).collect();
        let watcher = watcher(sender, &directories, names);
        if let Err(error) = &watcher {
            log::warn!("changed files will not be noticed, reload with SIGHUP: {error}");
        }
        Self { _watcher: watcher.ok(), events }
    }

    /// Completes after something changed and settled.
    pub async fn changed(&mut self) {
        if self.events.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        while tokio::time::timeout(SETTLE, self.events.recv()).await.is_ok_and(|event| event.is_some()) {}
    }
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Whether a changed path is one of ours, or the link behind which Kubernetes exchanges the files of a volume.
fn concerns(path: &Path, names: &[OsString]) -> bool {
    path.file_name().is_some_and(|name| name == "..data" || names.iter().any(|ours| ours == name))
}

fn watcher(sender: mpsc::Sender<()>, directories: &BTreeSet<PathBuf>, names: Vec<OsString>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too; reacting to our own reading would never end.
        if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(|path| concerns(path, &names))) {
            let _ = sender.try_send(());
        }
    })?;
    for directory in directories {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}
