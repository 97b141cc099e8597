//! A real etcd of the test's own, that can be stopped, hung and brought back on its port with what it knew.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::process::Process;
use super::{eventually, http};

/// An etcd, running or stopped; it is killed when dropped.
pub struct Etcd {
    member: Member,
    dir: TempDir,
    process: Process,
    token: Option<String>,
    client: reqwest::Client,
}

impl Etcd {
    pub async fn start() -> Self {
        Self::run(None, http()).await
    }

    /// With TLS for clients: certificate and key. `client` must know who signed it.
    pub async fn with_tls(cert: &Path, key: &Path, client: reqwest::Client) -> Self {
        Self::run(Some([cert.to_owned(), key.to_owned()]), client).await
    }

    async fn run(tls: Option<[PathBuf; 2]>, client: reqwest::Client) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        loop {
            let mut member = Member { name: "alone".to_owned(), ports: [free(), free()], tls: tls.clone(), cluster: String::new() };
            member.cluster = member.peer();
            // Somebody else may have been given a port meanwhile.
            if let Some(process) = serve(&member, &dir).await {
                return Self { member, dir, process, token: None, client };
            }
        }
    }

    /// Three that must agree by two.
    pub async fn cluster() -> Vec<Self> {
        loop {
            let member = |i| Member { name: format!("m{i}"), ports: [free(), free()], tls: None, cluster: String::new() };
            let mut members: Vec<Member> = (0..3).map(member).collect();
            let cluster = members.iter().map(Member::peer).collect::<Vec<_>>().join(",");
            for member in &mut members {
                member.cluster.clone_from(&cluster);
            }
            let dirs: Vec<TempDir> = members.iter().map(|_| tempfile::tempdir().expect("a temporary folder")).collect();
            let processes = join_all(members.iter().zip(&dirs).map(async |(member, dir)| serve(member, dir).await)).await;
            if let Some(processes) = processes.into_iter().collect::<Option<Vec<_>>>() {
                let all = members.into_iter().zip(dirs).zip(processes);
                return all.map(|((member, dir), process)| Self { member, dir, process, token: None, client: http() }).collect();
            }
        }
    }

    pub fn url(&self) -> String {
        format!("{}://localhost:{}", if self.member.tls.is_some() { "https" } else { "http" }, self.member.ports[0])
    }

    /// Lets it accept connections and answer nothing, until it wakes.
    pub fn hang(&self) {
        self.process.signal("STOP");
    }

    pub fn wake(&self) {
        self.process.signal("CONT");
    }

    pub async fn stop(&mut self) {
        self.process.kill().await;
    }

    /// Starts a stopped one on its ports, with its data.
    pub async fn resume(&mut self) {
        let again = async || serve(&self.member, &self.dir).await;
        self.process = eventually("etcd is back on its port", again).await;
    }

    /// Starts a stopped one on its ports, with nothing it knew.
    pub async fn begin_anew(&mut self) {
        self.dir = tempfile::tempdir().expect("a temporary folder");
        self.resume().await;
    }

    /// One question to the JSON gateway.
    pub async fn ask(&self, path: &str, body: &Value) -> Value {
        let mut request = self.client.post(format!("{}/v3/{path}", self.url())).json(body);
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    pub async fn put(&self, key: &str, value: &str) -> i64 {
        self.write("kv/put", &json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value) })).await
    }

    pub async fn delete(&self, key: &str) {
        self.write("kv/deleterange", &json!({ "key": STANDARD.encode(key) })).await;
    }

    /// The revision of a write; one that the members could not agree on is made again.
    async fn write(&self, path: &str, body: &Value) -> i64 {
        eventually("etcd writes", async || self.ask(path, body).await["header"]["revision"].as_str()?.parse().ok()).await
    }

    /// A key that goes when `seconds` pass without anybody caring.
    pub async fn put_leased(&self, key: &str, value: &str, seconds: u32) {
        let lease = self.ask("lease/grant", &json!({ "TTL": seconds })).await["ID"].clone();
        self.ask("kv/put", &json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value), "lease": lease })).await;
    }

    /// Forgets what was before a revision.
    pub async fn compact(&self, revision: i64) {
        self.ask("kv/compaction", &json!({ "revision": revision, "physical": true })).await;
    }

    /// Makes a superuser and lets nobody in without a token.
    pub async fn guard(&mut self, name: &str, password: &str) {
        self.ask("auth/user/add", &json!({ "name": "root", "password": "of-the-test" })).await;
        self.ask("auth/user/grant", &json!({ "user": "root", "role": "root" })).await;
        self.ask("auth/role/add", &json!({ "name": "reader" })).await;
        let all = json!({ "name": "reader", "perm": { "permType": "READ", "key": STANDARD.encode("/backends/"), "range_end": STANDARD.encode("/backends0") } });
        self.ask("auth/role/grant", &all).await;
        self.ask("auth/user/add", &json!({ "name": name, "password": password })).await;
        self.ask("auth/user/grant", &json!({ "user": name, "role": "reader" })).await;
        self.ask("auth/enable", &json!({})).await;
        self.log_in().await;
    }

    /// A new token for the test, after a restart forgot the old one.
    pub async fn log_in(&mut self) {
        self.token = None;
        let told = self.ask("auth/authenticate", &json!({ "name": "root", "password": "of-the-test" })).await;
        self.token = Some(told["token"].as_str().unwrap_or_else(|| panic!("no token: {told}")).to_owned());
    }
}

fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port()
}

/// How one is started, and started again.
struct Member {
    name: String,
    /// For clients and for the other members.
    ports: [u16; 2],
    /// Certificate and key.
    tls: Option<[PathBuf; 2]>,
    /// All members.
    cluster: String,
}

impl Member {
    fn peer(&self) -> String {
        format!("{}=http://127.0.0.1:{}", self.name, self.ports[1])
    }
}

/// `None` if it ended before it was ready, as it does when a port is taken.
async fn serve(member: &Member, dir: &TempDir) -> Option<Process> {
    let mut command = Command::new(binary().await);
    let scheme = if member.tls.is_some() { "https" } else { "http" };
    let (client, peer) = (format!("{scheme}://127.0.0.1:{}", member.ports[0]), format!("http://127.0.0.1:{}", member.ports[1]));
    command.args(["--name", &member.name, "--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer, "--initial-cluster", &member.cluster]);
    if let Some([cert, key]) = &member.tls {
        command.arg("--cert-file").arg(cert).arg("--key-file").arg(key);
    }
    command.arg("--data-dir").arg(dir.path());
    let mut process = Process::start(command);
    let ready = eventually("etcd is ready, or ended", async || {
        let ready = process.output().iter().any(|line| line.contains("ready to serve client requests"));
        let ended = process.child.try_wait().is_ok_and(|status| status.is_some());
        if ready || ended { Some(ready) } else { None }
    })
    .await;
    ready.then_some(process)
}

async fn binary() -> String {
    let found = Command::new("which").arg("etcd").output().await.expect("`which` runs");
    assert!(found.status.success(), "etcd is missing: install the Debian package etcd-server, as `make parts` does");
    String::from_utf8_lossy(&found.stdout).trim().to_owned()
}
