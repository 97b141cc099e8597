//! A front that sends every request to the next of several gateways: replicas behind a balancer without sticky sessions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;

/// A running alternator; it stops when dropped.
pub struct Alternator {
    pub url: String,
    task: tokio::task::JoinHandle<()>,
}

struct Front {
    gateways: Vec<String>,
    turn: AtomicUsize,
    client: reqwest::Client,
}

impl Alternator {
    pub async fn start(gateways: Vec<String>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let front = Arc::new(Front { gateways, turn: AtomicUsize::new(0), client: super::http() });
        let router = axum::Router::new().fallback(pass).with_state(front);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, task }
    }
}

impl Drop for Alternator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(State(front): State<Arc<Front>>, request: Request) -> Response {
    let gateway = &front.gateways[front.turn.fetch_add(1, Ordering::SeqCst) % front.gateways.len()];
    let (parts, body) = request.into_parts();
    let url = format!("{gateway}{}", parts.uri.path());
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a whole body");
    let answer = front.client.request(parts.method, url).headers(parts.headers).body(body).send().await.expect("an answer");
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers().iter().filter(|(name, _)| !["transfer-encoding", "connection"].contains(&name.as_str())) {
        response = response.header(name, value);
    }
    response.body(Body::from_stream(answer.bytes_stream())).expect("a response")
}
