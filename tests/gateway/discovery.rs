//! Backends that come and go without a configuration: keys in a real etcd, DNS records, and those registered through the
//! admin listener.

mod admin;
mod dns;
mod drain;
mod etcd;
mod outage;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::etcd::Etcd;
use crate::support::gateway::{Gateway, server};
use crate::support::stub::Stub;
use crate::support::{eventually, http};

/// A backend as its source writes it; `more` begins with a comma.
fn value(stub: &Stub, more: &str) -> String {
    format!(
        "{{ url: \"{}\", protocol: mcp, era: modern, capabilities: [stub], health_check: {{ path: /health, interval: 1 }}{more} }}",
        stub.url
    )
}

/// A gateway whose backends are in etcd; `more` goes below `discovery.etcd:`, `rest` below everything.
async fn by_etcd(etcd: &Etcd, more: &str, rest: &str) -> Gateway {
    Gateway::start_unready(&yaml(etcd, more, rest)).await
}

fn yaml(etcd: &Etcd, more: &str, rest: &str) -> String {
    format!("{}discovery:\n  etcd: {{ endpoints: [\"{}\"], timeout: 1s{more} }}\n{rest}", server(""), etcd.url())
}

/// One request to the admin listener: status and body.
async fn admin(gateway: &Gateway, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let request = http().request(method, format!("{}/admin/{path}", gateway.admin)).body(body);
    // Where it listens is told a moment before it does.
    let answer = eventually("the admin listener is there", async || match request.try_clone().expect("a whole body").send().await {
        Err(error) if error.is_connect() => None,
        answer => Some(answer.expect("an answer")),
    })
    .await;
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// Every backend there is, as the admin listener shows it.
async fn backends(gateway: &Gateway) -> Vec<Value> {
    let (status, list) = admin(gateway, "GET", "backends", Value::Null).await;
    assert_eq!(status, 200, "{list}");
    list["backends"].as_array().expect("a list").clone()
}

/// One backend; `null` if there is none of the name.
async fn shown(gateway: &Gateway, name: &str) -> Value {
    backends(gateway).await.into_iter().find(|row| row["name"] == name).unwrap_or_default()
}

async fn names(gateway: &Gateway) -> Vec<String> {
    backends(gateway).await.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

/// Waits until a gateway has these backends and no others, all of them healthy.
async fn has(gateway: &Gateway, wanted: &[&str]) {
    let what = format!("the healthy backends are {wanted:?}");
    eventually(&what, async || {
        let rows = backends(gateway).await;
        let healthy: Vec<_> = rows.iter().filter(|row| row["healthy"] == true).filter_map(|row| row["name"].as_str()).collect();
        (healthy == wanted && rows.len() == wanted.len()).then_some(())
    })
    .await;
}

/// Which revision a gateway serves.
async fn revision(gateway: &Gateway) -> u64 {
    admin(gateway, "GET", "config", Value::Null).await.1["revision"].as_u64().expect("a number")
}

/// Calls the stub's tool; the status and the backend that answered.
async fn call(gateway: &Gateway) -> (u16, String) {
    let (status, answer) = gateway.rest("stub", json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": {} } })).await;
    (status, answer["backend"].as_str().unwrap_or_default().to_owned())
}

/// Clients that call until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    /// Calls answered with 200, and the others.
    counts: Arc<[AtomicUsize; 2]>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(gateway: &Arc<Gateway>) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]));
        let client = |_| {
            let (gateway, stop, counts) = (Arc::clone(gateway), Arc::clone(&stop), Arc::clone(&counts));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let failed = call(&gateway).await.0 != 200;
                    counts[usize::from(failed)].fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        Self { clients: (0..4).map(client).collect(), stop, counts }
    }

    fn answered(&self) -> usize {
        self.counts[0].load(Ordering::SeqCst)
    }

    /// Ends it; nothing may have failed.
    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.expect("no panic");
        }
        let [answered, failed] = [0, 1].map(|i| self.counts[i].load(Ordering::SeqCst));
        assert!(failed == 0 && answered > 100, "{failed} failed, {answered} did not");
    }
}
