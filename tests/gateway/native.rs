//! Native pass-through: bytes, ids, sessions, headers, streams, departures.

use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, server};
use crate::support::part::Server;
use crate::support::stub::{Act, Stub};
use crate::support::{eventually, http};

const MODERN: &str = "2026-07-28";

fn request(gateway: &Gateway, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
    let accept = "application/json, text/event-stream";
    http().post(gateway.at("/mcp/stub")).header("content-type", "application/json").header("accept", accept).body(body)
}

async fn stubbed() -> (Stub, Gateway) {
    let stub = Stub::start().await;
    let gateway = Gateway::with(&stub.backend("one", ", health_check: /health")).await;
    // From here on every POST the stub sees is a client's.
    gateway.knows("stub").await;
    (stub, gateway)
}

#[tokio::test]
async fn ids_headers_and_bytes_pass_unchanged() {
    let (stub, gateway) = stubbed().await;
    let body = r#"{ "jsonrpc":"2.0", "id":"a\u0062\n", "method":"tools/call", "params":{"name":"echo","arguments":{"n":1.50}}}"#;
    let sent = request(&gateway, body).header("mcp-protocol-version", MODERN).header("mcp-method", "tools/call").header("mcp-name", "echo");
    let sent = sent
        .header("mcp-param-region", "eu")
        .header("authorization", "Bearer mine")
        .header("cookie", "c=1")
        .header("origin", gateway.url.clone());
    let answer: Value = sent.send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(answer["id"], "ab\n");
    let seen = stub.headers();
    assert_eq!((&seen["mcp-param-region"], &seen["mcp-name"]), (&"eu".parse().unwrap(), &"echo".parse().unwrap()));
    assert!(["authorization", "cookie", "origin"].iter().all(|name| !seen.contains_key(*name)), "{seen:?}");
    assert_eq!(seen["host"], stub.url.trim_start_matches("http://"));
}

#[tokio::test]
async fn a_refusal_speaks_json_rpc_with_the_callers_id() {
    let (stub, gateway) = stubbed().await;
    let before = stub.posts();
    let call = r#"{"jsonrpc":"2.0","id":"mine","method":"tools/call","params":{"name":"echo"}}"#;
    let lies = [("mcp-method", "tools/list"), ("mcp-name", "other"), ("mcp-name", "=?base64?b3RoZXI=?=")];
    for (header, value) in lies {
        let answer = request(&gateway, call).header("mcp-protocol-version", MODERN).header(header, value).send().await.expect("an answer");
        assert_eq!(answer.status(), 400);
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!((&answer["error"]["code"], &answer["id"]), (&json!(-32020), &json!("mine")), "{header}");
    }
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["echo"]}"#,
        r#"[["2.0",1,"tools/call",{"name":"echo"}]]"#,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\"arguments\":{\"\":null}",
    ] {
        assert_eq!(request(&gateway, body).send().await.expect("an answer").status(), 400, "{body}");
    }
    let hidden = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let lie = request(&gateway, hidden).header("mcp-protocol-version", "2025-11-25").header("mcp-name", "other");
    assert_eq!(lie.send().await.expect("an answer").status(), 400, "a legacy header does not excuse a modern body");
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","name":"other"}}"#;
    assert_eq!(request(&gateway, twice).send().await.expect("an answer").status(), 400);
    let session = request(&gateway, call).header("mcp-session-id", "made-up").send().await.expect("an answer");
    assert_eq!(session.status(), 404);
    assert_eq!(stub.posts(), before, "nothing refused reaches a backend");
    stub.act(Act::Status(401));
    assert_eq!(request(&gateway, call).send().await.expect("an answer").status(), 502, "the credential it refuses is ours");
    stub.act(Act::Status(307));
    assert_eq!(request(&gateway, call).send().await.expect("an answer").status(), 502);
    stub.act(Act::Status(503));
    assert_eq!(request(&gateway, call).send().await.expect("an answer").status(), 503, "a backend's own status passes");
}

#[tokio::test]
async fn a_stream_is_relayed_as_it_comes_and_ends_with_its_client() {
    let (stub, gateway) = stubbed().await;
    let answer = http().get(gateway.at("/mcp/stub")).header("accept", "text/event-stream").send().await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut stream = answer.bytes_stream();
    let first = stream.next().await.expect("an event").expect("whole");
    assert_eq!(first, "event: message\ndata: {}\n\n");
    assert_eq!((stub.waiting(), gateway.metric("open_streams").await), (1, 1));
    drop(stream);
    eventually("the upstream stream is dropped", async || (stub.waiting() == 0).then_some(())).await;
    eventually("the gauge falls", async || (gateway.metric("open_streams").await == 0).then_some(())).await;
}

#[tokio::test]
async fn a_client_that_leaves_a_call_takes_it_along() {
    let (stub, gateway) = stubbed().await;
    stub.act(Act::Hang);
    let sent = request(&gateway, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}"#).send();
    let asking = tokio::spawn(sent);
    eventually("the call hangs", async || (stub.waiting() == 1).then_some(())).await;
    asking.abort();
    eventually("the upstream call is dropped", async || (stub.waiting() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_backend_that_drips_is_given_its_time_and_no_more() {
    let stub = Stub::start().await;
    let gateway = Gateway::with(&stub.backend("one", ", health_check: /health, timeout: 500ms")).await;
    stub.act(Act::Stall);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}"#;
    let answer = request(&gateway, call).send().await.expect("an answer");
    assert_eq!(answer.status(), 504);
    eventually("it is not waited for any longer", async || (stub.waiting() == 0).then_some(())).await;
}

/// Opens a legacy session; returns the answer's status and the session id the client sees.
async fn initialize(url: &str) -> (u16, String) {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
    let accept = "application/json, text/event-stream";
    let answer = http().post(url).header("accept", accept).json(&body).send().await.expect("an answer");
    let session = answer.headers().get("mcp-session-id").map(|id| id.to_str().expect("text").to_owned());
    (answer.status().as_u16(), session.unwrap_or_default())
}

async fn ping(url: &str, session: &str) -> u16 {
    let accept = "application/json, text/event-stream";
    let body = json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" });
    let sent = http().post(url).header("accept", accept).header("mcp-session-id", session).json(&body);
    sent.send().await.expect("an answer").status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_finds_its_backend_on_every_replica_and_no_other_server() {
    let (one, two) = (Server::python_sdk(&[]).await, Server::python_sdk(&[]).await);
    let yaml = format!(
        "{}backends:\n  - {{ name: one, url: \"{}\", capabilities: [files, other] }}\n  - {{ name: two, url: \"{}\", capabilities: [files, other] }}\n",
        server("  session_secret: 0123456789abcdef0123456789abcdef\n"),
        one.url,
        two.url
    );
    let (first, second) = (Gateway::start(&yaml).await, Gateway::start(&yaml).await);
    for gateway in [&first, &second] {
        gateway.knows("files").await;
    }
    for _ in 0..6 {
        let (status, session) = initialize(&first.at("/mcp/files")).await;
        assert_eq!(status, 200);
        assert!(!session.contains("one") && !session.contains("two"));
        for _ in 0..4 {
            assert_eq!(ping(&first.at("/mcp/files"), &session).await, 200);
            assert_eq!(ping(&second.at("/mcp/files"), &session).await, 200, "on the other replica");
        }
        assert_eq!(ping(&first.at("/mcp/other"), &session).await, 404, "a session is for one server");
        let ended = http().delete(second.at("/mcp/files")).header("mcp-session-id", &session).send().await.expect("an answer");
        assert!(ended.status().is_success());
        assert_eq!(ping(&first.at("/mcp/files"), &session).await, 404);
    }
}
