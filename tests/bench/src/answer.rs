//! What the origin says: one modern (2026-07-28) MCP server with the tool `echo`.
//!
//! Separate from the socket loop because the load generator builds the same answers, to know what it must get back.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wire::Head;

pub const VERSION: &str = "2026-07-28";

const DISCOVER: &str = r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"},"_meta":{"io.modelcontextprotocol/serverInfo":{"name":"bench","version":"1"}},"ttlMs":3600000,"cacheScope":"public"}"#;
const TOOLS: &str = r#"{"resultType":"complete","tools":[{"name":"echo","description":"Answers with a text of the size asked for, beginning with the tag.","inputSchema":{"type":"object","properties":{"size":{"type":"integer"},"tag":{"type":"string"}},"required":["size","tag"]}}],"ttlMs":3600000,"cacheScope":"public"}"#;
/// Real results are rows of text: an escape per line keeps a JSON scanner as busy as they would.
const LINE: &str = r"row of a result that somebody really asked for, in sixty bytes\n";
/// Ready beforehand, so that a large answer costs the origin one copy.
static LINES: LazyLock<String> = LazyLock::new(|| LINE.repeat(MAX_SIZE / LINE.len()));
const MAX_SIZE: usize = 1024 * 1024;

/// What to send back: everything at once, or an event and then silence.
pub enum Answer {
    Full(Vec<u8>),
    Stream(Vec<u8>),
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: &'a str,
    #[serde(default)]
    params: Params<'a>,
}

#[derive(Deserialize, Default)]
struct Params<'a> {
    #[serde(borrow, default)]
    arguments: Option<Arguments<'a>>,
}

#[derive(Deserialize)]
struct Arguments<'a> {
    size: usize,
    tag: &'a str,
}

pub fn answer(head: &Head, body: &[u8]) -> Answer {
    if head.is_get() && head.subject() == "/health" {
        return Answer::Full(response("200 OK", r#"{"status":"healthy"}"#));
    }
    if head.is_get() {
        return Answer::Stream(stream(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"open"}}"#));
    }
    if !head.is_post() {
        return Answer::Full(response("405 Method Not Allowed", "{}"));
    }
    if head.subject() == "/v1/traces" {
        return Answer::Full(response("200 OK", ""));
    }
    match serde_json::from_slice(body) {
        Ok(request) => reply(&request),
        Err(error) => Answer::Full(failure("400 Bad Request", "null", -32700, &error.to_string())),
    }
}

/// The content array of an `echo` result: what the REST form answers with.
pub fn content(size: usize, tag: &str) -> String {
    let mut out = String::with_capacity(size + 64);
    push_content(&mut out, size, tag);
    out
}

/// The whole JSON-RPC answer of an `echo` call: what the native form answers with.
pub fn echo(id: &str, size: usize, tag: &str) -> String {
    let mut out = String::with_capacity(size + 160);
    out.push_str(r#"{"jsonrpc":"2.0","id":"#);
    out.push_str(id);
    out.push_str(r#","result":{"resultType":"complete","content":"#);
    push_content(&mut out, size, tag);
    out.push_str("}}");
    out
}

/// The whole JSON-RPC answer to a written `echo` call.
pub fn echoed(call: &[u8]) -> Option<String> {
    let request: Request<'_> = serde_json::from_slice(call).ok()?;
    let arguments = request.params.arguments?;
    Some(echo(request.id?.get(), arguments.size.min(MAX_SIZE), arguments.tag))
}

/// The whole JSON-RPC answer to `tools/list`.
pub fn list(id: &str) -> String {
    result(id, TOOLS)
}

/// The array of tools in it.
pub fn tools() -> &'static str {
    let start = TOOLS.find('[').unwrap_or_default();
    &TOOLS[start..=TOOLS.rfind(']').unwrap_or_default().max(start)]
}

fn reply(request: &Request) -> Answer {
    let Some(id) = request.id.map(RawValue::get) else {
        return Answer::Full(response("202 Accepted", ""));
    };
    Answer::Full(match (request.method, &request.params.arguments) {
        ("tools/call", Some(call)) if call.size > MAX_SIZE => failure("400 Bad Request", id, -32602, "size above 1 MiB"),
        ("tools/call", Some(call)) => response("200 OK", &echo(id, call.size, call.tag)),
        ("tools/call", None) => failure("400 Bad Request", id, -32602, "size and tag are needed"),
        ("server/discover", _) => response("200 OK", &result(id, DISCOVER)),
        ("tools/list", _) => response("200 OK", &list(id)),
        ("subscriptions/listen", _) => return Answer::Stream(stream(&acknowledged(id))),
        ("initialize", _) => failure("400 Bad Request", id, -32601, "this server speaks 2026-07-28 only"),
        _ => failure("404 Not Found", id, -32601, "no such method"),
    })
}

/// A text of `size` bytes as written in JSON: the tag, whole lines, and what is left over.
fn push_content(out: &mut String, size: usize, tag: &str) {
    let rest = size.saturating_sub(tag.len() + 1);
    let lines = rest - rest % LINE.len();
    out.push_str(r#"[{"type":"text","text":""#);
    out.push_str(tag);
    out.push(' ');
    out.push_str(&LINES[..lines]);
    out.extend(std::iter::repeat_n('x', rest - lines));
    out.push_str(r#""}]"#);
}

fn result(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn acknowledged(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}},"notifications":{{}}}}}}"#
    )
}

fn failure(status: &str, id: &str, code: i32, message: &str) -> Vec<u8> {
    let error = serde_json::json!({ "code": code, "message": message });
    response(status, &format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#))
}

fn response(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// An event stream with its first event. `X-Accel-Buffering` tells nginx to pass events on as they come.
fn stream(event: &str) -> Vec<u8> {
    let event = format!("event: message\ndata: {event}\n\n");
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nX-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{event}\r\n",
        event.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_json_and_its_text_has_the_size_asked_for() {
        for size in [20, 230, 65_536] {
            let value: serde_json::Value = serde_json::from_str(&echo("7", size, "10000001")).unwrap();
            assert_eq!(value["id"], 7);
            let written = serde_json::to_string(&value["result"]["content"][0]["text"]).unwrap();
            assert_eq!(written.len(), size + 2);
            assert!(written.starts_with("\"10000001 "));
        }
    }

    #[test]
    fn the_fixed_results_are_json() {
        for text in [DISCOVER, TOOLS, &acknowledged("1")] {
            serde_json::from_str::<serde_json::Value>(text).unwrap();
        }
    }
}
