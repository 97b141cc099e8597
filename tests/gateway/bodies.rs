//! Bodies around every size at which something changes, in both lanes, over HTTP/1.1, h2c and TLS with h2.

use serde_json::{Value, json};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::gateway::{Gateway, server};
use crate::support::stub::Stub;
use crate::support::{PATIENCE, client, http};

const LIMIT: usize = 4 << 20;

/// A tool call of exactly `size` bytes.
fn padded(prefix: &str, size: usize) -> String {
    let suffix = "\"}}}";
    format!("{prefix}{}{suffix}", "x".repeat(size - prefix.len() - suffix.len()))
}

fn rest(size: usize) -> String {
    padded(r#"{"method":"call_tool","params":{"tool_name":"echo","arguments":{"pad":""#, size)
}

fn native(size: usize) -> String {
    padded(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"pad":""#, size)
}

async fn send(client: &reqwest::Client, url: &str, body: String, chunked: bool) -> (u16, Value) {
    let body = if chunked {
        reqwest::Body::wrap_stream(futures::stream::iter(
            body.into_bytes().chunks(50_000).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>(),
        ))
    } else {
        body.into()
    };
    let sent =
        client.post(url).header("content-type", "application/json").header("accept", "application/json, text/event-stream").body(body);
    let response = sent.send().await.expect("an answer");
    let status = response.status().as_u16();
    let text = response.text().await.expect("a whole answer");
    (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {status} {}", &text[..text.len().min(200)])))
}

async fn sizes(client: &reqwest::Client, base: &str) {
    for size in [(64 << 10) - 1, 64 << 10, (64 << 10) + 1, 1 << 20, LIMIT - 1, LIMIT, LIMIT + 1] {
        for chunked in [false, true] {
            let fits = size <= LIMIT;
            let (status, answer) = send(client, &format!("{base}/api/mcp/stub"), rest(size), chunked).await;
            let (native_status, native_answer) = send(client, &format!("{base}/mcp/stub"), native(size), chunked).await;
            assert_eq!((status, native_status), if fits { (200, 200) } else { (413, 413) }, "{size} chunked {chunked}");
            if fits {
                let length = |text: &Value| text.as_str().map(str::len);
                let arguments = size - rest(200).len() + 200 - r#"{"method":"call_tool","params":{"tool_name":"echo","arguments":}}"#.len();
                assert_eq!(length(&answer["result"][0]["text"]), Some(arguments), "{size} chunked {chunked}");
                assert!(length(&native_answer["result"]["content"][0]["text"]).is_some_and(|n| n > size - 200));
            } else {
                assert_eq!(
                    (&answer["code"], native_answer["error"]["data"]["code"].as_str()),
                    (&json!("body_too_large"), Some("body_too_large"))
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_size_over_http_1_and_h2c_and_tls() {
    let stub = Stub::start().await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let pair = crate::listeners::certificate(dir.path(), "localhost");
    let more =
        format!("  h2c: 127.0.0.1:0\n  tls: {{ listen: 127.0.0.1:0, cert: {}, key: {} }}\n", pair.cert.display(), pair.key.display());
    let mut gateway = Gateway::start(&format!("{}backends:\n{}", server(&more), stub.backend("one", ""))).await;
    sizes(&http(), &gateway.url.clone()).await;
    let h2c = crate::listeners::address(&mut gateway, "listening on h2c://").await;
    sizes(&client(reqwest::Client::builder().http2_prior_knowledge()), &format!("http://{h2c}")).await;
    let tls = crate::listeners::address(&mut gateway, "listening on https://").await;
    let over_tls = client(reqwest::Client::builder().tls_certs_only([pair.root.clone()]));
    sizes(&over_tls, &format!("https://localhost:{}", tls.rsplit_once(':').expect("a port").1)).await;
}

/// A client that writes all it has before it reads still learns why it was refused: no reset overtakes the answer.
#[tokio::test]
async fn who_sends_on_after_a_refusal_reads_it_all_the_same() {
    let stub = Stub::start().await;
    let gateway = Gateway::start(&format!("{}backends:\n{}", server(""), stub.backend("one", ""))).await;
    // More than the buffers of both sockets hold.
    let size = 32 << 20;
    let head = "POST /api/mcp/stub HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    for frame in [format!("Content-Length: {size}\r\n\r\n"), format!("Transfer-Encoding: chunked\r\n\r\n{size:x}\r\n")] {
        let mut socket = TcpStream::connect(gateway.url.trim_start_matches("http://")).await.expect("a connection");
        socket.write_all(format!("{head}{frame}").as_bytes()).await.expect("the head is sent");
        for _ in 0..32 {
            socket.write_all(&vec![b' '; size / 32]).await.expect("the body is taken");
        }
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, async {
            while !String::from_utf8_lossy(&answer).contains("body_too_large") {
                if socket.read_buf(&mut answer).await.expect("no reset") == 0 {
                    break;
                }
            }
        });
        ended.await.expect("an answer in time");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("body_too_large"), "{text}");
    }
}
