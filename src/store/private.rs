//! Files of our own alone: written whole or not at all, 0600 in a folder of 0700, because what is kept there may hold
//! credentials.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Result, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Replaces a file by renaming, so that nobody ever reads half. Writers must not meet: see [`lock`].
///
/// # Errors
/// What the system says.
pub fn replace(path: &Path, text: &[u8]) -> Result<()> {
    folder(path)?;
    let draft = path.with_extension("draft");
    let mut file = open(&draft)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&draft, path)
}

/// Keeps other writers of a file out, in this process and others, until it is dropped.
///
/// # Errors
/// What the system says.
pub fn lock(path: &Path) -> Result<File> {
    folder(path)?;
    let lock = open(&path.with_extension("lock"))?;
    lock.lock()?;
    Ok(lock)
}

fn folder(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap_or(Path::new(".")))
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Where JSON could not be read, without the words of the parser: it may quote what it found.
pub fn place(error: &serde_json::Error) -> String {
    format!("not what was written there, at line {} column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_may_read_what_is_written() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state").join("kept.json");
        for text in ["first, and longer", "second"] {
            let _lock = lock(&path).unwrap();
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }
}
