//! A backend is drained: no new requests, while those under way and sessions that are resumed go on.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Load, admin, call, shown};
use crate::support::gateway::{Gateway, server};
use crate::support::part::Server;
use crate::support::stub::{Act, Stub};
use crate::support::{eventually, http};

fn yaml(one: &Stub, two: &Stub, more: &str) -> String {
    format!("{}backends:\n{}{}", server(""), one.backend("one", more), two.backend("two", more))
}

async fn drain(gateway: &Gateway, method: &str, name: &str) -> Value {
    let (status, row) = admin(gateway, method, &format!("backends/{name}/drain"), Value::Null).await;
    assert_eq!(status, 200, "{row}");
    row
}

/// Drains a backend for a while and gives it back.
async fn through_a_drain(gateway: &Gateway, load: &Load, name: &str, stub: &Stub) {
    let row = drain(gateway, "POST", name).await;
    assert_eq!((&row["draining"], &row["status"]), (&json!(true), &json!("draining")), "{row}");
    let (before, all) = (load.answered(), stub.calls());
    eventually("others serve", async || (load.answered() >= before + 50).then_some(())).await;
    // Those that had chosen it when the drain began.
    assert!(stub.calls() <= all + 8, "{} more", stub.calls() - all);
    drain(gateway, "DELETE", name).await;
    let all = stub.calls();
    eventually("it serves again", async || (stub.calls() > all).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_under_load_fails_nothing_and_survives_a_reload() {
    let (one, two) = (Stub::start().await, Stub::start().await);
    let gateway = Arc::new(Gateway::start(&yaml(&one, &two, "")).await);
    // A request is under way when the drain begins.
    one.act(Act::Hang);
    for _ in 0..2 {
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move { call(&gateway).await });
    }
    eventually("one hangs", async || (one.waiting() == 1).then_some(())).await;
    one.act(Act::Echo);
    let load = Load::start(&gateway);
    for _ in 0..3 {
        through_a_drain(&gateway, &load, "one", &one).await;
        through_a_drain(&gateway, &load, "two", &two).await;
    }
    assert_eq!(one.waiting(), 1, "what was under way still is");
    drain(&gateway, "POST", "one").await;
    gateway.load(&yaml(&one, &two, ", weight: 5")).await;
    let row = shown(&gateway, "one").await;
    assert_eq!((&row["draining"], &row["backend"]["weight"]), (&json!(true), &json!(5)), "{row}");
    load.end().await;
    assert_eq!(gateway.metric("backend_draining{backend=\"one\"}").await, 1);
    let listed: Value = http().get(gateway.at("/api/servers")).send().await.expect("an answer").json().await.expect("JSON");
    let status = |i: usize| listed["servers"][i]["status"].clone();
    assert_eq!((status(0), status(1)), (json!("draining"), json!("healthy")), "{listed}");
    for _ in 0..20 {
        assert_eq!(call(&gateway).await, (200, "two".to_owned()));
    }
    drain(&gateway, "POST", "two").await;
    assert_eq!(call(&gateway).await.0, 503, "nobody is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_where_it_is_while_new_ones_go_elsewhere() {
    let (one, two) = tokio::join!(Server::everything(), Server::everything());
    let backend = |name: &str, server: &Server| {
        format!("  - {{ name: {name}, url: \"{}\", protocol: mcp, era: legacy, capabilities: [every] }}\n", server.url)
    };
    let gateway = Gateway::with(&format!("{}{}", backend("one", &one), backend("two", &two))).await;
    for name in ["one", "two"] {
        eventually("both are healthy", async || (shown(&gateway, name).await["healthy"] == true).then_some(())).await;
    }
    let first = open(&gateway).await;
    let home = eventually("one of them has it", async || {
        for name in ["one", "two"] {
            if gateway.metric(&format!("backend_requests_total{{backend=\"{name}\",status=\"2xx\"}}")).await > 0 {
                return Some(name);
            }
        }
        None
    })
    .await;
    drain(&gateway, "POST", home).await;
    let elsewhere = if home == "one" { "two" } else { "one" };
    let count = async |name: &str| gateway.metric(&format!("backend_requests_total{{backend=\"{name}\",status=\"2xx\"}}")).await;
    let (here, there) = (count(home).await, count(elsewhere).await);
    for _ in 0..5 {
        assert_eq!(list(&gateway, &first).await, 200, "the session goes on");
    }
    let asked = eventually("it was asked where it is", async || Some(count(home).await).filter(|asked| *asked >= here + 5)).await;
    for _ in 0..3 {
        let session = open(&gateway).await;
        assert_eq!(list(&gateway, &session).await, 200);
    }
    eventually("new ones are elsewhere", async || (count(elsewhere).await >= there + 9).then_some(())).await;
    assert_eq!(count(home).await, asked, "and only there");
}

async fn post(gateway: &Gateway, session: Option<&str>, body: Value) -> reqwest::Response {
    let mut request = http().post(gateway.at("/mcp/every")).header("accept", "application/json, text/event-stream").json(&body);
    if let Some(session) = session {
        request = request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-06-18");
    }
    request.send().await.expect("an answer")
}

async fn open(gateway: &Gateway) -> String {
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } });
    let answer = post(gateway, None, json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params })).await;
    assert_eq!(answer.status(), 200);
    let session = answer.headers().get("mcp-session-id").expect("a session").to_str().expect("text").to_owned();
    let told = post(gateway, Some(&session), json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
    assert_eq!(told.status(), 202);
    session
}

async fn list(gateway: &Gateway, session: &str) -> u16 {
    let answer = post(gateway, Some(session), json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" })).await;
    let status = answer.status().as_u16();
    answer.text().await.expect("a body");
    status
}
