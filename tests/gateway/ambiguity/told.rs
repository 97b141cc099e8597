//! Requests whose headers tell of another call than their bodies, or of another revision.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::corpus::{Case, GOOD, LEGACY, call};

const MODERN: &str = "2026-07-28";

/// Requests whose headers tell of another call than their bodies. Without version header unless they say one.
pub fn all() -> Vec<Case> {
    let version = "mcp-protocol-version";
    let claims =
        |version: &str, params: &str| call(&format!(r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{version}"}},{params}"#));
    let good = |name: &str| Case::honest(name, call(GOOD)).on(LEGACY);
    let evil = |name: &str| Case::evil(name, call(GOOD)).on(LEGACY);
    let batch = |name: &str| Case::evil(name, format!("[{}]", call(GOOD))).on(LEGACY);
    let coded = |text: &str| format!("=?base64?{}?=", base64_of(text));
    let modern = |case: Case| case.with(version, MODERN);
    vec![
        modern(good("honest headers")).with("mcp-method", "tools/call").with("mcp-name", "read_ok"),
        modern(good("an honest name in base64")).with("mcp-method", "tools/call").with("mcp-name", &coded("read_ok")),
        good("a legacy version").with(version, "2025-11-25"),
        good("legacy with another name in the headers").with(version, "2025-11-25").with("mcp-method", "ping").with("mcp-name", "write"),
        good("no version with another name in the headers").with("mcp-method", "ping").with("mcp-name", "write"),
        Case::honest("a modern body", claims(MODERN, GOOD)).on(LEGACY).with("mcp-method", "tools/call").with("mcp-name", "read_ok"),
        modern(Case::honest("a legacy body under a modern header", claims("2025-11-25", GOOD)).on(LEGACY)).with("mcp-name", "read_ok"),
        modern(evil("another method")).with("mcp-method", "ping").with("mcp-name", "read_ok"),
        modern(evil("another name")).with("mcp-method", "tools/call").with("mcp-name", "write"),
        modern(evil("another name in base64")).with("mcp-name", &coded("write")),
        modern(evil("another name in base64, in another case")).with("mcp-name", &coded("write").replace("base64", "BASE64")),
        modern(evil("a base64 that is none")).with("mcp-name", "=?base64?!!!?="),
        modern(evil("a name twice")).with("mcp-name", "read_ok").with("mcp-name", "write"),
        modern(evil("a method twice")).with("mcp-method", "tools/call").with("mcp-method", "ping2"),
        modern(evil("a name in a list")).with("mcp-name", "read_ok, write"),
        modern(evil("the name in another case")).with("mcp-name", "READ_OK"),
        evil("a legacy version, then a modern one").with(version, "2025-11-25").with(version, MODERN).with("mcp-name", "write"),
        evil("a modern version, then a legacy one").with(version, MODERN).with(version, "2025-11-25").with("mcp-name", "write"),
        evil("versions in one header, the modern one last").with(version, "2025-11-25, 2026-07-28").with("mcp-name", "write"),
        evil("versions in one header, the modern one first").with(version, "2026-07-28, 2025-11-25").with("mcp-name", "write"),
        evil("a later version").with(version, "2027-01-01").with("mcp-name", "write"),
        Case::evil("a modern body under a legacy header", claims(MODERN, GOOD))
            .on(LEGACY)
            .with(version, "2025-11-25")
            .with("mcp-name", "write"),
        Case::evil("a modern body under no header", claims(MODERN, GOOD)).on(LEGACY).with("mcp-name", "write"),
        modern(Case::evil("a legacy body under a modern header", claims("2025-11-25", GOOD)).on(LEGACY)).with("mcp-name", "write"),
        modern(batch("a modern batch")),
        batch("a batch of a legacy version, then a modern one").with(version, "2025-03-26").with(version, MODERN).with("mcp-name", "write"),
        batch("a batch of a modern version, then a legacy one").with(version, MODERN).with(version, "2025-03-26").with("mcp-name", "write"),
        batch("a batch of versions in one header").with(version, "2025-03-26, 2026-07-28").with("mcp-name", "write"),
        batch("a batch of a revision without").with(version, "2025-06-18"),
        Case::evil("a batch of a modern body", format!("[{}]", claims(MODERN, GOOD))).on(LEGACY).with("mcp-name", "write"),
    ]
}

fn base64_of(text: &str) -> String {
    STANDARD.encode(text)
}
