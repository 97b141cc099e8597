//! A backend on bare TCP that answers modern MCP, legacy sessions and the REST form correctly, and commits on command the
//! faults that servers, their hosts and what stands between commit. Each answer closes its connection, so that a fault
//! meets exactly the request it was meant for. What was received whole is counted by the request's `X-Request-ID`.

mod right;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use right::{answer, result, rpc, whole, written};

/// What happens to a client's request (the gateway's own questions are answered).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every connection is accepted and reset, whatever would have come.
    ResetAtOnce,
    /// Reset after the header, the body unread.
    ResetAfterHeader,
    /// Reset after the whole request.
    ResetAfterAll,
    /// No answer.
    Hang,
    /// No answer, and the server's half of the connection closed.
    HalfClose,
    CloseInHeader,
    CloseAfterHeader,
    CloseInBody,
    /// The answer a byte at a time, and never to its end.
    Trickle,
    /// Announces more than it sends, and closes.
    TooLong,
    /// Announces less than it sends.
    TooShort,
    /// Not HTTP.
    Garbage,
    /// HTTP, but not JSON.
    NotJson,
    /// A chunk without a size.
    BadChunk,
    /// This status without a body.
    Status(u16),
    /// This status with a JSON body that is no JSON-RPC.
    Told(u16),
    /// A failed call (`isError`); for a list, an empty one.
    ToolError,
    RpcError,
    /// An event stream cut before the answer.
    CutStream,
    /// An event stream that goes on for as long as its client stays.
    OpenStream,
    /// This status without a body, after a while.
    LateStatus(u16),
    /// No session is opened; everything else is answered.
    NoSession,
    /// An answer of many megabytes, with a pause before the end.
    Large,
}

/// What was commanded.
#[derive(Default)]
struct Plan {
    fault: Option<Fault>,
    /// For so many requests yet.
    left: usize,
    /// Only calls of this tool.
    tool: Option<&'static str>,
}

/// How fast a working backend is: so many requests at a time, each for so long, longer the more there are.
#[derive(Clone)]
struct Work {
    servers: Arc<Semaphore>,
    time: Duration,
}

#[derive(Default)]
struct Shared {
    plan: Mutex<Plan>,
    received: Mutex<HashMap<String, usize>>,
    lists: AtomicUsize,
    calls: AtomicUsize,
    hanging: AtomicUsize,
    sick: std::sync::atomic::AtomicBool,
    work: Mutex<Option<Work>>,
    under_way: AtomicUsize,
}

/// A running faulty backend; it stops when dropped.
pub struct Faulty {
    pub url: String,
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    /// Holds the port while nobody listens, so that it refuses connections and nobody else takes it.
    _port: TcpSocket,
}

impl Faulty {
    pub fn start() -> Self {
        let port = socket("127.0.0.1:0".parse().expect("an address"));
        let address = port.local_addr().expect("bound");
        let faulty = Self { url: format!("http://{address}"), address, shared: Arc::default(), accepting: Mutex::default(), _port: port };
        faulty.listen();
        faulty
    }

    /// One backend entry for it.
    pub fn backend(&self, name: &str, more: &str) -> String {
        let mcp = if more.contains("protocol") { "" } else { ", protocol: mcp, era: modern" };
        let check = if more.contains("health_check") { "" } else { ", health_check: /health" };
        format!("  - {{ name: {name}, url: \"{}\", capabilities: [stub]{mcp}{check}{more} }}\n", self.url)
    }

    /// Commits a fault for every request of a client from now on; `None` answers again.
    pub fn commit(&self, fault: impl Into<Option<Fault>>) {
        *locked(&self.shared.plan) = Plan { fault: fault.into(), left: usize::MAX, tool: None };
    }

    /// Commits a fault for the next few.
    pub fn burst(&self, left: usize, fault: Fault) {
        *locked(&self.shared.plan) = Plan { fault: Some(fault), left, tool: None };
    }

    /// Commits a fault for calls of one tool.
    pub fn commit_for(&self, tool: &'static str, fault: Fault) {
        *locked(&self.shared.plan) = Plan { fault: Some(fault), left: usize::MAX, tool: Some(tool) };
    }

    /// Works on so many at a time, each for `time` and longer the more are under way.
    pub fn work(&self, servers: usize, time: Duration) {
        *locked(&self.shared.work) = Some(Work { servers: Arc::new(Semaphore::new(servers)), time });
    }

    /// Refuses connections.
    pub async fn refuse(&self) {
        let task = locked(&self.accepting).take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    /// Listens (again).
    pub fn listen(&self) {
        let listener = socket(self.address).listen(1024).expect("the port is ours");
        let shared = Arc::clone(&self.shared);
        *locked(&self.accepting) = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        }));
    }

    /// Whether `/health` fails.
    pub fn sicken(&self, sick: bool) {
        self.shared.sick.store(sick, Ordering::SeqCst);
    }

    /// How often the request of a client was received whole.
    pub fn received(&self, id: &str) -> usize {
        locked(&self.shared.received).get(id).copied().unwrap_or(0)
    }

    /// Tool calls received whole.
    pub fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// Lists asked by clients and received whole.
    pub fn lists(&self) -> usize {
        self.shared.lists.load(Ordering::SeqCst)
    }

    /// Requests that hang and whose client is still there.
    pub fn hanging(&self) -> usize {
        self.shared.hanging.load(Ordering::SeqCst)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if let Some(task) = locked(&self.accepting).take() {
            task.abort();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseport(true).expect("an option of this system");
    socket.bind(address).expect("a free port");
    socket
}

/// A request read whole.
struct Request {
    method: String,
    path: String,
    /// `X-Request-ID`, which only clients' requests carry.
    id: Option<String>,
    body: Value,
}

impl Request {
    /// The tool that is called, in either tongue.
    fn tool(&self) -> &str {
        let params = &self.body["params"];
        params["name"].as_str().or_else(|| params["tool_name"].as_str()).unwrap_or_default()
    }

    fn is_call(&self) -> bool {
        matches!(self.body["method"].as_str(), Some("tools/call" | "call_tool"))
    }

    fn is_list(&self) -> bool {
        matches!(self.body["method"].as_str(), Some("tools/list" | "list_tools"))
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    if locked(&shared.plan).fault == Some(Fault::ResetAtOnce) {
        return reset(&stream);
    }
    let Some((header, rest)) = header(&mut stream).await else { return };
    let id = field(&header, "x-request-id").map(str::to_owned);
    if id.is_some() && locked(&shared.plan).fault == Some(Fault::ResetAfterHeader) {
        return reset(&stream);
    }
    let Some(body) = body(&mut stream, &header, rest).await else { return };
    let mut line = header.split(' ');
    let (method, path) = (line.next().unwrap_or_default().to_owned(), line.next().unwrap_or_default().to_owned());
    let request = Request { method, path, id, body: serde_json::from_slice(&body).unwrap_or_default() };
    if let Some(fault) = shared.count(&request) {
        return commit(&mut stream, fault, &request, &shared).await;
    }
    if request.id.is_some() {
        shared.work().await;
    }
    let _ = stream.write_all(&answer(&request, &shared)).await;
}

impl Shared {
    /// Counts a client's request; tells what is to be done wrong about it.
    fn count(&self, request: &Request) -> Option<Fault> {
        let id = request.id.clone()?;
        match (request.is_call(), request.is_list()) {
            (true, _) => self.calls.fetch_add(1, Ordering::SeqCst),
            (_, true) => self.lists.fetch_add(1, Ordering::SeqCst),
            _ if request.body["method"] == "subscriptions/listen" => 0,
            _ if request.body["method"] == "initialize" => {
                return (locked(&self.plan).fault == Some(Fault::NoSession)).then_some(Fault::ResetAfterAll);
            }
            _ => return None,
        };
        *locked(&self.received).entry(id).or_default() += 1;
        let mut plan = locked(&self.plan);
        if plan.left == 0 || plan.tool.is_some_and(|tool| tool != request.tool()) {
            return None;
        }
        plan.left = plan.left.saturating_sub(usize::from(plan.left != usize::MAX));
        plan.fault.filter(|fault| *fault != Fault::NoSession)
    }

    async fn work(&self) {
        let Some(work) = locked(&self.work).clone() else { return };
        let many = u32::try_from(self.under_way.fetch_add(1, Ordering::SeqCst)).expect("few");
        let server = work.servers.acquire_owned().await.expect("never closed");
        // What is under way costs memory and switches: half as fast for every fifty.
        tokio::time::sleep(work.time + work.time * many / 50).await;
        drop(server);
        self.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

async fn header(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return Some((String::from_utf8(read).expect("ASCII"), rest));
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

async fn body(stream: &mut TcpStream, header: &str, mut read: Vec<u8>) -> Option<Vec<u8>> {
    let length = field(header, "content-length").map_or(0, |text| text.parse().expect("a number"));
    while read.len() < length {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
    Some(read)
}

fn field<'h>(header: &'h str, name: &str) -> Option<&'h str> {
    header.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

/// Counts a hanging request until its client goes.
async fn hang(stream: &mut TcpStream, shared: &Shared) {
    shared.hanging.fetch_add(1, Ordering::SeqCst);
    while stream.read_u8().await.is_ok() {}
    shared.hanging.fetch_sub(1, Ordering::SeqCst);
}

async fn commit(stream: &mut TcpStream, fault: Fault, request: &Request, shared: &Shared) {
    let right = answer(request, shared);
    let head = right.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(0, |end| end + 4);
    let written = match fault {
        Fault::NoSession | Fault::ResetAtOnce | Fault::ResetAfterHeader | Fault::ResetAfterAll => return reset(stream),
        Fault::Hang => return hang(stream, shared).await,
        Fault::HalfClose => {
            let _ = stream.shutdown().await;
            return hang(stream, shared).await;
        }
        Fault::Trickle => {
            for byte in right[..right.len() - 1].chunks(1).chain(std::iter::repeat(&b" "[..])) {
                if stream.write_all(byte).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            return;
        }
        Fault::CloseInHeader => right[..head / 2].to_vec(),
        Fault::CloseAfterHeader => right[..head].to_vec(),
        Fault::CloseInBody => right[..head + (right.len() - head) / 2].to_vec(),
        Fault::TooLong => written(200, "application/json", &right[head..], 100),
        Fault::TooShort => written(200, "application/json", &right[head..], -10),
        Fault::Garbage => b"\x16\x03\x01 this is not HTTP\r\n\r\n".to_vec(),
        Fault::NotJson => whole(200, b"<html>busy</html>"),
        Fault::BadChunk => b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n{}\r\n".to_vec(),
        Fault::Status(status) => whole(status, b""),
        Fault::Told(status) => whole(status, br#"{"message":"somebody else's words"}"#),
        Fault::ToolError if request.is_call() => {
            whole(200, &result(request, json!({ "content": [{ "type": "text", "text": "no such file" }], "isError": true })))
        }
        Fault::ToolError => whole(200, &result(request, json!({ "tools": [] }))),
        Fault::RpcError => whole(200, &rpc(request, "error", json!({ "code": -32050, "message": "cannot" }))),
        Fault::CutStream => {
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n6\r\n: hi\n\n\r\n5\r\ndat".to_vec()
        }
        Fault::OpenStream => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: hi\n\n").await;
            return hang(stream, shared).await;
        }
        Fault::LateStatus(status) => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            whole(status, b"")
        }
        Fault::Large => {
            let text = "x".repeat(20 << 20);
            let mut whole = whole(200, &result(request, json!({ "content": [{ "type": "text", "text": text }] })));
            let end = whole.split_off(whole.len() - 1);
            let _ = stream.write_all(&whole).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            end
        }
    };
    let _ = stream.write_all(&written).await;
}
