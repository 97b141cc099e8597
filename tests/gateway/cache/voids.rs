//! When what was kept stops being given: writes, purges, reloads, and the bound of the memory.

use serde_json::{Value, json};

use super::{caching, call, list, read, rest, status, told, tools, yaml};
use crate::support::gateway::Gateway;
use crate::support::http;
use crate::support::stub::Stub;

const TOOLS: &str = "  tools: [ { tool: echo, ttl: 1m } ]\n";

async fn is_hit(gateway: &Gateway, body: &Value) -> bool {
    status(&rest(gateway, body, &[]).await).contains("; hit")
}

async fn purge(gateway: &Gateway, body: &str) -> (u16, Value) {
    let response = http().post(format!("{}/admin/cache/purge", gateway.admin)).body(body.to_owned()).send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

/// Everything is kept: a list, a read and a call.
async fn filled(stub: &Stub, gateway: &Gateway) -> [Value; 3] {
    stub.results("resources/read", json!({ "resultType": "complete", "ttlMs": 60_000, "cacheScope": "public", "contents": [] }));
    let asked = [list(), read("a:b"), call("echo", &json!({}))];
    for body in &asked {
        let _ = rest(gateway, body, &[]).await;
        assert!(is_hit(gateway, body).await, "{body}");
    }
    asked
}

/// Tools that say of themselves what they do.
fn annotated() -> Value {
    json!({ "resultType": "complete", "ttlMs": 60_000, "cacheScope": "public", "tools": [
        { "name": "echo", "inputSchema": {} }, { "name": "write", "inputSchema": {} },
        { "name": "stat", "inputSchema": {}, "annotations": { "readOnlyHint": true } }] })
}

#[tokio::test]
async fn a_call_that_may_write_drops_reads_and_calls_of_its_server_and_nothing_else() {
    let stub = Stub::start().await;
    stub.results("tools/list", annotated());
    let gateway = caching(&stub, TOOLS, "").await;
    let [list, read, echo] = filled(&stub, &gateway).await;
    let _ = rest(&gateway, &call("stat", &json!({})), &[]).await;
    assert!(is_hit(&gateway, &read).await && is_hit(&gateway, &echo).await, "a tool that only reads");
    let _ = rest(&gateway, &call("write", &json!({})), &[]).await;
    assert!(!is_hit(&gateway, &read).await && !is_hit(&gateway, &echo).await && is_hit(&gateway, &list).await);
    // In the other lane as well.
    assert!(is_hit(&gateway, &read).await && is_hit(&gateway, &echo).await);
    let _ = super::native(&gateway, &json!(1), "tools/call", json!({ "name": "write" }), &[("mcp-name", "write")]).await.text().await;
    assert!(!is_hit(&gateway, &read).await && is_hit(&gateway, &list).await);
}

#[tokio::test]
async fn a_tag_drops_what_its_rules_are_about() {
    let stub = Stub::start().await;
    stub.results("tools/list", annotated());
    let rules = "  methods: [ { method: tools/list, tags: [lists] } ]\n  tools: [ { tool: \"ec*\", ttl: 1m, tags: [a, b] }, { tool: stat, ttl: 1m } ]\n";
    let gateway = caching(&stub, rules, "").await;
    let [list, read, echo] = filled(&stub, &gateway).await;
    assert_eq!(purge(&gateway, r#"{"tag":"b"}"#).await, (200, json!({ "purged": 1 })));
    assert!(!is_hit(&gateway, &echo).await && is_hit(&gateway, &read).await && is_hit(&gateway, &list).await);
    assert_eq!(purge(&gateway, r#"{"tag":"lists"}"#).await, (200, json!({ "purged": 1 })));
    assert!(!is_hit(&gateway, &list).await && is_hit(&gateway, &echo).await);
    let (status, told) = purge(&gateway, r#"{"tag":"lsts"}"#).await;
    assert_eq!((status, told["code"].as_str()), (400, Some("invalid_params")));
    assert!(told["detail"].as_str().is_some_and(|detail| detail.contains("a, b, lists")), "{told}");
    assert_eq!(purge(&gateway, r#"{"tag":"a","server":"stub"}"#).await.0, 400);
}

#[tokio::test]
async fn writes_drop_nothing_where_that_is_switched_off() {
    let stub = Stub::start().await;
    stub.results("tools/list", annotated());
    let gateway = caching(&stub, &format!("{TOOLS}  invalidate_on_write: false\n"), "").await;
    let [_, read, _] = filled(&stub, &gateway).await;
    let _ = rest(&gateway, &call("write", &json!({})), &[]).await;
    assert!(is_hit(&gateway, &read).await);
}

#[tokio::test]
async fn what_a_server_says_has_changed_is_dropped() {
    let stub = Stub::start().await;
    stub.results("tools/list", annotated());
    for roles in ["", "roles: { all: [ { tools: ['*'], resources: ['*'] } ] }\nauth: { required: false, anonymous: { roles: [all] } }\n"] {
        let gateway = caching(&stub, TOOLS, roles).await;
        let [list, read, echo] = filled(&stub, &gateway).await;
        let other = super::read("c:d");
        let _ = rest(&gateway, &other, &[]).await;
        let stream = http().get(gateway.at("/mcp/stub")).header("accept", "text/event-stream").send().await.expect("an answer");
        let mut chunks = stream.bytes_stream();
        let mut next = async || futures::StreamExt::next(&mut chunks).await.expect("more").expect("whole");
        assert!(next().await.starts_with(b"event: message"));
        stub.say(&json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }));
        next().await;
        assert!(!is_hit(&gateway, &list).await && is_hit(&gateway, &read).await && is_hit(&gateway, &echo).await);
        stub.say(&json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": "a:b" } }));
        next().await;
        assert!(!is_hit(&gateway, &read).await && is_hit(&gateway, &other).await && is_hit(&gateway, &list).await);
    }
}

#[tokio::test]
async fn an_answer_under_way_while_its_server_changes_is_not_given_later() {
    let stub = Stub::start().await;
    let gateway = caching(&stub, "", "").await;
    stub.results(
        "resources/read",
        json!({ "resultType": "complete", "ttlMs": 60_000, "cacheScope": "public", "contents": [{ "text": "$N" }] }),
    );
    stub.hold(true);
    let request = http().post(gateway.at("/api/mcp/stub")).json(&read("a:b"));
    let asking = tokio::spawn(async move { request.send().await.expect("an answer").status() });
    crate::support::eventually("it is asked", async || (stub.asked("resources/read") == 1).then_some(())).await;
    assert_eq!(purge(&gateway, r#"{"server":"stub"}"#).await.0, 200);
    stub.hold(false);
    assert_eq!(asking.await.expect("no panic"), 200);
    assert!(!is_hit(&gateway, &read("a:b")).await && is_hit(&gateway, &read("a:b")).await);
}

#[tokio::test]
async fn an_administrator_sees_what_is_kept_and_lets_go_of_it() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let gateway = caching(&stub, TOOLS, "").await;
    let [list, read, echo] = filled(&stub, &gateway).await;
    let secret = call("echo", &json!({ "password": "hunter2" }));
    let _ = rest(&gateway, &secret, &[]).await;
    let page = http().get(format!("{}/admin/cache", gateway.admin)).send().await.expect("an answer").text().await.expect("text");
    assert!(!page.contains("hunter2") && !page.contains("password"), "{page}");
    let page: Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!((&page["enabled"], &page["entries"]), (&json!(true), &json!(4)));
    assert!(page["bytes"].as_u64().is_some_and(|bytes| bytes > 1000 && bytes < 10_000), "{page}");
    assert_eq!(page["hottest"].as_array().map(Vec::len), Some(4));
    assert!(page["hottest"].as_array().unwrap().iter().any(|row| row["tool"] == "echo" && row["hits"] == 1), "{page}");
    for (wish, expected, gone, stays) in [
        (r#"{"server":"other"}"#, 0, vec![], vec![&list, &read, &echo]),
        (r#"{"tool":"echo"}"#, 2, vec![&echo], vec![&list, &read]),
        (r#"{"server":"stub","method":"resources/read"}"#, 1, vec![&read], vec![&list, &echo]),
        (r#"{"method":"list_tools"}"#, 1, vec![&list], vec![&read, &echo]),
        ("", 3, vec![&list, &read, &echo], vec![]),
    ] {
        let (status, answer) = purge(&gateway, wish).await;
        assert_eq!((status, &answer["purged"]), (200, &json!(expected)), "{wish} {answer}");
        for body in stays {
            assert!(is_hit(&gateway, body).await, "{wish} {body}");
        }
        for body in gone {
            assert!(!is_hit(&gateway, body).await && is_hit(&gateway, body).await, "{wish} {body}");
        }
    }
    assert_eq!(purge(&gateway, r#"{"sever":"stub"}"#).await.0, 400);
    assert_eq!(purge(&gateway, r#"{"method":"nonsense"}"#).await.0, 400);
}

#[tokio::test]
async fn a_reload_keeps_what_was_kept_under_the_same_rules_only() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let gateway = caching(&stub, TOOLS, "").await;
    let _ = rest(&gateway, &list(), &[]).await;
    gateway.load(&yaml(&stub, TOOLS, "rate_limits: { tiers: { default: { rate: 1000/s } } }\n")).await;
    assert!(is_hit(&gateway, &list()).await, "nothing that matters changed");
    let changes = [
        yaml(&stub, "  tools: [ { tool: echo, ttl: 2m } ]\n", ""),
        yaml(&stub, TOOLS, "transform: [ { match: { tool: x }, response: { max_output: 1KiB } } ]\n"),
        yaml(&stub, TOOLS, "roles: { all: [ {} ] }\nauth: { required: false, anonymous: { roles: [all] } }\n"),
    ];
    for changed in changes {
        gateway.load(&changed).await;
        assert!(!is_hit(&gateway, &list()).await && is_hit(&gateway, &list()).await, "{changed}");
    }
}

#[tokio::test]
async fn transformations_apply_to_what_was_kept() {
    let stub = Stub::start().await;
    let transform = "transform: [ { match: { version: v2 }, response: { fields: { rename: { content: output } } } } ]\n";
    let gateway = caching(&stub, TOOLS, transform).await;
    let ask = async |version: &str| {
        let response = http().post(gateway.at(&format!("/api/{version}/mcp/stub"))).json(&call("echo", &json!({}))).send().await;
        told(response.expect("an answer")).await
    };
    assert!(ask("v1").await.0.contains("miss"));
    let (kept, answer) = ask("v2").await;
    assert!(kept.contains("; hit") && answer["result"]["output"][0]["text"] == "{}", "{kept} {answer}");
    assert_eq!((ask("v1").await.1["result"][0]["text"].as_str(), stub.calls()), (Some("{}"), 1));
}

#[tokio::test]
async fn what_is_kept_stays_within_its_bound() {
    let stub = Stub::start().await;
    let gateway = caching(&stub, "  memory: 1MiB\n  max_entry: 64KiB\n  tools: [ { tool: echo, ttl: 1h } ]\n", "").await;
    let limit = 1_u64 << 20;
    let client = http();
    for round in 0..8 {
        let asks = (0..150).map(|i| {
            let text = "x".repeat(50 + (i * 37) % 6000);
            client.post(gateway.at("/api/mcp/stub")).json(&call("echo", &json!({ "round": round, "i": i, "text": text }))).send()
        });
        for answer in futures::future::join_all(asks).await {
            assert_eq!(answer.expect("an answer").status(), 200);
        }
        let bytes = gateway.metric("cache_bytes{tier=\"memory\"}").await;
        assert!(bytes <= limit, "round {round}: {bytes}");
    }
    let page: Value = http().get(format!("{}/admin/cache", gateway.admin)).send().await.expect("an answer").json().await.expect("JSON");
    assert!(page["bytes"].as_u64().is_some_and(|bytes| bytes > limit / 2), "it is used: {page}");
    assert!(gateway.metric("cache_evictions_total").await > 0);
    // One that is longer than any entry may be is passed on whole.
    let long = call("echo", &json!({ "n": 1 }));
    stub.results("tools/call", json!({ "resultType": "complete", "content": [{ "type": "text", "text": "y".repeat(100_000) }] }));
    for _ in 0..2 {
        let (status, answer) = told(rest(&gateway, &long, &[]).await).await;
        assert!(!status.contains("hit") && answer["result"][0]["text"].as_str().is_some_and(|text| text.len() == 100_000), "{status}");
    }
}
