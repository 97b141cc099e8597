//! The command line: check, openapi, demo, and running on the environment alone.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, command, server};
use crate::support::process::Process;
use crate::support::stub::Stub;
use crate::support::{eventually, http, root};

#[tokio::test]
async fn check_tells_every_problem_with_its_line_or_ok() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("g.yaml");
    std::fs::write(&path, "server:\n  lisen: 0.0.0.0:80\nbackends:\n  - name: a\n    url: ftp://x\n    weight: many\n    command: [x]\n")
        .expect("writable");
    let output = command().arg("check").arg("--config").arg(&path).output().await.expect("runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    for expected in [
        "g.yaml:2: server.lisen: unknown key `lisen`; did you mean `listen`?",
        "g.yaml:5: backends[0].url: `ftp://x` is not an http:// or https:// URL",
        "g.yaml:6: backends[0].weight: `many` is not a whole number from 1 to 10000",
        "g.yaml:7: backends[0].command: not supported yet",
        "4 problem(s)",
    ] {
        assert!(said.contains(expected), "{expected} in\n{said}");
    }
    let good = command().arg("check").arg("--config").arg(root().join("conf/gateway.yaml")).output().await.expect("runs");
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
}

#[tokio::test]
async fn openapi_is_printed() {
    let output = command().arg("openapi").output().await.expect("runs");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["info"]["title"], "mcp-gateway");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_on_the_environment_alone() {
    let (one, two) = (Stub::start().await, Stub::start().await);
    let mut run = command();
    run.env("MCP_BACKENDS", format!("mcp1:{},mcp2:{}", one.url, two.url)).envs([
        ("GATEWAY_HOST", "127.0.0.1"),
        ("GATEWAY_PORT", "0"),
        ("GATEWAY_WORKERS", "1"),
        ("LOG_LEVEL", "info"),
        ("CACHE_ENABLED", "false"),
    ]);
    let mut process = Process::start(run);
    let address = process.says("listening on http://").await;
    let url = format!("http://{}", address.split('"').next().unwrap_or_default());
    let listed = eventually("both backends tell their server", async || {
        let listed: Value = http().get(format!("{url}/api/servers")).send().await.ok()?.json().await.ok()?;
        (listed["servers"].as_array()?.len() == 2).then_some(listed)
    })
    .await;
    assert_eq!(listed["servers"][0]["name"], "stub");
    process.kill().await;
    let refused = command().arg("check").env("MCP_BACKENDS", "one:http://x").env("JWT_SECRET_KEY", "s3cret").output().await.expect("runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("environment variable JWT_SECRET_KEY") && said.contains("shorter than 32 bytes") && !said.contains("s3cret"),
        "{said}"
    );
}

/// The calls of the README, word for word.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_answers_the_documented_calls() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut run = command();
    run.arg("demo").env("GATEWAY_PORT", "0").env("DEMO_ADMIN", "127.0.0.1:0").env("DEMO_STATE_DIR", dir.path());
    let mut process = Process::start(run);
    let address = process.says("listening on http://").await;
    let url = format!("http://{}", address.split('"').next().unwrap_or_default());
    eventually("ready", async || (http().get(format!("{url}/ready")).send().await.ok()?.status() == 200).then_some(())).await;
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let calls: Vec<&str> = readme.lines().filter(|line| line.starts_with("curl -s http://localhost:8080")).collect();
    assert!(calls.len() >= 4, "{calls:?}");
    for call in calls {
        let here = call.replace("http://localhost:8080", &url);
        let output = tokio::process::Command::new("bash").arg("-c").arg(&here).output().await.expect("curl runs");
        let answer: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{call}: {e}: {}", String::from_utf8_lossy(&output.stdout)));
        assert!(answer["code"].is_null() && answer["error"].is_null(), "{call}: {answer}");
    }
    let read = |path: &str| json!({ "method": "call_tool", "params": { "tool_name": "read_file", "arguments": { "path": path } } });
    for escape in ["../../etc/passwd", "/etc/../../etc/shadow"] {
        let answer: Value =
            http().post(format!("{url}/api/mcp/filesystem")).json(&read(escape)).send().await.expect("sent").json().await.expect("JSON");
        assert_eq!(answer["isError"], true, "{answer}");
        assert!(!answer.to_string().contains("root:"), "{answer}");
    }
    process.kill().await;
}

/// What `mcp-gateway health` with these arguments ends with, and says.
async fn health(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command().arg("health").args(arguments).env("STATE_DIR", gateway.dir.path()).output().await.expect("runs");
    (output.status.code(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_whether_the_gateway_serves_and_ready_whether_traffic_should_come() {
    let stub = Stub::start().await;
    let often = ", health_check: {path: /health, interval: 50ms}";
    let mut gateway = Gateway::start(&format!("{}backends:\n{}", server(""), stub.backend("one", often))).await;
    let url = gateway.url.clone();
    let (code, said) = health(&gateway, &["--url", &url]).await;
    assert!(code == Some(0) && said.contains("\"status\":\"healthy\""), "{said}");
    assert_eq!(health(&gateway, &["--url", &url, "--ready"]).await.0, Some(0));
    // Where it listens is read from the file, whatever else is wrong with that: the gateway goes on with the last good one.
    let broken = gateway.dir.path().join("broken.yaml");
    std::fs::write(&broken, format!("server: {{ listen: {} }}\nbackends: 7\nnonsense: true\n", url.trim_start_matches("http://")))
        .expect("writable");
    let broken = broken.display().to_string();
    assert_eq!(health(&gateway, &["--config", &broken]).await.0, Some(0));
    let unknown = health(&gateway, &["--config", &gateway.config_path().display().to_string()]).await;
    assert!(unknown.0 == Some(1) && unknown.1.contains("--url"), "port 0 does not say where: {}", unknown.1);
    stub.sicken();
    eventually("not ready", async || (health(&gateway, &["--url", &url, "--ready"]).await.0 == Some(1)).then_some(())).await;
    assert_eq!(health(&gateway, &["--url", &url]).await.0, Some(0), "alive without backends");
    gateway.process.kill().await;
    let (code, said) = health(&gateway, &["--config", &broken]).await;
    assert!(code == Some(1) && said.contains("refused"), "{said}");
}

/// Whoever restarted it for that would end every stream there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_as_many_connections_as_it_may_have_is_healthy_and_not_ready() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let stub = Stub::start().await;
    let yaml = format!("{}backends:\n{}", server("  limits: { connections: 2 }\n"), stub.backend("one", ""));
    let gateway = Gateway::start(&yaml).await;
    let (url, mut held) = (gateway.url.clone(), Vec::new());
    eventually("it is full", async || {
        let mut stream = tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.ok()?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.ok()?;
        held.extend((stream.read_u8().await.ok() == Some(b'H')).then_some(stream));
        (held.len() == 2).then_some(())
    })
    .await;
    let (code, said) = health(&gateway, &["--url", &url]).await;
    assert!(code == Some(0) && said.contains("as many as it may have"), "{said}");
    assert_eq!(health(&gateway, &["--url", &url, "--ready"]).await.0, Some(1));
    gateway.process.signal("STOP");
    assert_eq!(health(&gateway, &["--url", &url]).await.0, Some(1), "it takes connections as the system does, and says nothing");
}
