//! Where the time of a request went, as its access record tells it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{call, hold, logging, native, record, rest, written, yaml};
use crate::support::gateway::Gateway;
use crate::support::stub::{Act, Stub};
use crate::support::{eventually, http};

/// The phases that are all of a request.
const PHASES: &[&str] = &["admit_ms", "body_ms", "queue_ms", "cache_ms", "upstream_ms", "answer_ms"];
/// What a client or server waits here where it waits; nothing that did not wait takes so long.
const LONG: Duration = Duration::from_millis(300);

/// The phases a record has, after a look at its arithmetic.
fn phases(record: &Value) -> Vec<&'static str> {
    let spent: f64 = PHASES.iter().filter_map(|phase| record[phase].as_f64()).sum();
    let whole = record["duration_ms"].as_f64().expect("a number");
    assert!((spent - whole).abs() < 0.01, "together they are all of it, {spent} of {whole}: {record}");
    if let Some(connect) = record["connect_ms"].as_f64() {
        assert!(connect <= record["upstream_ms"].as_f64().expect("a part of it"), "{record}");
    }
    PHASES.iter().copied().filter(|phase| record[phase].is_number()).collect()
}

async fn told(gateway: &Gateway, request: reqwest::RequestBuilder) -> (u16, Value) {
    let (status, record) = record(gateway, request).await;
    (status, record.expect("a record"))
}

/// Milliseconds that waiting took at least.
fn waited(record: &Value, phase: &str) -> bool {
    record[phase].as_f64().is_some_and(|ms| ms >= 300.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_in_one_phase_at_a_time() {
    let stub = Stub::start().await;
    let gateway = logging(&stub, "level: info", "").await;
    let asked = ["admit_ms", "body_ms", "upstream_ms", "answer_ms"];
    let requests = [
        (200, rest(&gateway, &call())),
        (200, native(&gateway, "tools/call", json!({ "name": "echo", "arguments": {} }))),
        (200, rest(&gateway, &json!([call(), call()]))),
        (200, rest(&gateway, &call()).header("accept", "text/event-stream")),
        (200, native(&gateway, "tools/list", json!({}))),
    ];
    for (expected, request) in requests {
        let (status, record) = told(&gateway, request).await;
        assert_eq!((status, phases(&record)), (expected, asked.to_vec()), "{record}");
        assert!(record["bytes_in"].as_u64().is_some_and(|bytes| bytes > 50), "{record}");
    }
    let (_, record) = told(&gateway, rest(&gateway, &call())).await;
    assert_eq!((&record["attempts"], &record["connect_ms"]), (&json!(1), &Value::Null), "there was a connection already: {record}");
    assert_eq!(record["bytes_in"], json!(call().to_string().len()));
    for (expected, request) in [
        (404, http().post(gateway.at("/api/mcp/nobody")).json(&call())),
        (200, http().get(gateway.at("/health"))),
        (415, http().post(gateway.at("/api/mcp/stub")).body("{}")),
    ] {
        let (status, record) = told(&gateway, request).await;
        assert_eq!((status, phases(&record)), (expected, vec!["admit_ms", "answer_ms"]), "{record}");
    }
    let (status, record) = told(&gateway, rest(&gateway, &json!({ "method": "no" }))).await;
    assert_eq!((status, phases(&record)), (404, vec!["admit_ms", "body_ms", "answer_ms"]), "{record}");
    stub.act(Act::Status(500));
    let (status, record) = told(&gateway, rest(&gateway, &call())).await;
    assert_eq!((status, phases(&record), &record["outcome"]), (502, asked.to_vec(), &json!("failed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_backend_and_a_slow_caller_are_told_apart() {
    let stub = Stub::start().await;
    let gateway = logging(&stub, "level: info", "").await;
    for request in [rest(&gateway, &call()), native(&gateway, "tools/call", json!({ "name": "echo", "arguments": {} }))] {
        let ((), (_, record)) = tokio::join!(hold(&stub, LONG), told(&gateway, request));
        phases(&record);
        assert!(waited(&record, "upstream_ms") && !waited(&record, "body_ms"), "{record}");
    }
    let text = call().to_string();
    let id = uuid::Uuid::new_v4().to_string();
    let head =
        "POST /api/mcp/stub HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nexpect: 100-continue\r\nconnection: close";
    let mut client = TcpStream::connect(gateway.url.trim_start_matches("http://")).await.expect("connected");
    let head = format!("{head}\r\nx-request-id: {id}\r\ncontent-length: {}\r\n\r\n", text.len());
    client.write_all(head.as_bytes()).await.expect("written");
    // Once it is told to go on, it is waited for.
    let _ = client.read_u8().await.expect("100 Continue");
    tokio::time::sleep(LONG).await;
    client.write_all(text.as_bytes()).await.expect("written");
    client.read_to_end(&mut Vec::new()).await.expect("an answer");
    let record = written(&gateway, &id).await.expect("a record");
    phases(&record);
    assert!(waited(&record, "body_ms") && record["status"] == 200 && record["bytes_in"] == json!(text.len()), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cache_answers_asked_nobody() {
    let stub = Stub::start().await;
    let cache = "cache: { enabled: true, tools: [ { server: stub, tool: echo, ttl: 60s } ] }\n";
    let gateway = logging(&stub, "level: info", cache).await;
    let native = || native(&gateway, "tools/call", json!({ "name": "echo", "arguments": {} }));
    for request in [&|| rest(&gateway, &call()) as reqwest::RequestBuilder, &native as &dyn Fn() -> reqwest::RequestBuilder] {
        let (_, miss) = told(&gateway, request()).await;
        assert_eq!(phases(&miss), ["admit_ms", "body_ms", "cache_ms", "upstream_ms", "answer_ms"], "{miss}");
        let (_, hit) = told(&gateway, request()).await;
        assert_eq!((&hit["cache"], phases(&hit)), (&json!("hit"), vec!["admit_ms", "body_ms", "cache_ms", "answer_ms"]), "{hit}");
        assert_eq!((&hit["attempts"], &hit["backend"]), (&Value::Null, &json!("one")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_place_is_told_at_the_gateway_and_at_a_backend() {
    let stub = Stub::start().await;
    let queue = "queue: { length: 10, wait: 60s }";
    let of_gateway =
        yaml(&stub, "level: info", "").replace("  workers: 2\n", &format!("  workers: 2\n  limits: {{ in_flight: 1, {queue} }}\n"));
    let of_backend =
        yaml(&stub, "level: info", &format!("load_balancer: {{ {queue} }}\n")).replace("capabilities:", "max_in_flight: 1, capabilities:");
    for yaml in [of_gateway, of_backend] {
        let gateway = Gateway::start(&yaml).await;
        gateway.knows("stub").await;
        let each = |id: String| {
            let request = rest(&gateway, &call()).header("x-request-id", &id);
            async move { request.send().await.expect("an answer").status().as_u16() }
        };
        // Two at once, the first of which is held: the other waits, unless it comes very late.
        eventually("one waited", async || {
            let ids = [uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string()];
            let ((), one, two) = tokio::join!(hold(&stub, LONG), each(ids[0].clone()), each(ids[1].clone()));
            assert_eq!((one, two), (200, 200));
            let mut queued = 0;
            for id in &ids {
                let record = written(&gateway, id).await.expect("a record");
                queued += usize::from(phases(&record).contains(&"queue_ms"));
            }
            (queued == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_and_attempts_are_told() {
    let (sick, stub) = (Stub::start().await, Stub::start().await);
    let two = format!("{}  - {{ name: two, url: \"{}\", protocol: mcp, era: modern, capabilities: [stub] }}\n", "", sick.url);
    let gateway = logging(&stub, "level: info", &two).await;
    eventually("a connection is opened for it", async || {
        let (_, record) = told(&gateway, rest(&gateway, &json!({ "method": "list_tools" }))).await;
        phases(&record);
        assert_eq!(record["attempts"], 1, "{record}");
        record["connect_ms"].is_number().then_some(())
    })
    .await;
    sick.results("tools/list", json!({ "broken": true }));
    drop(sick);
    eventually("a second one is asked", async || {
        let (status, record) = told(&gateway, rest(&gateway, &json!({ "method": "list_tools" }))).await;
        phases(&record);
        assert_eq!(status, 200, "{record}");
        (record["attempts"] == 2).then_some(())
    })
    .await;
}
