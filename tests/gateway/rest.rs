//! The REST form: translation, refusals, batches, one upstream request for each call.

use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http;
use crate::support::stub::{Act, Stub};

/// One request to the v2 form.
pub async fn v2(gateway: &Gateway, server: &str, body: Value) -> (u16, Value) {
    let response = http().post(gateway.at(&format!("/api/v2/mcp/{server}"))).json(&body).send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

async fn stubbed() -> (Stub, Gateway) {
    let stub = Stub::start().await;
    let gateway = Gateway::with(&stub.backend("one", ", health_check: {path: /health, interval: 10m}, timeout: 1s")).await;
    gateway.knows("stub").await;
    (stub, gateway)
}

fn call(arguments: Value) -> Value {
    json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": arguments } })
}

#[tokio::test]
async fn a_call_is_exactly_one_upstream_request() {
    let (stub, gateway) = stubbed().await;
    let before = stub.posts();
    for i in 0..100 {
        let answer = gateway.call("stub", "echo", json!({ "i": i })).await;
        assert_eq!(answer["result"][0]["text"], json!(format!("{{\"i\":{i}}}")));
    }
    assert_eq!(stub.posts() - before, 100);
}

#[tokio::test]
async fn upstream_sees_our_identity_and_none_of_the_clients_credentials() {
    let (stub, gateway) = stubbed().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = http().post(gateway.at("/api/mcp/stub")).json(&call(json!({})));
    let request = request.header("authorization", "Bearer client").header("cookie", "a=b").header("x-api-key", "k");
    let request = request.header("x-request-id", "abc-1").header("traceparent", parent);
    let response = request.send().await.expect("an answer");
    assert_eq!(response.headers()["x-request-id"], "abc-1");
    let seen = stub.headers();
    assert!(["authorization", "cookie", "x-api-key", "origin"].iter().all(|name| !seen.contains_key(*name)), "{seen:?}");
    assert_eq!(seen["x-request-id"], "abc-1");
    assert_eq!(seen["mcp-method"], "tools/call");
    assert_eq!(seen["mcp-name"], "echo");
    let trace = seen["traceparent"].to_str().expect("text");
    assert!(trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && trace != parent, "{trace}");
}

#[tokio::test]
async fn what_the_caller_got_wrong_is_named_and_never_sent() {
    let (stub, gateway) = stubbed().await;
    let before = stub.posts();
    for (body, status, code) in [
        (json!({}), 400, "invalid_request"),
        (json!([]), 400, "invalid_request"),
        (json!({ "method": "ping", "params": ["positional"] }), 400, "invalid_request"),
        (json!({ "method": "call_tool" }), 400, "invalid_params"),
        (json!({ "method": "no_such" }), 404, "unknown_method"),
        (json!({ "method": "read_resource", "params": {} }), 400, "invalid_params"),
    ] {
        let (got, problem) = gateway.rest("stub", body.clone()).await;
        assert_eq!(
            (got, problem["code"].as_str(), problem["status"].as_u64()),
            (status, Some(code), Some(u64::from(status))),
            "{body}: {problem}"
        );
        assert!(problem["request_id"].as_str().is_some_and(|id| !id.is_empty()));
    }
    let (status, problem) = gateway.rest("nowhere", call(json!({}))).await;
    assert_eq!((status, &problem["code"]), (404, &json!("unknown_server")));
    let plain = http().post(gateway.at("/api/mcp/stub")).header("content-type", "text/plain").body("{}").send().await.expect("an answer");
    assert_eq!((plain.status().as_u16(), plain.headers()["content-type"].as_bytes()), (415, &b"application/problem+json"[..]));
    let zipped = http().post(gateway.at("/api/mcp/stub")).header("content-type", "application/json").header("content-encoding", "gzip");
    assert_eq!(zipped.body("{}").send().await.expect("an answer").status(), 415);
    assert_eq!(http().get(gateway.at("/api/mcp/stub")).send().await.expect("an answer").status(), 405);
    assert_eq!(http().post(gateway.at("/api/v9/mcp/stub")).send().await.expect("an answer").status(), 404);
    assert_eq!(stub.posts(), before);
}

#[tokio::test]
async fn a_backends_failure_has_its_status_and_is_never_repeated() {
    let (stub, gateway) = stubbed().await;
    for (act, status, code) in [
        (Act::Status(500), 502, "backend_failed"),
        (Act::Status(401), 502, "backend_refused"),
        (
            Act::Body(400, json!({ "jsonrpc": "2.0", "error": { "code": -32602, "message": "bad session argument" } })),
            400,
            "invalid_params",
        ),
        (Act::Hangup, 502, "backend_failed"),
        (Act::Hang, 504, "backend_timeout"),
        (Act::Stall, 504, "backend_timeout"),
        (Act::Say("error", json!({ "code": -32602, "message": "bad argument" })), 400, "invalid_params"),
        (Act::Say("error", json!({ "code": -32601, "message": "no" })), 404, "unknown_method"),
        (Act::Say("error", json!({ "code": 7, "message": "own" })), 502, "server_error"),
        (Act::Say("result", json!({ "resultType": "input_required", "inputRequests": {} })), 422, "input_required"),
        (Act::Say("nonsense", json!(1)), 502, "backend_failed"),
    ] {
        let before = stub.calls();
        stub.act(act);
        let (got, problem) = gateway.rest("stub", call(json!({}))).await;
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{problem}");
        assert_eq!(stub.calls() - before, 1, "{code}: a call is sent once");
        assert!(!problem.to_string().contains("127.0.0.1"), "no address of a backend in {problem}");
    }
}

#[tokio::test]
async fn unknown_members_of_results_survive() {
    let (stub, gateway) = stubbed().await;
    stub.act(Act::Say("result", json!({ "content": [{ "type": "future", "x": [1, { "y": null }] }], "future": { "z": 1 }, "_meta": { "m": 1 }, "resultType": "complete" })));
    let answer = gateway.call("stub", "echo", json!({})).await;
    assert_eq!(answer["result"], json!([{ "type": "future", "x": [1, { "y": null }] }]));
    assert_eq!((&answer["future"], &answer["_meta"]), (&json!({ "z": 1 }), &json!({ "m": 1 })));
    let (_, whole) = v2(&gateway, "stub", call(json!({}))).await;
    assert_eq!(whole["result"]["future"], json!({ "z": 1 }));
}

#[tokio::test]
async fn a_batch_is_answered_in_order_each_element_on_its_own() {
    let (stub, gateway) = stubbed().await;
    let before = stub.calls();
    let mut batch: Vec<Value> = (0..20).map(|i| call(json!({ "i": i }))).collect();
    batch[7] = json!({ "method": "nope" });
    let (status, answers) = gateway.rest("stub", json!(batch)).await;
    assert_eq!(status, 200);
    for (i, answer) in answers.as_array().expect("an array").iter().enumerate() {
        if i == 7 {
            assert_eq!(answer["code"], "unknown_method");
        } else {
            assert_eq!(answer["result"][0]["text"], json!(format!("{{\"i\":{i}}}")));
        }
    }
    assert_eq!((answers.as_array().map(Vec::len), stub.calls() - before), (Some(20), 19));
    assert_eq!(gateway.metric(r#"mcp_requests_total{method="tools/call",outcome="ok",server="stub",tool="echo"}"#).await, 19);
}

#[tokio::test]
async fn a_client_that_leaves_is_not_worked_for() {
    let (stub, gateway) = stubbed().await;
    stub.act(Act::Hang);
    let url = gateway.at("/api/mcp/stub");
    let asking = tokio::spawn(async move { http().post(url).json(&call(json!({}))).send().await.map(|response| response.status()) });
    crate::support::eventually("the call hangs", async || (stub.waiting() == 1).then_some(())).await;
    asking.abort();
    crate::support::eventually("the upstream request is dropped", async || (stub.waiting() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_large_object_is_read_in_reasonable_time_and_arrays_are_no_requests() {
    // With time enough for a stub on a busy machine: what is asked here is that ours does not grow by the square.
    let stub = Stub::start().await;
    let gateway = Gateway::with(&stub.backend("one", "")).await;
    let members: Vec<String> = (0..200_000).map(|i| format!("\"m{i}\":1")).collect();
    let body = format!(r#"{{"method":"ping","params":{{{}}}}}"#, members.join(","));
    let sent = http().post(gateway.at("/api/mcp/stub")).header("content-type", "application/json").body(body);
    let answered = tokio::time::timeout(std::time::Duration::from_secs(20), sent.send()).await.expect("in time");
    assert_eq!(answered.expect("an answer").status(), 404, "the stub knows no ping");
    let before = stub.calls();
    let (_, answers) = gateway.rest("stub", json!([["call_tool", { "tool_name": "echo" }]])).await;
    assert_eq!((answers[0]["code"].as_str(), stub.calls()), (Some("invalid_request"), before));
}

#[tokio::test]
async fn tools_outside_the_catalogue_share_one_series() {
    let (_stub, gateway) = stubbed().await;
    for i in 0..5 {
        gateway.rest("stub", json!({ "method": "call_tool", "params": { "tool_name": format!("made-up-{i}") } })).await;
    }
    let text = http().get(gateway.at("/metrics")).send().await.expect("metrics").text().await.expect("text");
    assert!(!text.contains("made-up") && text.contains(r#"tool="other""#), "{text}");
}

/// Middleware speaks the REST form itself.
#[tokio::test]
async fn a_middleware_backend_gets_the_rest_form_and_its_envelope_is_ours() {
    use axum::routing::{get, post};
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::<Value>::new()));
    let keep = std::sync::Arc::clone(&seen);
    let answer = move |axum::Json(body): axum::Json<Value>| {
        keep.lock().expect("no panic while held").push(body);
        async { axum::Json(json!({ "result": [{ "rows": 3 }], "backend": "theirs", "response_time": 9.0, "cached": true, "extra": 1 })) }
    };
    let servers = || async { axum::Json(json!({ "servers": [{ "name": "database", "tools_count": 4 }] })) };
    let router = axum::Router::new()
        .route("/api/mcp/database", post(answer))
        .route("/api/servers", get(servers))
        .route("/health", get(|| async { "ok" }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let task = tokio::spawn(async move { axum::serve(listener, router).await });
    let gateway = Gateway::with(&format!("  - {{ name: mw, url: \"{url}\" }}\n")).await;
    gateway.knows("database").await;
    let answer = gateway.call("database", "query", json!({ "sql": "select 1" })).await;
    assert_eq!(
        (&answer["result"], &answer["backend"], &answer["cached"], &answer["extra"]),
        (&json!([{ "rows": 3 }]), &json!("mw"), &json!(false), &json!(1))
    );
    let sent = seen.lock().expect("no panic while held").clone();
    assert_eq!(sent, [json!({ "method": "call_tool", "params": { "tool_name": "query", "arguments": { "sql": "select 1" } } })]);
    let native = http()
        .post(gateway.at("/mcp/database"))
        .json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }))
        .send()
        .await
        .expect("an answer");
    assert_eq!(native.status(), 404);
    task.abort();
}
