//! The real parts: MCP servers and clients of the official SDKs, installed by `tests/parts/install.sh`.

use std::path::PathBuf;

use serde_json::Value;
use tokio::process::Command;

use super::process::Process;
use super::{PATIENCE, root};

/// Where the parts are installed.
pub fn parts() -> PathBuf {
    let dir = std::env::var_os("MCP_PARTS_DIR").map_or_else(|| root().join(".parts"), PathBuf::from);
    assert!(dir.join("stamp").exists(), "the real parts are missing in {}: run `make parts`", dir.display());
    dir
}

pub fn python() -> Command {
    Command::new(parts().join("venv/bin/python"))
}

pub fn node() -> Command {
    Command::new(parts().join("bin/node"))
}

/// A running MCP server.
pub struct Server {
    pub process: Process,
    pub url: String,
}

impl Server {
    async fn start(mut command: Command, script: &str, flags: &[&str]) -> Self {
        command.arg(root().join("tests/parts/servers").join(script));
        if !flags.contains(&"--port") {
            command.args(["--port", "0"]);
        }
        command.args(flags);
        let mut process = Process::start(command);
        let port = process.says("ready ").await;
        Self { process, url: format!("http://127.0.0.1:{}", port.trim()) }
    }

    /// Official Python SDK.
    pub async fn python_sdk(flags: &[&str]) -> Self {
        Self::start(python(), "python_sdk.py", flags).await
    }

    /// FastMCP.
    pub async fn fastmcp() -> Self {
        Self::start(python(), "fastmcp_server.py", &[]).await
    }

    /// Official TypeScript SDK 2: modern, and legacy without sessions.
    pub async fn ts() -> Self {
        Self::start(node(), "ts_server.mjs", &[]).await
    }

    /// Official TypeScript SDK 1: legacy sessions.
    pub async fn ts_legacy() -> Self {
        Self::start(node(), "ts_legacy.mjs", &[]).await
    }

    /// The official demo server: legacy sessions, 400 for an unknown one.
    pub async fn everything() -> Self {
        Self::start(node(), "server_everything.mjs", &[]).await
    }

    /// Kills a demo server and starts another on its port, which knows nothing of the first one's sessions.
    pub async fn everything_again(mut self) -> Self {
        let port = self.url.rsplit_once(':').expect("a port").1.to_owned();
        self.process.kill().await;
        Self::start(node(), "server_everything.mjs", &["--port", &port]).await
    }

    /// The official conformance server, which prints nothing and takes no port 0.
    pub async fn conformance() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let mut command = python();
        command.args(["-m", "mcp_everything_server", "--port", &port.to_string()]);
        let process = Process::start(command);
        let listening = async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok();
        super::eventually("the conformance server listens", listening).await;
        Self { process, url: format!("http://127.0.0.1:{port}") }
    }
}

/// The official SDK clients.
#[derive(Debug, Clone, Copy)]
pub enum Client {
    Python,
    Ts,
    TsLegacy,
}

/// Runs one scenario of an SDK client against a URL and expects it to succeed.
pub async fn scenario(client: Client, url: &str, era: &str, scenario: &str) {
    let (mut command, script) = match client {
        Client::Python => (python(), "python_client.py"),
        Client::Ts => (node(), "ts_client.mjs"),
        Client::TsLegacy => (node(), "ts_legacy_client.mjs"),
    };
    command.arg(root().join("tests/e2e").join(script)).args(["--url", url, "--scenario", scenario]).kill_on_drop(true);
    if !matches!(client, Client::TsLegacy) {
        command.args(["--era", era]);
    }
    told(command, &format!("{client:?} {era} {scenario} at {url}")).await;
}

/// Runs one scenario of the TypeScript SDK client that logs in by itself; gives back what it observed.
pub async fn oauth_scenario(url: &str, era: &str, scenario: &str) -> Value {
    let mut command = node();
    command.arg(root().join("tests/e2e/oauth_client.mjs")).args(["--url", url, "--era", era, "--scenario", scenario]).kill_on_drop(true);
    told(command, &format!("oauth {era} {scenario} at {url}")).await["observed"].take()
}

/// Runs a client to its end and expects it to tell of success.
async fn told(mut command: Command, what: &str) -> Value {
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("in time").expect("the client runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let told: Value = serde_json::from_str(said.trim()).unwrap_or_default();
    assert!(output.status.success() && told["ok"] == true, "{what}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
    told
}

/// A running authorization server; everybody who logs in is `alice`.
pub struct AuthorizationServer {
    pub issuer: String,
    _process: Process,
}

impl AuthorizationServer {
    /// Its access tokens are JWTs, or with `opaque` random strings that it explains.
    pub async fn start(opaque: bool) -> Self {
        let flags: &[&str] = if opaque { &["--opaque"] } else { &[] };
        let Server { process, url } = Server::start(node(), "authorization_server.mjs", flags).await;
        Self { issuer: url, _process: process }
    }

    /// An access token for `resource`, without the flow.
    pub async fn token(&self, scope: &str, resource: &str) -> String {
        let wish = serde_json::json!({ "scope": scope, "resource": resource, "sub": "alice" });
        let sent = super::http().post(format!("{}/test/token", self.issuer)).json(&wish).send().await.expect("an answer");
        let answer: Value = sent.json().await.expect("JSON");
        answer["access_token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }

    /// Ends an opaque token, as the client `gateway` may.
    pub async fn revoke(&self, token: &str) {
        let form = format!("token={token}");
        let request = super::http().post(format!("{}/token/revocation", self.issuer)).basic_auth("gateway", Some("gateway-secret"));
        let sent = request.header("content-type", "application/x-www-form-urlencoded").body(form).send().await.expect("an answer");
        assert_eq!(sent.status(), 200, "{}", sent.text().await.unwrap_or_default());
    }
}
