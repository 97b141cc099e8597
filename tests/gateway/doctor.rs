//! `mcp-gateway doctor`: what it says of things that are as they should be, and of things that are not.

use std::path::Path;

use crate::support::gateway::command;
use crate::support::redis::Redis;
use crate::support::stub::Stub;

/// Exit code and what it printed.
async fn examine(dir: &Path, yaml: &str) -> (i32, String) {
    let path = dir.join("g.yaml");
    std::fs::write(&path, yaml).expect("writable");
    let output = command().arg("doctor").arg("--config").arg(&path).output().await.expect("runs");
    (output.status.code().expect("a code"), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn nobody() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

fn server(dir: &Path) -> String {
    format!("server: {{ listen: 127.0.0.1:0, admin: 127.0.0.1:0, state_dir: {}/state }}\n", dir.display())
}

#[tokio::test]
async fn what_is_as_it_should_be_is_said_and_nothing_is_wrong() {
    let (stub, redis, dir) = (Stub::start().await, Redis::start().await, tempfile::tempdir().expect("a folder"));
    let (agent, socket) = (tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port"), dir.path().join("dsd.socket"));
    let statsd = agent.local_addr().expect("bound");
    let yaml = format!("{}backends:\n{}{}", server(dir.path()), stub.backend("one", ""), redis.section());
    let yaml = format!("{yaml}observability: {{ datadog: {{ statsd: \"{statsd}\" }} }}\n");
    let (code, told) = examine(dir.path(), &yaml).await;
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("ok    observability.datadog (udp://127.0.0.1:"), "{told}");
    let _agent = std::os::unix::net::UnixDatagram::bind(&socket).expect("a path");
    let (_, by_socket) = examine(dir.path(), &yaml.replace(&statsd.to_string(), &format!("unix://{}", socket.display()))).await;
    assert!(by_socket.contains("listens"), "{by_socket}");
    for line in ["ok    state_dir", "ok    listeners", "ok    redis: answers", "ok    backend one", "serves stub"] {
        assert!(told.contains(line), "{line} in\n{told}");
    }
}

#[tokio::test]
async fn what_is_not_is_named_with_what_to_do() {
    let (sick, dir) = (Stub::start().await, tempfile::tempdir().expect("a folder"));
    sick.sicken();
    let (gone, store, issuer, collector) = (nobody(), nobody(), nobody(), nobody());
    let agent = std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("writable");
    let yaml = format!(
        "server: {{ listen: 127.0.0.1:0, admin: 127.0.0.1:0, state_dir: {}/below }}\nbackends:\n{}  - {{ name: gone, url: \"http://{gone}\" }}\n\
         redis: {{ url: \"redis://:canary-of-the-password@{store}\" }}\n\
         discovery: {{ etcd: {{ endpoints: [\"http://{store}\"] }} }}\n\
         auth: {{ jwt: [ {{ issuer: \"https://idp.example\", audience: [x], algorithms: [ES256], jwks_url: \"http://{issuer}/keys\", insecure_http: true }} ] }}\n\
         analytics: {{ postgres: \"postgres://ann:canary-of-the-password@{store}/db\" }}\n\
         observability: {{ tracing: {{ otlp: \"http://{collector}\" }}, metrics: {{ otlp: \"http://{collector}\" }}, datadog: {{ statsd: \"{agent}\" }} }}\n",
        file.display(),
        sick.backend("sick", ", health_check: { path: /health }"),
    );
    let (code, told) = examine(dir.path(), &yaml).await;
    assert_eq!(code, 1, "{told}");
    for (about, advice) in [
        ("FAIL  state_dir", "StateDirectory="),
        ("FAIL  backend sick", "backends[].health_check"),
        ("FAIL  backend gone", "is it running"),
        ("FAIL  redis", "redis.url"),
        ("FAIL  analytics.postgres", "analytics.postgres"),
        ("FAIL  etcd", "discovery.etcd"),
        ("FAIL  keys of an issuer", "auth.jwt[].jwks_url"),
        ("FAIL  observability.tracing", "is it running"),
        ("FAIL  observability.metrics.otlp", "is it running"),
        ("FAIL  observability.datadog (udp://127.0.0.1:", "does the agent run"),
    ] {
        let from = told.find(about).unwrap_or_else(|| panic!("{about} in\n{told}"));
        assert!(told[from..].lines().take(2).any(|line| line.contains(advice)), "{advice} after {about} in\n{told}");
    }
    assert!(!told.contains("canary"), "{told}");
}

#[tokio::test]
async fn a_configuration_that_is_none_is_told_as_check_tells_it() {
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(examine(dir.path(), "serverr: {}\n").await.0, 2);
}

#[tokio::test]
async fn shells_are_told_the_commands_there_are() {
    for shell in ["bash", "zsh", "fish"] {
        let output = command().args(["completions", shell]).output().await.expect("runs");
        let script = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && script.contains("doctor") && script.contains("upgrade"), "{shell}");
    }
}
