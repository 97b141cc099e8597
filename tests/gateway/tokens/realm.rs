//! Issuers and their keys: what they sign with, where they publish it, and how the gateway is told of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

/// The configuration of some issuers, see [`issuer`].
pub fn auth(issuers: &[String]) -> String {
    format!("auth:\n  required: true\n  jwt:\n{}", issuers.concat())
}

/// One issuer; `keys` says where its keys are: `jwks_url: …` or `secret: …`.
pub fn issuer(name: &str, algorithms: &str, keys: &str) -> String {
    let claims = "claims: { tenant: org, roles: roles, tier: plan }";
    format!("    - {{ issuer: \"{name}\", audience: [gateway], algorithms: [{algorithms}], {keys}, {claims} }}\n")
}

/// A server of key sets, one at each path, that counts who asks; it stops when dropped.
pub struct Idp {
    url: String,
    sets: Arc<Mutex<HashMap<String, Set>>>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Set {
    keys: Vec<Value>,
    failing: bool,
    fetches: usize,
}

impl Idp {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let sets = Arc::new(Mutex::new(HashMap::new()));
        let router = axum::Router::new().fallback(fetch).with_state(Arc::clone(&sets));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, sets, task }
    }

    /// Publishes these keys and no others, and says in a configuration where.
    pub fn publish(&self, path: &str, keys: &[Value]) -> String {
        self.change(path, |set| set.keys = keys.to_vec());
        format!("jwks_url: \"{}{path}\"", self.url)
    }

    /// From now on this set is answered with a 500.
    pub fn fail(&self, path: &str) {
        self.change(path, |set| set.failing = true);
    }

    pub fn fetches(&self, path: &str) -> usize {
        self.change(path, |set| set.fetches)
    }

    fn change<T>(&self, path: &str, change: impl FnOnce(&mut Set) -> T) -> T {
        change(self.sets.lock().expect("no panic while held").entry(path.to_owned()).or_default())
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn fetch(State(sets): State<Arc<Mutex<HashMap<String, Set>>>>, uri: Uri) -> Response {
    let mut sets = sets.lock().expect("no panic while held");
    let Some(set) = sets.get_mut(uri.path()) else { return StatusCode::NOT_FOUND.into_response() };
    set.fetches += 1;
    if set.failing {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    ([("content-type", "application/json")], json!({ "keys": set.keys }).to_string()).into_response()
}

/// A listener an attacker would like the gateway to ask; it counts connections, whatever is said on them.
pub struct Trap {
    pub url: String,
    visits: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Trap {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let visits = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&visits);
        let task = tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { url, visits, task }
    }

    pub fn visits(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.task.abort();
    }
}
