//! What the witness offers, and how it answers: every method with a trivial result, lists in whatever dress the request
//! asks for with `mcp-dress` (a header of the kind that goes upstream).

use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::witness::Seen;

pub const TOOLS: &[&str] = &["read_a", "read_b", "read_c", "read_ab", "Read_a", "list_a", "write_a", "weird *?", "[ab]", "näme", "a\nb"];
pub const PROMPTS: &[&str] = &["review", "deploy", "a*b"];
pub const RESOURCES: &[&str] = &["file:///srv/a", "file:///srv/deep/b", "file:///etc/passwd", "http://x/y?z=[1]"];
pub const TEMPLATES: &[&str] = &["file:///srv/{path}", "file:///etc/{path}"];

/// The id of the answer that is replayed to who takes up a stream again.
pub const REPLAYED: u64 = 77;

/// Answers as a server of either era would, without sessions.
pub fn answer(seen: &Seen) -> Response {
    if seen.verb == Method::GET {
        return stream(seen);
    }
    if seen.verb == Method::DELETE {
        return StatusCode::OK.into_response();
    }
    let body = seen.json();
    let said = match &body {
        Value::Array(messages) => Value::Array(messages.iter().filter_map(reply).collect()),
        message => match reply(message) {
            Some(reply) => reply,
            None => return StatusCode::ACCEPTED.into_response(),
        },
    };
    dressed(seen.header("mcp-dress"), &said)
}

fn stream(seen: &Seen) -> Response {
    if seen.path == "/health" {
        return StatusCode::OK.into_response();
    }
    let replayed = match seen.header("last-event-id") {
        "" => String::new(),
        method => event(&response(json!(REPLAYED), method)),
    };
    events(format!("{PRIMING}{NOTICE}{replayed}"))
}

const PRIMING: &str = "id: 1\nretry: 10\ndata:\n\n";
const NOTICE: &str =
    "id: 2\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"data\":\"hi\"}}\n\n";

fn events(text: String) -> Response {
    ([("content-type", "text/event-stream")], text).into_response()
}

fn event(message: &Value) -> String {
    format!("id: 3\nevent: message\ndata: {message}\n\n")
}

/// In which clothes a message comes.
fn dressed(dress: &str, message: &Value) -> Response {
    let text = message.to_string();
    let (headers, body): (&[(&str, &str)], Body) = match dress {
        "sse" => return events(format!("{PRIMING}{NOTICE}{}", event(message))),
        "gzip" => (&[("content-encoding", "gzip")], Body::from(text)),
        "bom" => (&[], Body::from(format!("\u{feff}{text}"))),
        "utf-16" => (&[], Body::from(format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>())),
        _ => (&[], Body::from(text)),
    };
    let mut all = HeaderMap::new();
    all.insert("content-type", "application/json".parse().expect("a value"));
    for (name, value) in headers {
        all.insert(*name, value.parse().expect("a value"));
    }
    (all, body).into_response()
}

fn reply(message: &Value) -> Option<Value> {
    let id = message.get("id")?;
    Some(response(id.clone(), message["method"].as_str().unwrap_or_default()))
}

/// The response to a request.
pub fn response(id: Value, method: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result(method) })
}

fn result(method: &str) -> Value {
    let list = |member: &str, naming: &str, names: &[&str]| {
        let items: Vec<Value> = names.iter().map(|name| item(member, naming, name)).collect();
        json!({ "resultType": "complete", "cacheScope": "public", "ttlMs": 1, member: items })
    };
    match method {
        "server/discover" => json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} },
            "serverInfo": { "name": "witness", "version": "1" } }),
        "initialize" => json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
            "serverInfo": { "name": "witness", "version": "1" } }),
        "tools/list" => list("tools", "name", TOOLS),
        "prompts/list" => list("prompts", "name", PROMPTS),
        "resources/list" => list("resources", "uri", RESOURCES),
        "resources/templates/list" => list("resourceTemplates", "uriTemplate", TEMPLATES),
        _ => json!({ "resultType": "complete", "content": [], "contents": [], "messages": [], "completion": { "values": [] } }),
    }
}

fn item(member: &str, naming: &str, name: &str) -> Value {
    let mut item = json!({ naming: name });
    if member == "tools" {
        item["inputSchema"] = json!({ "type": "object" });
    } else if member != "prompts" {
        item["name"] = json!("shown");
    }
    item
}
