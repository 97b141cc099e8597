//! A child process that cannot outlive the benchmark.
//!
//! Each gets a process group of its own (nginx has workers), is stopped when dropped, which covers errors, panics and
//! Ctrl-C, and is ended by the kernel should the benchmark itself be killed.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::time::{sleep, timeout};

use crate::Result;
use crate::cpu::{self, Cores};
use crate::wire::Wire;

/// A gateway first asks its backends who they are.
const READY_WITHIN: Duration = Duration::from_secs(20);
const STOPPED_WITHIN: Duration = Duration::from_secs(3);

pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command on a core. It sees an empty environment, since the gateway would believe a stray variable.
    pub fn start(name: &'static str, command: Command, core: usize, cores: Cores, dir: &Path) -> Result<Self> {
        // Not beside its configuration: that directory is watched.
        let logs = dir.join("logs");
        fs::create_dir_all(&logs)?;
        let log = logs.join("output.log");
        let mut command = prepared(command, &log)?;
        // A child inherits the core of the thread that starts it.
        cpu::pin(core)?;
        let child = command.spawn();
        cpu::pin(cores.load)?;
        let child = child.map_err(|error| format!("cannot start {}: {error}", command.get_program().display()))?;
        Ok(Self { name, child, log })
    }

    /// The process group, which has the number of its first process.
    pub fn group(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a path answers 200.
    pub async fn ready(&mut self, addr: SocketAddr, path: &str) -> Result<()> {
        let started = Instant::now();
        let mut seen = String::from("no connection");
        while started.elapsed() < READY_WITHIN {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.fault(&format!("ended at once ({status})")));
            }
            match timeout(Duration::from_secs(1), status_of(addr, path)).await {
                Ok(Ok(status)) if status == "200" => return Ok(()),
                Ok(Ok(status)) => seen = format!("status {status}"),
                Ok(Err(error)) => seen = error.to_string(),
                Err(_) => seen = "no answer in a second".into(),
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(self.fault(&format!("is not ready after {READY_WITHIN:?} (GET {path}: {seen})")))
    }

    /// Says what went wrong together with what the process itself had to say.
    fn fault(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = said.lines().rev().take(20).collect();
        let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
        format!("{} {what}\n{tail}", self.name).into()
    }

    fn signal(&self, signal: Signal) {
        // It fails only when the group has already ended, and that is what we want.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGTERM);
        let started = Instant::now();
        while started.elapsed() < STOPPED_WITHIN && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

fn prepared(mut command: Command, log: &Path) -> Result<Command> {
    let out = File::create(log)?;
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0);
    // SAFETY: one system call between fork and exec, nothing allocated, nothing locked.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGTERM)?)) };
    Ok(command)
}

async fn status_of(addr: SocketAddr, path: &str) -> Result<String> {
    let mut wire = Wire::connect(addr).await?;
    wire.send(format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let head = wire.head().await?.ok_or("closed without an answer")?;
    Ok(head.subject().to_owned())
}
