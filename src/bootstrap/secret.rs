//! The secret that seals session ids: configured, or generated once and kept in the state directory.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::config::Server;

/// The secret's bytes. Without a usable state directory sessions hold only as long as this process, which is said.
pub fn obtain(server: &Server) -> Vec<u8> {
    if let Some(secret) = &server.session_secret {
        return secret.expose().as_bytes().to_vec();
    }
    match keep(&server.state_dir) {
        Ok(secret) => secret,
        Err(error) => {
            let dir = server.state_dir.display();
            log::warn!(
                "sessions will end with this process and cannot move between replicas: {dir}: {error}; set server.session_secret or server.state_dir"
            );
            generate()
        }
    }
}

fn keep(dir: &Path) -> std::io::Result<Vec<u8>> {
    own_folder(dir)?;
    let path = dir.join("session_secret");
    match std::fs::read(&path) {
        Ok(secret) if secret.len() >= 16 => return Ok(secret),
        Ok(_) => return Err(std::io::Error::other("session_secret is shorter than 16 bytes")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let secret = generate();
    // Written beside and linked, so that two processes starting at once end with the same secret and none reads half.
    let draft = dir.join(format!("session_secret.{}", std::process::id()));
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?.write_all(&secret)?;
    let linked = std::fs::hard_link(&draft, &path);
    std::fs::remove_file(&draft)?;
    match linked {
        Ok(()) => Ok(secret),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => std::fs::read(&path),
        Err(error) => Err(error),
    }
}

/// Makes the state directory where it is missing. One that somebody else made, or may write to or read from, is no place
/// for a secret, nor for whom to hand the listeners to.
///
/// # Errors
/// Why it cannot be used.
pub fn own_folder(dir: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let (found, us) = (std::fs::symlink_metadata(dir)?, std::fs::metadata("/proc/self")?);
    if !found.is_dir() || found.uid() != us.uid() || found.mode() & 0o077 != 0 {
        return Err(std::io::Error::other("not a directory of our own with mode 0700"));
    }
    Ok(())
}

fn generate() -> Vec<u8> {
    let mut secret = vec![0; 32];
    SystemRandom::new().fill(&mut secret).expect("the system has randomness");
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_made_once_and_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = keep(&state).unwrap();
        assert_eq!((first.len(), keep(&state).unwrap()), (32, first));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join("session_secret"))), (0o700, 0o600));
        assert!(keep(Path::new("/dev/null/state")).is_err());
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(keep(&open).is_err(), "others may look into it");
        std::os::unix::fs::symlink(&state, dir.path().join("link")).unwrap();
        assert!(keep(&dir.path().join("link")).is_err(), "a link may have been laid by others");
    }
}
