//! The real gateway binary, on ports of its own.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::process::Process;
use super::{eventually, http};

/// A running gateway and the folder of its configuration and state.
pub struct Gateway {
    pub process: Process,
    pub url: String,
    pub admin: String,
    pub dir: TempDir,
}

/// The part of a configuration every test has; `more` goes below `server:`.
pub fn server(more: &str) -> String {
    format!("server:\n  listen: 127.0.0.1:0\n  admin: 127.0.0.1:0\n  workers: 2\n  state_dir: ${{STATE_DIR}}\n{more}")
}

impl Gateway {
    /// Starts on a configuration and waits until it is ready.
    pub async fn start(yaml: &str) -> Self {
        let gateway = Self::start_unready(yaml).await;
        gateway.ready().await;
        gateway
    }

    /// Starts and waits only until it listens.
    pub async fn start_unready(yaml: &str) -> Self {
        Self::start_by(command(), yaml).await
    }

    /// Kills it and starts it anew on its folder: of the old one nothing is left but configuration and state.
    pub async fn again(mut self) -> Self {
        self.process.kill().await;
        let gateway = Self::run(command(), self.dir).await;
        gateway.ready().await;
        gateway
    }

    /// Starts on the folder of one that is gone, and waits only until it listens.
    pub async fn on(dir: TempDir) -> Self {
        Self::run(command(), dir).await
    }

    /// Starts another binary made of the gateway, and waits until it listens.
    pub async fn start_by(command: Command, yaml: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("gateway.yaml"), yaml).expect("writable");
        Self::run(command, dir).await
    }

    async fn run(mut command: Command, dir: TempDir) -> Self {
        command.arg("--config").arg(dir.path().join("gateway.yaml")).env("STATE_DIR", dir.path().join("state"));
        Self::follow(Process::start(command), dir).await
    }

    /// One that was started on a folder by a command of the test's own; waits until it listens.
    pub async fn follow(mut process: Process, dir: TempDir) -> Self {
        let url = format!("http://{}", address(&process.says("listening on http://").await));
        let admin = format!("http://{}", address(&process.says("admin on http://").await));
        Self { process, url, admin, dir }
    }

    /// A gateway for backends alone: `backends` is the YAML list below `backends:`.
    pub async fn with(backends: &str) -> Self {
        Self::start(&format!("{}backends:\n{backends}", server(""))).await
    }

    pub async fn ready(&self) {
        let ready = async || (http().get(format!("{}/ready", self.url)).send().await.ok()?.status() == 200).then_some(());
        eventually("readiness", ready).await;
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("gateway.yaml")
    }

    /// Has another configuration loaded: for one that needs the gateway's own URL, or changes under way.
    pub async fn load(&self, yaml: &str) {
        self.load_as("none", yaml).await;
    }

    /// The same where the admin listener wants a token.
    pub async fn load_as(&self, token: &str, yaml: &str) {
        std::fs::write(self.config_path(), yaml).expect("writable");
        let answer = http().post(format!("{}/admin/reload", self.admin)).bearer_auth(token).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap_or_default());
    }

    /// Everything it logged about what it was asked so far. The log is in order, so its last line proves the others.
    pub async fn said(&self) -> Vec<String> {
        let id = uuid::Uuid::new_v4().to_string();
        http().get(self.at("/health")).header("x-request-id", &id).send().await.expect("an answer");
        eventually("the log is written", async || {
            let said = self.process.output();
            said.iter().any(|line| line.contains(&id)).then_some(said)
        })
        .await
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// One REST request to a server: status and body.
    pub async fn rest(&self, server: &str, body: Value) -> (u16, Value) {
        let response = http().post(self.at(&format!("/api/mcp/{server}"))).json(&body).send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.expect("JSON"))
    }

    /// Calls a tool over REST and expects an envelope.
    pub async fn call(&self, server: &str, tool: &str, arguments: Value) -> Value {
        let body = serde_json::json!({ "method": "call_tool", "params": { "tool_name": tool, "arguments": arguments } });
        let (status, answer) = self.rest(server, body).await;
        assert_eq!(status, 200, "{server} {tool}: {answer}");
        answer
    }

    /// Waits until the catalogue lists a server, with its tools known.
    pub async fn knows(&self, server: &str) {
        let known = async || {
            let listed: Value = http().get(self.at("/api/servers")).send().await.ok()?.json().await.ok()?;
            let rows = listed["servers"].as_array()?.clone();
            let ours: Vec<_> = rows.iter().filter(|row| row["name"] == server).collect();
            (!ours.is_empty() && ours.iter().all(|row| row["status"] == "healthy" && row["tools_count"] != 0)).then_some(())
        };
        eventually(&format!("the catalogue knows {server}"), known).await;
    }

    /// KiB of memory the process holds.
    pub fn resident(&self) -> u64 {
        let pid = self.process.child.id().expect("still running");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// The value of a metric line that starts with `series`.
    pub async fn metric(&self, series: &str) -> u64 {
        let text = http().get(self.at("/metrics")).send().await.expect("metrics").text().await.expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        value.unwrap_or(0)
    }
}

/// The binary with an environment that cannot be disturbed by the tester's own.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-gateway"));
    command.env_clear().env("RUST_BACKTRACE", "1");
    command
}

/// `127.0.0.1:1234` from the rest of a JSON log line.
fn address(rest: &str) -> String {
    rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect()
}
