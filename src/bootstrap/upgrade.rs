//! `mcp-gateway upgrade`: starts this binary on this configuration beside the gateway that runs, has that one hand over,
//! and says whether it did.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::handover::{serving_file, waiting_file};
use super::pid;

/// How long it may take in all; below the time systemd gives a reload.
const PATIENCE: Duration = Duration::from_secs(80);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A take-over that succeeded, by process ids.
pub struct Done {
    pub old: u32,
    pub new: u32,
}

/// Replaces the gateway of a state directory by this binary on a configuration that was found good.
///
/// # Errors
/// Why the old process keeps serving.
pub fn upgrade(config: Option<&Path>, state_dir: &Path) -> Result<Done, String> {
    let old = look(&serving_file(state_dir))?;
    let old = old.ok_or_else(|| format!("no gateway runs on {}: there is nothing to upgrade", state_dir.display()))?;
    let mut new = start(config)?;
    let done = wait(&mut new, old, state_dir);
    // It has not taken over, and must not later. One that has is all there is, whatever went wrong since.
    if done.is_err() && look(&serving_file(state_dir)).is_ok_and(|serves| serves != Some(new.id())) {
        let _ = new.kill();
        let _ = new.wait();
    }
    done
}

fn look(path: &Path) -> Result<Option<u32>, String> {
    pid::holder(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn start(config: Option<&Path>) -> Result<Child, String> {
    let binary = std::env::current_exe().map_err(|e| format!("this binary cannot be found: {e}"))?;
    let mut command = Command::new(&binary);
    command.args(["run", "--upgrade"]);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    // A group of its own: what stops this command must not stop the gateway.
    command.stdin(Stdio::null()).process_group(0);
    command.spawn().map_err(|e| format!("{}: {e}", binary.display()))
}

fn wait(new: &mut Child, old: u32, state_dir: &Path) -> Result<Done, String> {
    let until = Instant::now() + PATIENCE;
    let mut asked = false;
    loop {
        let (serves, waits) = (look(&serving_file(state_dir))?, look(&waiting_file(state_dir))?);
        let is_late = Instant::now() >= until;
        // It waits on until the old one takes no new connections, which is worth waiting for, but changes nothing.
        if serves == Some(new.id()) && (waits != Some(new.id()) || is_late) {
            return Ok(Done { old, new: new.id() });
        }
        if let Some(status) = new.try_wait().map_err(|e| format!("the new process cannot be watched: {e}"))? {
            return Err(format!("the new process ended ({}); process {old} keeps serving", how(status)));
        }
        if !asked && waits == Some(new.id()) {
            signal(old)?;
            asked = true;
        }
        if is_late {
            return Err(format!("the new process did not take over within {PATIENCE:?}; process {old} keeps serving"));
        }
        std::thread::sleep(LOOK);
    }
}

fn how(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit status {code}"))
}

fn signal(process: u32) -> Result<(), String> {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| format!("{process} is no process id"))?;
    kill_process(pid, Signal::QUIT).map_err(|e| format!("process {process} cannot be signalled: {e}"))
}
