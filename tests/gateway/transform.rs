//! What operators change of requests and answers, in both lanes, and that what is judged is what is sent.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::part::{Client, Server, scenario};
use crate::support::stub::{Act, Stub};

const MODERN: &str = "2026-07-28";

async fn with(more: &str) -> (Stub, Gateway) {
    let stub = Stub::start().await;
    let check = ", health_check: {path: /health, interval: 10m}";
    let gateway = Gateway::start(&format!("{}backends:\n{}{more}", server(""), stub.backend("one", check))).await;
    gateway.knows("stub").await;
    (stub, gateway)
}

fn rest(tool: &str, arguments: Value) -> Value {
    json!({ "method": "call_tool", "params": { "tool_name": tool, "arguments": arguments } })
}

fn native(gateway: &Gateway, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
    let request = http().post(gateway.at("/mcp/stub")).header("content-type", "application/json").body(body);
    request.header("accept", "application/json, text/event-stream")
}

async fn json_of(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// The params the stub saw last, without what every modern request carries.
fn seen(stub: &Stub) -> Value {
    let mut params = serde_json::from_str::<Value>(&stub.body()).expect("JSON")["params"].clone();
    params.as_object_mut().expect("an object").remove("_meta");
    params
}

const REQUESTS: &str = "transform:\n\
    \x20 - match: { server: 'st*', tool: echo }\n\
    \x20   request:\n\
    \x20     params: { remove: [arguments.secret], rename: { arguments.max: limit }, default: { arguments.limit: 10 }, set: { arguments.deep.flag: [1.50, { a: null }] } }\n\
    \x20     headers: { set: { x-team: red, accept-language: de }, remove: [baggage] }\n";

#[tokio::test]
async fn params_and_headers_are_changed_in_both_lanes_and_the_rest_keeps_its_bytes() {
    let (stub, gateway) = with(REQUESTS).await;
    gateway.call("stub", "echo", json!({ "secret": 1, "max": 5, "keep": "é" })).await;
    let expected = json!({ "name": "echo", "arguments": { "limit": 5, "keep": "é", "deep": { "flag": [1.5, { "a": null }] } } });
    assert_eq!((seen(&stub), stub.headers()["x-team"].to_str().ok()), (expected, Some("red")));
    let body = r#"{ "jsonrpc":"2.0", "id":"a\u0062", "method":"tools/call","params":{"name":"echo","arguments":{"n": 1.500e0,"s":"\u00e9","deep":{"x":1E2}}}}"#;
    let sent = native(&gateway, body).header("accept-language", "fr").header("baggage", "k=v").header("tracestate", "t=1");
    let (_, answer) = json_of(sent).await;
    assert_eq!(answer["id"], "ab");
    let kept = r#"{"jsonrpc":"2.0","id":"a\u0062","method":"tools/call","params":{"name":"echo","arguments":{"n":1.500e0,"s":"\u00e9","deep":{"x":1E2,"flag":[1.5,{"a":null}]},"limit":10}}}"#;
    assert_eq!(stub.body(), kept);
    let headers = stub.headers();
    assert_eq!(headers.get_all("accept-language").iter().collect::<Vec<_>>(), ["de"]);
    assert!(headers["x-team"] == "red" && headers["tracestate"] == "t=1" && !headers.contains_key("baggage"), "{headers:?}");
    let other = r#"{ "jsonrpc":"2.0", "id":1, "method":"tools/call", "params":{"name":"regional","arguments":{"secret":  1}}}"#;
    native(&gateway, other).send().await.expect("an answer");
    assert_eq!((stub.body().as_str(), stub.headers().contains_key("x-team")), (other, false), "whom no rule is about keeps every byte");
}

#[tokio::test]
async fn each_message_of_a_batch_is_changed_on_its_own() {
    let (stub, gateway) = with(REQUESTS).await;
    let batch = json!([rest("echo", json!({ "max": 1 })), { "method": "nope" }, rest("regional", json!({ "max": 2 })), rest("echo", json!({ "Limit": 1 }))]);
    let (status, answers) = gateway.rest("stub", batch).await;
    let text = |at: usize| answers[at]["result"][0]["text"].as_str().map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
    assert_eq!((status, text(0)), (200, Some(json!({ "limit": 1, "deep": { "flag": [1.5, { "a": null }] } }))));
    assert_eq!((&answers[1]["code"], text(2)), (&json!("unknown_method"), Some(json!({ "max": 2 }))));
    assert_eq!(answers[3]["code"], "invalid_params", "`Limit` could be taken for what is set: {}", answers[3]);
    let call = |id: u32, name: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{name}","arguments":{{"secret":1}}}}}}"#)
    };
    let _ = native(&gateway, format!("[{},{}]", call(1, "echo"), call(2, "regional"))).send().await.expect("an answer");
    let sent: Value = serde_json::from_str(&stub.body()).expect("JSON");
    assert_eq!(
        (sent[0]["params"]["arguments"]["limit"].clone(), sent[1]["params"]["arguments"].clone()),
        (json!(10), json!({ "secret": 1 }))
    );
}

#[tokio::test]
async fn what_is_judged_is_what_is_sent() {
    let rules = "transform:\n\
        \x20 - { match: { tool: echo }, request: { params: { set: { name: regional, arguments.region: eu } } } }\n\
        \x20 - { match: { tool: alias }, request: { params: { set: { name: echo } } } }\n\
        auth: { required: false, anonymous: { roles: [guest] }, external: { url: 'http://127.0.0.1:1/', headers: [x-none] } }\n\
        roles: { guest: [ { tools: [echo, alias] }, { tools: [regional], when: \"arguments.region == 'us'\" } ] }\n";
    let (stub, gateway) = with(rules).await;
    let before = stub.calls();
    for arguments in [json!({}), json!({ "region": "us" })] {
        let (status, problem) = gateway.rest("stub", rest("echo", arguments.clone())).await;
        assert_eq!(status, 401, "the tool it becomes is permitted for other arguments only: {problem}");
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "echo", "arguments": arguments } });
        assert_eq!(json_of(native(&gateway, call.to_string())).await.0, 401);
    }
    assert_eq!(stub.calls(), before);
    let (status, _) = gateway.rest("stub", rest("alias", json!({}))).await;
    assert_eq!((status, seen(&stub)["name"].clone()), (200, json!("echo")), "it is matched once, by what the caller asked");
    gateway.load(&std::fs::read_to_string(gateway.config_path()).expect("readable").replace("== 'us'", "== 'eu'")).await;
    let (status, _) = gateway.rest("stub", rest("echo", json!({ "region": "us" }))).await;
    assert_eq!((status, seen(&stub)), (200, json!({ "name": "regional", "arguments": { "region": "eu" } })));
    assert_eq!(stub.headers()["mcp-param-region"], "eu");
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"region":"us"}}}"#;
    let sent = native(&gateway, call).header("mcp-protocol-version", MODERN).header("mcp-method", "tools/call").header("mcp-name", "echo");
    assert_eq!(sent.header("mcp-param-region", "us").send().await.expect("an answer").status(), 200);
    let headers = stub.headers();
    let told = |name: &str| headers.get_all(name).iter().map(|value| value.to_str().expect("text").to_owned()).collect::<Vec<_>>();
    assert_eq!((told("mcp-name"), told("mcp-param-region")), (vec!["regional".to_owned()], vec!["eu".to_owned()]));
    let lie = native(&gateway, call).header("mcp-protocol-version", MODERN).header("mcp-name", "regional");
    assert_eq!(lie.send().await.expect("an answer").status(), 400, "what the caller's headers say is compared with what the caller sent");
}

const ANSWERS: &str = "transform:\n\
    \x20 - match: { tool: echo }\n\
    \x20   response: { headers: { set: { x-robots-tag: none }, remove: [x-upstream] }, fields: { rename: { structuredContent.old: new }, remove: [structuredContent.secret, content.annotations] } }\n\
    \x20 - { match: { tool: echo, version: v2 }, response: { fields: { wrap: data } } }\n\
    \x20 - { match: { method: 'tools/*', tool: regional }, response: { max_output: 10 } }\n";

#[tokio::test]
async fn results_are_changed_in_both_lanes_as_json_and_as_events() {
    let (stub, gateway) = with(ANSWERS).await;
    let result = json!({ "resultType": "complete", "content": [{ "type": "text", "text": "a", "annotations": { "x": 1 } }],
        "structuredContent": { "secret": 1, "old": 1.0 } });
    let content = json!([{ "type": "text", "text": "a" }]);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
    for act in [Act::Say("result", result.clone()), Act::Events(result.clone())] {
        stub.act(act);
        let answer = http().post(gateway.at("/api/mcp/stub")).json(&rest("echo", json!({}))).send().await.expect("an answer");
        assert_eq!(answer.headers()["x-robots-tag"], "none");
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!((&answer["result"], &answer["structuredContent"]), (&content, &json!({ "new": 1.0 })));
        let (_, answer) = crate::rest::v2(&gateway, "stub", rest("echo", json!({}))).await;
        assert_eq!(
            answer["result"],
            json!({ "data": { "content": content, "structuredContent": { "new": 1.0 } }, "resultType": "complete" })
        );
        let answer = native(&gateway, call).send().await.expect("an answer");
        assert_eq!(answer.headers()["x-robots-tag"], "none");
        let text = answer.text().await.expect("text");
        let message = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap_or(&text);
        let message: Value = serde_json::from_str(message).expect("JSON");
        assert_eq!(
            message["result"],
            json!({ "resultType": "complete", "content": content, "structuredContent": { "new": 1.0 } }),
            "{text}"
        );
        assert!(text.starts_with('{') || (text.contains("\"working\"") && text.contains("id: 7")), "the other events stay: {text}");
    }
    let events = http().post(gateway.at("/api/mcp/stub")).header("accept", "text/event-stream").json(&rest("echo", json!({})));
    let text = events.send().await.expect("an answer").text().await.expect("text");
    assert!(text.contains("event: result") && text.contains(r#""new":1.0"#) && !text.contains("secret"), "{text}");
}

#[tokio::test]
async fn an_answer_whose_last_event_has_no_end_is_cut_and_bare_crs_end_lines() {
    let (stub, gateway) = with(ANSWERS).await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
    let message = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"structuredContent":{"secret":1,"old":2}}}"#;
    for end in ["", "\n", "\r", "\r\n"] {
        stub.act(Act::Stream(format!("event: message\ndata: {message}{end}")));
        let answer = native(&gateway, call).send().await.expect("an answer");
        let text = answer.text().await;
        assert!(text.is_err(), "{end:?}: a part is not taken for the whole: {text:?}");
    }
    for end in ["\n", "\r", "\r\n"] {
        stub.act(Act::Stream(format!("event: message{end}data: {message}{end}{end}")));
        let text = native(&gateway, call).send().await.expect("an answer").text().await.expect("a whole answer");
        assert!(text.contains(r#""structuredContent":{"new":2}"#) && text.starts_with("event: message\n"), "{end:?}: {text}");
    }
}

#[tokio::test]
async fn an_answer_told_in_another_case_is_not_passed() {
    let (stub, gateway) = with(ANSWERS).await;
    let call = |name: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}","arguments":{{}}}}}}"#);
    stub.act(Act::Say("Result", json!({ "structuredContent": { "secret": 41 } })));
    let (status, answer) = json_of(native(&gateway, call("echo"))).await;
    assert_eq!((status, &answer["error"]["data"]["code"]), (502, &json!("backend_failed")), "{answer}");
    let (status, answer) = json_of(native(&gateway, call("other"))).await;
    assert_eq!((status, &answer["Result"]["structuredContent"]["secret"]), (200, &json!(41)), "whom no rule is about keeps every byte");
    stub.act(Act::Stream("data: {\"id\":1,\"RESULT\":{\"structuredContent\":{\"secret\":41}}}\n\n".to_owned()));
    let text = native(&gateway, call("echo")).send().await.expect("an answer").text().await;
    assert!(text.is_err(), "{text:?}");
}

#[tokio::test]
async fn text_that_repeats_structured_content_is_changed_with_it() {
    let (stub, gateway) = with(ANSWERS).await;
    let text = |text: &str| json!({ "type": "text", "text": text });
    let result = json!({ "resultType": "complete", "content": [text("{\n  \"secret\": 41,\n  \"old\": 1.0\n}"), text("a secret: 42")],
        "structuredContent": { "secret": 41, "old": 1.0 } });
    let content = json!([text("{\"new\":1.0}"), text("a secret: 42")]);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}"#;
    for act in [Act::Say("result", result.clone()), Act::Events(result.clone())] {
        stub.act(act);
        assert_eq!(gateway.call("stub", "echo", json!({})).await["result"], content);
        let text = native(&gateway, call).send().await.expect("an answer").text().await.expect("text");
        assert!(text.contains(&format!(r#""content":{content}"#)) && !text.contains("41"), "{text}");
    }
    let request = http().get(gateway.at("/mcp/stub")).header("accept", "text/event-stream").header("last-event-id", "6");
    let event = request.send().await.expect("an answer").chunk().await.expect("a stream").expect("an event");
    assert!(!String::from_utf8_lossy(&event).contains("41"), "{event:?}");
}

#[tokio::test]
async fn a_stream_that_replays_what_was_asked_elsewhere_shows_nothing_that_is_removed() {
    let (stub, gateway) = with(ANSWERS).await;
    let content = json!([{ "type": "text", "text": "0123456789abcdef", "annotations": {} }]);
    stub.act(Act::Events(json!({ "content": content, "structuredContent": { "secret": 1, "old": 2 } })));
    let request = http().get(gateway.at("/mcp/stub")).header("accept", "text/event-stream").header("last-event-id", "6");
    let mut answer = request.send().await.expect("an answer");
    let event = answer.chunk().await.expect("a stream").expect("an event");
    let text = String::from_utf8_lossy(&event);
    assert!(text.contains("0123456789… [truncated by mcp-gateway: 10 of") && text.contains(r#""id":99"#), "{text}");
    assert!(!text.contains("secret") && !text.contains("annotations"), "{text}");
}

#[tokio::test]
async fn what_rules_set_is_told_to_servers_and_to_nobody_else() {
    let rules = "transform: [ { request: { params: { set: { arguments.key: '${KEY:-h1dden}' } }, headers: { set: { x-key: h1dden } } }, response: { headers: { set: { x-shown: seen } } } } ]\n";
    let (stub, gateway) = with(rules).await;
    gateway.call("stub", "regional", json!({})).await;
    assert_eq!((seen(&stub)["arguments"]["key"].as_str(), stub.headers()["x-key"].to_str().ok()), (Some("h1dden"), Some("h1dden")));
    let shown = http().get(format!("{}/admin/config", gateway.admin)).send().await.expect("an answer").text().await.expect("text");
    assert!(shown.contains("x-key") && shown.contains("\"key\"") && !shown.contains("h1dden") && !shown.contains("seen"), "{shown}");
    assert!(!gateway.said().await.iter().any(|line| line.contains("h1dden")));
}

#[tokio::test]
async fn a_long_output_is_cut_and_says_so() {
    let (stub, gateway) = with(ANSWERS).await;
    let text = "ä".repeat(20);
    let result = json!({ "resultType": "complete", "isError": true, "content": [{ "type": "text", "text": "123" }, { "type": "text", "text": text }, { "type": "text", "text": "b" }],
        "structuredContent": { "a": 1 } });
    let expected =
        json!([{ "type": "text", "text": "123" }, { "type": "text", "text": "äää… [truncated by mcp-gateway: 10 of 51 bytes]" }]);
    let told = json!({ "bytes": 51, "limit": 10 });
    for act in [Act::Say("result", result.clone()), Act::Events(result.clone())] {
        stub.act(act);
        let answer = gateway.call("stub", "regional", json!({})).await;
        assert_eq!((&answer["result"], &answer["isError"], &answer["_meta"]["mcp-gateway/truncated"]), (&expected, &json!(true), &told));
        assert!(answer.get("structuredContent").is_none());
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"regional","arguments":{}}}"#;
        let text = native(&gateway, call).send().await.expect("an answer").text().await.expect("text");
        assert!(text.contains("äää… [truncated by mcp-gateway: 10 of 51 bytes]") && !text.contains("structuredContent"), "{text}");
    }
    stub.act(Act::Echo);
    assert_eq!(gateway.call("stub", "regional", json!({})).await["result"][0]["text"], "{}", "what fits is untouched");
}

#[tokio::test]
async fn a_list_is_changed_as_a_whole_and_a_route_changes_what_it_chose() {
    let rules = "transform: [ { match: { method: tools/list }, response: { fields: { remove: [tools.inputSchema], rename: { tools: offers } } } } ]\n\
        routes: [ { name: loud, when: 'has(arguments.loud)', transform: [ { request: { params: { set: { arguments.said: true } } } } ] } ]\n";
    let (_stub, gateway) = with(rules).await;
    let (_, answer) = gateway.rest("stub", json!({ "method": "list_tools" })).await;
    assert_eq!(answer["offers"], json!([{ "name": "echo" }, { "name": "regional" }]));
    let (_, answer) = json_of(native(&gateway, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#)).await;
    assert_eq!(answer["result"]["offers"], json!([{ "name": "echo" }, { "name": "regional" }]));
    assert_eq!(gateway.call("stub", "echo", json!({ "loud": 1 })).await["result"][0]["text"], r#"{"loud":1,"said":true}"#);
    assert_eq!(gateway.call("stub", "echo", json!({ "quiet": 1 })).await["result"][0]["text"], r#"{"quiet":1}"#);
}

#[tokio::test]
async fn middleware_backends_get_and_give_what_the_rules_say() {
    use axum::routing::{get, post};
    let seen = std::sync::Arc::new(std::sync::Mutex::new((Value::Null, http::HeaderMap::new())));
    let keep = std::sync::Arc::clone(&seen);
    let answer = move |headers: http::HeaderMap, axum::Json(body): axum::Json<Value>| {
        *keep.lock().expect("no panic while held") = (body, headers);
        async { axum::Json(json!({ "result": [{ "rows": 3, "secret": 1 }, { "type": "text", "text": "long enough" }], "extra": 1 })) }
    };
    let servers = || async { axum::Json(json!({ "servers": [{ "name": "database", "tools_count": 4 }] })) };
    let router = axum::Router::new()
        .route("/api/mcp/database", post(answer))
        .route("/api/servers", get(servers))
        .route("/health", get(|| async { "ok" }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let task = tokio::spawn(async move { axum::serve(listener, router).await });
    let rules = "transform: [ { match: { server: database }, request: { params: { set: { name: query, arguments.limit: 5 } }, headers: { set: { x-team: red } } }, \
        response: { fields: { remove: [content.secret] }, max_output: 15 } } ]\n";
    let gateway = Gateway::start(&format!("{}backends: [ {{ name: mw, url: \"{url}\" }} ]\n{rules}", server(""))).await;
    gateway.knows("database").await;
    let answer = gateway.call("database", "raw", json!({ "sql": "select 1" })).await;
    assert_eq!(
        answer["result"],
        json!([{ "rows": 3 }, { "type": "text", "text": "long … [truncated by mcp-gateway: 15 of 22 bytes]" }]),
        "{answer}"
    );
    let (body, headers) = seen.lock().expect("no panic while held").clone();
    assert_eq!(body, json!({ "method": "call_tool", "params": { "tool_name": "query", "arguments": { "sql": "select 1", "limit": 5 } } }));
    assert_eq!(headers["x-team"], "red");
    task.abort();
}

const RESHAPED: &str = "transform:\n\
    \x20 - { match: { tool: add, version: v9 }, response: { max_output: 5 } }\n\
    \x20 - { match: { tool: add }, response: { fields: { remove: [structuredContent.sum] } } }\n\
    \x20 - { match: { tool: echo }, response: { max_output: 20 } }\n";

/// The tools of a list that have an output schema, of these.
fn promised(tools: &Value) -> Vec<&str> {
    let of = |tool: &&Value| ["add", "echo", "route"].iter().any(|name| tool["name"] == *name) && tool.get("outputSchema").is_some();
    tools.as_array().expect("a list").iter().filter(of).filter_map(|tool| tool["name"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn official_clients_take_results_that_rules_changed() {
    for flags in [&[][..], &["--json"]] {
        let server = Server::python_sdk(flags).await;
        let backends = format!("backends: [ {{ name: one, url: \"{}\", protocol: mcp, capabilities: [real] }} ]\n", server.url);
        let gateway =
            Gateway::start(&format!("{}{backends}{RESHAPED}versions: {{ v9: {{ form: v2 }} }}\n", crate::support::gateway::server("")))
                .await;
        gateway.knows("real").await;
        for era in ["legacy", "modern"] {
            scenario(Client::Python, &gateway.at("/mcp/real"), era, "reshaped").await;
        }
        let (_, answer) = gateway.rest("real", json!({ "method": "list_tools" })).await;
        assert_eq!(promised(&answer["result"]), ["route"], "{answer}");
        let (_, answer) = crate::rest::v2(&gateway, "real", json!({ "method": "list_tools" })).await;
        assert_eq!(promised(&answer["result"]["tools"]), ["route"], "{answer}");
    }
}

#[tokio::test]
async fn a_stream_that_replays_a_list_promises_nothing_either() {
    let (stub, gateway) = with("transform: [ { match: { tool: a, version: v2 }, response: { max_output: 5 } } ]\n").await;
    stub.act(Act::Events(json!({ "tools": [{ "name": "a", "outputSchema": {} }, { "name": "b", "outputSchema": {} }] })));
    let request = http().get(gateway.at("/mcp/stub")).header("accept", "text/event-stream").header("last-event-id", "6");
    let event = request.send().await.expect("an answer").chunk().await.expect("a stream").expect("an event");
    let text = String::from_utf8_lossy(&event);
    assert!(text.contains(r#"[{"name":"a"},{"name":"b","outputSchema":{}}]"#), "{text}");
}
