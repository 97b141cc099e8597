//! Host and Origin, and headers beyond their limit, on the wire.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::stub::Stub;

async fn gateway(stub: &Stub, more: &str) -> Gateway {
    let backend = stub.backend("one", ", health_check: {path: /health, interval: 10m}");
    let gateway = Gateway::start(&format!("{}{more}backends:\n{backend}", server(""))).await;
    // From here on every POST the stub sees is a client's.
    gateway.knows("stub").await;
    gateway
}

#[tokio::test]
async fn browsers_and_rebound_names_are_kept_out() {
    let stub = Stub::start().await;
    let gateway = gateway(&stub, "access: { hosts: [gw.example.com], origins: [\"https://app.example.com\"] }\n").await;
    let status = async |name: &'static str, value: &str| {
        let sent = http().post(gateway.at("/mcp/stub")).header(name, value).header("content-type", "application/json");
        sent.body(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(status("origin", "https://evil.example").await, 403);
    assert_eq!(status("origin", "null").await, 403);
    assert_eq!(status("origin", "https://app.example.com").await, 200);
    assert_eq!(status("host", "evil.example").await, 403);
    assert_eq!(status("host", "gw.example.com").await, 200);
    let admin =
        http().post(format!("{}/admin/reload", gateway.admin)).header("origin", "https://app.example.com").send().await.expect("an answer");
    assert_eq!(admin.status(), 403, "no page of another origin may drive the admin listener");
}

async fn raw(gateway: &Gateway, request: &str) -> String {
    let mut stream = TcpStream::connect(gateway.url.trim_start_matches("http://")).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(std::time::Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn odd_requests_get_clear_answers() {
    let stub = Stub::start().await;
    let gateway = gateway(&stub, "").await;
    let before = stub.posts();
    let long = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx-long: {}\r\nconnection: close\r\n\r\n", "a".repeat(70_000));
    assert!(raw(&gateway, &long).await.starts_with("HTTP/1.1 431"));
    for path in ["//health", "/./health", "/health/", "/%68ealth", "/nope"] {
        let answer = raw(&gateway, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    let two_hosts = raw(&gateway, "GET /health HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\nconnection: close\r\n\r\n").await;
    assert!(two_hosts.starts_with("HTTP/1.1 40"), "{two_hosts}");
    let smuggled = "POST /mcp/stub HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n";
    let answer = raw(&gateway, smuggled).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    // Behind a broken framing nothing is a request any more.
    for broken in ["0x44", "-1", "zz"] {
        let first = format!(
            "POST /mcp/stub HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{broken}\r\n"
        );
        let answer = raw(&gateway, &format!("{first}GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
        assert!(answer.matches("HTTP/1.1").count() <= 1, "{broken}: {answer}");
    }
    let expect = "POST /api/mcp/stub HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 23\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
    let answer = raw(&gateway, &format!("{expect}{{\"method\":\"list_tools\"}}")).await;
    assert!(answer.starts_with("HTTP/1.1 100") && answer.contains("HTTP/1.1 200"), "{answer}");
    assert_eq!(stub.posts(), before + 1, "only the last of them reached the backend");
}
