//! PID files that tell the truth: whoever is named in one holds it locked, so a number that was left behind, and may be
//! somebody else's by now, is never believed. The lock belongs to the open file, which can be handed to another process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Result};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

/// Looks at a lock that a reader may hold for a moment.
const LOOKS: usize = 5;

/// A PID file that is ours.
#[derive(Debug)]
pub struct PidFile(File);

impl PidFile {
    /// Takes a PID file; `None` if a living process has it.
    ///
    /// # Errors
    /// What the system says.
    pub fn claim(path: &Path) -> Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path)?;
        for look in 0..LOOKS {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self(file))),
                Err(TryLockError::WouldBlock) if look + 1 < LOOKS => std::thread::sleep(Duration::from_millis(10)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// One that another process holds as well.
    pub fn inherited(descriptor: OwnedFd) -> Self {
        Self(descriptor.into())
    }

    /// Names this process in it.
    ///
    /// # Errors
    /// What the system says.
    pub fn name_us(&self) -> Result<()> {
        let text = format!("{}\n", std::process::id());
        self.0.write_all_at(text.as_bytes(), 0)?;
        self.0.set_len(text.len() as u64)
    }

    /// Whether a process is named in it that has crashed: one that ended in order has taken its name out.
    pub fn names_a_dead_process(&self) -> bool {
        self.named().is_some_and(is_dead)
    }

    /// Whether another process is named in it that lives: our successor.
    pub fn names_a_successor(&self) -> bool {
        self.named().is_some_and(|process| process != std::process::id() && !is_dead(process))
    }

    fn named(&self) -> Option<u32> {
        let mut text = [0; 16];
        let read = self.0.read_at(&mut text, 0).unwrap_or_default();
        std::str::from_utf8(&text[..read]).ok().and_then(named)
    }

    /// Names nobody in it, if it named this process, which ends and has no successor.
    pub fn unname_us(&self) {
        let ours = format!("{}\n", std::process::id());
        let mut text = vec![0; ours.len()];
        if self.0.read_exact_at(&mut text, 0).is_ok() && text == ours.as_bytes() {
            self.0.set_len(0).unwrap_or_else(|e| log::warn!("the PID file cannot be emptied: {e}"));
        }
    }
}

impl AsFd for PidFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The living process that a PID file names, if there is one.
///
/// # Errors
/// What the system says, of a file that is there.
pub fn holder(path: &Path) -> Result<Option<u32>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => return Ok(None),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(named(&text))
}

fn named(text: &str) -> Option<u32> {
    text.lines().next()?.parse().ok()
}

/// Gone, or waiting for its parent to notice that it is (proc(5): state Z or X).
fn is_dead(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    stat.map_or(true, |stat| stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['Z', 'X'])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_living_holder_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.pid");
        assert_eq!(holder(&path).unwrap(), None);
        std::fs::write(&path, "123456789\n").unwrap();
        assert_eq!(holder(&path).unwrap(), None, "left behind by a process that is gone");
        let ours = PidFile::claim(&path).unwrap().unwrap();
        ours.name_us().unwrap();
        assert_eq!(holder(&path).unwrap(), Some(std::process::id()));
        assert!(PidFile::claim(&path).unwrap().is_none(), "taken");
        // As if it were handed to another process: the lock lasts until the last of them lets go.
        let theirs = PidFile::inherited(ours.as_fd().try_clone_to_owned().unwrap());
        drop(ours);
        assert_eq!(holder(&path).unwrap(), Some(std::process::id()));
        std::fs::write(&path, "123456789\n").unwrap();
        theirs.unname_us();
        assert_eq!(holder(&path).unwrap(), Some(123_456_789), "another has taken over");
        assert!(theirs.names_a_dead_process() && !theirs.names_a_successor());
        std::fs::write(&path, format!("{}\n", std::os::unix::process::parent_id())).unwrap();
        assert!(theirs.names_a_successor());
        theirs.name_us().unwrap();
        assert!(!theirs.names_a_dead_process() && !theirs.names_a_successor());
        theirs.unname_us();
        assert!(!theirs.names_a_dead_process(), "it names nobody");
        assert_eq!(holder(&path).unwrap(), None);
        drop(theirs);
        assert!(PidFile::claim(&path).unwrap().is_some());
    }
}
