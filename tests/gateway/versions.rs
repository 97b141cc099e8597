//! Versions of the REST API: forms, what their callers are told of their end, backends of their own.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::stub::Stub;

async fn versioned() -> (Stub, Stub, Gateway) {
    let (old, new) = (Stub::start().await, Stub::start().await);
    let check = ", health_check: {path: /health, interval: 10m}";
    let yaml = format!(
        "{}backends:\n{}{}versions:\n\
         \x20 v1: {{ deprecated: 2026-01-01, sunset: 2027-06-30, docs: https://docs.example.com/v2, backends: [old] }}\n\
         \x20 2025-beta: {{ form: v2, deprecated: true, backends: {{ shard: new }}, transform: [ {{ request: {{ params: {{ set: {{ arguments.beta: true }} }} }} }} ] }}\n\
         routes: [ {{ when: 'version == \"2025-beta\" && has(arguments.old)', backends: [old] }}, {{ when: 'has(arguments.slow)', timeout: 50s }} ]\n",
        server(""),
        old.backend("old", check),
        new.backend("new", &format!("{check}, shard: new"))
    );
    let gateway = Gateway::start(&yaml).await;
    gateway.knows("stub").await;
    (old, new, gateway)
}

fn call(arguments: Value) -> Value {
    json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": arguments } })
}

async fn ask(gateway: &Gateway, path: &str, body: &Value) -> (http::HeaderMap, u16, Value) {
    let answer = http().post(gateway.at(path)).json(body).send().await.expect("an answer");
    let (headers, status) = (answer.headers().clone(), answer.status().as_u16());
    (headers, status, answer.json().await.expect("JSON"))
}

#[tokio::test]
async fn a_deprecated_version_says_so_on_every_answer() {
    let (_old, _new, gateway) = versioned().await;
    let told = |headers: &http::HeaderMap, name: &str| {
        headers.get_all(name).iter().map(|value| value.to_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    for (path, body) in [("/api/mcp/stub", call(json!({}))), ("/api/v1/mcp/stub", json!({})), ("/api/v1/mcp/nowhere", json!({}))] {
        let (headers, ..) = ask(&gateway, path, &body).await;
        assert_eq!(
            (told(&headers, "deprecation"), told(&headers, "sunset")),
            (vec!["@1767225600".into()], vec!["Wed, 30 Jun 2027 00:00:00 GMT".into()]),
            "{path}"
        );
        let links = ["deprecation", "sunset"].map(|rel| format!("<https://docs.example.com/v2>; rel=\"{rel}\"; type=\"text/html\""));
        assert_eq!(told(&headers, "link"), links, "{path}");
    }
    let (headers, ..) = ask(&gateway, "/api/v2/mcp/stub", &call(json!({}))).await;
    assert!(["deprecation", "sunset", "link"].iter().all(|name| !headers.contains_key(*name)));
    let (headers, ..) = ask(&gateway, "/api/2025-beta/mcp/stub", &call(json!({}))).await;
    assert_eq!((told(&headers, "deprecation"), headers.contains_key("sunset")), (vec!["@0".to_owned()], false));
    let events = http()
        .post(gateway.at("/api/mcp/stub"))
        .header("accept", "text/event-stream")
        .json(&call(json!({})))
        .send()
        .await
        .expect("an answer");
    assert_eq!(told(events.headers(), "deprecation"), ["@1767225600"]);
}

#[tokio::test]
async fn a_version_has_its_form_its_backends_and_its_changes() {
    let (old, new, gateway) = versioned().await;
    let (_, status, answer) = ask(&gateway, "/api/2025-beta/mcp/stub", &call(json!({}))).await;
    assert_eq!((status, &answer["result"]["content"][0]["text"], &answer["backend"]), (200, &json!(r#"{"beta":true}"#), &json!("new")));
    let (_, _, answer) = ask(&gateway, "/api/v1/mcp/stub", &call(json!({}))).await;
    assert_eq!((&answer["result"][0]["text"], &answer["backend"]), (&json!("{}"), &json!("old")));
    let (_, _, answer) = ask(&gateway, "/api/2025-beta/mcp/stub", &call(json!({ "old": 1 }))).await;
    assert_eq!(answer["backend"], "old", "a route that matches says otherwise");
    for _ in 0..4 {
        let (_, _, answer) = ask(&gateway, "/api/2025-beta/mcp/stub", &call(json!({ "slow": 1 }))).await;
        assert_eq!(answer["backend"], "new", "unless it names no backends");
    }
    assert_eq!((old.calls(), new.calls()), (2, 5));
    let series = r#"http_requests_total{method="POST",route="/api/{version}/mcp/{server}",status="200"}"#;
    assert_eq!(gateway.metric(series).await, 6);
}

#[tokio::test]
async fn an_unknown_version_is_not_found_and_the_documentation_has_the_known_ones() {
    let (_old, _new, gateway) = versioned().await;
    let (_, status, problem) = ask(&gateway, "/api/v9/mcp/stub", &call(json!({}))).await;
    assert_eq!((status, &problem["code"]), (404, &json!("not_found")));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("v1, v2, 2025-beta")), "{problem}");
    assert_eq!(
        gateway.metric(r#"http_requests_total{method="POST",route="other",status="404"}"#).await,
        1,
        "no label of the client's making"
    );
    let document: Value = http().get(gateway.at("/openapi.json")).send().await.expect("an answer").json().await.expect("JSON");
    let deprecated = |path: &str| document["paths"][path]["post"]["deprecated"] == true;
    assert!(deprecated("/api/mcp/{server}") && deprecated("/api/2025-beta/mcp/{server}") && !deprecated("/api/v2/mcp/{server}"));
}
