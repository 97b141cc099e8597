//! What the gateway tells about itself.

use serde_json::Value;
use tokio::process::Command;

use crate::support::gateway::{Gateway, server};
use crate::support::part::{Server, node};
use crate::support::stub::Stub;
use crate::support::{http, root};

async fn get(url: String) -> (u16, Value) {
    let answer = http().get(url).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_listed_with_what_they_told() {
    let (python, ts) = (Server::python_sdk(&[]).await, Server::ts_legacy().await);
    let backends = format!(
        "  - {{ name: py, url: \"{}\", capabilities: [files] }}\n  - {{ name: ts, url: \"{}\" }}\n  - {{ name: gone, url: \"http://127.0.0.1:9\", capabilities: [files] }}\n",
        python.url, ts.url
    );
    let gateway = Gateway::with(&backends).await;
    let settled = async || {
        let (_, listed) = get(gateway.at("/api/servers")).await;
        let rows = listed["servers"].as_array()?.clone();
        (rows.len() == 3 && rows.iter().filter(|row| row["tools_count"] != 0).count() == 2).then_some(rows)
    };
    let rows = crate::support::eventually("both are known", settled).await;
    let summary: Vec<_> = rows
        .iter()
        .map(|row| (row["name"].as_str(), row["backend"].as_str(), row["status"].as_str(), row["backend_era"].as_str()))
        .collect();
    assert_eq!(summary[0], (Some("files"), Some("gone"), Some("unhealthy"), None));
    assert_eq!(summary[1], (Some("files"), Some("py"), Some("healthy"), Some("modern")));
    assert_eq!((summary[2].1, summary[2].3), (Some("ts"), Some("legacy")), "its own name, discovered: {:?}", summary[2].0);
    assert!(rows[1]["last_health_check"].as_str().is_some_and(|time| time.ends_with('Z')));
    let (_, health) = get(gateway.at("/health")).await;
    assert_eq!((health["status"].as_str(), health["backends"]["total"].as_u64()), (Some("degraded"), Some(3)));
}

#[tokio::test]
async fn the_admin_listener_shows_the_configuration_without_its_secrets() {
    let stub = Stub::start().await;
    let secret = "a-very-secret-session-secret";
    let yaml = format!(
        "{}backends:\n{}",
        server(&format!("  session_secret: {secret}\n  admin_token: the-token\n")),
        stub.backend("one", ", credential: {bearer: the-bearer}")
    );
    let gateway = Gateway::start(&yaml).await;
    let config = format!("{}/admin/config", gateway.admin);
    assert_eq!(http().get(&config).send().await.expect("an answer").status(), 401);
    assert_eq!(http().get(&config).bearer_auth("wrong").send().await.expect("an answer").status(), 401);
    let text = http().get(&config).bearer_auth("the-token").send().await.expect("an answer").text().await.expect("text");
    assert!(text.contains("\"name\": \"one\"") && text.contains("***"), "{text}");
    assert!([secret, "the-token", "the-bearer"].iter().all(|secret| !text.contains(secret)), "{text}");
    assert_eq!(gateway.rest("stub", serde_json::json!({ "method": "list_tools" })).await.0, 200);
    assert_eq!(stub.headers()["authorization"], "Bearer the-bearer");
    let said = gateway.process.output().join("\n");
    assert!([secret, "the-token", "the-bearer"].iter().all(|secret| !said.contains(secret)));
}

#[tokio::test]
async fn metrics_can_be_switched_off_and_are_named_as_promised() {
    let stub = Stub::start().await;
    let gateway = Gateway::with(&stub.backend("one", "")).await;
    gateway.knows("stub").await;
    gateway.call("stub", "echo", serde_json::json!({})).await;
    let text = http().get(gateway.at("/metrics")).send().await.expect("metrics").text().await.expect("text");
    for name in [
        "http_requests_total{method=\"POST\",route=\"/api/mcp/{server}\",status=\"200\"} 1",
        "http_request_duration_seconds_count{route=\"/api/mcp/{server}\"} 1",
        "mcp_requests_total{method=\"tools/call\",outcome=\"ok\",server=\"stub\",tool=\"echo\"} 1",
        "mcp_request_duration_seconds_count{method=\"tools/call\",server=\"stub\",tool=\"echo\"} 1",
        "mcp_response_size_bytes_count{server=\"stub\",tool=\"echo\"} 1",
        "backend_up{backend=\"one\"} 1",
        "backend_requests_total{backend=\"one\",status=\"2xx\"} 1",
        "backend_response_time_seconds_count{backend=\"one\"} 1",
        "backend_in_flight{backend=\"one\"} 0",
        "config_last_reload_timestamp_seconds",
        "open_streams 0",
    ] {
        assert!(text.contains(name), "{name} in\n{text}");
    }
    let off = Gateway::start(&format!(
        "{}observability: {{ metrics: {{ enabled: false }} }}\nbackends:\n{}",
        server(""),
        stub.backend("one", "")
    ))
    .await;
    assert_eq!(http().get(off.at("/metrics")).send().await.expect("an answer").status(), 404);
}

/// A real browser opens `/docs`, tries a call out and sees its answer.
#[tokio::test(flavor = "multi_thread")]
async fn the_docs_page_works_in_a_browser() {
    let stub = Stub::start().await;
    let gateway = Gateway::with(&stub.backend("one", "")).await;
    gateway.knows("stub").await;
    let mut command: Command = node();
    command.arg(root().join("tests/e2e/docs_page.mjs")).arg(gateway.at("/docs")).kill_on_drop(true);
    let output = command.output().await.expect("the browser script runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("answered 200"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}
