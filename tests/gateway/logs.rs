//! What is written of what goes on, how much of it, and what never is.

mod health;
mod levels;
mod output;
mod risks;
mod sampling;
mod secrets;
mod times;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, server};
use crate::support::stub::Stub;
use crate::support::{eventually, http};

/// A gateway before a stub, with these lines below `log:`, and what more its configuration says.
async fn logging(stub: &Stub, log: &str, more: &str) -> Gateway {
    let gateway = Gateway::start(&yaml(stub, log, more)).await;
    gateway.knows("stub").await;
    gateway
}

fn yaml(stub: &Stub, log: &str, more: &str) -> String {
    format!("{}observability: {{ log: {{ {log} }} }}\nbackends:\n{}{more}", server(""), stub.backend("one", ""))
}

/// A tool call over REST.
fn call() -> Value {
    json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": { "text": "hello" } } })
}

fn rest(gateway: &Gateway, body: &Value) -> reqwest::RequestBuilder {
    http().post(gateway.at("/api/mcp/stub")).json(body)
}

/// A modern native request.
fn native(gateway: &Gateway, method: &str, mut params: Value) -> reqwest::RequestBuilder {
    let name = params["name"].as_str().or(params["uri"].as_str()).unwrap_or_default().to_owned();
    params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
    let request = http().post(gateway.at("/mcp/stub")).header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
    let request = if name.is_empty() { request } else { request.header("mcp-name", name) };
    let request = request.header("accept", "application/json, text/event-stream");
    request.json(&json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }))
}

/// Everything that was written so far: a refusal, which is always, proves what is before it.
async fn said(gateway: &Gateway) -> Vec<String> {
    let id = uuid::Uuid::new_v4().to_string();
    http().get(gateway.at("/nowhere")).header("x-request-id", &id).send().await.expect("an answer");
    eventually("the log is written", async || {
        let said = gateway.process.output();
        said.iter().any(|line| line.contains(&id)).then_some(said)
    })
    .await
}

/// Lets a call that is sent at the same time wait at the stub for so long at least.
async fn hold(stub: &Stub, long: Duration) {
    let before = stub.asked("tools/call");
    stub.hold(true);
    eventually("it was asked", async || (stub.asked("tools/call") > before).then_some(())).await;
    tokio::time::sleep(long).await;
    stub.hold(false);
}

/// Sends a request; its status and its access record, if there is one.
async fn record(gateway: &Gateway, request: reqwest::RequestBuilder) -> (u16, Option<Value>) {
    let id = uuid::Uuid::new_v4().to_string();
    let answer = request.header("x-request-id", &id).send().await.expect("an answer");
    let status = answer.status().as_u16();
    let _ = answer.bytes().await;
    (status, written(gateway, &id).await)
}

/// The access record of a request.
async fn written(gateway: &Gateway, id: &str) -> Option<Value> {
    let lines = said(gateway).await;
    let records = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut records = records.filter(|line| line["target"] == "access" && line["request_id"] == id);
    let first = records.next();
    assert!(records.next().is_none(), "one record for a request");
    first
}
