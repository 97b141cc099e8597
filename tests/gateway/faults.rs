//! What clients, breakers and backends see of every fault a backend can commit: nothing that may have been executed is sent
//! twice, what can be served is, and who fails is left alone for a while and no longer.

mod breakers;
mod choice;
mod hedges;
mod outcomes;
mod overload;
mod repeats;
mod sessions;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::faulty::{Fault, Faulty};
use crate::support::gateway::{Gateway, server};
use crate::support::{eventually, http};

/// How a request comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Rest,
    Native,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Call(&'static str),
    List,
}

/// Says nothing of itself, so it must never run twice.
const WRITE: Kind = Kind::Call("write");
/// No status, because the connection was cut.
const CUT: u16 = 0;

/// What came of a request.
#[derive(Debug)]
struct Told {
    status: u16,
    code: String,
    retry_after: Option<u64>,
    id: String,
}

/// One client for each test, which has a thread of its own: making one takes longer than most of what is tested here.
fn client() -> reqwest::Client {
    thread_local!(static CLIENT: reqwest::Client = http());
    CLIENT.with(Clone::clone)
}

fn request(url: &str, lane: Lane, kind: Kind) -> reqwest::RequestBuilder {
    let (method, name) = match kind {
        Kind::Call(name) => ("tools/call", name),
        Kind::List => ("tools/list", ""),
    };
    match lane {
        Lane::Rest => {
            let params = if name.is_empty() { json!({}) } else { json!({ "tool_name": name, "arguments": {} }) };
            client().post(format!("{url}/api/mcp/stub")).json(&json!({ "method": method, "params": params }))
        }
        Lane::Native => {
            let params = if name.is_empty() { json!({}) } else { json!({ "name": name, "arguments": {} }) };
            let body = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
            let request = client().post(format!("{url}/mcp/stub")).header("accept", "application/json, text/event-stream").json(&body);
            let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
            if name.is_empty() { request } else { request.header("mcp-name", name) }
        }
    }
}

async fn send(request: reqwest::RequestBuilder) -> Told {
    let id = uuid::Uuid::new_v4().to_string();
    let cut = |id: &str| Told { status: CUT, code: String::new(), retry_after: None, id: id.to_owned() };
    let Ok(response) = request.header("x-request-id", &id).send().await else { return cut(&id) };
    let status = response.status().as_u16();
    let retry_after = response.headers().get("retry-after").map(|value| value.to_str().expect("text").parse().expect("seconds"));
    let Ok(body) = response.text().await else { return cut(&id) };
    let body: Value = serde_json::from_str(&body).unwrap_or_default();
    let code = body["code"].as_str().or_else(|| body["error"]["data"]["code"].as_str()).unwrap_or_default().to_owned();
    Told { status, code, retry_after, id }
}

async fn ask(gateway: &Gateway, lane: Lane, kind: Kind) -> Told {
    send(request(&gateway.url, lane, kind)).await
}

/// A request under way beside the test; aborted, its client leaves.
fn begin(gateway: &Gateway, lane: Lane, kind: Kind) -> tokio::task::JoinHandle<Told> {
    let request = request(&gateway.url, lane, kind);
    tokio::spawn(send(request))
}

async fn statuses(gateway: &Gateway, count: usize, lane: Lane, kind: Kind) -> Vec<u16> {
    let under_way: Vec<_> = (0..count).map(|_| begin(gateway, lane, kind)).collect();
    futures::future::join_all(under_way).await.into_iter().map(|told| told.expect("no panic").status).collect()
}

fn commit_all(all: &[Faulty], fault: Fault) {
    for faulty in all {
        faulty.commit(fault);
    }
}

/// A gateway that knows its backends, and their tools.
async fn gateway(backends: &[String], more: &str) -> Gateway {
    gateway_with("", backends, more).await
}

async fn gateway_with(limits: &str, backends: &[String], more: &str) -> Gateway {
    let gateway = Gateway::start(&yaml(limits, backends, more)).await;
    gateway.knows("stub").await;
    gateway
}

fn yaml(limits: &str, backends: &[String], more: &str) -> String {
    format!("{}backends:\n{}{more}", server(&format!("  limits: {{ {limits} }}\n")), backends.concat())
}

/// Where a backend's breaker stands, as `/health` tells.
async fn breaker(gateway: &Gateway, backend: &str) -> String {
    let health: Value = client().get(gateway.at("/health")).send().await.expect("an answer").json().await.expect("JSON");
    health["circuit_breakers"][backend].as_str().expect("a state").to_owned()
}

async fn until_half_open(gateway: &Gateway, backend: &str) {
    eventually("the breaker is half-open", async || (breaker(gateway, backend).await == "half-open").then_some(())).await;
}

/// How often a breaker opened, by the log.
async fn openings(gateway: &Gateway) -> usize {
    gateway.said().await.iter().filter(|line| line.contains("circuit breaker") && line.contains("open for")).count()
}

async fn until_hanging(faulty: &Faulty, count: usize) {
    eventually(&format!("{count} hang"), async || (faulty.hanging() == count).then_some(())).await;
}

async fn is_up(gateway: &Gateway, backend: &str, up: bool) {
    let series = format!("backend_up{{backend=\"{backend}\"}}");
    eventually(&format!("{backend} up: {up}"), async || (gateway.metric(&series).await == u64::from(up)).then_some(())).await;
}
