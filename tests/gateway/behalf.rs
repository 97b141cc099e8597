//! Backends that are asked on the caller's behalf: the caller's token is exchanged (RFC 8693) and never passed on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::json;

use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::stub::Stub;
use crate::tokens::key::Key;
use crate::tokens::token::{Token, segments, unb64};

/// A token endpoint that gives `for-<sub>` for every token but mallory's.
pub struct Exchange {
    url: String,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Exchange {
    pub async fn start() -> Self {
        let asked = Arc::new(AtomicUsize::new(0));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/token", listener.local_addr().expect("bound"));
        let router = axum::Router::new().route("/token", post(exchange)).with_state(Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, asked, task }
    }

    /// What a backend is given that is asked on the caller's behalf.
    pub fn credential(&self) -> String {
        format!(
            ", credential: {{ bearer: ours, exchange: {{ token_url: \"{}\", client_id: gateway, client_secret: secret, audience: db }} }}",
            self.url
        )
    }
}

/// Callers with tokens of this secret.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub fn jwt() -> String {
    format!("jwt: [ {{ issuer: \"https://idp.example\", algorithms: [HS256], secret: {SECRET} }} ]")
}

pub fn token(subject: &str) -> String {
    Token::of("https://idp.example", &Key::secret("HS256", SECRET)).claim("sub", subject).compact()
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn exchange(State(asked): State<Arc<AtomicUsize>>, headers: HeaderMap, form: String) -> Response {
    asked.fetch_add(1, Ordering::SeqCst);
    let field = |name: &str| url::form_urlencoded::parse(form.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    assert_eq!(headers["authorization"], "Basic Z2F0ZXdheTpzZWNyZXQ=");
    assert_eq!(field("grant_type").as_deref(), Some("urn:ietf:params:oauth:grant-type:token-exchange"));
    assert_eq!((field("audience").as_deref(), field("scope").as_deref()), (Some("db"), None));
    let token = field("subject_token").expect("a token");
    let claims: serde_json::Value = serde_json::from_slice(&unb64(segments(&token)[1])).expect("claims");
    let subject = claims["sub"].as_str().expect("a subject").to_owned();
    if subject == "mallory" {
        return StatusCode::BAD_REQUEST.into_response();
    }
    axum::Json(json!({ "access_token": format!("for-{subject}"), "token_type": "Bearer", "expires_in": 300 })).into_response()
}

#[tokio::test]
async fn a_backend_sees_an_exchanged_token_and_never_the_callers() {
    let (stub, exchange) = (Stub::start().await, Exchange::start().await);
    let yaml = format!(
        "{}backends:\n{}auth:\n  api_keys: {{ keys: [ {{ id: k, hash: \"{}\" }} ] }}\n  {}\n",
        server(""),
        stub.backend("one", &exchange.credential()),
        key_hash("an-api-key-of-somebody"),
        jwt()
    );
    let gateway = Gateway::start(&yaml).await;
    let rest = async |token: &str| {
        let call = json!({ "method": "call_tool", "params": { "tool_name": "echo" } });
        http().post(gateway.at("/api/mcp/stub")).bearer_auth(token).json(&call).send().await.expect("an answer").status()
    };
    let native = async |token: &str| {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "echo" } });
        let request = http().post(gateway.at("/mcp/stub")).header("accept", "application/json, text/event-stream");
        request.bearer_auth(token).json(&call).send().await.expect("an answer").status()
    };
    // Made once: a token of the next second is another.
    let (ann, bob) = (token("ann"), token("bob"));
    for (subject, token) in [("ann", &ann), ("bob", &bob), ("ann", &ann)] {
        assert_eq!((rest(token).await.as_u16(), native(token).await.as_u16()), (200, 200));
        assert_eq!(stub.headers()["authorization"].to_str().expect("text"), format!("Bearer for-{subject}"));
    }
    assert_eq!(exchange.asked.load(Ordering::SeqCst), 2, "once for each caller");
    let calls = stub.calls();
    let refused = token("mallory");
    assert_eq!((rest(&refused).await.as_u16(), native(&refused).await.as_u16()), (403, 403));
    let asked = exchange.asked.load(Ordering::SeqCst);
    assert_eq!(rest("an-api-key-of-somebody").await, 403, "a caller without a token has none to exchange");
    let call = json!({ "method": "call_tool", "params": { "tool_name": "echo" } });
    let both = http().post(gateway.at("/api/mcp/stub")).header("x-api-key", "an-api-key-of-somebody").bearer_auth(token("ann"));
    let both = both.json(&call).send().await.expect("an answer").status();
    assert_eq!(both, 403, "nor has one whose token nobody looked at");
    assert_eq!(exchange.asked.load(Ordering::SeqCst), asked, "no key and no unjudged token left us");
    assert_eq!(stub.calls(), calls, "nobody's call went out under our own name");
}

fn key_hash(key: &str) -> String {
    use mcp_gateway::digest::{hex, sha256};
    format!("sha256:{}", hex(&sha256(key.as_bytes())))
}
