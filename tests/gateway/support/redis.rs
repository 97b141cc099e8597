//! A real Redis of the test's own, that can be stopped and comes back on its port with nothing it knew before.

use std::net::TcpListener;

use tempfile::TempDir;
use tokio::process::Command;

use super::eventually;
use super::process::Process;

/// A Redis, running or stopped; it is killed when dropped.
pub struct Redis {
    port: u16,
    dir: TempDir,
    process: Process,
}

impl Redis {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        loop {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
            // Somebody else may have been given the port meanwhile.
            if let Some(process) = serve(port, &dir).await {
                return Self { port, dir, process };
            }
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The section of a configuration that names it. It is waited for longer than by default: what a busy machine does to
    /// it is not what is tested.
    pub fn section(&self) -> String {
        self.waited_for("2s")
    }

    /// The same, waited for so long.
    pub fn waited_for(&self, timeout: &str) -> String {
        format!("redis: {{ url: \"{}\", timeout: {timeout} }}\n", self.url())
    }

    /// A connection of the test's own.
    pub async fn connection(&self) -> ::redis::aio::MultiplexedConnection {
        let client = ::redis::Client::open(self.url()).expect("a URL");
        client.get_multiplexed_async_connection().await.expect("connected")
    }

    /// Lets it accept connections and answer nothing, until it wakes.
    pub fn hang(&self) {
        self.process.signal("STOP");
    }

    pub fn wake(&self) {
        self.process.signal("CONT");
    }

    /// Kills it; what it knew is lost.
    pub async fn stop(&mut self) {
        self.process.kill().await;
    }

    /// Starts a stopped one on its port.
    pub async fn resume(&mut self) {
        let again = async || serve(self.port, &self.dir).await;
        self.process = eventually("Redis is back on its port", again).await;
    }
}

/// `None` if it ended before it was ready, as it does when the port is taken.
async fn serve(port: u16, dir: &TempDir) -> Option<Process> {
    let mut command = Command::new(binary().await);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    let mut process = Process::start({
        command.arg("--dir").arg(dir.path());
        command
    });
    let ready = eventually("Redis is ready, or ended", async || {
        let ready = process.output().iter().any(|line| line.contains("Ready to accept connections"));
        let ended = process.child.try_wait().is_ok_and(|status| status.is_some());
        if ready || ended { Some(ready) } else { None }
    })
    .await;
    ready.then_some(process)
}

async fn binary() -> String {
    let found = Command::new("which").arg("redis-server").output().await.expect("`which` runs");
    assert!(found.status.success(), "redis-server is missing: install the Debian package redis-server, as `make parts` does");
    String::from_utf8_lossy(&found.stdout).trim().to_owned()
}
