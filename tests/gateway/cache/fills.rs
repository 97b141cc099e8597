//! Who asks, who waits, and what is given when asking is slow or fails.

use std::time::Duration;

use serde_json::json;

use super::{caching, call, list, native, rest, status, told, tools};
use crate::support::stub::{Act, Stub};
use crate::support::{eventually, http};

#[tokio::test]
async fn a_thousand_who_ask_at_once_are_one_request() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let gateway = caching(&stub, "", "").await;
    let before = stub.asked("tools/list");
    stub.hold(true);
    let client = http();
    let ask = |i: u32| {
        let request = client.post(gateway.at("/api/mcp/stub")).json(&list()).header("x-request-id", format!("r{i}"));
        tokio::spawn(async move { request.send().await.expect("an answer") })
    };
    let asking: Vec<_> = (0..1000).map(ask).collect();
    eventually("all of them came in", async || (gateway.metric("open_connections").await >= 1000).then_some(())).await;
    stub.hold(false);
    let mut texts = std::collections::BTreeSet::new();
    for (i, asking) in asking.into_iter().enumerate() {
        let response = asking.await.expect("no panic");
        assert_eq!(response.headers()["x-request-id"], format!("r{i}").as_str());
        let (_, answer) = told(response).await;
        texts.insert(answer["result"][0]["description"].to_string());
    }
    assert_eq!((stub.asked("tools/list") - before, texts.len()), (1, 1));
}

#[tokio::test]
async fn who_leaves_does_not_take_the_answer_with_him() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let gateway = caching(&stub, "", "").await;
    for lane in ["rest", "native"] {
        let before = stub.asked("tools/list");
        stub.hold(true);
        let ask = || {
            let (url, lane) = (gateway.url.clone(), lane.to_owned());
            tokio::spawn(async move {
                let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} } } });
                let request = match lane.as_str() {
                    "rest" => http().post(format!("{url}/api/mcp/stub")).json(&list()),
                    _ => http().post(format!("{url}/mcp/stub")).header("mcp-protocol-version", "2026-07-28").json(&message),
                };
                request.send().await.expect("an answer")
            })
        };
        let first = ask();
        eventually("the first asks", async || (stub.asked("tools/list") > before).then_some(())).await;
        let others: Vec<_> = (0..5).map(|_| ask()).collect();
        // Each has a connection of its own, and the metric one more.
        eventually("others wait", async || (gateway.metric("open_connections").await >= 6).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        first.abort();
        tokio::time::sleep(Duration::from_millis(100)).await;
        stub.hold(false);
        for other in others {
            assert_eq!(other.await.expect("no panic").status(), 200, "{lane}");
        }
        assert_eq!(stub.asked("tools/list") - before, 1, "{lane}: the same request went on");
    }
}

#[tokio::test]
async fn who_asked_and_failed_is_followed_by_others() {
    let stub = Stub::start().await;
    let gateway = caching(&stub, "  tools: [ { tool: echo, ttl: 1m } ]\n", "circuit_breaker: { failure_threshold: 1000 }\n").await;
    stub.act(Act::Status(500));
    stub.hold(true);
    let asking: Vec<_> = (0..10)
        .map(|_| {
            let request = http().post(gateway.at("/api/mcp/stub")).json(&call("echo", &json!({})));
            tokio::spawn(async move { request.send().await.expect("an answer").status().as_u16() })
        })
        .collect();
    eventually("one asks", async || (stub.waiting() == 1).then_some(())).await;
    stub.hold(false);
    for asking in asking {
        assert_eq!(asking.await.expect("no panic"), 502);
    }
    stub.act(Act::Echo);
    assert_eq!(status(&rest(&gateway, &call("echo", &json!({})), &[]).await), "mcp-gateway; fwd=miss; stored");
}

#[tokio::test]
async fn what_is_past_its_time_is_given_while_it_is_renewed() {
    let stub = Stub::start().await;
    let brief =
        json!({ "resultType": "complete", "ttlMs": 200, "cacheScope": "public", "tools": [{ "name": "echo", "description": "$N" }] });
    stub.results("tools/list", brief);
    let gateway = caching(&stub, "  stale: { while_revalidate: 1m, if_error: 0 }\n", "").await;
    for lane in ["rest", "native"] {
        let ask = async || match lane {
            "rest" => rest(&gateway, &list(), &[]).await,
            _ => native(&gateway, &json!(1), "tools/list", json!({}), &[]).await,
        };
        let text = |answer: &serde_json::Value| {
            let tools = if lane == "rest" { &answer["result"] } else { &answer["result"]["tools"] };
            tools[0]["description"].as_str().expect("text").to_owned()
        };
        let first = text(&told(ask().await).await.1);
        tokio::time::sleep(Duration::from_millis(250)).await;
        let before = stub.asked("tools/list");
        let (stale, answer) = told(ask().await).await;
        assert_eq!((stale.as_str(), text(&answer)), ("mcp-gateway; hit; ttl=-1; detail=stale", first.clone()), "{lane}");
        eventually("it is renewed", async || (stub.asked("tools/list") == before + 1).then_some(())).await;
        eventually("and given", async || (text(&told(ask().await).await.1) != first).then_some(())).await;
    }
    assert!(gateway.metric("cache_requests_total{result=\"stale\",server=\"stub\",tier=\"memory\"}").await >= 2);
}

#[tokio::test]
async fn what_is_past_its_time_stands_in_for_a_failure_within_bounds() {
    let stub = Stub::start().await;
    let gateway = caching(&stub, "  tools: [ { tool: echo, ttl: 200ms } ]\n  stale: { while_revalidate: 0, if_error: 1s }\n", "").await;
    for lane in ["rest", "native"] {
        stub.act(Act::Echo);
        let ask = async || match lane {
            "rest" => rest(&gateway, &call("echo", &json!({})), &[]).await,
            _ => native(&gateway, &json!(1), "tools/call", json!({ "name": "echo", "arguments": {} }), &[("mcp-name", "echo")]).await,
        };
        assert_eq!(status(&ask().await), "mcp-gateway; fwd=miss; stored", "{lane}");
        tokio::time::sleep(Duration::from_millis(250)).await;
        stub.act(Act::Status(500));
        let before = stub.calls();
        let (stale, _) = told(ask().await).await;
        assert!(stale.ends_with("detail=stale") && stub.calls() == before + 1, "{lane} {stale}");
        // A refusal of the server's own is the answer.
        stub.act(Act::Say("error", json!({ "code": -32602, "message": "no" })));
        assert!(!status(&ask().await).contains("hit"), "{lane}");
        stub.act(Act::Status(500));
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert!(ask().await.status().is_server_error(), "{lane}: not forever");
    }
}
