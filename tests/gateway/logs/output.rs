//! How records come to standard error, and to whoever reads it or does not.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::{said, yaml};
use crate::support::gateway::{Gateway, command, server};
use crate::support::stub::Stub;
use crate::support::{PATIENCE, http};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end() {
    let (stub, dir) = (Stub::start().await, tempfile::tempdir().expect("a temporary folder"));
    let path = dir.path().join("gateway.yaml");
    std::fs::write(&path, yaml(&stub, "", "")).expect("writable");
    let mut command = command();
    command.arg("--config").arg(path).env("STATE_DIR", dir.path().join("state")).stderr(Stdio::piped()).kill_on_drop(true);
    let mut gateway = command.spawn().expect("started");
    let mut log = BufReader::new(gateway.stderr.take().expect("piped")).lines();
    let url = loop {
        let line = log.next_line().await.expect("readable").expect("it listens");
        if let Some((_, rest)) = line.split_once("listening on ") {
            break rest.trim_end_matches(['"', '}']).to_owned();
        }
    };
    // From here on nobody reads; a pipe holds 64 KiB.
    let http = http();
    for _ in 0..1000 {
        let answer = http.get(format!("{url}/nowhere")).send().await.expect("an answer");
        assert_eq!(answer.status(), 404);
    }
    let id = gateway.id().expect("running").to_string();
    assert!(std::process::Command::new("kill").arg(id).status().is_ok_and(|status| status.success()));
    let end = tokio::time::timeout(PATIENCE, gateway.wait()).await;
    assert!(end.expect("it ends").expect("an end").success());
    drop(log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_cannot_drive_the_terminal_that_shows_the_log() {
    let stub = Stub::start().await;
    let schema = json!({ "type": "object", "properties": { "text": { "type": "\u{1b}[2J\u{9b}2J" } } });
    stub.results("tools/list", json!({ "resultType": "complete", "tools": [{ "name": "echo", "inputSchema": schema }] }));
    let yaml = format!(
        "{}observability: {{ log: {{ format: text }} }}\nbackends:\n{}",
        server("  validate_arguments: true\n"),
        stub.backend("one", "")
    );
    let gateway = Gateway::start(&yaml).await;
    gateway.knows("stub").await;
    gateway.call("stub", "echo", json!({})).await;
    gateway.call("stub", "\u{9b}2J\nforged", json!({})).await;
    let lines = said(&gateway).await;
    // The record of a request is the object that it is where lines are JSON, except that control characters are shown.
    let records: Vec<&str> = lines.iter().filter_map(|line| line.split_once(" access ").map(|(_, record)| record)).collect();
    let record = records.iter().find_map(|record| serde_json::from_str(record).ok().filter(|record: &Value| record["name"] == "echo"));
    assert!(record.is_some_and(|record| record["status"] == 200 && record["duration_ms"].is_f64()), "{records:?}");
    assert!(records.iter().any(|record| record.contains("\\u{9b}2J\\nforged")), "{records:?}");
    let line = lines.iter().find(|line| line.contains("an inputSchema cannot be used")).expect("it is told");
    assert!(line.contains("\\u{9b}2J"), "{line:?}");
    assert!(lines.iter().all(|line| !line.contains(char::is_control)), "{lines:?}");
}
