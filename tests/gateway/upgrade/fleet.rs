//! A gateway and those that took over from it, none of which outlives the test.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

use crate::listeners::address;
use crate::support::eventually;
use crate::support::gateway::{Gateway, command};
use crate::support::process::Process;

/// The first process, which keeps the folder, and the ids of all that came after it.
pub struct Fleet {
    pub first: Gateway,
    /// Addresses of listeners beyond the first's own, where they are configured.
    pub h2c: String,
    pub tls: String,
    /// Processes that were replaced.
    pub old: Vec<u32>,
    serves: u32,
}

impl Fleet {
    pub async fn of(mut first: Gateway) -> Self {
        let yaml = std::fs::read_to_string(first.config_path()).expect("readable");
        let h2c = if yaml.contains("h2c:") { address(&mut first, "listening on h2c://").await } else { String::new() };
        let tls = if yaml.contains("tls:") { address(&mut first, "listening on https://").await } else { String::new() };
        let serves = first.process.child.id().expect("running");
        Self { first, h2c, tls, old: Vec::new(), serves }
    }

    /// The binary on the folder of a gateway.
    pub fn command(gateway: &Gateway) -> Command {
        let mut command = command();
        command.env("STATE_DIR", gateway.dir.path().join("state")).env("MCP_GATEWAY_CONFIG", gateway.config_path());
        command
    }

    /// A process that waits to take over, as an operator may start it.
    pub fn successor(gateway: &Gateway) -> Process {
        let mut command = Self::command(gateway);
        command.args(["run", "--upgrade"]);
        Process::start(command)
    }

    /// Begins `mcp-gateway upgrade`: how it ended, and what it and the new process said until then.
    pub fn begin(&self) -> impl Future<Output = (ExitStatus, String)> + use<> {
        let mut command = Self::command(&self.first);
        command.arg("upgrade");
        self.reload(command)
    }

    /// The same by another command.
    pub fn reload(&self, mut command: Command) -> impl Future<Output = (ExitStatus, String)> + use<> {
        let log = self.first.dir.path().join(format!("upgrade-{}.log", uuid::Uuid::new_v4()));
        // A file: the new process goes on writing when the command has ended.
        let open = || Stdio::from(std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("writable"));
        let mut child = command.stdin(Stdio::null()).stdout(open()).stderr(open()).spawn().expect("runs");
        async move {
            let status = child.wait().await.expect("an end");
            (status, std::fs::read_to_string(&log).expect("readable"))
        }
    }

    /// Replaces the process that serves.
    pub async fn upgrade(&mut self) {
        let (status, said) = self.begin().await;
        assert!(status.success(), "{said}");
        self.took_over(&said).await;
    }

    /// Notes who serves now, by what the command said.
    pub async fn took_over(&mut self, said: &str) {
        let serves = said.lines().find_map(|line| line.strip_prefix("process ")?.split_once(' ')).expect("told").0;
        self.old.push(std::mem::replace(&mut self.serves, serves.parse().expect("a process id")));
        let pid_file = self.first.dir.path().join("state/mcp-gateway.pid");
        eventually("the PID file names it", async || (std::fs::read_to_string(&pid_file).ok()?.trim() == serves).then_some(())).await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let ours = std::fs::canonicalize(env!("CARGO_BIN_EXE_mcp-gateway")).ok();
        for process in self.old.iter().chain([&self.serves]) {
            // Those that ended by themselves are not killed again, nor is whoever has their number now.
            let binary = std::fs::read_link(PathBuf::from(format!("/proc/{process}/exe"))).ok();
            if binary.is_some() && binary == ours {
                let _ = std::process::Command::new("kill").args(["-KILL", &process.to_string()]).status();
            }
        }
    }
}
