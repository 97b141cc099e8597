//! API keys: those in the configuration, with the commands that make them; `keys/managed.rs` has those made at run time.

mod managed;
mod outage;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::support::gateway::{Gateway, command, server};
use crate::support::http;
use crate::support::stub::Stub;

const ROLES: &str = "roles:\n  reader: [ { tools: [echo] } ]\n  writer: [ { tools: [other] } ]\n";

/// `mcp-gateway keys new`: the key, and the entry as it is printed.
async fn new_key(id: &str) -> (String, String) {
    let output = command().args(["keys", "new", id]).output().await.expect("runs");
    let said = String::from_utf8(output.stdout).expect("text");
    let line = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {said}"));
    (line("key:").trim().to_owned(), line("entry:").trim().to_owned())
}

/// `mcp-gateway keys hash`: status, and what it prints on either output.
async fn hash(key: &str) -> (Option<i32>, String, String) {
    use std::process::Stdio;
    let mut command = command();
    command.args(["keys", "hash"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("runs");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(key.as_bytes()).await.expect("written");
    drop(input);
    let output = child.wait_with_output().await.expect("ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text").trim().to_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A gateway with this below `auth:`, before a stub.
async fn guarded(stub: &Stub, auth: &str, more: &str) -> Gateway {
    Gateway::start(&guarded_by(stub, auth, more)).await
}

fn guarded_by(stub: &Stub, auth: &str, more: &str) -> String {
    let backend = stub.backend("one", ", health_check: {path: /health, interval: 10m}");
    format!("{}auth:\n{auth}{ROLES}{more}backends:\n{backend}", server(""))
}

/// The status of a tool call with these headers.
async fn status(gateway: &Gateway, tool: &str, headers: &[(&str, &str)]) -> u16 {
    call(gateway, tool, headers).await.0
}

/// Status and body.
async fn call(gateway: &Gateway, tool: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let body = json!({ "method": "call_tool", "params": { "tool_name": tool, "arguments": {} } });
    let request = http().post(gateway.at("/api/mcp/stub")).json(&body);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = request.send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

/// The status of a call of `echo` with a key in its header.
async fn by_key(gateway: &Gateway, key: &str) -> u16 {
    status(gateway, "echo", &[("x-api-key", key)]).await
}

#[tokio::test]
async fn a_configured_key_is_known_in_its_header_and_as_bearer() {
    let stub = Stub::start().await;
    let ((good, entry), (old, expired)) = tokio::join!(new_key("ci"), new_key("old"));
    let keys = [
        entry.replace("roles: []", "roles: [reader], expires: 2999-01-01"),
        expired.replace("roles: []", "roles: [reader], expires: 2020-01-01T00:00:00Z"),
    ];
    let gateway = guarded(&stub, &format!("  api_keys: {{ keys: [ {} ] }}\n", keys.join(", ")), "").await;
    let (bearer, other) = (format!("Bearer {good}"), format!("mgk_{}", "A".repeat(43)));
    assert_eq!(status(&gateway, "echo", &[("x-api-key", &good)]).await, 200);
    assert_eq!(status(&gateway, "echo", &[("authorization", &bearer)]).await, 200);
    assert_eq!(status(&gateway, "echo", &[("X-API-KEY", &good), ("authorization", &bearer)]).await, 200);
    assert_eq!(status(&gateway, "other", &[("x-api-key", &good)]).await, 403, "its roles are its own");
    assert_eq!(stub.calls(), 3);
    let (short, long, padded) = (good[..good.len() - 1].to_owned(), format!("{good}A"), format!("{good} {good}"));
    let hashed = entry.split('"').nth(1).expect("a hash").to_owned();
    let wrong = [
        vec![],
        vec![("x-api-key", other.as_str())],
        vec![("x-api-key", "")],
        vec![("x-api-key", &short)],
        vec![("x-api-key", &long)],
        vec![("x-api-key", &padded)],
        vec![("x-api-key", &bearer)],
        vec![("x-api-key", &hashed)],
        vec![("x-api-key", hashed.trim_start_matches("sha256:"))],
        vec![("x-api-key", &old)],
        vec![("x-api-key", "ci")],
        vec![("x-api-key", &good), ("x-api-key", &good)],
        vec![("x-api-key", &good), ("x-api-key", &other)],
        vec![("x-api-key", &other), ("x-api-key", &good)],
        vec![("authorization", &bearer), ("authorization", &bearer)],
        vec![("x-api-key", &other), ("authorization", &bearer)],
        vec![("authorization", &good)],
    ];
    for headers in wrong {
        let (status, body) = call(&gateway, "echo", &headers).await;
        assert_eq!((status, body["code"].as_str()), (401, Some("unauthorized")), "{headers:?}: {body}");
    }
    assert_eq!(call(&gateway, "echo", &[("authorization", &format!("Bearer {old}"))]).await.0, 401, "expired");
    assert_eq!(stub.calls(), 3, "none reached the backend");
}

#[tokio::test]
async fn the_header_has_the_name_it_was_given_and_stays_here() {
    let stub = Stub::start().await;
    let header = "X-Secret-Key";
    let (key, entry) = new_key("ci").await;
    let entry = entry.replace("roles: []", "roles: [reader]");
    let gateway = guarded(&stub, &format!("  api_keys: {{ header: {header}, keys: [ {entry} ] }}\n"), "").await;
    assert_eq!(by_key(&gateway, &key).await, 401, "the usual name is not the one");
    assert_eq!(status(&gateway, "echo", &[(header, &key)]).await, 200);
    assert!(!format!("{:?}", stub.headers()).contains(&key), "a REST call passes it on: {:?}", stub.headers());
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let native = http().post(gateway.at("/mcp/stub")).header(header, &key).json(&ping).send().await.expect("an answer");
    assert_eq!(native.status(), 200);
    assert!(!format!("{:?}", stub.headers()).contains(&key), "a native call passes it on: {:?}", stub.headers());
}

#[test]
fn a_header_that_goes_upstream_is_no_place_for_a_credential() {
    let backends = "backends: [ { name: a, url: \"http://x\" } ]";
    for name in ["Mcp-Key", "mcp-session-id", "User-Agent", "Baggage", "Authorization", "Cookie"] {
        let yaml = format!("{backends}\nauth: {{ api_keys: {{ header: {name} }} }}\n");
        let problems = mcp_gateway::config::parse("gateway.yaml", &yaml, &|_| None).expect_err(name);
        assert_eq!((problems.len(), problems[0].path.as_str()), (1, "auth.api_keys.header"), "{problems:?}");
    }
    let yaml = format!("{backends}\nauth: {{ external: {{ url: \"http://authn/\", headers: [X-Auth, Mcp-Auth] }} }}\n");
    let problems = mcp_gateway::config::parse("gateway.yaml", &yaml, &|_| None).expect_err("Mcp-Auth");
    assert!(problems[0].message.contains("`Mcp-Auth` goes upstream"), "{problems:?}");
}

#[tokio::test]
async fn what_the_commands_print_works_in_a_configuration() {
    let stub = Stub::start().await;
    let ((key, entry), (second, _)) = tokio::join!(new_key("as-printed"), new_key("another"));
    assert_ne!(key, second);
    assert!(key.starts_with("mgk_") && key.len() >= 40, "{} characters", key.len());
    let own = "a key that we thought of, with spaces".replace(' ', "-");
    let (status_of, hashed, _) = hash(&format!("{own}\n")).await;
    assert_eq!((status_of, hash(&own).await.1), (Some(0), hashed.clone()), "with or without a line's end");
    let keys = format!("      - {entry}\n      - {{ id: own, hash: \"{hashed}\", roles: [reader] }}\n");
    let gateway = guarded(&stub, &format!("  api_keys:\n    keys:\n{keys}"), "").await;
    assert_eq!((by_key(&gateway, &key).await, by_key(&gateway, &own).await), (403, 200), "the printed entry has no roles yet");
    let (refused, printed, told) = hash("password\n").await;
    assert_eq!((refused, printed.as_str()), (Some(2), ""), "what can be guessed is not hashed");
    assert!(told.contains("20 characters") && !told.contains("password"), "{told}");
}

#[tokio::test]
async fn only_an_id_that_a_configuration_takes_gets_a_key() {
    for id in ["with space", "a, roles: [admin]", "", "ä"] {
        let output = command().args(["keys", "new", id]).output().await.expect("runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!output.status.success() && !said.contains("mgk_"), "`{id}` got an entry that no configuration takes: {said}");
    }
}

#[tokio::test]
async fn requests_count_by_tenants_the_configuration_names_and_by_no_others() {
    let (stub, secret) = (Stub::start().await, "0123456789abcdef0123456789abcdef");
    let (key, entry) = new_key("ci").await;
    let entry = entry.replace("tenant: ", "tenant: acme").replace("roles: []", "roles: [reader]");
    let jwt = format!("  jwt: [ {{ algorithms: [HS256], secret: {secret}, claims: {{ tenant: org }} }} ]\n  tenants: [beta]\n");
    let gateway = guarded(&stub, &format!("  api_keys: {{ keys: [ {entry} ] }}\n{jwt}"), "").await;
    assert_eq!(by_key(&gateway, &key).await, 200);
    let signer = crate::tokens::key::Key::secret("HS256", secret);
    for tenant in ["beta", "made-up-1", "made-up-2"] {
        let token = crate::tokens::token::Token::of("anybody", &signer).claim("org", tenant).claim("roles", json!(["reader"])).compact();
        assert_eq!(status(&gateway, "echo", &[("authorization", &format!("Bearer {token}"))]).await, 200, "{tenant}");
    }
    for (tenant, count) in [("acme", 1), ("beta", 1), ("other", 2)] {
        // A request is counted once its answer is through.
        let series = format!("tenant_requests_total{{status=\"200\",tenant=\"{tenant}\"}}");
        crate::support::eventually(&series, async || (gateway.metric(&series).await == count).then_some(())).await;
    }
    assert_eq!(gateway.metric("tenant_requests_total{status=\"200\",tenant=\"made-up-1\"}").await, 0);
}
