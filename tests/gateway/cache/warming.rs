//! What is asked before anybody does.

use mcp_gateway::digest::{hex, sha256};
use serde_json::{Value, json};

use super::{call, list, native, rest, status, told, tools, yaml};
use crate::support::gateway::Gateway;
use crate::support::stub::{Act, Stub};
use crate::support::{eventually, http};

const LISTS: &str = "  warm: [ { server: \"st*\", method: tools/list, before_ready: true } ]\n";

async fn readiness(gateway: &Gateway) -> (u16, Value) {
    let response = http().get(gateway.at("/ready")).send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[tokio::test]
async fn the_first_caller_of_either_lane_is_answered_from_memory() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let gateway = Gateway::start(&yaml(&stub, LISTS, "")).await;
    gateway.ready().await;
    let before = stub.asked("tools/list");
    let (by_rest, answer) = told(rest(&gateway, &list(), &[]).await).await;
    assert!(by_rest.starts_with("mcp-gateway; hit;") && answer["cached"] == true, "{by_rest} {answer}");
    // As clients on Node.js ask, which name any language.
    let asked = native(&gateway, &json!("x"), "tools/list", json!({}), &[("accept-language", "*")]).await;
    let (by_native, answer) = told(asked).await;
    assert!(by_native.starts_with("mcp-gateway; hit;") && answer["id"] == "x", "{by_native} {answer}");
    assert_eq!(stub.asked("tools/list"), before);
    assert_eq!(gateway.metric("cache_requests_total{result=\"miss\",server=\"stub\",tier=\"memory\"}").await, 0, "nobody asked before");
    let other = native(&gateway, &json!(1), "tools/list", json!({}), &[("accept-language", "de")]).await;
    assert_eq!(status(&other), "mcp-gateway; fwd=miss; stored", "what was not named is not kept");
}

#[tokio::test]
async fn traffic_waits_for_what_is_to_be_kept_but_not_for_a_server_that_does_not_answer() {
    let stub = Stub::start().await;
    stub.act(Act::Hang);
    let warm = "  tools: [ { tool: echo, ttl: 1m } ]\n  \
                warm: [ { server: stub, method: tools/call, params: { name: echo, arguments: { a: 1 } }, before_ready: true } ]\n";
    let text = yaml(&stub, warm, "").replace("capabilities: [stub]", "capabilities: [stub], timeout: 3s");
    let gateway = Gateway::start_unready(&text).await;
    let waits = async || {
        let (status, told) = readiness(&gateway).await;
        (told["reason"] == "the cache is being warmed").then_some(status)
    };
    assert_eq!(eventually("traffic waits", waits).await, 503);
    gateway.ready().await;
    assert!(gateway.said().await.iter().any(|line| line.contains("cache.warm[0]: nothing is kept of what `stub` says to tools/call")));
    // It goes on trying.
    stub.act(Act::Echo);
    let kept = async || (gateway.metric("cache_bytes{tier=\"memory\"}").await > 0).then_some(());
    eventually("an answer is kept", kept).await;
    let before = stub.calls();
    let (told, _) = told(rest(&gateway, &call("echo", &json!({ "a": 1 })), &[]).await).await;
    assert!(told.starts_with("mcp-gateway; hit;"), "{told}");
    assert_eq!(stub.calls(), before);
}

#[tokio::test]
async fn what_is_void_or_about_to_end_is_asked_for_anew_though_nobody_asks() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let gateway = Gateway::start(&yaml(&stub, LISTS, "")).await;
    gateway.ready().await;
    let before = stub.asked("tools/list");
    http().post(format!("{}/admin/cache/purge", gateway.admin)).send().await.expect("an answer");
    // For each of the lanes.
    eventually("it is asked for anew", async || (stub.asked("tools/list") >= before + 2).then_some(())).await;
    let hits = async || status(&rest(&gateway, &list(), &[]).await).starts_with("mcp-gateway; hit;").then_some(());
    eventually("it is kept again", hits).await;
    let mut short = tools("public");
    short["ttlMs"] = json!(2_000);
    stub.results("tools/list", short);
    http().post(format!("{}/admin/cache/purge", gateway.admin)).send().await.expect("an answer");
    let before = stub.asked("tools/list");
    eventually("it is asked for again and again", async || (stub.asked("tools/list") >= before + 6).then_some(())).await;
}

#[tokio::test]
async fn tenants_are_warmed_apart_and_a_reload_warms_what_it_names() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let hash = |key: &str| format!("sha256:{}", hex(&sha256(key.as_bytes())));
    let key = |id: &str, tenant: &str| json!({ "id": id, "hash": hash(id), "tenant": tenant });
    let auth = json!({ "api_keys": { "keys": [key("ann-0123456789", "acme"), key("bob-0123456789", "other")] } });
    let keys = &format!("auth: {auth}\n");
    let gateway = Gateway::start(&yaml(&stub, "", keys)).await;
    let warm = "  warm: [ { server: stub, method: tools/list, tenant: acme } ]\n";
    gateway.load(&yaml(&stub, warm, keys)).await;
    let kept = async || (gateway.metric("cache_bytes{tier=\"memory\"}").await > 1000).then_some(());
    eventually("both lanes are kept", kept).await;
    for (key, expected) in [("ann-0123456789", "hit"), ("bob-0123456789", "fwd=miss")] {
        let told = status(&rest(&gateway, &list(), &[("x-api-key", key)]).await);
        assert!(told.starts_with(&format!("mcp-gateway; {expected};")), "{key} {told}");
    }
}

#[tokio::test]
async fn a_reload_that_names_nothing_to_wait_for_lets_traffic_in() {
    let stub = Stub::start().await;
    stub.act(Act::Hang);
    let tools = "  tools: [ { tool: echo, ttl: 1m } ]\n";
    let warm = format!("{tools}  warm: [ {{ server: stub, method: tools/call, params: {{ name: echo }}, before_ready: true }} ]\n");
    let gateway = Gateway::start_unready(&yaml(&stub, &warm, "")).await;
    let waits = async || (readiness(&gateway).await.1["reason"] == "the cache is being warmed").then_some(());
    eventually("traffic waits", waits).await;
    gateway.load(&yaml(&stub, tools, "")).await;
    assert_eq!(readiness(&gateway).await.0, 200);
}
