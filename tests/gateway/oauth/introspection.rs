//! Opaque tokens (RFC 7662): what the endpoint says is read strictly, believed for a while and asked once for many, and
//! an endpoint that says nothing lets nobody in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Answer, World, guarded, jwt, native, oauth2, rest};
use crate::support::gateway::Gateway;
use crate::support::part::AuthorizationServer;
use crate::support::stub::Stub;
use crate::support::{eventually, http};

/// What the endpoint does with a question.
#[derive(Clone, Default)]
enum Act {
    /// Says what is known of the token.
    #[default]
    Explain,
    /// This status and body.
    Say(u16, &'static str),
    /// Nothing, ever.
    Hang,
    /// Explains once the test lets it.
    Wait(watch::Receiver<bool>),
}

/// An introspection endpoint that counts; it stops when dropped.
struct Endpoint {
    url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    act: Mutex<Act>,
    known: Mutex<HashMap<String, Value>>,
    asked: Mutex<Vec<(String, HeaderMap)>>,
}

impl Endpoint {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let shared = Arc::new(Shared::default());
        let router = axum::Router::new().route("/introspect", axum::routing::post(explain)).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, shared, task }
    }

    /// Makes a token known by its introspection.
    fn explains(&self, token: &str, said: Value) {
        self.shared.known.lock().expect("no panic while held").insert(token.to_owned(), said);
    }

    fn act(&self, act: Act) {
        *self.shared.act.lock().expect("no panic while held") = act;
    }

    /// How often it was asked about a token.
    fn asked(&self, token: &str) -> usize {
        self.shared.asked.lock().expect("no panic while held").iter().filter(|(body, _)| body.contains(token)).count()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn explain(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> Response {
    shared.asked.lock().expect("no panic while held").push((body.clone(), headers));
    let act = shared.act.lock().expect("no panic while held").clone();
    match act {
        Act::Say(status, body) => {
            return (StatusCode::from_u16(status).expect("a status"), [("location", "/introspect")], body).into_response();
        }
        Act::Hang => std::future::pending().await,
        Act::Wait(mut gate) => drop(gate.wait_for(|open| *open).await),
        Act::Explain => {}
    }
    let token = body.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap_or_default();
    let known = shared.known.lock().expect("no panic while held").get(token).cloned();
    axum::Json(known.unwrap_or_else(|| json!({ "active": false }))).into_response()
}

/// A gateway that waits for the endpoint as long as `timeout` and believes it for long, before a stub.
async fn asking(stub: &Stub, endpoint: &str, timeout: &str) -> Gateway {
    let client = "client_id: \"gate way\", client_secret: \"a:b c\"";
    let more = format!(", introspection_url: \"{endpoint}/introspect\", {client}, timeout: {timeout}, cache: 10m");
    let backend = stub.backend("one", ", health_check: {path: /health, interval: 10m}");
    guarded(&backend, |url| oauth2(url, "http://127.0.0.1:9", &more)).await
}

/// The introspection of a good token; what is null is left out.
fn good(gateway: &Gateway, changed: &Value) -> Value {
    let mut said = json!({ "active": true, "sub": "ann", "scope": "mcp:read", "aud": gateway.at("/mcp/stub"), "exp": now() + 300 });
    for (name, value) in changed.as_object().expect("an object") {
        said[name] = value.clone();
    }
    said.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    said
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_refused_once_its_introspection_is_forgotten() {
    let world = World::start(true).await;
    let token = world.token("mcp:read", "/mcp/files").await;
    assert_eq!(rest(&world.gateway, "files", "echo", Some(&token)).await.status, 200);
    let unknown = rest(&world.gateway, "files", "echo", Some("never-issued")).await;
    assert_eq!((unknown.status, unknown.code()), (401, "unauthorized"));
    assert!(unknown.challenge.contains("error=\"invalid_token\""), "{}", unknown.challenge);
    world.login.revoke(&token).await;
    let refused = async || (rest(&world.gateway, "files", "echo", Some(&token)).await.status == 401).then_some(());
    eventually("the revocation is seen", refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_first_requests_with_one_token_ask_once() {
    let (stub, endpoint) = (Stub::start().await, Endpoint::start().await);
    let gateway = Arc::new(asking(&stub, &endpoint.url, "20s").await);
    endpoint.explains("shared", good(&gateway, &json!({})));
    let (open, gate) = watch::channel(false);
    endpoint.act(Act::Wait(gate));
    let many: Vec<_> = (0..30)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move { rest(&gateway, "stub", "echo", Some("shared")).await.status })
        })
        .collect();
    eventually("the endpoint is asked", async || (endpoint.asked("shared") > 0).then_some(())).await;
    // One more is the connection that asks.
    eventually("all have come", async || (gateway.metric("open_connections ").await > 30).then_some(())).await;
    open.send(true).expect("the endpoint waits");
    for one in many {
        assert_eq!(one.await.expect("no panic"), 200);
    }
    assert_eq!((endpoint.asked("shared"), stub.calls()), (1, 30));
    assert_eq!(native(&gateway, "stub", "echo", Some("shared")).await.status, 200);
    assert_eq!(endpoint.asked("shared"), 1, "what is remembered is not asked again");
    let asked = endpoint.shared.asked.lock().expect("no panic while held").clone();
    let (form, headers) = &asked[0];
    assert_eq!(form, "token=shared&token_type_hint=access_token");
    // RFC 6749 §2.3.1: `gate+way:a%3Ab+c`.
    assert_eq!(headers["authorization"], "Basic Z2F0ZSt3YXk6YSUzQWIrYw==");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_cannot_be_asked_lets_nobody_in() {
    let (stub, endpoint) = (Stub::start().await, Endpoint::start().await);
    let gateway = asking(&stub, &endpoint.url, "300ms").await;
    endpoint.explains("good", good(&gateway, &json!({})));
    let active = r#"{"active":true,"sub":"ann","scope":"mcp:read"}"#;
    let faults = [
        Act::Say(500, "{}"),
        Act::Say(500, active),
        Act::Say(401, active),
        Act::Say(404, active),
        Act::Say(302, active),
        Act::Say(200, ""),
        Act::Say(200, "garbage"),
        Act::Say(200, "true"),
        Act::Say(200, "[true]"),
        Act::Say(200, r#"{"active":true"#),
        Act::Hang,
    ];
    for fault in faults {
        let what = if let Act::Say(status, body) = &fault { format!("{status} {body}") } else { "silence".to_owned() };
        endpoint.act(fault);
        for answer in [rest(&gateway, "stub", "echo", Some("good")).await, native(&gateway, "stub", "echo", Some("good")).await] {
            assert_eq!((answer.status, answer.code()), (503, "auth_unavailable"), "{what}: {}", answer.body);
            assert!(answer.retry_after.is_some_and(|wait| wait >= 1), "{what}: it says when to try again");
            assert_eq!(answer.challenge, "", "{what}: a new token would not help");
        }
    }
    assert_eq!(stub.calls(), 0, "none reached the backend");
    endpoint.act(Act::Explain);
    assert_eq!(rest(&gateway, "stub", "echo", Some("good")).await.status, 200, "no fault is remembered");
    let url = endpoint.url.clone();
    drop(endpoint);
    let refuses = async || tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.is_err().then_some(());
    eventually("the endpoint is down", refuses).await;
    let down = rest(&gateway, "stub", "echo", Some("another")).await;
    assert_eq!((down.status, down.code(), down.retry_after.is_some()), (503, "auth_unavailable", true), "{}", down.body);
    assert_eq!(rest(&gateway, "stub", "echo", Some("good")).await.status, 200, "what is known goes on");
}

#[tokio::test]
async fn what_the_endpoint_says_is_read_strictly() {
    let (stub, endpoint) = (Stub::start().await, Endpoint::start().await);
    let gateway = asking(&stub, &endpoint.url, "20s").await;
    let wrong = [
        json!({ "active": "true" }),
        json!({ "active": 1 }),
        json!({ "active": null }),
        json!({ "active": false }),
        json!({ "active": [true] }),
        json!({ "exp": now() - 1 }),
        json!({ "exp": 0 }),
        json!({ "exp": -1 }),
        json!({ "exp": (now() + 300).to_string() }),
        json!({ "aud": null }),
        json!({ "aud": [] }),
        json!({ "aud": "https://elsewhere.example" }),
        json!({ "aud": format!("{}.evil", gateway.url) }),
        json!({ "aud": { "0": gateway.url } }),
        json!({ "sub": null }),
        json!({ "sub": "" }),
        json!({ "sub": 7 }),
    ];
    for (at, changed) in wrong.iter().enumerate() {
        let token = format!("wrong-{at}");
        endpoint.explains(&token, good(&gateway, changed));
        let refused = rest(&gateway, "stub", "echo", Some(&token)).await;
        assert_eq!((refused.status, refused.code()), (401, "unauthorized"), "{changed}: {}", refused.body);
        assert_eq!(endpoint.asked(&token), 1, "{changed}: it was judged by what was said of it");
    }
    assert_eq!(stub.calls(), 0);
    let right = [json!({}), json!({ "exp": null }), json!({ "aud": ["x", gateway.at("/mcp/stub")] }), json!({ "aud": gateway.url })];
    for (at, changed) in right.iter().enumerate() {
        let token = format!("right-{at}");
        endpoint.explains(&token, good(&gateway, changed));
        let admitted = rest(&gateway, "stub", "echo", Some(&token)).await;
        assert_eq!(admitted.status, 200, "{changed}: {}", admitted.body);
    }
    endpoint.explains("scopeless", good(&gateway, &json!({ "scope": null })));
    let scopeless = rest(&gateway, "stub", "echo", Some("scopeless")).await;
    assert_eq!((scopeless.status, scopeless.code()), (403, "insufficient_scope"), "good, but for nothing");
}

#[tokio::test]
async fn an_introspection_is_not_believed_beyond_the_tokens_end() {
    let (stub, endpoint) = (Stub::start().await, Endpoint::start().await);
    let gateway = asking(&stub, &endpoint.url, "20s").await;
    // Admitted while it lasts, however slow the machine is: asked about until once in time.
    let short = eventually("a token is used within its three seconds", async || {
        let token = uuid::Uuid::new_v4().to_string();
        endpoint.explains(&token, good(&gateway, &json!({ "exp": now() + 3 })));
        (rest(&gateway, "stub", "echo", Some(&token)).await.status == 200).then_some(token)
    })
    .await;
    eventually("its end is seen", async || (rest(&gateway, "stub", "echo", Some(&short)).await.status == 401).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_issuers_we_know_are_verified_and_not_introspected() {
    let (stub, endpoint, login) = (Stub::start().await, Endpoint::start().await, AuthorizationServer::start(false).await);
    let more = format!(", introspection_url: \"{}/introspect\", client_id: gateway, client_secret: secret", endpoint.url);
    let auth = |url: &str| format!("{}{}", jwt(&login.issuer), oauth2(url, &login.issuer, &more));
    let gateway = guarded(&stub.backend("one", ""), auth).await;
    let known = login.token("mcp:read", &gateway.at("/mcp/stub")).await;
    assert_eq!(rest(&gateway, "stub", "echo", Some(&known)).await.status, 200);
    // The first character of the signature: the last ones may stand for no more than a bit or two.
    let (signed, signature) = known.rsplit_once('.').expect("a token in three parts");
    let forged = format!("{signed}.{}{}", if signature.starts_with('A') { 'B' } else { 'A' }, &signature[1..]);
    assert_eq!(rest(&gateway, "stub", "echo", Some(&forged)).await.status, 401);
    assert_eq!((endpoint.asked(&known), endpoint.asked(&forged)), (0, 0), "a token of ours is shown to nobody");
    // {"alg":"none"}.{"iss":"https://elsewhere.example"}: no business of ours, but the endpoint may know it.
    let foreign = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2Vsc2V3aGVyZS5leGFtcGxlIn0.c2ln";
    endpoint.explains(foreign, good(&gateway, &json!({})));
    let answer: Answer = rest(&gateway, "stub", "echo", Some(foreign)).await;
    assert_eq!((answer.status, endpoint.asked(foreign)), (200, 1), "{}", answer.body);
    let anybody = http().post(gateway.at("/api/mcp/stub")).json(&json!({ "method": "ping" })).send().await.expect("an answer");
    assert_eq!(anybody.status(), 401);
}
