//! A header tells what the body does, or the request is refused: what `agree` lets pass names, by any reading of the
//! header, exactly the method and the name of the body. Any text survives being written as a header value. No way of
//! writing the revision hides a modern request.
//!
//! The input is a request as HTTP/1 has it: `Name: value` lines, an empty line, the body.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fuzz::call::{Call, Era};
use fuzz::mcp::MODERN;
use fuzz::mcp::headers::{self, METHOD, NAME, VERSION};
use fuzz::mcp::message::{Message, Payload};
use fuzz::mcp::method::{self, Named};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|request: &[u8]| {
    survives(&String::from_utf8_lossy(request));
    let (head, body) = split(request, b"\n\n").unwrap_or((request, b""));
    let sent = fields(head);
    for value in sent.values() {
        let _ = headers::decode(value.as_bytes());
        value.to_str().into_iter().for_each(survives);
    }
    let payload = Payload::read(body).ok();
    let one = payload.as_ref().and_then(Payload::one);
    claims(&sent, one.and_then(Message::version));
    if let Some(call) = one.and_then(Message::call) {
        agrees(&sent, &call);
    }
});

fn agrees(sent: &HeaderMap, call: &Call<'_>) {
    if headers::agree(sent, call).is_err() {
        return;
    }
    for value in sent.get_all(&METHOD) {
        assert_eq!(read(value).as_deref(), Some(&*call.method), "{METHOD}");
    }
    // No header tells the name in a `ref`.
    let name = call.name.as_deref().filter(|_| method::find(&call.method).is_none_or(|row| row.named != Named::Reference));
    for value in name.iter().flat_map(|_| sent.get_all(&NAME)) {
        assert_eq!(read(value).as_deref(), name, "{NAME}");
    }
}

/// A backend that takes any of the version headers, or the body's claim, reads a modern request only if we do.
fn claims(sent: &HeaderMap, body: Option<&str>) {
    let mut told = sent.get_all(&VERSION).iter().filter_map(bare).chain(body);
    if told.any(|version| version == MODERN) {
        assert_eq!(headers::era(sent, body), Era::Modern);
    }
}

fn survives(text: &str) {
    let written = headers::encode(text);
    assert!(HeaderValue::from_str(&written).is_ok(), "{written:?} is a header value");
    assert_eq!(headers::decode(written.as_bytes()).as_deref(), Some(text));
}

/// What of the head is fields; the rest of it no HTTP parser would hand on. Values keep the white space around them, as
/// HTTP/2 hands them on.
fn fields(head: &[u8]) -> HeaderMap {
    let field = |line| {
        let (name, value) = split(line, b":")?;
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
    };
    head.split(|byte| *byte == b'\n').filter_map(field).collect()
}

/// The text of a value, `=?base64?…?=` decoded (MCP 2026-07-28).
fn read(value: &HeaderValue) -> Option<String> {
    let text = bare(value)?;
    match text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
        None => Some(text.to_owned()),
    }
}

/// The text of a value without the white space HTTP allows around it.
fn bare(value: &HeaderValue) -> Option<&str> {
    str::from_utf8(value.as_bytes()).ok().map(|text| text.trim_matches([' ', '\t']))
}

fn split<'b>(bytes: &'b [u8], at: &[u8]) -> Option<(&'b [u8], &'b [u8])> {
    let found = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..found], &bytes[found + at.len()..]))
}
