//! A backend that writes down whatever a client's request brings it. The gateway's own questions, which carry no
//! `x-request-id`, are answered alike but not written down.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;

/// One request as it came.
#[derive(Clone)]
pub struct Seen {
    /// Its `x-request-id`; empty for the gateway's own.
    pub request: String,
    pub verb: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    /// The body as JSON, `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// What a witness says to a request.
pub type Answer = fn(&Seen) -> Response;

/// A running witness; it stops when dropped.
pub struct Witness {
    pub url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    seen: Mutex<Vec<Seen>>,
    answer: Answer,
}

impl Witness {
    pub async fn start(answer: Answer) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let shared = Arc::new(Shared { seen: Mutex::default(), answer });
        let router = axum::Router::new().fallback(take).layer(axum::extract::DefaultBodyLimit::disable()).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, shared, task }
    }

    /// One backend entry for it.
    pub fn backend(&self, servers: &[&str], era: &str) -> String {
        let check = "health_check: { path: /health, interval: 10m }";
        let servers = servers.join(", ");
        format!("  - {{ name: witness, url: \"{}\", protocol: mcp, era: {era}, capabilities: [{servers}], {check} }}\n", self.url)
    }

    /// Takes what clients' requests brought since the last time.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.shared.seen.lock().expect("no panic while held"))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn take(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else { return StatusCode::BAD_REQUEST.into_response() };
    let request = parts.headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let seen = Seen { request, verb: parts.method, path: parts.uri.path().to_owned(), headers: parts.headers, body };
    let answer = (shared.answer)(&seen);
    if !seen.request.is_empty() {
        shared.seen.lock().expect("no panic while held").push(seen);
    }
    answer
}
