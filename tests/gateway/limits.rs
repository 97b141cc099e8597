//! How often and how much: what a caller is told, what the counts are kept by, and that replicas on one Redis admit no
//! more together than one would alone.

mod overload;
mod replicas;
mod ways_around;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::stub::{Act, Stub};

/// A gateway before a stub, with these `rate_limits`.
async fn limited(stub: &Stub, limits: &str) -> Gateway {
    let yaml = format!("{}backends:\n{}rate_limits:\n{limits}", server("  validate_arguments: false\n"), stub.backend("one", ""));
    let gateway = Gateway::start(&yaml).await;
    gateway.knows("stub").await;
    gateway
}

fn call() -> Value {
    json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": {} } })
}

async fn send(gateway: &Gateway, headers: &[(&str, &str)]) -> reqwest::Response {
    let request = http().post(gateway.at("/api/mcp/stub")).json(&call());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    request.send().await.expect("an answer")
}

/// How many of `count` calls one after the other are admitted.
async fn admitted(gateway: &Gateway, count: usize, headers: &[(&str, &str)]) -> usize {
    let mut admitted = 0;
    for _ in 0..count {
        admitted += usize::from(send(gateway, headers).await.status() == 200);
    }
    admitted
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back_and_nothing_is_sent() {
    let stub = Stub::start().await;
    let gateway = limited(&stub, "  rules: [ { name: slow, rate: 2/hour, match: { tool: echo } } ]\n").await;
    let first = send(&gateway, &[]).await;
    assert_eq!(first.headers()["ratelimit-policy"], "\"slow\";q=2;w=3600");
    assert_eq!(first.headers()["ratelimit"], "\"slow\";r=1;t=1800");
    assert_eq!(admitted(&gateway, 5, &[]).await, 1);
    let refused = send(&gateway, &[]).await;
    let header = |name: &str| refused.headers()[name].to_str().expect("text").to_owned();
    let wait: u64 = header("retry-after").parse().expect("seconds");
    assert!((1_700..=1_800).contains(&wait), "{wait}");
    assert_eq!((refused.status().as_u16(), header("ratelimit-policy").as_str()), (429, "\"slow\";q=2;w=3600"));
    assert!(header("ratelimit").starts_with("\"slow\";r=0;t="));
    let problem: Value = refused.json().await.expect("JSON");
    assert_eq!((&problem["code"], &problem["status"]), (&json!("rate_limited"), &json!(429)));
    assert_eq!(stub.calls(), 2);
    // Lists are not what the rule is for.
    assert_eq!(gateway.rest("stub", json!({ "method": "list_tools" })).await.0, 200);
    let decisions = async |decision| gateway.metric(&format!("rate_limit_decisions_total{{decision=\"{decision}\",rule=\"slow\"}}")).await;
    assert_eq!((decisions("admitted").await, decisions("refused").await), (2, 5));
}

#[tokio::test]
async fn a_native_caller_gets_a_json_rpc_error_with_its_own_id() {
    let stub = Stub::start().await;
    let gateway = limited(&stub, "  rules: [ { rate: 1/hour, match: { method: tools/call } } ]\n").await;
    let message = json!({ "jsonrpc": "2.0", "id": "mine", "method": "tools/call", "params": { "name": "echo", "arguments": {}, "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} } } });
    let send = async || {
        let request = http().post(gateway.at("/mcp/stub")).header("mcp-protocol-version", "2026-07-28");
        let request =
            request.header("mcp-method", "tools/call").header("mcp-name", "echo").header("accept", "application/json, text/event-stream");
        request.json(&message).send().await.expect("an answer")
    };
    let first = send().await;
    assert_eq!((first.status().as_u16(), first.headers()["ratelimit"].to_str().unwrap()), (200, "\"rule-1\";r=0;t=3600"));
    let refused = send().await;
    assert_eq!((refused.status().as_u16(), refused.headers().contains_key("retry-after")), (429, true));
    let error: Value = refused.json().await.expect("JSON");
    assert_eq!(
        (&error["id"], &error["error"]["code"], &error["error"]["data"]["code"]),
        (&json!("mine"), &json!(-31429), &json!("rate_limited"))
    );
    assert!(error["error"]["data"]["retry_after"].as_u64().is_some_and(|wait| wait > 3_500), "{error}");
}

#[tokio::test]
async fn counts_are_apart_by_what_the_rule_says() {
    let stub = Stub::start().await;
    let gateway = limited(&stub, "  rules: [ { by: [header:X-Project, tool], rate: 3/hour } ]\n").await;
    for project in ["a", "b"] {
        assert_eq!(admitted(&gateway, 5, &[("x-project", project)]).await, 3, "{project}");
    }
    assert_eq!(admitted(&gateway, 5, &[]).await, 3, "without the header is a count of its own");
    assert_eq!(gateway.rest("stub", json!({ "method": "list_tools" })).await.0, 200, "and so is what is no tool");
}

#[tokio::test]
async fn tiers_are_limits_of_each_caller_and_of_nobody_else() {
    let stub = Stub::start().await;
    let key = |id: &str, secret: &str, tier: &str| {
        let hash = mcp_gateway::digest::hex(&mcp_gateway::digest::sha256(secret.as_bytes()));
        format!("      - {{ id: {id}, hash: \"sha256:{hash}\"{tier} }}\n")
    };
    let keys =
        [key("ann", "a", ", tier: free"), key("bob", "b", ", tier: free"), key("cat", "c", ", tier: gold"), key("dan", "d", "")].concat();
    let limits = "  tiers: { free: { rate: 2/hour }, gold: { rate: 5/hour, burst: 4 }, default: { rate: 1/hour } }\n";
    let yaml = format!("{}backends:\n{}auth:\n  api_keys:\n    keys:\n{keys}rate_limits:\n{limits}", server(""), stub.backend("one", ""));
    let gateway = Gateway::start(&yaml).await;
    for (secret, most) in [("a", 2), ("b", 2), ("c", 4), ("d", 1)] {
        assert_eq!(admitted(&gateway, 6, &[("x-api-key", secret)]).await, most, "{secret}");
    }
}

#[tokio::test]
async fn quotas_costs_and_several_rules_hold_together() {
    let stub = Stub::start().await;
    // The second rule refuses after two; what the first took for the refused ones comes back.
    let limits = "  rules:\n    - { name: wide, rate: 30/hour }\n    - { name: daily, quota: 20/day, match: { tool: echo } }\n  costs: [ { tool: ech*, cost: 10 } ]\n";
    let gateway = limited(&stub, limits).await;
    assert_eq!(admitted(&gateway, 6, &[]).await, 2, "20 a day, 10 each");
    let list = async || gateway.rest("stub", json!({ "method": "list_tools" })).await.0;
    for i in 0..10 {
        assert_eq!(list().await, 200, "{i}: refused calls took nothing of the wide rule");
    }
    assert_eq!(list().await, 429, "30 in all");
}

#[tokio::test]
async fn at_the_same_time_no_more_than_the_rule_allows() {
    let stub = Stub::start().await;
    let gateway = limited(&stub, "  rules: [ { name: few, concurrency: 2, match: { tool: echo } } ]\n").await;
    stub.act(Act::Hang);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let url = gateway.at("/api/mcp/stub");
            tokio::spawn(async move { http().post(url).json(&call()).send().await })
        })
        .collect();
    eventually("both are under way", async || (stub.waiting() == 2).then_some(())).await;
    let refused = send(&gateway, &[]).await;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    assert_eq!(gateway.rest("stub", json!({ "method": "list_tools" })).await.0, 200);
    // One leaves, and its place is free.
    stub.act(Act::Echo);
    waiting[0].abort();
    eventually("its place is free", async || (send(&gateway, &[]).await.status() == 200).then_some(())).await;
    waiting[1].abort();
}

#[tokio::test]
async fn each_element_of_a_batch_is_counted_and_stands_alone() {
    let stub = Stub::start().await;
    let gateway = limited(&stub, "  rules: [ { rate: 3/hour, match: { tool: echo } } ]\n").await;
    let (status, answers) = gateway.rest("stub", json!([call(), { "method": "list_tools" }, call(), call(), call(), call()])).await;
    assert_eq!(status, 200);
    let codes: Vec<_> =
        answers.as_array().expect("an array").iter().map(|answer| answer["code"].as_str().unwrap_or("ok").to_owned()).collect();
    assert_eq!(codes, ["ok", "ok", "ok", "ok", "rate_limited", "rate_limited"]);
    assert_eq!(stub.calls(), 3);
}

#[tokio::test]
async fn a_reload_keeps_counts_and_a_changed_rule_begins_anew() {
    let stub = Stub::start().await;
    let yaml = |limits: &str| format!("{}backends:\n{}rate_limits:\n{limits}", server(""), stub.backend("one", ""));
    let gateway = Gateway::start(&yaml("  rules: [ { name: r, rate: 2/hour } ]\n")).await;
    assert_eq!(admitted(&gateway, 3, &[]).await, 2);
    gateway.load(&yaml("  rules: [ { name: r, rate: 2/hour }, { name: more, rate: 99/hour } ]\n")).await;
    assert_eq!(admitted(&gateway, 1, &[]).await, 0);
    gateway.load(&yaml("  rules: [ { name: r, rate: 3/hour } ]\n")).await;
    assert_eq!(admitted(&gateway, 5, &[]).await, 3);
}

#[tokio::test]
async fn the_environment_alone_limits_each_caller() {
    let stub = Stub::start().await;
    let mut command = crate::support::gateway::command();
    command.env("RATE_LIMIT_REQUESTS_PER_MINUTE", "3");
    let gateway = Gateway::start_by(command, &format!("{}backends:\n{}", server(""), stub.backend("one", ""))).await;
    gateway.ready().await;
    // A few seconds may give one back.
    let admitted = admitted(&gateway, 6, &[]).await;
    assert!((3..=4).contains(&admitted), "{admitted}");
}
