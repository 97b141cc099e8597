//! Listeners: TLS with h2 and certificates replaced while running, slow and too many connections.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::gateway::{Gateway, server};
use crate::support::stub::Stub;
use crate::support::{client, eventually};

/// A certificate on disk and what a client trusts it by.
pub struct Pair {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub root: reqwest::Certificate,
}

/// Writes a new self-signed certificate for `name`.
pub fn certificate(dir: &Path, name: &str) -> Pair {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("writable");
    std::fs::write(&cert, made.cert.pem()).expect("writable");
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).expect("a certificate");
    Pair { cert, key, root }
}

/// The address a log line tells.
pub async fn address(gateway: &mut Gateway, line: &str) -> String {
    gateway.process.says(line).await.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_speaks_h2_and_takes_a_new_certificate_without_restart() {
    let stub = Stub::start().await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let old = certificate(dir.path(), "localhost");
    let tls = format!("  tls: {{ listen: 127.0.0.1:0, cert: {}, key: {} }}\n", old.cert.display(), old.key.display());
    let mut gateway = Gateway::start(&format!("{}backends:\n{}", server(&tls), stub.backend("one", ""))).await;
    let address = address(&mut gateway, "listening on https://").await;
    let url = format!("https://localhost:{}/health", address.rsplit_once(':').expect("a port").1);
    let get = async |root: reqwest::Certificate| client(reqwest::Client::builder().tls_certs_only([root])).get(&url).send().await;
    let answer = get(old.root.clone()).await.expect("an answer");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    let new = certificate(dir.path(), "localhost");
    eventually("the new certificate is served", async || get(new.root.clone()).await.ok().map(drop)).await;
    assert!(get(old.root.clone()).await.is_err(), "the old one is not");
    std::fs::write(&new.cert, "no certificate").expect("writable");
    gateway.process.says("the certificate was not reloaded").await;
    assert!(get(new.root.clone()).await.is_ok(), "a broken file leaves the last good one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_finish_its_headers_is_cut_off() {
    let stub = Stub::start().await;
    let gateway =
        Gateway::start(&format!("{}backends:\n{}", server("  limits: { header_timeout: 300ms }\n"), stub.backend("one", ""))).await;
    let address = gateway.url.trim_start_matches("http://").to_owned();
    let mut slow = TcpStream::connect(&address).await.expect("connected");
    // Each byte comes in time for a read timeout; the block as a whole does not.
    let trickle = async {
        for byte in b"GET /health HTTP/1.1\r\nx: ".iter().cycle().take(600) {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("still connected after 30 seconds");
    };
    trickle.await;
    let mut good = TcpStream::connect(&address).await.expect("connected");
    good.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    good.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed() {
    let stub = Stub::start().await;
    for limits in ["connections: 3", "connections_per_ip: 3"] {
        let gateway =
            Gateway::start(&format!("{}backends:\n{}", server(&format!("  limits: {{ {limits} }}\n")), stub.backend("one", ""))).await;
        let address = gateway.url.trim_start_matches("http://").to_owned();
        // The readiness probe's kept-alive connections have to go first.
        eventually("nobody is connected", async || (admin_metric(&gateway, "open_connections").await == 0).then_some(())).await;
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(TcpStream::connect(&address).await.expect("connected"));
        }
        eventually("three are connected", async || (admin_metric(&gateway, "open_connections").await == 3).then_some(())).await;
        let mut fourth = TcpStream::connect(&address).await.expect("accepted by the system");
        let read = tokio::time::timeout(Duration::from_secs(20), fourth.read(&mut [0; 1])).await.expect("closed in time");
        assert!(matches!(read, Ok(0) | Err(_)), "{limits}: closed without an answer");
        assert_eq!(admin_metric(&gateway, "connections_refused_total").await, 1);
    }
}

async fn admin_metric(gateway: &Gateway, name: &str) -> u64 {
    let text = crate::support::http().get(format!("{}/metrics", gateway.admin)).send().await.expect("metrics").text().await.expect("text");
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).expect("a value")
}
