//! A real PostgreSQL of the test's own, that can be killed, hung, made read-only and brought back on its port with what it
//! knew.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;
use tokio_postgres::{Client, NoTls, Row};

use super::eventually;
use super::process::Process;

/// The password of the user `gateway`; nothing may ever show it.
pub const PASSWORD: &str = "canary-of-the-password";

/// A PostgreSQL, running or stopped; it is killed when dropped.
pub struct Postgres {
    port: u16,
    dir: TempDir,
    process: Process,
}

impl Postgres {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With TLS: certificate and key, in PEM.
    pub async fn with_tls(cert: &str, key: &str) -> Self {
        Self::with(&[("server.crt", cert), ("server.key", key)]).await
    }

    async fn with(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let data = dir.path().join("data");
        own(dir.path());
        let password = dir.path().join("password");
        std::fs::write(&password, PASSWORD).expect("writable");
        let mut initdb = owner(&binary("initdb"));
        initdb.args(["--username=gateway", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        initdb.arg("--pwfile").arg(&password).arg("--pgdata").arg(&data);
        let made = initdb.output().await.expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        for (name, text) in files {
            let path = data.join(name);
            std::fs::write(&path, text).expect("writable");
            own(&path);
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("ours");
        }
        if !files.is_empty() {
            let conf = data.join("postgresql.auto.conf");
            std::fs::write(&conf, "ssl = on\n").expect("writable");
        }
        loop {
            let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
            // Somebody else may have been given the port meanwhile.
            if let Some(process) = serve(port, &data).await {
                return Self { port, dir, process };
            }
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("postgres://gateway:{PASSWORD}@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// A connection of the test's own.
    pub async fn client(&self) -> Client {
        let (client, driver) = tokio_postgres::connect(&self.url(), NoTls).await.expect("connected");
        tokio::spawn(driver);
        client
    }

    pub async fn run(&self, statements: &str) {
        self.client().await.batch_execute(statements).await.expect("done");
    }

    pub async fn rows(&self, question: &str) -> Vec<Row> {
        self.client().await.query(question, &[]).await.expect("an answer")
    }

    /// The number a question is answered with.
    pub async fn number(&self, question: &str) -> i64 {
        self.rows(question).await[0].get(0)
    }

    /// How many events there are; none while there is no table.
    pub async fn events(&self) -> u64 {
        let client = self.client().await;
        let row = client.query_one("SELECT count(*) FROM mcp_gateway.events", &[]).await;
        row.map_or(0, |row| u64::try_from(row.get::<_, i64>(0)).expect("not negative"))
    }

    /// Lets it accept connections and answer nothing, until it wakes: the server and everything it started.
    pub fn hang(&self) {
        self.signal("STOP");
    }

    pub fn wake(&self) {
        self.signal("CONT");
    }

    /// Kills it as a crash would.
    pub async fn stop(&mut self) {
        self.signal("KILL");
        self.process.kill().await;
    }

    /// Starts a stopped one on its port, with its data.
    pub async fn resume(&mut self) {
        let data = self.dir.path().join("data");
        let again = async || serve(self.port, &data).await;
        self.process = eventually("PostgreSQL is back on its port", again).await;
    }

    /// Takes no more writes, or takes them again.
    pub async fn read_only(&self, on: bool) {
        let client = self.client().await;
        let value = if on { "on" } else { "off" };
        client.batch_execute("SET default_transaction_read_only = off").await.expect("done");
        client.batch_execute(&format!("ALTER SYSTEM SET default_transaction_read_only = {value}")).await.expect("done");
        client.batch_execute("SELECT pg_reload_conf()").await.expect("done");
        eventually("the setting holds", async || {
            let told = self.rows("SHOW default_transaction_read_only").await;
            (told[0].get::<_, String>(0) == value).then_some(())
        })
        .await;
    }

    fn signal(&self, signal: &str) {
        let Some(pid) = self.process.child.id() else { return };
        // Each is a group of its own, so that they are known by their parent only.
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let all = std::iter::once(pid.to_string()).chain(children.split_whitespace().map(str::to_owned));
        // One may have ended meanwhile.
        let _ = std::process::Command::new("kill").arg(format!("-{signal}")).args(all).stderr(std::process::Stdio::null()).status();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its children would not see it go while they are stopped.
        self.signal("KILL");
    }
}

/// `None` if it ended before it was ready, as it does when the port is taken, or its last life has not quite ended.
async fn serve(port: u16, data: &Path) -> Option<Process> {
    let mut command = owner(&binary("postgres"));
    command.arg("-D").arg(data).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
    command.args(["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "log_min_messages=warning"]);
    let mut process = Process::start(command);
    let ready = eventually("PostgreSQL is ready, or ended", async || {
        let ready = process.output().iter().any(|line| line.contains("database system is ready to accept connections"));
        let ended = process.child.try_wait().is_ok_and(|status| status.is_some());
        if ready || ended { Some(ready) } else { None }
    })
    .await;
    ready.then_some(process)
}

/// PostgreSQL does not run as root; `setpriv` becomes what it starts, so that signals reach it.
fn owner(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program).current_dir("/");
    command
}

fn own(path: &Path) {
    if is_root() {
        let done = std::process::Command::new("chown").arg("postgres:postgres").arg(path).status();
        assert!(done.is_ok_and(|status| status.success()), "there is no user postgres: install the Debian package postgresql");
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process of ours");
    status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

/// Debian keeps those of each version apart, and out of `PATH`.
fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).max();
    found.unwrap_or_else(|| panic!("{name} is missing: install the Debian package postgresql, as `make parts` does"))
}
