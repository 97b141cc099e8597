//! A child process whose output is read as it comes and which does not outlive its handle.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use super::PATIENCE;

/// A running program and what it has said so far, on either output.
pub struct Process {
    pub child: Child,
    said: Arc<Said>,
}

#[derive(Default)]
struct Said {
    lines: Mutex<Vec<String>>,
    more: Notify,
}

impl Process {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}; `make parts` installs the real parts"));
        let said = Arc::new(Said::default());
        listen(child.stdout.take().expect("piped"), &said);
        listen(child.stderr.take().expect("piped"), &said);
        Self { child, said }
    }

    /// Waits for a line that contains `text` and returns what follows it.
    pub async fn says(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let more = self.said.more.notified();
            if let Some(rest) = self.output().iter().find_map(|line| line.split_once(text).map(|(_, rest)| rest.to_owned())) {
                return rest;
            }
            let ended = tokio::select! {
                () = more => false,
                _ = self.child.wait() => true,
                () = tokio::time::sleep_until(until.into()) => true,
            };
            // What it said last may still be on its way through the pipe.
            if ended && !self.output().iter().any(|line| line.contains(text)) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                assert!(self.output().iter().any(|line| line.contains(text)), "never said `{text}`:\n{}", self.output().join("\n"));
            }
        }
    }

    pub fn output(&self) -> Vec<String> {
        self.said.lines.lock().expect("no panic while held").clone()
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("still running").to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "cannot signal {pid}");
    }

    /// Stops it as the system would, at once.
    pub async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }
}

fn listen(output: impl AsyncRead + Unpin + Send + 'static, said: &Arc<Said>) {
    let said = Arc::clone(said);
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            said.lines.lock().expect("no panic while held").push(line);
            said.more.notify_waiters();
        }
    });
}
