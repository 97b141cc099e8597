//! A modern MCP server in a few lines that counts what it is asked and commits faults on demand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

/// What happens to a tool call.
#[derive(Clone, Default)]
pub enum Act {
    /// Answers with the arguments as text.
    #[default]
    Echo,
    /// Answers with this JSON-RPC member instead of a result: `("error", …)` or `("result", …)`.
    Say(&'static str, Value),
    /// Takes the request and closes the connection.
    Hangup,
    /// Takes the request and never answers.
    Hang,
    /// This status without a body.
    Status(u16),
    /// This status with a JSON body, as it stands.
    Body(u16, Value),
    /// Half of an answer, then silence.
    Stall,
    /// This result as the second event of a stream, behind a notification.
    Events(Value),
    /// This body of a stream, as it stands.
    Stream(String),
    /// This result as the only message of a stream, behind an event that says nothing.
    OneEvent(Value),
    /// This status with these headers and a body part by part.
    Parts(u16, Vec<(&'static str, &'static str)>, Vec<Part>),
}

/// A part of a body.
#[derive(Clone)]
pub enum Part {
    Bytes(Bytes),
    /// Nothing, until this says to go on.
    Wait(tokio::sync::watch::Receiver<bool>),
    /// The connection is cut.
    Cut,
}

impl Part {
    async fn given(self) -> std::io::Result<Bytes> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Wait(mut goes_on) => {
                let _ = goes_on.wait_for(|goes_on| *goes_on).await;
                Ok(Bytes::new())
            }
            Self::Cut => Err(std::io::Error::other("cut")),
        }
    }
}

/// A running stub; it stops when dropped.
pub struct Stub {
    pub url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    calls: AtomicUsize,
    posts: AtomicUsize,
    waiting: AtomicUsize,
    numbers: AtomicUsize,
    act: Mutex<Act>,
    headers: Mutex<HeaderMap>,
    body: Mutex<Bytes>,
    sick: std::sync::atomic::AtomicBool,
    /// Results given instead of the usual ones, by method.
    results: Mutex<HashMap<String, Value>>,
    asked: Mutex<HashMap<String, usize>>,
    held: tokio::sync::watch::Sender<bool>,
    says: tokio::sync::broadcast::Sender<String>,
    /// Whether it tells modern clients when its lists change.
    tells: std::sync::atomic::AtomicBool,
}

impl Shared {
    fn new() -> Self {
        Self {
            calls: AtomicUsize::default(),
            posts: AtomicUsize::default(),
            waiting: AtomicUsize::default(),
            numbers: AtomicUsize::default(),
            act: Mutex::default(),
            headers: Mutex::default(),
            body: Mutex::default(),
            sick: std::sync::atomic::AtomicBool::default(),
            results: Mutex::default(),
            asked: Mutex::default(),
            held: tokio::sync::watch::Sender::default(),
            says: tokio::sync::broadcast::Sender::new(16),
            tells: std::sync::atomic::AtomicBool::default(),
        }
    }
}

impl Stub {
    pub async fn start() -> Self {
        Self::at("127.0.0.1:0").await.expect("a port")
    }

    /// On an address of its own; `None` if it is taken.
    pub async fn at(address: &str) -> Option<Self> {
        let listener = tokio::net::TcpListener::bind(address).await.ok()?;
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let shared = Arc::new(Shared::new());
        let router = Router::new()
            .route("/health", axum::routing::get(health))
            .route("/mcp", axum::routing::post(post).get(stream))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Some(Self { url, shared, task })
    }

    /// What `/health` says from now on.
    pub fn be_sick(&self, sick: bool) {
        self.shared.sick.store(sick, Ordering::SeqCst);
    }

    /// One backend entry for it.
    pub fn backend(&self, name: &str, more: &str) -> String {
        format!("  - {{ name: {name}, url: \"{}\", protocol: mcp, era: modern, capabilities: [stub]{more} }}\n", self.url)
    }

    pub fn act(&self, act: Act) {
        *self.shared.act.lock().expect("no panic while held") = act;
    }

    /// Answers a method with this result from now on; `"$N"` in a text becomes a number that never comes twice.
    pub fn results(&self, method: &str, result: Value) {
        self.shared.results.lock().expect("no panic while held").insert(method.to_owned(), result);
    }

    /// Requests of a method received.
    pub fn asked(&self, method: &str) -> usize {
        self.shared.asked.lock().expect("no panic while held").get(method).copied().unwrap_or_default()
    }

    /// Lets modern clients subscribe to changes of its lists.
    pub fn tell(&self) {
        self.shared.tells.store(true, Ordering::SeqCst);
    }

    /// Ends every open stream.
    pub fn hush(&self) {
        let _ = self.shared.says.send(String::new());
    }

    /// Says this on every open stream.
    pub fn say(&self, message: &Value) {
        let _ = self.shared.says.send(format!("event: message\ndata: {message}\n\n"));
    }

    /// Lets requests wait before they are answered, or go on.
    pub fn hold(&self, held: bool) {
        self.shared.held.send_replace(held);
    }

    /// Makes `/health` fail.
    pub fn sicken(&self) {
        self.be_sick(true);
    }

    /// Tool calls received.
    pub fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// All POSTs received.
    pub fn posts(&self) -> usize {
        self.shared.posts.load(Ordering::SeqCst)
    }

    /// Requests that hang and whose client is still there.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::SeqCst)
    }

    /// The body of the last POST, as it came.
    pub fn body(&self) -> String {
        String::from_utf8_lossy(&self.shared.body.lock().expect("no panic while held")).into_owned()
    }

    /// The headers of the last POST.
    pub fn headers(&self) -> HeaderMap {
        self.shared.headers.lock().expect("no panic while held").clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn health(State(shared): State<Arc<Shared>>) -> StatusCode {
    if shared.sick.load(Ordering::SeqCst) { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
}

/// A GET stream: one event, then silence for as long as the client stays. What would be answered as events is replayed, as
/// if it had been asked for on a connection that is gone.
async fn stream(State(shared): State<Arc<Shared>>) -> Response {
    let event = match &*shared.act.lock().expect("no panic while held") {
        Act::Events(result) => json!({ "jsonrpc": "2.0", "id": 99, "result": result }).to_string(),
        _ => "{}".to_owned(),
    };
    let event = Bytes::from(format!("event: message\ndata: {event}\n\n"));
    let says = shared.says.subscribe();
    let body = Body::from_stream(futures::stream::unfold((false, says, Waiting::new(&shared)), move |(begun, mut says, waiting)| {
        let event = event.clone();
        async move {
            let event = if begun { said(&mut says).await? } else { event };
            Some((Ok::<_, std::io::Error>(event), (true, says, waiting)))
        }
    }));
    ([("content-type", "text/event-stream")], body).into_response()
}

/// What is said next; nothing is the end of the stream.
async fn said(says: &mut tokio::sync::broadcast::Receiver<String>) -> Option<Bytes> {
    says.recv().await.ok().filter(|said| !said.is_empty()).map(Bytes::from)
}

/// The stream of a modern server that tells when its lists change.
fn subscription(shared: &Arc<Shared>, id: &Value) -> Response {
    let meta = json!({ "io.modelcontextprotocol/subscriptionId": id });
    let told =
        json!({ "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": { "_meta": meta, "notifications": {} } });
    let first = futures::stream::once(async move { Ok::<_, std::io::Error>(Bytes::from(format!("event: message\ndata: {told}\n\n"))) });
    let state = (shared.says.subscribe(), Waiting::new(shared));
    let rest = futures::stream::unfold(state, |(mut says, waiting)| async move { Some((Ok(said(&mut says).await?), (says, waiting))) });
    ([("content-type", "text/event-stream")], Body::from_stream(futures::StreamExt::chain(first, rest))).into_response()
}

/// Counts a hanging request until its client goes.
struct Waiting(Arc<Shared>);

impl Waiting {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn post(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    shared.posts.fetch_add(1, Ordering::SeqCst);
    *shared.headers.lock().expect("no panic while held") = headers;
    shared.body.lock().expect("no panic while held").clone_from(&body);
    let request: Value = serde_json::from_slice(&body).expect("the gateway sends JSON");
    let id = request["id"].clone();
    let method = request["method"].as_str().unwrap_or_default().to_owned();
    *shared.asked.lock().expect("no panic while held").entry(method.clone()).or_default() += 1;
    {
        let _waiting = Waiting::new(&shared);
        let _ = shared.held.subscribe().wait_for(|held| !held).await;
    }
    let told = shared.results.lock().expect("no panic while held").get(&method).cloned();
    if let Some(result) = told.filter(|_| method != "tools/call" || matches!(*shared.act.lock().expect("no panic while held"), Act::Echo)) {
        shared.calls.fetch_add(usize::from(method == "tools/call"), Ordering::SeqCst);
        let number = shared.numbers.fetch_add(1, Ordering::SeqCst).to_string();
        return answer(
            serde_json::from_str(&json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string().replace("$N", &number))
                .expect("JSON"),
        );
    }
    let result = match request["method"].as_str().unwrap_or_default() {
        "initialize" => {
            json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} }, "serverInfo": { "name": "stub", "version": "1" } })
        }
        method if method.starts_with("notifications/") => return StatusCode::ACCEPTED.into_response(),
        "server/discover" => {
            json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} }, "serverInfo": { "name": "stub", "version": "1" } })
        }
        "tools/list" => {
            let region = json!({ "type": "object", "properties": { "region": { "type": "string", "x-mcp-header": "Region" } } });
            json!({ "resultType": "complete", "tools": [{ "name": "echo", "inputSchema": { "type": "object" } }, { "name": "regional", "inputSchema": region }] })
        }
        "subscriptions/listen" if shared.tells.load(Ordering::SeqCst) => return subscription(&shared, &id),
        "tools/call" => {
            shared.calls.fetch_add(1, Ordering::SeqCst);
            let act = shared.act.lock().expect("no panic while held").clone();
            return perform(act, &shared, &id, &request["params"]["arguments"]).await;
        }
        _ => return answer(json!({ "jsonrpc": "2.0", "id": id, "error": { "code": -32601, "message": "no such method" } })),
    };
    answer(json!({ "jsonrpc": "2.0", "id": id, "result": result }))
}

async fn perform(act: Act, shared: &Arc<Shared>, id: &Value, arguments: &Value) -> Response {
    match act {
        Act::Echo => {
            let result = json!({ "resultType": "complete", "content": [{ "type": "text", "text": arguments.to_string() }] });
            answer(json!({ "jsonrpc": "2.0", "id": id, "result": result }))
        }
        Act::Say(member, value) => answer(json!({ "jsonrpc": "2.0", "id": id, member: value })),
        Act::Status(status) => StatusCode::from_u16(status).expect("a status").into_response(),
        Act::Hang => {
            let _waiting = Waiting::new(shared);
            std::future::pending().await
        }
        Act::Body(status, value) => {
            (StatusCode::from_u16(status).expect("a status"), [("content-type", "application/json")], value.to_string()).into_response()
        }
        Act::Stall => {
            let waiting = Waiting::new(shared);
            let body = futures::stream::unfold((0, waiting), |(sent, waiting)| async move {
                // One byte at a time, each well within any timeout for a single read.
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), (sent + 1, waiting)))
            });
            ([("content-type", "application/json"), ("content-length", "5000")], Body::from_stream(body)).into_response()
        }
        Act::Events(result) => {
            let notice = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": "working" } });
            let events = format!(
                "event: message\ndata: {notice}\n\nid: 7\nevent: message\ndata: {}\n\n",
                json!({ "jsonrpc": "2.0", "id": id, "result": result })
            );
            ([("content-type", "text/event-stream")], events).into_response()
        }
        Act::Stream(body) => ([("content-type", "text/event-stream")], body).into_response(),
        Act::OneEvent(result) => {
            let events = format!("id: 6\ndata: \n\nid: 7\ndata: {}\n\n", json!({ "jsonrpc": "2.0", "id": id, "result": result }));
            ([("content-type", "text/event-stream")], events).into_response()
        }
        Act::Parts(status, headers, parts) => {
            let body = Body::from_stream(futures::StreamExt::then(futures::stream::iter(parts), Part::given));
            let response =
                headers.iter().fold(Response::builder().status(status), |response, (name, value)| response.header(*name, *value));
            response.body(body).expect("a response")
        }
        // An error in a body whose length was announced makes the server cut the connection.
        Act::Hangup => {
            let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
            ([("content-type", "application/json"), ("content-length", "100")], Body::from_stream(broken)).into_response()
        }
    }
}

fn answer(message: Value) -> Response {
    ([("content-type", "application/json")], message.to_string()).into_response()
}
