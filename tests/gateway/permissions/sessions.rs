//! Sessions of a legacy server: whose they are, seen from the client and from upstream.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use super::callers::{Guarded, hash, key};
use super::offers;
use super::witness::{Seen, Witness};
use crate::support::http;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A legacy server: every session has an id, and every request but the first needs one.
fn answer(seen: &Seen) -> Response {
    let body = seen.json();
    if seen.verb == Method::POST && body["method"] == "initialize" {
        let mut response = offers::answer(seen);
        response.headers_mut().insert("mcp-session-id", uuid::Uuid::new_v4().to_string().parse().expect("a value"));
        return response;
    }
    if seen.path == "/mcp" && seen.header("mcp-session-id").is_empty() {
        let error = json!({ "jsonrpc": "2.0", "id": body["id"], "error": { "code": -32600, "message": "no session" } });
        return (StatusCode::BAD_REQUEST, [("content-type", "application/json")], error.to_string()).into_response();
    }
    offers::answer(seen)
}

/// A credential, as one header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Credential(&'static str, String);

fn by_key(name: &str) -> Credential {
    Credential("x-api-key", key(name))
}

/// A token for a subject of a tenant; `serial` makes it another one for the same.
fn by_token(subject: &str, tenant: &str, serial: u64) -> Credential {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({ "iss": "https://idp.example", "sub": subject, "org": tenant, "roles": ["user"], "exp": now + 3600 + serial });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), signed.as_bytes());
    Credential("authorization", format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(tag)))
}

fn anonymous() -> Credential {
    Credential("accept-language", "en".to_owned())
}

/// A gateway before a legacy server of two names.
pub struct World {
    witness: Witness,
    guarded: Guarded,
    client: reqwest::Client,
}

impl World {
    pub async fn start() -> Self {
        let witness = Witness::start(answer).await;
        let entry = |id: &str, tenant: &str| json!({ "id": id, "hash": hash(id), "tenant": tenant, "roles": ["user"] });
        let auth = json!({
            "required": false,
            "anonymous": { "roles": ["user"] },
            "api_keys": { "keys": [entry("ann", "acme"), entry("bob", "acme"), entry("eve", "other")] },
            "jwt": [{ "issuer": "https://idp.example", "algorithms": ["HS256"], "secret": SECRET, "claims": { "tenant": "org", "roles": "roles" } }],
        });
        let sections = format!("auth: {auth}\nroles: {}\n", json!({ "user": [{}] }));
        let guarded = Guarded::with(&sections, &witness.backend(&["main", "other"], "legacy"), &key("ann")).await;
        Self { witness, guarded, client: http() }
    }

    fn request(&self, verb: Method, server: &str, who: &Credential) -> reqwest::RequestBuilder {
        let request = self.client.request(verb, self.guarded.gateway.at(&format!("/mcp/{server}")));
        request.header(who.0, &who.1).header("accept", "application/json, text/event-stream").header("x-request-id", "ours")
    }

    async fn initialize(&self, who: &Credential) -> String {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": { "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
        let answer = self.request(Method::POST, "main", who).json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.headers()["mcp-session-id"].to_str().expect("text").to_owned()
    }

    /// The status and code of the answer to a request within a session.
    async fn within(&self, verb: Method, server: &str, who: &Credential, session: &str) -> (u16, String) {
        let request = self.request(verb.clone(), server, who).header("mcp-session-id", session);
        let ping = json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" });
        let request = if verb == Method::POST { request.json(&ping) } else { request };
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_str(&answer.text().await.expect("text")).unwrap_or_default();
        (status, body["error"]["data"]["code"].as_str().unwrap_or_default().to_owned())
    }

    pub async fn only_its_owner_continues_a_session(&self) {
        let alice = by_token("alice", "acme", 0);
        let twin = by_token("alice", "other", 0);
        let owners = [by_key("ann"), by_key("bob"), by_key("eve"), alice, twin, anonymous()];
        let mut sessions = Vec::new();
        for owner in &owners {
            sessions.push(self.initialize(owner).await);
        }
        assert_eq!(self.witness.seen().len(), owners.len());
        for (session, owner) in sessions.iter().zip(&owners) {
            for other in owners.iter().filter(|other| *other != owner) {
                for verb in [Method::POST, Method::GET, Method::DELETE] {
                    let told = self.within(verb.clone(), "main", other, session).await;
                    assert_eq!(told, (404, "unknown_session".to_owned()), "{verb} of {owner:?} by {other:?}");
                }
            }
            let elsewhere = self.within(Method::POST, "other", owner, session).await;
            assert_eq!(elsewhere, (404, "unknown_session".to_owned()), "{owner:?} on another server");
        }
        assert_eq!(self.witness.seen().len(), 0, "nothing of it reaches the server");
        for (session, owner) in sessions.iter().zip(&owners) {
            assert_eq!(self.within(Method::POST, "main", owner, session).await.0, 200, "{owner:?} continues");
        }
        let renewed = by_token("alice", "acme", 60);
        assert_eq!(self.within(Method::POST, "main", &renewed, &sessions[3]).await.0, 200, "the same subject with a newer token");
        let ids: BTreeSet<String> = self.witness.seen().iter().map(|seen| seen.header("mcp-session-id").to_owned()).collect();
        assert_eq!(ids.len(), owners.len(), "upstream each is its own");
        assert!(sessions.iter().all(|sealed| !ids.contains(sealed)), "no client sees the server's own id");
    }

    async fn rest(&self, who: &Credential, label: &str) {
        let call = json!({ "method": "call_tool", "params": { "tool_name": "read_a", "arguments": {} } });
        let request = self.client.post(self.guarded.gateway.at("/api/mcp/main")).header(who.0, &who.1).header("x-request-id", label);
        let answer = request.json(&call).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{label}");
    }

    pub async fn each_caller_has_one_session_upstream(&self) {
        let callers = [
            ("ann", by_key("ann")),
            ("bob", by_key("bob")),
            ("eve", by_key("eve")),
            ("alice", by_token("alice", "acme", 0)),
            ("alice", by_token("alice", "acme", 60)),
            ("twin", by_token("alice", "other", 0)),
            ("ann-too", by_token("ann", "acme", 0)),
            ("anonymous", anonymous()),
        ];
        for _ in 0..3 {
            // All at once: sessions are opened while others of them are.
            futures::future::join_all(callers.iter().map(|(label, who)| self.rest(who, label))).await;
        }
        let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for seen in self.witness.seen().iter().filter(|seen| seen.json()["method"] == "tools/call") {
            used.entry(seen.request.clone()).or_default().insert(seen.header("mcp-session-id").to_owned());
        }
        assert_eq!(used.len(), 7, "{used:?}");
        assert!(used.values().all(|ids| ids.len() == 1 && !ids.contains("")), "one session each: {used:?}");
        let distinct: BTreeSet<&String> = used.values().flatten().collect();
        assert_eq!(distinct.len(), used.len(), "and nobody's is another's: {used:?}");
    }
}
