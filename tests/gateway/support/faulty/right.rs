//! What a faulty backend answers where it does nothing wrong: modern MCP, what a legacy session needs, the REST form.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::{Request, Shared};

pub fn answer(request: &Request, shared: &Shared) -> Vec<u8> {
    if request.method == "GET" && request.path == "/health" {
        return whole(if shared.sick.load(Ordering::SeqCst) { 500 } else { 200 }, b"");
    }
    if request.path == "/api/servers" {
        return whole(200, json!({ "servers": [{ "name": "stub", "tools_count": 3 }] }).to_string().as_bytes());
    }
    if request.path.starts_with("/api/") {
        return whole(200, json!({ "result": [{ "type": "text", "text": "done" }] }).to_string().as_bytes());
    }
    let answered = match request.body["method"].as_str().unwrap_or_default() {
        "initialize" => {
            let info = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": { "name": "faulty", "version": "1" } });
            let body = rpc(request, "result", info);
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: s1\r\nconnection: close\r\n";
            return [format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
        }
        method if method.starts_with("notifications/") => return whole(202, b""),
        "server/discover" => result(
            request,
            json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} }, "serverInfo": { "name": "faulty", "version": "1" } }),
        ),
        "tools/list" => result(request, json!({ "tools": tools() })),
        "tools/call" => result(request, json!({ "content": [{ "type": "text", "text": "done" }] })),
        _ => rpc(request, "error", json!({ "code": -32601, "message": "no such method" })),
    };
    whole(200, &answered)
}

/// `write` says nothing of itself, `read` only reads, `put` may be repeated.
fn tools() -> Value {
    let tool = |name: &str, annotations: Value| json!({ "name": name, "inputSchema": { "type": "object" }, "annotations": annotations });
    json!([tool("write", json!({})), tool("read", json!({ "readOnlyHint": true })), tool("put", json!({ "idempotentHint": true }))])
}

pub fn result(request: &Request, mut result: Value) -> Vec<u8> {
    result["resultType"] = json!("complete");
    rpc(request, "result", result)
}

pub fn rpc(request: &Request, member: &str, value: Value) -> Vec<u8> {
    json!({ "jsonrpc": "2.0", "id": request.body["id"], member: value }).to_string().into_bytes()
}

pub fn whole(status: u16, body: &[u8]) -> Vec<u8> {
    written(status, "application/json", body, 0)
}

/// An answer whose announced length is off by `lie`.
pub fn written(status: u16, kind: &str, body: &[u8], lie: isize) -> Vec<u8> {
    let length = body.len().checked_add_signed(lie).expect("a length");
    let head = format!("HTTP/1.1 {status} So\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}
