//! Arguments of tool calls against the schema that the tool published, where that is wished for.

use serde_json::{Value, json};

use super::code;
use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::part::Server;

async fn gateway(python: &Server, more: &str) -> Gateway {
    let backend =
        format!("  - {{ name: py, url: \"{}\", capabilities: [files], health_check: {{ mcp: true, interval: 10m }} }}\n", python.url);
    let gateway = Gateway::start(&format!("{}backends:\n{backend}", server(more))).await;
    gateway.knows("files").await;
    gateway
}

/// How many answers the backend gave, as the gateway counts them.
async fn answers(gateway: &Gateway) -> Vec<String> {
    let text = http().get(gateway.at("/metrics")).send().await.expect("metrics").text().await.expect("text");
    text.lines().filter(|line| line.starts_with("backend_requests_total{")).map(str::to_owned).collect()
}

async fn post(gateway: &Gateway, path: &str, body: &Value) -> (u16, Value) {
    let request = http().post(gateway.at(path)).header("accept", "application/json, text/event-stream");
    let answer = request.json(body).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

fn rest(tool: &str, arguments: &Value) -> Value {
    json!({ "method": "call_tool", "params": { "tool_name": tool, "arguments": arguments } })
}

fn native(tool: &str, arguments: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": "seven", "method": "tools/call", "params": { "name": tool, "arguments": arguments } })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_schema_is_refused_by_its_place_and_not_sent() {
    let python = Server::python_sdk(&["--stateless", "--json"]).await;
    let gateway = gateway(&python, "  validate_arguments: true\n").await;
    let before = answers(&gateway).await;
    let wrong = [
        ("add", json!({ "a": "HUSH", "b": 3 }), "`arguments/a`"),
        ("add", json!({ "a": 2, "b": [] }), "`arguments/b`"),
        ("add", json!({ "a": 2 }), "b"),
        ("add", json!({}), "a"),
        ("echo", json!({ "text": 7 }), "`arguments/text`"),
        ("echo", json!({ "text": null }), "`arguments/text`"),
    ];
    for (tool, arguments, named) in &wrong {
        for path in ["/api/mcp/files", "/api/v2/mcp/files"] {
            let (status, body) = post(&gateway, path, &rest(tool, arguments)).await;
            let detail = body["detail"].as_str().unwrap_or_default();
            assert_eq!((status, code(&body)), (400, "invalid_params"), "{tool} {arguments}: {body}");
            assert!(detail.contains(named) && !detail.contains("HUSH"), "{tool} {arguments}: {detail}");
        }
        let (status, body) = post(&gateway, "/mcp/files", &native(tool, arguments)).await;
        let error = &body["error"];
        assert_eq!((status, error["code"].as_i64(), body["id"].as_str()), (400, Some(-32602), Some("seven")), "{body}");
        let told = error.to_string();
        assert!(told.contains(named) && !told.contains("HUSH"), "{tool} {arguments}: {told}");
    }
    let none = json!({ "method": "call_tool", "params": { "tool_name": "add" } });
    assert_eq!(post(&gateway, "/api/mcp/files", &none).await.0, 400, "no arguments are none of the required ones");
    let batch = json!([native("echo", &json!({ "text": "a" })), native("echo", &json!({ "text": 7 }))]);
    assert_eq!(post(&gateway, "/mcp/files", &batch).await.0, 400, "a native batch is sent whole or not at all");
    assert_eq!(answers(&gateway).await, before, "nothing reached the server");

    let mixed =
        json!([rest("echo", &json!({ "text": "good" })), rest("echo", &json!({ "text": 7 })), rest("add", &json!({ "a": 2, "b": 3 }))]);
    let (status, body) = post(&gateway, "/api/mcp/files", &mixed).await;
    assert_eq!((status, code(&body[1]), body[0]["result"][0]["text"].as_str()), (200, "invalid_params", Some("good")), "{body}");
    assert!(body[2]["result"].is_array(), "one that does not fit does not take the others with it: {body}");
    let (status, body) = post(&gateway, "/mcp/files", &native("add", &json!({ "a": 2, "b": 3 }))).await;
    assert_eq!((status, body["result"]["isError"].as_bool().unwrap_or_default()), (200, false), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unless_asked_for_arguments_are_the_servers_business() {
    let python = Server::python_sdk(&["--stateless", "--json"]).await;
    let gateway = gateway(&python, "").await;
    let before = answers(&gateway).await;
    let (_, body) = post(&gateway, "/api/mcp/files", &rest("add", &json!({ "a": "x", "b": 3 }))).await;
    assert_ne!(answers(&gateway).await, before, "it was asked: {body}");
    assert!(!body["detail"].as_str().unwrap_or_default().contains("`arguments/a`"), "the words are the server's own: {body}");
}
