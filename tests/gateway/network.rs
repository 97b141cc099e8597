//! What is asked before and around the credential: addresses behind proxies, browsers of other sites, pages that would
//! drive the admin listener, and the headers that protect our own pages. Client certificates, the audit log and the
//! arguments of calls have files of their own.

mod arguments;
mod audit;
mod certificates;
mod csrf;

use std::net::{IpAddr, Ipv4Addr};

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, server};
use crate::support::stub::Stub;
use crate::support::{client, http};

/// One way to the backend, without checks that would ask it anything by themselves.
fn backend(stub: &Stub) -> String {
    format!("backends:\n{}", stub.backend("one", ", health_check: {path: /health, interval: 10m}"))
}

/// A tool call over REST.
fn call() -> Value {
    json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": {} } })
}

/// A key as a configuration has it.
pub fn hash(key: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    digest.as_ref().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// The problem's code, or that of a JSON-RPC error.
fn code(body: &Value) -> &str {
    body["code"].as_str().or(body["error"]["data"]["code"].as_str()).unwrap_or_default()
}

/// A call from an address of this machine, with these lists of `X-Forwarded-For`: status and body.
async fn from(gateway: &Gateway, address: Ipv4Addr, path: &str, lists: &[&str]) -> (u16, Value) {
    let http = client(reqwest::Client::builder().local_address(IpAddr::V4(address)));
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let body = if path.starts_with("/mcp/") { message } else { call() };
    let request = http.post(gateway.at(path)).json(&body);
    let request = lists.iter().fold(request, |request, list| request.header("x-forwarded-for", *list));
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

const PROXY: Ipv4Addr = Ipv4Addr::LOCALHOST;
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[tokio::test]
async fn clients_are_judged_by_the_address_a_trusted_proxy_tells() {
    let stub = Stub::start().await;
    let access = "access: { allow: [10.0.0.0/8, \"2001:db8::/32\", 127.0.0.1], deny: [10.6.0.0/16, 10.1.2.99] }\n";
    let yaml = format!("{}{access}{}", server("  trusted_proxies: [127.0.0.1/32]\n"), backend(&stub));
    let gateway = Gateway::start(&yaml).await;
    let good = [
        &["10.1.2.3"][..],
        &["10.1.2.3:4711"],
        &["2001:db8::7"],
        &["[2001:db8::7]:443"],
        &["::ffff:10.1.2.3"],
        &["10.6.6.6, 10.1.2.3"],
        &["10.6.6.6", "10.1.2.3"],
        &["10.1.2.3, 127.0.0.1"],
        &[],
    ];
    let bad = [
        &["10.6.0.1"][..],
        &["10.1.2.99"],
        &["::ffff:10.6.0.1"],
        &["203.0.113.9"],
        &["2001:db9::7"],
        &["10.1.2.3, 203.0.113.9"],
        &["10.1.2.3", "203.0.113.9"],
        &["10.1.2.3, 10.6.0.1, 127.0.0.1"],
    ];
    for path in ["/api/mcp/stub", "/mcp/stub"] {
        for lists in good {
            let (status, body) = from(&gateway, PROXY, path, lists).await;
            assert_eq!(status, 200, "{path} {lists:?}: {body}");
        }
        let before = stub.posts();
        for lists in bad {
            let (status, body) = from(&gateway, PROXY, path, lists).await;
            assert_eq!((status, code(&body)), (403, "address_forbidden"), "{path} {lists:?}: {body}");
        }
        assert_eq!(stub.posts(), before, "none reached the backend");
    }
}

#[tokio::test]
async fn what_a_stranger_says_of_its_address_counts_for_nothing() {
    let stub = Stub::start().await;
    let trusting = server("  trusted_proxies: [127.0.0.1/32]\n");
    let gateway = Gateway::start(&format!("{trusting}access: {{ allow: [10.0.0.0/8, 127.0.0.1] }}\n{}", backend(&stub))).await;
    let allowed = |body: &Value| body["code"].is_null();
    for lists in [&["10.1.2.3"][..], &["127.0.0.1"], &["10.1.2.3, 127.0.0.1"], &[]] {
        let (status, body) = from(&gateway, STRANGER, "/api/mcp/stub", lists).await;
        assert_eq!((status, code(&body)), (403, "address_forbidden"), "{lists:?}");
    }
    let gateway = Gateway::start(&format!("{trusting}access: {{ deny: [10.0.0.0/8] }}\n{}", backend(&stub))).await;
    let (status, body) = from(&gateway, STRANGER, "/api/mcp/stub", &["10.1.2.3"]).await;
    assert!(status == 200 && allowed(&body), "nor against another: {body}");
    let gateway = Gateway::start(&format!("{}access: {{ deny: [127.0.0.2] }}\n{}", server(""), backend(&stub))).await;
    assert_eq!(from(&gateway, STRANGER, "/api/mcp/stub", &["10.1.2.3"]).await.0, 403, "without proxies the peer is the client");
    assert_eq!(from(&gateway, PROXY, "/api/mcp/stub", &["127.0.0.2"]).await.0, 200);
}

const APP: &str = "https://app.example.com";

/// A gateway that wants a key and lets pages of [`APP`] read its answers.
async fn shared(stub: &Stub) -> (Gateway, &'static str) {
    let key = "a-key-of-more-than-twenty-characters";
    let auth = format!("auth: {{ api_keys: {{ keys: [ {{ id: page, hash: \"{}\" }} ] }} }}\n", hash(key));
    let access = format!("access: {{ origins: [\"{APP}\"] }}\n");
    (Gateway::start(&format!("{}{auth}{access}{}", server(""), backend(stub))).await, key)
}

/// What a browser looks at before a page may read an answer, and whether a header is among those.
fn may_read(headers: &HeaderMap, name: &str) -> bool {
    let list = |header: &str| headers.get_all(header).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(", ");
    let exposed = list("access-control-expose-headers");
    let is_exposed = name.is_empty() || exposed.split(", ").any(|exposed| exposed.eq_ignore_ascii_case(name));
    let varies = list("vary").split(", ").any(|name| name.eq_ignore_ascii_case("origin"));
    headers.get_all("access-control-allow-origin").iter().count() == 1
        && headers["access-control-allow-origin"] == APP
        && varies
        && is_exposed
}

#[tokio::test]
async fn a_preflight_of_a_listed_origin_is_answered_without_a_credential() {
    let stub = Stub::start().await;
    let (gateway, _) = shared(&stub).await;
    let before = stub.posts();
    let wanted = "authorization, content-type, mcp-protocol-version, mcp-session-id, x-api-key";
    for (path, method) in
        [("/mcp/stub", "POST"), ("/mcp/stub", "GET"), ("/mcp/stub", "DELETE"), ("/api/mcp/stub", "POST"), ("/api/servers", "GET")]
    {
        let preflight = |origin: &'static str| {
            let request = http().request(reqwest::Method::OPTIONS, gateway.at(path)).header("origin", origin);
            request.header("access-control-request-method", method).header("access-control-request-headers", wanted).send()
        };
        let answer = preflight(APP).await.expect("an answer");
        let headers = answer.headers().clone();
        assert!(answer.status().is_success() && may_read(&headers, ""), "{method} {path}: {} {headers:?}", answer.status());
        assert!(headers["access-control-allow-methods"].to_str().is_ok_and(|list| list.split(", ").any(|listed| listed == method)));
        let allowed = headers["access-control-allow-headers"].to_str().expect("text").to_lowercase();
        assert!(wanted.split(", ").all(|name| allowed.split(", ").any(|listed| listed == name)), "{allowed}");
        assert!(!headers.contains_key("access-control-allow-credentials"), "no cookie of ours is worth sending");
        for origin in ["https://evil.example", "null", "https://app.example.com.evil.example", "http://app.example.com"] {
            let refused = preflight(origin).await.expect("an answer");
            assert_eq!(refused.status(), 403, "{origin}");
            assert!(!refused.headers().contains_key("access-control-allow-origin"), "{origin}");
        }
    }
    assert_eq!(stub.posts(), before, "none reached the backend");
}

#[tokio::test]
async fn a_page_of_a_listed_origin_can_read_every_answer() {
    let stub = Stub::start().await;
    let (gateway, key) = shared(&stub).await;
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let unknown = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "echo", "arguments": {} } });
    let post = |path: &str, body: &Value| http().post(gateway.at(path)).json(body);
    let requests = [
        ("a native call", 200, "mcp-session-id", post("/mcp/stub", &message).header("x-api-key", key)),
        ("a native tool call", 200, "x-request-id", post("/mcp/stub", &unknown).header("x-api-key", key)),
        ("a REST call", 200, "x-request-id", post("/api/mcp/stub", &call()).header("x-api-key", key)),
        (
            "a stream",
            200,
            "mcp-session-id",
            http().get(gateway.at("/mcp/stub")).header("accept", "text/event-stream").header("x-api-key", key),
        ),
        ("a page", 200, "", http().get(gateway.at("/api/servers")).header("x-api-key", key)),
        ("a native call without a key", 401, "www-authenticate", post("/mcp/stub", &message)),
        ("a REST call without a key", 401, "www-authenticate", post("/api/mcp/stub", &call())),
        ("a REST call with a wrong key", 401, "www-authenticate", post("/api/mcp/stub", &call()).header("x-api-key", "wrong")),
        ("an unknown server", 404, "", post("/mcp/nothing", &message).header("x-api-key", key)),
        ("no path at all", 404, "", http().get(gateway.at("/nothing"))),
        ("a wrong method", 405, "", http().put(gateway.at("/mcp/stub"))),
    ];
    for (what, status, header, request) in requests {
        let answer = request.header("origin", APP).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{what}");
        assert!(may_read(answer.headers(), header), "{what}: {:?}", answer.headers());
        assert!(status != 401 || answer.headers().contains_key("www-authenticate"), "{what}: how to log in");
    }
    let foreign = post("/mcp/stub", &message).header("x-api-key", key).header("origin", "https://evil.example").send().await;
    let foreign = foreign.expect("an answer");
    assert_eq!(foreign.status(), 403);
    assert!(!foreign.headers().contains_key("access-control-allow-origin"));
    assert_eq!(code(&foreign.json().await.expect("JSON")), "origin_forbidden");
    let own = post("/mcp/stub", &message).header("x-api-key", key).header("origin", &gateway.url).send().await.expect("an answer");
    assert_eq!(own.status(), 200, "our own pages are no strangers");
    let plain = post("/mcp/stub", &message).header("x-api-key", key).send().await.expect("an answer");
    assert!(!plain.headers().contains_key("access-control-allow-origin"), "who is no browser is told nothing of it");
}

#[tokio::test]
async fn our_own_pages_protect_themselves_in_a_browser() {
    let stub = Stub::start().await;
    let gateway = Gateway::start(&format!("{}{}", server(""), backend(&stub))).await;
    let pages =
        ["/admin/config", "/admin/csrf", "/admin/keys", "/metrics", "/health", "/nothing"].map(|path| format!("{}{path}", gateway.admin));
    let docs = ["/docs", "/docs/swagger-ui.css", "/docs/index.html"].map(|path| gateway.at(path));
    for url in pages.iter().chain(&docs) {
        let answer = http().get(url).send().await.expect("an answer");
        let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let policy = text("content-security-policy");
        assert!(policy.contains("default-src '") && policy.contains("frame-ancestors 'none'"), "{url}: {policy}");
        assert!(!policy.contains("unsafe-eval") && !policy.contains("script-src 'unsafe-inline'"), "{url}: {policy}");
        assert_eq!((text("x-content-type-options"), text("referrer-policy")), ("nosniff", "no-referrer"), "{url}");
        if url.starts_with(&gateway.admin) {
            assert_eq!(text("cache-control"), "no-store", "{url}");
        }
    }
}
