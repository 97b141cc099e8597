//! Handing over to a new process, over a socket in the state directory that the new one listens on. The old one sends
//! its listening sockets and its PID file, and serves on until the new one has proved itself:
//!
//! ```text
//! old                                   new
//!   |  <------------- listens on upgrade.sock
//!   |  estate, descriptors ------------>  |    makes itself ready, serves beside the old one for a moment
//!   |  <------------------------- READY   |
//!   |  GO (or STAY: too late) --------->  |    names itself in the PID file and to the service manager
//!   |  <-------------------------- MINE   |
//!   | takes no new connections, hangs up  |
//! ```
//!
//! Wherever the new one breaks off, the old one is still what it was. Pingora's own hand-over has no way back: it stops
//! the old process in any case.

use std::fs::Permissions;
use std::io::{IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::time::timeout;

use super::listen::Sockets;
use super::pid::PidFile;
use super::secret;

/// How long the old process looks for a new one after SIGQUIT.
const KNOCK: Duration = Duration::from_secs(10);
/// How long the old process waits for the new one to be ready; longer than the new one gives itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one side waits for the other's next word.
const WORD: Duration = Duration::from_secs(10);
/// How long a new process waits for the old one to come.
const MEETING: Duration = Duration::from_secs(60);
/// The longest estate, in bytes.
const LONGEST: usize = 1 << 20;
/// Descriptors at most.
const MOST: usize = 32;

/// Where the new process waits for the old one.
pub fn meeting_place(state_dir: &Path) -> PathBuf {
    state_dir.join("upgrade.sock")
}

/// Names the process that waits to take over.
pub fn waiting_file(state_dir: &Path) -> PathBuf {
    state_dir.join("upgrade.pid")
}

/// Names the process that serves.
pub fn serving_file(state_dir: &Path) -> PathBuf {
    state_dir.join("mcp-gateway.pid")
}

/// What is said after the estate.
mod word {
    pub const READY: u8 = b'R';
    pub const GO: u8 = b'G';
    pub const STAY: u8 = b'S';
    pub const MINE: u8 = b'M';
}

/// What the old process tells the new one.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Estate {
    /// The keys of the listeners, in the order of their descriptors; the PID file's is the last.
    pub listeners: Vec<String>,
    /// The backends that are not healthy.
    pub unhealthy: Vec<String>,
    /// Whether any is healthy.
    pub ready: bool,
    /// Whether the keys of issuers and the managed keys are known.
    pub keys: bool,
    /// The backends that get no new requests.
    pub draining: Vec<String>,
}

/// The new process, which waits for the old one to hang up.
pub type Heir = tokio::net::UnixStream;

/// The old process's side: hands over and returns when this process may leave.
///
/// # Errors
/// Why nobody took over.
pub async fn bequeath(state_dir: &Path, mut estate: Estate, sockets: &Sockets, pid_file: &PidFile) -> Result<Heir, String> {
    let mut heir = knock(&meeting_place(state_dir)).await?;
    estate.listeners = sockets.0.iter().map(|socket| socket.key.to_owned()).collect();
    let descriptors: Vec<_> = sockets.0.iter().map(|socket| socket.listener.as_fd()).chain([pid_file.as_fd()]).collect();
    send(&mut heir, &estate, &descriptors).await.map_err(|e| format!("the listeners could not be sent: {e}"))?;
    log::info!("sent {} listener(s) to the new process; waiting for it to be ready", sockets.0.len());
    match timeout(PATIENCE, heir.read_u8()).await {
        Ok(Ok(word::READY)) => {}
        Ok(_) => return Err("the new process ended before it was ready; its log says why".to_owned()),
        Err(_) => {
            let _ = heir.write_u8(word::STAY).await;
            return Err(format!("the new process was not ready within {PATIENCE:?}"));
        }
    }
    let heard = match heir.write_u8(word::GO).await {
        Ok(()) => timeout(WORD, heir.read_u8()).await,
        Err(error) => Ok(Err(error)),
    };
    match heard {
        // It waited for us no longer, and serves: it names itself before it hangs up.
        Ok(Err(_)) if pid_file.names_a_successor() => Ok(heir),
        Ok(Err(_)) => {
            // It may have named itself already.
            pid_file.name_us().unwrap_or_else(|e| log::error!("the PID file cannot be written: {e}"));
            Err("the new process ended as it took over".to_owned())
        }
        // One that is slow to say so has it all the same: two that serve would be worse.
        Ok(Ok(_)) | Err(_) => Ok(heir),
    }
}

async fn knock(path: &Path) -> Result<Heir, String> {
    let until = Instant::now() + KNOCK;
    loop {
        match Heir::connect(path).await {
            Ok(heir) => return Ok(heir),
            Err(error) if Instant::now() >= until => {
                return Err(format!("no new process waits at {} (start one with --upgrade): {error}", path.display()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn send(heir: &mut Heir, estate: &Estate, descriptors: &[BorrowedFd<'_>]) -> std::io::Result<()> {
    let text = serde_json::to_vec(estate)?;
    let length = u32::try_from(text.len()).map_err(std::io::Error::other)?.to_be_bytes();
    let write = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(std::io::Error::other("too many listeners"));
        }
        // Four bytes go in one piece or not at all.
        Ok(rustix::net::sendmsg(&*heir, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?)
    };
    heir.async_io(Interest::WRITABLE, write).await?;
    heir.write_all(&text).await
}

/// The new process's side: the process before us, which serves until we are ready.
pub struct Predecessor {
    stream: UnixStream,
    pub estate: Estate,
    /// By their keys.
    pub listeners: Vec<(String, TcpListener)>,
    /// Taken where it is kept.
    pub pid_file: Option<PidFile>,
    /// Nobody else may wait meanwhile.
    turn: PidFile,
}

impl Predecessor {
    /// Waits for the old process to come and takes what it gives.
    ///
    /// # Errors
    /// Why there is no upgrade.
    pub fn meet(state_dir: &Path) -> Result<Self, String> {
        let fault = |e: std::io::Error| format!("upgrade: {}: {e}", state_dir.display());
        secret::own_folder(state_dir).map_err(fault)?;
        let turn = PidFile::claim(&waiting_file(state_dir)).map_err(fault)?;
        let turn = turn.ok_or_else(|| format!("upgrade: another one is under way on {}", state_dir.display()))?;
        let path = meeting_place(state_dir);
        let listener = listen(&path).map_err(fault)?;
        turn.name_us().map_err(fault)?;
        log::info!("waiting for the running process: it comes when it gets SIGQUIT");
        let met = accept(&listener).map_err(fault);
        let _ = std::fs::remove_file(&path);
        let mut stream = met?;
        let (estate, mut descriptors) = receive(&mut stream).map_err(fault)?;
        if descriptors.len() != estate.listeners.len() + 1 {
            return Err(format!(
                "upgrade: the running process sent {} descriptors and named {}",
                descriptors.len(),
                estate.listeners.len()
            ));
        }
        let pid_file = descriptors.pop().map(PidFile::inherited);
        let listeners = estate.listeners.iter().cloned().zip(descriptors.into_iter().map(TcpListener::from)).collect();
        Ok(Self { stream, estate, listeners, pid_file, turn })
    }

    /// Tells the old process that this one is ready. It answers whether it goes; if it is gone already, it does not.
    ///
    /// # Errors
    /// That it stays, so this one must not.
    pub async fn relieve(self) -> Result<Relieved, String> {
        let fault = |e: std::io::Error| format!("upgrade: {e}");
        self.stream.set_nonblocking(true).map_err(fault)?;
        let mut stream = tokio::net::UnixStream::from_std(self.stream).map_err(fault)?;
        let _ = stream.write_u8(word::READY).await;
        match timeout(WORD, stream.read_u8()).await {
            Ok(Ok(word::GO)) => {}
            Ok(Ok(_)) => return Err("upgrade: the running process waited no longer".to_owned()),
            Ok(Err(_)) | Err(_) => log::warn!("the process before this one is gone or does not answer; serving all the same"),
        }
        Ok(Relieved { stream, turn: self.turn })
    }
}

/// The old process waits for our last word.
pub struct Relieved {
    stream: tokio::net::UnixStream,
    turn: PidFile,
}

impl Relieved {
    /// Lets it leave, and waits until it takes no new connections.
    pub async fn dismiss(mut self) {
        let _ = self.stream.write_u8(word::MINE).await;
        let _ = timeout(WORD, self.stream.read_u8()).await;
        // From here on the next upgrade may begin.
        drop(self.turn);
    }
}

fn listen(path: &Path) -> std::io::Result<UnixListener> {
    // Whoever left it is gone: we have the turn.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn accept(listener: &UnixListener) -> std::io::Result<UnixStream> {
    let until = Instant::now() + MEETING;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(WORD))?;
                return Ok(stream);
            }
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if Instant::now() >= until => {
                return Err(std::io::Error::other(format!("no running process came within {MEETING:?}; send it SIGQUIT")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn receive(stream: &mut UnixStream) -> std::io::Result<(Estate, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(&*stream, &mut [IoSliceMut::new(&mut length)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    stream.read_exact(&mut length[got.bytes..])?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(std::io::Error::other)?;
    if length > LONGEST {
        return Err(std::io::Error::other("the running process says too much"));
    }
    let mut text = vec![0; length];
    stream.read_exact(&mut text)?;
    Ok((serde_json::from_slice(&text)?, descriptors))
}

#[cfg(test)]
mod tests {
    use super::super::pid;
    use super::*;

    /// What comes of handing over to one that says it is ready, names a process in the PID file and hangs up; and who is
    /// named then.
    async fn handed_to(process: u32, waits_for_go: bool) -> (Result<(), String>, Option<u32>) {
        let dir = tempfile::tempdir().unwrap();
        let path = serving_file(dir.path());
        let pid_file = PidFile::claim(&path).unwrap().unwrap();
        pid_file.name_us().unwrap();
        let meeting = tokio::net::UnixListener::bind(meeting_place(dir.path())).unwrap();
        let heir = async {
            let (mut stream, _) = meeting.accept().await.unwrap();
            let length = stream.read_u32().await.unwrap();
            stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
            stream.write_u8(word::READY).await.unwrap();
            if waits_for_go {
                assert_eq!(stream.read_u8().await.unwrap(), word::GO);
            }
            std::fs::write(&path, format!("{process}\n")).unwrap();
        };
        let (sockets, estate) = (Sockets(Vec::new()), Estate::default());
        let ((), outcome) = tokio::join!(heir, bequeath(dir.path(), estate, &sockets, &pid_file));
        (outcome.map(drop), pid::holder(&path).unwrap())
    }

    #[tokio::test]
    async fn who_ends_while_taking_over_is_not_named_any_more() {
        for waits_for_go in [true, false] {
            let (outcome, named) = handed_to(123_456_789, waits_for_go).await;
            assert!(outcome.unwrap_err().contains("ended as it took over"));
            assert_eq!(named, Some(std::process::id()));
        }
    }

    #[tokio::test]
    async fn who_waited_for_us_no_longer_and_serves_has_taken_over() {
        let successor = std::os::unix::process::parent_id();
        assert_eq!(handed_to(successor, false).await, (Ok(()), Some(successor)));
    }
}
