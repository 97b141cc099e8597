//! Answers that are one caller's: by rule, by the token a backend was asked with, by the session they were given in.

use serde_json::{Value, json};

use super::{call, list, rest, status, tools, yaml};
use crate::behalf::{Exchange, jwt, token};
use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::part::Server;
use crate::support::stub::Stub;

async fn is_hit(gateway: &Gateway, body: &Value, subject: &str) -> bool {
    let bearer = format!("Bearer {}", token(subject));
    let response = rest(gateway, body, &[("authorization", &bearer)]).await;
    assert_eq!(response.status(), 200);
    status(&response).contains("; hit")
}

#[tokio::test]
async fn what_varies_by_subject_is_shared_by_nobody() {
    let stub = Stub::start().await;
    let rules = "  tools: [ { tool: echo, ttl: 1m, vary_by: subject }, { tool: regional, ttl: 1m } ]\n";
    let gateway = Gateway::start(&yaml(&stub, rules, &format!("auth: {{ {} }}\n", jwt()))).await;
    let (own, shared) = (call("echo", &json!({})), call("regional", &json!({ "region": "eu" })));
    for subject in ["ann", "bob"] {
        assert!(!is_hit(&gateway, &own, subject).await, "{subject} is given another's");
        assert!(is_hit(&gateway, &own, subject).await, "{subject} is not given their own");
    }
    assert!(!is_hit(&gateway, &shared, "ann").await && is_hit(&gateway, &shared, "bob").await, "the control is shared");
}

#[tokio::test]
async fn what_was_asked_with_a_token_of_the_callers_own_is_theirs_alone_though_called_public() {
    let (stub, exchange) = (Stub::start().await, Exchange::start().await);
    stub.results("tools/list", tools("public"));
    let backends = format!("{}backends:\n{}", server(""), stub.backend("one", &exchange.credential()));
    let gateway = Gateway::start(&format!("{backends}cache: {{ enabled: true }}\nauth: {{ {} }}\n", jwt())).await;
    for subject in ["ann", "bob"] {
        assert!(!is_hit(&gateway, &list(), subject).await && is_hit(&gateway, &list(), subject).await, "{subject}");
    }
}

/// Opens a session and asks for the tools in it twice: what the cache had to do with it.
async fn in_session(gateway: &Gateway) -> Vec<String> {
    let client = http();
    let post = |session: Option<&str>, body: Value| {
        let request = client.post(gateway.at("/mcp/everything")).header("accept", "application/json, text/event-stream").json(&body);
        let request = request.header("mcp-protocol-version", "2025-11-25");
        session.iter().fold(request, |request, session| request.header("mcp-session-id", *session)).send()
    };
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let opened = post(None, json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params })).await.expect("an answer");
    let session = opened.headers()["mcp-session-id"].to_str().expect("text").to_owned();
    let _ = opened.text().await;
    let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_eq!(post(Some(&session), ready).await.expect("an answer").status(), 202);
    let mut told = Vec::new();
    for id in 1..=2 {
        let asked = post(Some(&session), json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list" })).await.expect("an answer");
        told.push(status(&asked));
        let text = asked.text().await.expect("text");
        assert!(text.contains("\"echo\"") && text.contains(&format!("\"id\":{id}")), "{text}");
    }
    told
}

#[tokio::test]
async fn what_was_answered_in_a_session_is_kept_only_where_the_operator_says_it_may() {
    let everything = Server::everything().await;
    let backend = format!("  - {{ name: one, url: \"{}\", protocol: mcp, capabilities: [everything] }}\n", everything.url);
    for (sessions, first, others) in
        [(false, "fwd=bypass; detail=session", "fwd=bypass; detail=session"), (true, "fwd=miss; stored", "hit; ttl=")]
    {
        let cache = format!("cache: {{ enabled: true, sessions: {sessions} }}\n");
        let gateway = Gateway::start(&format!("{}backends:\n{backend}{cache}", server(""))).await;
        gateway.knows("everything").await;
        let told = [in_session(&gateway).await, in_session(&gateway).await].concat();
        assert!(told[0].ends_with(first), "{told:?}");
        assert!(told[1..].iter().all(|told| told.contains(others)), "{told:?}");
    }
}

/// Reads by two callers of one tenant, and an anonymous one: what the cache had to do with each.
async fn reads(gateway: &Gateway) -> Vec<bool> {
    let mut hits = Vec::new();
    for subject in ["ann", "bob"] {
        hits.push(is_hit(gateway, &super::read("a:b"), subject).await);
    }
    let anonymous = rest(gateway, &super::read("a:b"), &[]).await;
    assert_eq!(anonymous.status(), 200);
    hits.push(status(&anonymous).contains("; hit"));
    hits
}

#[tokio::test]
async fn what_a_legacy_server_reads_to_the_anonymous_is_read_to_nobody_else() {
    let stub = Stub::start().await;
    stub.results("resources/read", json!({ "contents": [{ "uri": "a:b", "text": "$N" }] }));
    let auth = format!("auth: {{ required: false, {} }}\n", jwt());
    let gateway = Gateway::start(&yaml(&stub, "", &auth).replace("era: modern", "era: legacy")).await;
    let _ = rest(&gateway, &super::read("a:b"), &[]).await;
    assert_eq!(reads(&gateway).await, [false, false, false]);
    assert_eq!(reads(&gateway).await, [true, true, false], "each their own");
    // The control: a rule says that it may be shared.
    let rule = "  methods: [ { method: resources/read, ttl: 1m } ]\n";
    let gateway = Gateway::start(&yaml(&stub, rule, &auth).replace("era: modern", "era: legacy")).await;
    let _ = rest(&gateway, &super::read("a:b"), &[]).await;
    assert_eq!(reads(&gateway).await, [true, true, true]);
}
