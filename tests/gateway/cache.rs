//! What is answered from the cache: for whom, for how long, with what around it; and what never is.

mod callers;
mod churn;
mod fills;
mod hearing;
mod isolation;
mod keeping;
mod lists;
mod replicas;
mod voids;
mod warming;

use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::stub::Stub;

/// A gateway before a stub, with these lines below `cache:`, and what more its configuration says.
pub async fn caching(stub: &Stub, cache: &str, more: &str) -> Gateway {
    let gateway = Gateway::start(&yaml(stub, cache, more)).await;
    gateway.knows("stub").await;
    gateway
}

pub fn yaml(stub: &Stub, cache: &str, more: &str) -> String {
    format!("{}backends:\n{}cache:\n  enabled: true\n{cache}{more}", server(""), stub.backend("one", ""))
}

/// A list of one tool that is fresh for a minute, for all (`public`) or one (`private`), and never the same twice.
pub fn tools(scope: &str) -> Value {
    json!({ "resultType": "complete", "ttlMs": 60_000, "cacheScope": scope,
        "tools": [{ "name": "echo", "description": "$N", "inputSchema": { "type": "object" } }] })
}

/// One REST request with these headers.
pub async fn rest(gateway: &Gateway, body: &Value, headers: &[(&str, &str)]) -> Response {
    rest_by(&http(), gateway, body, headers).await
}

/// The same by a client that is used again: making one takes longer than the request.
pub async fn rest_by(client: &Client, gateway: &Gateway, body: &Value, headers: &[(&str, &str)]) -> Response {
    let request = client.post(gateway.at("/api/mcp/stub")).json(body);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.expect("an answer")
}

/// One native request of the modern revision with these headers.
pub async fn native(gateway: &Gateway, id: &Value, method: &str, params: Value, headers: &[(&str, &str)]) -> Response {
    native_by(&http(), gateway, id, method, params, headers).await
}

/// The same by a client that is used again.
pub async fn native_by(
    client: &Client,
    gateway: &Gateway,
    id: &Value,
    method: &str,
    mut params: Value,
    headers: &[(&str, &str)],
) -> Response {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
    let request = client.post(gateway.at("/mcp/stub")).header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
    let request = request.header("accept", "application/json, text/event-stream").json(&message);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.expect("an answer")
}

/// What the cache says of an answer; empty if it says nothing.
pub fn status(response: &Response) -> String {
    response.headers().get("cache-status").map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default()
}

/// How an answer came about, and its body.
pub async fn told(response: Response) -> (String, Value) {
    assert_eq!(response.status(), 200);
    let status = status(&response);
    (status, response.json().await.expect("JSON"))
}

pub fn list() -> Value {
    json!({ "method": "list_tools" })
}

pub fn call(tool: &str, arguments: &Value) -> Value {
    json!({ "method": "call_tool", "params": { "tool_name": tool, "arguments": arguments } })
}

pub fn read(uri: &str) -> Value {
    json!({ "method": "read_resource", "params": { "uri": uri } })
}
