//! Ways around a limit that were open once.

use std::time::Instant;

use serde_json::json;

use super::{admitted, call, limited, send};
use crate::support::gateway::{Gateway, server};
use crate::support::redis::Redis;
use crate::support::stub::{Act, Stub};
use crate::support::{eventually, http};

#[tokio::test]
async fn each_concurrency_rule_counts_its_own() {
    let stub = Stub::start().await;
    let rules = "  rules: [ { name: all, concurrency: 3 }, { name: few, concurrency: 2, match: { tool: echo } } ]\n";
    let gateway = limited(&stub, rules).await;
    stub.act(Act::Hang);
    let url = gateway.at("/api/mcp/stub");
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move { http().post(url).json(&call()).send().await })
        })
        .collect();
    eventually("two are under way, as both rules allow", async || (stub.waiting() == 2).then_some(())).await;
    assert_eq!(send(&gateway, &[]).await.status(), 429);
    assert_eq!(gateway.rest("stub", json!({ "method": "list_tools" })).await.0, 200, "the third place of all is free");
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_tier_that_is_not_listed_is_no_way_out() {
    let stub = Stub::start().await;
    let hash = mcp_gateway::digest::hex(&mcp_gateway::digest::sha256(b"k"));
    let keys = format!("auth: {{ api_keys: {{ keys: [ {{ id: ann, hash: \"sha256:{hash}\", tier: Free }} ] }} }}\n");
    let limits = "rate_limits: { tiers: { free: { rate: 5/hour }, default: { rate: 2/hour } } }\n";
    let gateway = Gateway::start(&format!("{}backends:\n{}{keys}{limits}", server(""), stub.backend("one", ""))).await;
    assert_eq!(admitted(&gateway, 4, &[("x-api-key", "k")]).await, 2);
}

#[tokio::test]
async fn what_is_no_request_is_counted_as_well() {
    let stub = Stub::start().await;
    let gateway = limited(&stub, "  rules: [ { rate: 3/hour } ]\n").await;
    let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
    let mut told = Vec::new();
    for _ in 0..5 {
        let sent = http().post(gateway.at("/mcp/stub")).header("accept", "application/json, text/event-stream").json(&answer).send();
        told.push(sent.await.expect("an answer").status().as_u16());
    }
    assert_eq!(told.iter().filter(|status| **status == 429).count(), 2, "{told:?}");
}

#[tokio::test]
async fn what_is_taken_back_is_no_more_than_was_taken() {
    let (stub, redis) = (Stub::start().await, Redis::start().await);
    // A call costs more than the wide rule ever has, so it takes all of it; the other rule admits one and no more.
    let rules = "  store: redis\n  rules:\n    - { name: wide, rate: 4/s }\n    - { name: once, rate: 1/day, match: { tool: echo } }\n  costs: [ { tool: echo, cost: 50 } ]\n";
    let yaml = format!("{}{}backends:\n{}rate_limits:\n{rules}", server(""), redis.section(), stub.backend("one", ""));
    let gateway = Gateway::start(&yaml).await;
    eventually("the first is admitted", async || (send(&gateway, &[]).await.status() == 200).then_some(())).await;
    let once = async || send(&gateway, &[]).await.headers().get("ratelimit").is_some_and(|limit| limit.as_bytes().starts_with(b"\"once\""));
    eventually("the wide rule is full again and only the other refuses", async || once().await.then_some(())).await;
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(send(&gateway, &[]).await.status(), 429);
    }
    let mut listed = 0.0;
    for _ in 0..60 {
        listed += f64::from(u8::from(gateway.rest("stub", json!({ "method": "list_tools" })).await.0 == 200));
    }
    let most = 4.0 + 4.0 * begun.elapsed().as_secs_f64() + 1.0;
    assert!(listed <= most, "{listed} of {most}: what refused calls gave back was never there");
}

#[tokio::test]
async fn headers_of_the_operators_rules_reach_legacy_servers_too() {
    use axum::http::HeaderMap;
    let seen: std::sync::Arc<std::sync::Mutex<Vec<String>>> = std::sync::Arc::default();
    let keep = std::sync::Arc::clone(&seen);
    let answer = move |headers: HeaderMap, body: axum::Json<serde_json::Value>| {
        let team = headers.get("x-team").map_or("-", |value| value.to_str().unwrap_or("?"));
        keep.lock().expect("no panic while held").push(format!("{} {team}", body["method"].as_str().unwrap_or_default()));
        let result = match body["method"].as_str() {
            Some("initialize") => {
                json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": { "name": "old", "version": "1" } })
            }
            Some("tools/list") => json!({ "tools": [] }),
            _ => json!({ "content": [] }),
        };
        async move { axum::Json(json!({ "jsonrpc": "2.0", "id": body["id"], "result": result })) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let router = axum::Router::new().route("/mcp", axum::routing::post(answer));
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let yaml = format!(
        "{}backends: [ {{ name: old, url: 'http://{address}', protocol: mcp, era: legacy, capabilities: [old] }} ]\ntransform: [ {{ request: {{ headers: {{ set: {{ X-Team: data }} }} }} }} ]\n",
        server("")
    );
    let gateway = Gateway::start(&yaml).await;
    gateway.call("old", "anything", json!({})).await;
    assert!(seen.lock().expect("no panic while held").contains(&"tools/call data".to_owned()), "{seen:?}");
    serving.abort();
}

#[tokio::test]
async fn the_rest_forms_word_for_a_method_means_the_method_and_the_log_names_what_was_refused() {
    let stub = Stub::start().await;
    let gateway = limited(&stub, "  rules: [ { name: calls, match: { method: call_tool }, rate: 1/hour } ]\n").await;
    assert_eq!(admitted(&gateway, 2, &[]).await, 1);
    let log = gateway.said().await;
    let refused = log.iter().find(|line| line.contains("rate_limited")).expect("a record");
    for part in ["\"method\":\"tools/call\"", "\"name\":\"echo\"", "\"limit\":\"calls\"", "\"status\":429"] {
        assert!(refused.contains(part), "{part} in {refused}");
    }
}

#[tokio::test]
async fn a_backend_that_is_our_own_admin_listener_is_told_no() {
    let stub = Stub::start().await;
    let gateway = limited(&stub, "  rules: [ { rate: 99/hour } ]\n").await;
    gateway.call("stub", "echo", json!({})).await;
    assert_eq!(stub.headers()["via"], "1.1 mcp-gateway");
    let direct = async |via: &str| {
        let request = http().get(format!("{}/admin/config", gateway.admin)).header("via", via);
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!((direct("1.1 mcp-gateway").await, direct("1.1 edge, 1.1 mcp-gateway").await, direct("1.1 edge").await), (403, 403, 200));
}
