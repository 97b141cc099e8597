//! Constant load from real clients on every listener, none of which may notice anything, and streams that stay open.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{Client, RequestBuilder};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::fleet::Fleet;
use crate::support::{client, eventually, http};

/// How much longer than it must the load goes on: `UPGRADE_LOAD_SECONDS`.
pub fn longer() -> Duration {
    let seconds = std::env::var("UPGRADE_LOAD_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or_default())
}

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Tally {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    fn count(&self, answer: Result<(), String>) {
        match answer {
            Ok(()) => drop(self.answered.fetch_add(1, Ordering::SeqCst)),
            Err(why) => self.failures.lock().expect("no panic while held").push(why),
        }
    }
}

/// Clients at work.
pub struct Load {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(fleet: &Fleet, root: &reqwest::Certificate) -> Self {
        let mut load = Self { tally: Arc::default(), clients: Vec::new() };
        let h2c = || client(Client::builder().http2_prior_knowledge());
        let tls = || client(Client::builder().tls_certs_only([root.clone()]));
        let (plain, h2, https) = (
            fleet.first.url.clone(),
            format!("http://{}", fleet.h2c),
            format!("https://localhost:{}", fleet.tls.rsplit_once(':').expect("a port").1),
        );
        for _ in 0..2 {
            for (client, url) in [(http(), &plain), (h2c(), &h2), (tls(), &https)] {
                load.ask(rest(&client, url));
                load.ask(native(&client, url));
            }
            load.strict(plain.trim_start_matches("http://").to_owned());
        }
        load.ask(http().get(format!("{}/health", fleet.first.admin)));
        load
    }

    fn ask(&mut self, request: RequestBuilder) {
        let tally = Arc::clone(&self.tally);
        self.clients.push(tokio::spawn(async move {
            while tally.goes_on() {
                let sent = request.try_clone().expect("no stream").send().await;
                let answer = match sent {
                    Ok(answer) => {
                        let (status, url) = (answer.status().as_u16(), answer.url().clone());
                        let text = answer.text().await;
                        if status == 200 && text.is_ok() { Ok(()) } else { Err(format!("{url}: {status} {text:?}")) }
                    }
                    Err(error) => Err(format!("{error:?}")),
                };
                tally.count(answer);
            }
        }));
    }

    /// A client without mercy: whatever breaks on a connection it was not told to leave is a failure, and so is the whole
    /// request. Libraries would ask again in silence.
    fn strict(&mut self, address: String) {
        let tally = Arc::clone(&self.tally);
        self.clients.push(tokio::spawn(async move {
            let mut connection = None;
            while tally.goes_on() {
                let answer = strict_request(&mut connection, &address).await;
                if answer.is_err() {
                    connection = None;
                }
                tally.count(answer.map_err(|error| format!("{address}: {error}")));
            }
        }));
    }

    /// Waits until every kind of client had many more answers.
    pub async fn goes_on(&self) {
        let before = self.tally.answered.load(Ordering::SeqCst);
        eventually("more answers", async || (self.tally.answered.load(Ordering::SeqCst) >= before + 200).then_some(())).await;
        assert_eq!(*self.tally.failures.lock().expect("no panic while held"), [""; 0]);
    }

    pub async fn end(self) {
        self.tally.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.expect("no panic");
        }
        assert_eq!(*self.tally.failures.lock().expect("no panic while held"), [""; 0]);
        println!("{} answers, no failure", self.tally.answered.load(Ordering::SeqCst));
    }
}

fn rest(client: &Client, url: &str) -> RequestBuilder {
    let body = json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": { "a": 1 } } });
    client.post(format!("{url}/api/mcp/stub")).json(&body)
}

fn native(client: &Client, url: &str) -> RequestBuilder {
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": { "name": "load", "version": "1" } });
    let params = json!({ "name": "echo", "arguments": {}, "_meta": meta });
    client
        .post(format!("{url}/mcp/stub"))
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "echo")
        .json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }))
}

async fn strict_request(connection: &mut Option<BufReader<TcpStream>>, address: &str) -> std::io::Result<()> {
    let body = r#"{"method":"call_tool","params":{"tool_name":"echo","arguments":{}}}"#;
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => BufReader::new(TcpStream::connect(address).await?),
    };
    let head = format!(
        "POST /api/mcp/stub HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.get_mut().write_all(format!("{head}{body}").as_bytes()).await?;
    let (mut line, mut length, mut stays) = (String::new(), 0, true);
    stream.read_line(&mut line).await?;
    if !line.starts_with("HTTP/1.1 200") {
        return Err(std::io::Error::other(format!("answered {line:?}")));
    }
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        let lower = line.trim_end().to_ascii_lowercase();
        match lower.split_once(": ") {
            None if lower.is_empty() => break,
            Some(("content-length", value)) => length = value.parse().map_err(std::io::Error::other)?,
            Some(("connection", "close")) => stays = false,
            _ => {}
        }
    }
    stream.read_exact(&mut vec![0; length]).await?;
    *connection = Some(stream).filter(|_| stays);
    Ok(())
}

/// Streams that clients keep open: what each heard, or how it ended.
pub struct Streams(Vec<Arc<Mutex<String>>>);

impl Streams {
    /// Half of them over HTTP/1.1, half over HTTP/2.
    pub async fn open(fleet: &Fleet, count: usize) -> Self {
        let h2 = client(Client::builder().http2_prior_knowledge());
        let mut streams = Vec::new();
        for number in 0..count {
            let (client, url) =
                if number % 2 == 0 { (http(), fleet.first.url.clone()) } else { (h2.clone(), format!("http://{}", fleet.h2c)) };
            let request = client.get(format!("{url}/mcp/stub")).header("accept", "text/event-stream").timeout(Duration::from_secs(3600));
            let answer = request.send().await.expect("a stream");
            assert_eq!(answer.status(), 200);
            let heard = Arc::new(Mutex::new(String::new()));
            streams.push(Arc::clone(&heard));
            tokio::spawn(async move {
                let mut stream = answer.bytes_stream();
                let hear = |text: &str| heard.lock().expect("no panic while held").push_str(text);
                while let Some(event) = stream.next().await {
                    match event {
                        Ok(event) => hear(&String::from_utf8_lossy(&event)),
                        Err(error) => return hear(&format!("CUT: {error:?}")),
                    }
                }
                hear("ENDED");
            });
        }
        Self(streams)
    }

    /// Waits until every stream, none of which may have ended, has heard this.
    pub async fn all_hear(&self, text: &str) {
        eventually(&format!("every stream hears {text}"), async || {
            let heard = |stream: &Arc<Mutex<String>>| stream.lock().expect("no panic while held").clone();
            let ended = self.0.iter().map(heard).find(|heard| heard.contains("ENDED") || heard.contains("CUT"));
            assert!(ended.is_none(), "a stream ended: {ended:?}");
            self.0.iter().all(|stream| heard(stream).contains(text)).then_some(())
        })
        .await;
    }
}
