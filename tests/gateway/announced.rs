//! Clients announced by the PROXY protocol, on the plain and on the TLS listener.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::gateway::{Gateway, server};
use crate::support::stub::Stub;
use crate::support::{eventually, http};

const REQUEST: &str = "GET /api/servers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The first line of what is answered; nothing if the connection is closed without an answer.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let mut said = Vec::new();
    // Closed before all was written or read: then there is no answer.
    let _ = stream.write_all(REQUEST.as_bytes()).await;
    let _ = stream.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()
}

/// The public listener answers nobody who is not announced, so the admin listener is asked.
async fn started(yaml: &str) -> Gateway {
    let gateway = Gateway::start_unready(yaml).await;
    let ready = async || (http().get(format!("{}/ready", gateway.admin)).send().await.ok()?.status() == 200).then_some(());
    eventually("readiness", ready).await;
    gateway
}

async fn plain(address: &str, announced: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(announced).await.expect("written");
    answer(stream).await
}

fn v2(ip: [u8; 4]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &ip, &[10, 0, 0, 1, 0x16, 0x2e, 0, 80]].concat()
}

#[tokio::test]
async fn the_announced_client_is_the_one_that_is_judged() {
    let stub = Stub::start().await;
    let settings = "  proxy_protocol: true\n  trusted_proxies: [127.0.0.1]\n";
    let yaml = format!("{}access: {{ deny: [192.0.2.0/24] }}\nbackends:\n{}", server(settings), stub.backend("one", ""));
    let gateway = started(&yaml).await;
    let address = gateway.url.trim_start_matches("http://");
    assert!(plain(address, b"PROXY TCP4 198.51.100.1 10.0.0.1 5 80\r\n").await.contains(" 200 "));
    assert!(plain(address, b"PROXY TCP4 192.0.2.7 10.0.0.1 5 80\r\n").await.contains(" 403 "));
    assert!(plain(address, &v2([198, 51, 100, 1])).await.contains(" 200 "));
    assert!(plain(address, &v2([192, 0, 2, 7])).await.contains(" 403 "));
    assert_eq!(plain(address, b"").await, "", "a trusted proxy that announces nobody is not served");
    assert_eq!(plain(address, b"PROXY TCP4 nonsense\r\n").await, "");
}

#[tokio::test]
async fn a_header_of_a_stranger_is_no_header() {
    let stub = Stub::start().await;
    let settings = "  proxy_protocol: true\n  trusted_proxies: [10.0.0.0/8]\n";
    let gateway = Gateway::start(&format!("{}backends:\n{}", server(settings), stub.backend("one", ""))).await;
    let address = gateway.url.trim_start_matches("http://");
    assert!(!plain(address, b"PROXY TCP4 198.51.100.1 10.0.0.1 5 80\r\n").await.contains(" 200 "));
    assert!(plain(address, b"").await.contains(" 200 "));
}

#[tokio::test]
async fn the_announcement_comes_before_tls() {
    let stub = Stub::start().await;
    let dir = tempfile::tempdir().expect("a folder");
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, pair.cert.pem()).expect("written");
    std::fs::write(&key, pair.signing_key.serialize_pem()).expect("written");
    let settings = format!(
        "  proxy_protocol: true\n  trusted_proxies: [127.0.0.1]\n  tls: {{ listen: \"127.0.0.1:0\", cert: \"{}\", key: \"{}\" }}\n",
        cert.display(),
        key.display()
    );
    let yaml = format!("{}access: {{ deny: [192.0.2.0/24] }}\nbackends:\n{}", server(&settings), stub.backend("one", ""));
    let mut gateway = started(&yaml).await;
    let address: String = gateway.process.says("listening on https://").await.chars().take_while(|c| *c != '"').collect();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pair.cert.der().clone()).expect("a root");
    let config = Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    for (ip, status) in [([198, 51, 100, 1], " 200 "), ([192, 0, 2, 7], " 403 ")] {
        let mut stream = TcpStream::connect(&address).await.expect("connected");
        stream.write_all(&v2(ip)).await.expect("written");
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&config));
        let stream = connector.connect(ServerName::try_from("localhost").expect("a name"), stream).await.expect("TLS");
        assert!(answer(stream).await.contains(status), "{ip:?}");
    }
}
