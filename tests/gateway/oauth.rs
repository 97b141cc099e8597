//! The gateway as an OAuth protected resource: a real client that is given nothing but a URL, a real authorization
//! server, what the gateway tells them of each other, and for whom a token is good.

mod introspection;

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::part::{AuthorizationServer, Server, oauth_scenario};
use crate::support::stub::Stub;

/// Who may do what, for the scopes that [`AuthorizationServer`] grants.
const SCOPES: &str = "  scopes: { \"mcp:read\": [reader], \"mcp:write\": [writer] }\n";
const ROLES: &str = "roles:\n  reader: [ { tools: [echo] } ]\n  writer: [ { tools: [add] } ]\n";

/// An issuer whose tokens are JWTs.
fn jwt(issuer: &str) -> String {
    let claims = "claims: { tenant: org, tier: plan }";
    format!("  jwt:\n    - {{ issuer: \"{issuer}\", jwks_url: \"{issuer}/jwks\", algorithms: [ES256], {claims} }}\n")
}

/// What the gateway at `url` says of itself and its authorization server; `more` follows.
fn oauth2(url: &str, issuer: &str, more: &str) -> String {
    format!("  oauth2: {{ resource: \"{url}\", authorization_servers: [\"{issuer}\"], challenge_scopes: [\"mcp:read\"]{more} }}\n")
}

/// How the gateway at `url` is to explain opaque tokens by a real authorization server.
fn opaque(url: &str, issuer: &str) -> String {
    let endpoint = format!("introspection_url: \"{issuer}/token/introspection\"");
    oauth2(url, issuer, &format!(", {endpoint}, client_id: gateway, client_secret: gateway-secret, cache: 1s"))
}

/// A gateway with `auth`, which is made from its URL. It starts without, because nobody knows the URL before it listens.
async fn guarded(backends: &str, auth: impl Fn(&str) -> String) -> Gateway {
    let open = format!("{}backends:\n{backends}", server(""));
    let gateway = Gateway::start(&open).await;
    gateway.load(&format!("{open}auth:\n{}{SCOPES}{ROLES}", auth(&gateway.url))).await;
    gateway
}

/// A gateway before a real MCP server, which it takes for two.
struct World {
    gateway: Gateway,
    login: AuthorizationServer,
    _server: Server,
}

impl World {
    async fn start(is_opaque: bool) -> Self {
        let (login, server) = tokio::join!(AuthorizationServer::start(is_opaque), Server::python_sdk(&[]));
        let backends = format!("  - {{ name: py, url: \"{}\", capabilities: [files, other] }}\n", server.url);
        let issuer = login.issuer.clone();
        let auth = |url: &str| if is_opaque { opaque(url, &issuer) } else { format!("{}{}", jwt(&issuer), oauth2(url, &issuer, "")) };
        let gateway = guarded(&backends, auth).await;
        Self { gateway, login, _server: server }
    }

    /// A token for a path below the gateway.
    async fn token(&self, scope: &str, path: &str) -> String {
        self.login.token(scope, &self.gateway.at(path)).await
    }
}

/// An answer, taken apart.
struct Answer {
    status: u16,
    challenge: String,
    retry_after: Option<u64>,
    body: Value,
}

impl Answer {
    async fn of(request: reqwest::RequestBuilder) -> Self {
        let response = request.send().await.expect("an answer");
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let (challenge, retry_after) = (header("www-authenticate"), header("retry-after").parse().ok());
        Self { status: response.status().as_u16(), challenge, retry_after, body: response.json().await.unwrap_or_default() }
    }

    fn code(&self) -> &str {
        let native = self.body["error"]["data"]["code"].as_str();
        self.body["code"].as_str().or(native).unwrap_or_default()
    }
}

/// A tool call over REST.
async fn rest(gateway: &Gateway, server: &str, tool: &str, token: Option<&str>) -> Answer {
    let arguments = if tool == "add" { json!({ "a": 2, "b": 3 }) } else { json!({ "text": "hello" }) };
    let body = json!({ "method": "call_tool", "params": { "tool_name": tool, "arguments": arguments } });
    let request = http().post(gateway.at(&format!("/api/mcp/{server}"))).json(&body);
    Answer::of(token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth)).await
}

/// A native tool call, whose id is `seven`.
async fn native(gateway: &Gateway, server: &str, tool: &str, token: Option<&str>) -> Answer {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {}
    });
    let params = json!({ "name": tool, "arguments": { "text": "hello" }, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": "seven", "method": "tools/call", "params": params });
    let headers = [
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", tool),
    ];
    let request = http().post(gateway.at(&format!("/mcp/{server}"))).json(&body);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    Answer::of(token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth)).await
}

/// The scopes a client asked for, each time; `offline_access` is its own idea.
fn wishes(observed: &Value) -> Vec<String> {
    let list = observed["authorizations"].as_array().expect("a list");
    list.iter().map(|scopes| scopes.as_str().expect("text").trim_end_matches(" offline_access").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_logs_in_by_itself_in_either_era() {
    let world = World::start(false).await;
    let url = world.gateway.at("/mcp/files");
    for (era, version) in [("legacy", "2025-11-25"), ("modern", "2026-07-28")] {
        let observed = oauth_scenario(&url, era, "reach").await;
        assert_eq!(observed["tools"], json!(["echo"]), "{era}: it sees what its scope brings: {observed}");
        assert_eq!(observed["read"], "hello", "{era}");
        assert_eq!(wishes(&observed), ["mcp:read"], "{era}: it asked for what the challenge said");
        assert_eq!(observed["resource"], json!(url), "{era}: its token is for this server alone");
        assert_eq!(observed["protocol_version"], version, "{observed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_asks_for_more_when_a_call_needs_it() {
    let world = World::start(false).await;
    for era in ["legacy", "modern"] {
        let observed = oauth_scenario(&world.gateway.at("/mcp/files"), era, "step_up").await;
        assert_eq!(wishes(&observed), ["mcp:read", "mcp:read mcp:write"], "{era}: what it has, and what it needs");
        assert!(observed["write"].as_str().is_some_and(|sum| sum.contains('5')), "{era}: {observed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_an_opaque_token_comes_as_far() {
    let world = World::start(true).await;
    for era in ["legacy", "modern"] {
        let observed = oauth_scenario(&world.gateway.at("/mcp/files"), era, "step_up").await;
        assert_eq!(wishes(&observed), ["mcp:read", "mcp:read mcp:write"], "{era}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_one_server_is_good_for_no_other() {
    for is_opaque in [false, true] {
        let world = World::start(is_opaque).await;
        let gateway = &world.gateway;
        let (files, whole) = (world.token("mcp:read", "/mcp/files").await, world.token("mcp:read", "").await);
        for (server, token, status) in [("files", &files, 200), ("other", &files, 403), ("files", &whole, 200), ("other", &whole, 200)] {
            let (by_rest, by_native) =
                (rest(gateway, server, "echo", Some(token)).await, native(gateway, server, "echo", Some(token)).await);
            assert_eq!((by_rest.status, by_native.status), (status, status), "{server}: {} {}", by_rest.body, by_native.body);
            if status == 403 {
                assert_eq!((by_rest.code(), by_native.code()), ("forbidden", "forbidden"));
                assert_eq!((by_rest.challenge, by_native.challenge), (String::new(), String::new()), "no scope would help");
            }
        }
        let listed = http().get(gateway.at("/api/servers")).bearer_auth(&files).send().await.expect("an answer");
        let listed: Value = listed.json().await.expect("JSON");
        let names: Vec<_> = listed["servers"].as_array().expect("a list").iter().filter_map(|row| row["name"].as_str()).collect();
        assert_eq!(names, ["files"], "what it is not good for is not shown either");
        for stranger in
            ["https://elsewhere.example/mcp/files".to_owned(), format!("{}0/mcp/files", gateway.url), gateway.at("/mcp/files/x")]
        {
            let refused = rest(gateway, "files", "echo", Some(&world.login.token("mcp:read", &stranger).await)).await;
            assert_eq!((refused.status, refused.code()), (401, "unauthorized"), "{stranger}");
            assert!(refused.challenge.contains("error=\"invalid_token\""), "{}", refused.challenge);
        }
    }
}

/// The metadata document at a path: status and body.
async fn metadata(gateway: &Gateway, path: &str, version: Option<&str>) -> Answer {
    let request = http().get(gateway.at(&format!("/.well-known/oauth-protected-resource{path}")));
    Answer::of(version.into_iter().fold(request, |request, version| request.header("mcp-protocol-version", version))).await
}

#[tokio::test]
async fn the_metadata_is_open_at_every_well_known_place() {
    let (stub, issuer) = (Stub::start().await, "http://127.0.0.1:9");
    let gateway = guarded(&stub.backend("one", ""), |url| format!("{}{}", jwt(issuer), oauth2(url, issuer, ""))).await;
    for path in ["", "/mcp", "/mcp/stub"] {
        for version in [None, Some("2025-06-18"), Some("2025-11-25"), Some("2026-07-28")] {
            let told = metadata(&gateway, path, version).await;
            assert_eq!(told.status, 200, "{path} {version:?}: {}", told.body);
            assert_eq!(told.body["resource"], gateway.at(path), "absolute, and the one that was asked about");
            assert_eq!(told.body["authorization_servers"], json!([issuer]));
            assert_eq!(told.body["scopes_supported"], json!(["mcp:read", "mcp:write"]));
            assert_eq!(told.body["bearer_methods_supported"], json!(["header"]));
        }
    }
    for nowhere in ["/", "/mcp/", "/mcp/stub/", "/api/mcp/stub", "x"] {
        assert_eq!(metadata(&gateway, nowhere, None).await.status, 404, "{nowhere}");
    }
}

/// Also for a gateway whose public URL has a path, which clients put behind the well-known part (RFC 9728 §3.1).
#[tokio::test]
async fn the_metadata_is_where_the_challenge_says() {
    let (stub, issuer) = (Stub::start().await, "http://127.0.0.1:9");
    for base in ["", "/gw", "/gw/inner/"] {
        let gateway = guarded(&stub.backend("one", ""), |url| {
            let resource = format!("{url}{base}");
            format!("{}{}", jwt(issuer), oauth2(&resource, issuer, ""))
        })
        .await;
        for refused in [native(&gateway, "stub", "echo", None).await, rest(&gateway, "stub", "echo", None).await] {
            let place = refused.challenge.split("resource_metadata=\"").nth(1).expect("a place").trim_end_matches('"').to_owned();
            let told = Answer::of(http().get(&place)).await;
            assert_eq!(told.status, 200, "{place}: {}", told.body);
            let resource = told.body["resource"].as_str().expect("a URL");
            assert_eq!(place.replace("/.well-known/oauth-protected-resource", ""), resource, "RFC 9728 §3.3: one belongs to the other");
        }
    }
}

#[tokio::test]
async fn without_a_configured_url_the_metadata_names_the_one_that_was_called() {
    let stub = Stub::start().await;
    let auth = "auth:\n  jwt: [ { issuer: \"http://127.0.0.1:9\", jwks_url: \"http://127.0.0.1:9/jwks\", algorithms: [ES256], audience: [gw] } ]\n";
    let discovered = "  oauth2: { authorization_servers: [\"https://login.example.com\"] }\naccess: { hosts: [gw.example.com] }\n";
    let proxied = server("  trusted_proxies: [127.0.0.1/32]\n");
    let gateway = Gateway::start(&format!("{proxied}{auth}{discovered}backends:\n{}", stub.backend("one", ""))).await;
    assert_eq!(metadata(&gateway, "/mcp/stub", None).await.body["resource"], gateway.at("/mcp/stub"));
    let request = http().get(gateway.at("/.well-known/oauth-protected-resource/mcp/stub")).header("host", "gw.example.com");
    let behind_tls = Answer::of(request.header("x-forwarded-proto", "https")).await;
    assert_eq!(behind_tls.body["resource"], "https://gw.example.com/mcp/stub", "as the client sees us");
    let undiscovered = Gateway::start(&format!("{}{auth}backends:\n{}", server(""), stub.backend("one", ""))).await;
    assert_eq!(metadata(&undiscovered, "", None).await.status, 404, "there is nothing to discover");
    let refused = rest(&undiscovered, "stub", "echo", None).await;
    assert_eq!((refused.status, refused.challenge.as_str()), (401, "Bearer realm=\"mcp-gateway\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_says_where_to_log_in_and_for_what() {
    let world = World::start(false).await;
    let gateway = &world.gateway;
    let place = |path: &str| format!("resource_metadata=\"{}\"", gateway.at(&format!("/.well-known/oauth-protected-resource{path}")));
    let read = "Bearer realm=\"mcp-gateway\", scope=\"mcp:read\"";
    let (by_rest, by_native) = (rest(gateway, "files", "echo", None).await, native(gateway, "files", "echo", None).await);
    assert_eq!((by_rest.status, by_native.status), (401, 401));
    assert_eq!(by_rest.challenge, format!("{read}, {}", place("")));
    assert_eq!(by_native.challenge, format!("{read}, {}", place("/mcp/files")));
    assert_eq!((by_rest.body["status"].as_u64(), by_rest.code()), (Some(401), "unauthorized"));
    let error = &by_native.body["error"];
    assert_eq!((error["code"].as_i64(), by_native.code()), (Some(-31401), "unauthorized"), "{}", by_native.body);
    let listing = Answer::of(http().get(gateway.at("/api/servers"))).await;
    assert_eq!((listing.status, listing.challenge), (401, format!("{read}, {}", place(""))));

    let wrong = native(gateway, "files", "echo", Some("a.b.c")).await;
    assert_eq!((wrong.status, wrong.challenge), (401, format!("{read}, error=\"invalid_token\", {}", place("/mcp/files"))));
    let token = world.token("mcp:read", "/mcp/files").await;
    let more = "Bearer realm=\"mcp-gateway\", scope=\"mcp:read mcp:write\", error=\"insufficient_scope\"";
    let (by_rest, by_native) = (rest(gateway, "files", "add", Some(&token)).await, native(gateway, "files", "add", Some(&token)).await);
    assert_eq!((by_rest.status, by_rest.code()), (403, "insufficient_scope"));
    assert_eq!((by_native.status, by_native.code()), (403, "insufficient_scope"));
    assert_eq!(by_rest.challenge, format!("{more}, {}", place("")));
    assert_eq!(by_native.challenge, format!("{more}, {}", place("/mcp/files")));
    assert_eq!(by_native.body["id"], "seven");
    let unhelpful = native(gateway, "files", "big", Some(&token)).await;
    assert_eq!((unhelpful.status, unhelpful.code(), unhelpful.challenge.as_str()), (403, "forbidden", ""), "no scope permits it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_token_is_not_passed_on() {
    let (stub, login) = (Stub::start().await, AuthorizationServer::start(false).await);
    let issuer = login.issuer.clone();
    for (credential, expected) in [(", credential: {bearer: our-own}", vec!["Bearer our-own"]), ("", vec![])] {
        let auth = |url: &str| format!("{}{}", jwt(&issuer), oauth2(url, &issuer, ""));
        let gateway = guarded(&stub.backend("one", credential), auth).await;
        let token = login.token("mcp:read", &gateway.at("/mcp/stub")).await;
        for is_native in [true, false] {
            let before = stub.calls();
            let ask = if is_native {
                native(&gateway, "stub", "echo", Some(&token)).await
            } else {
                rest(&gateway, "stub", "echo", Some(&token)).await
            };
            assert_eq!((ask.status, stub.calls()), (200, before + 1), "{}", ask.body);
            let headers = stub.headers();
            let sent: Vec<_> = headers.get_all("authorization").iter().filter_map(|value| value.to_str().ok()).collect();
            assert_eq!(sent, expected, "native: {is_native}");
            assert!(!format!("{headers:?}").contains(&token), "in no other header either: {headers:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_an_issuers_keys_cannot_be_fetched_its_tokens_are_not_judged() {
    let (stub, login) = (Stub::start().await, AuthorizationServer::start(false).await);
    let unreachable = jwt(&login.issuer).replace(&format!("{}/jwks", login.issuer), "http://127.0.0.1:9/jwks");
    let auth = |url: &str| format!("{unreachable}{}", oauth2(url, &login.issuer, ""));
    let gateway = guarded(&stub.backend("one", ", health_check: {path: /health, interval: 10m}"), auth).await;
    let token = login.token("mcp:read", &gateway.at("/mcp/stub")).await;
    for answer in [rest(&gateway, "stub", "echo", Some(&token)).await, native(&gateway, "stub", "echo", Some(&token)).await] {
        assert_eq!((answer.status, answer.code()), (503, "auth_unavailable"), "{}", answer.body);
        assert!(answer.retry_after.is_some_and(|wait| wait >= 1));
    }
    assert_eq!(stub.calls(), 0);
}
