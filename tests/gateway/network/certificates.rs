//! Client certificates (mutual TLS): whom a listener refuses, whom a certificate stands for, and what comes before it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use serde_json::Value;

use super::{backend, call, code, hash};
use crate::listeners::{address, certificate};
use crate::support::client;
use crate::support::gateway::{Gateway, server};
use crate::support::stub::Stub;

const KEY: &str = "a-key-of-more-than-twenty-characters";

/// An authority that signs client certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate with these alternative names and this common name.
    fn signs(&self, names: Vec<SanType>, common: &str) -> reqwest::Identity {
        reqwest::Identity::from_pem(self.pair(names, common).concat().as_bytes()).expect("an identity")
    }

    /// The same, with its key, each in PEM.
    fn pair(&self, names: Vec<SanType>, common: &str) -> [String; 2] {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name.push(DnType::CommonName, common);
        let key = KeyPair::generate().expect("a key");
        [params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem()]
    }
}

fn uri(text: &str) -> Vec<SanType> {
    vec![SanType::URI(text.try_into().expect("ASCII"))]
}

/// A gateway that asks for certificates, before a stub.
struct World {
    gateway: Gateway,
    url: String,
    root: reqwest::Certificate,
    stub: Stub,
    dir: tempfile::TempDir,
}

impl World {
    async fn start(authority: &Authority, required: bool) -> Self {
        let (stub, dir) = (Stub::start().await, tempfile::tempdir().expect("a temporary folder"));
        let yaml = Self::yaml(dir.path(), authority, required, &stub);
        let pair = certificate(dir.path(), "localhost");
        let mut gateway = Gateway::start(&yaml).await;
        let address = address(&mut gateway, "listening on https://").await;
        let url = format!("https://localhost:{}/api/mcp/stub", address.rsplit_once(':').expect("a port").1);
        Self { gateway, url, root: pair.root, stub, dir }
    }

    fn yaml(dir: &Path, authority: &Authority, required: bool, stub: &Stub) -> String {
        let file = |name: &str| dir.join(name).display().to_string();
        std::fs::write(dir.join("clients.pem"), &authority.pem).expect("writable");
        let client = format!("client_ca: {}, client_required: {required}", file("clients.pem"));
        let tls = format!("  tls: {{ listen: 127.0.0.1:0, cert: {}, key: {}, {client} }}\n", file("cert.pem"), file("key.pem"));
        let keys = format!("  api_keys: {{ keys: [ {{ id: ann, hash: \"{}\", roles: [idle] }} ] }}\n", hash(KEY));
        let known = [
            "    - { name: \"spiffe://acme/reader\", tenant: acme, roles: [reader] }\n",
            "    - { name: \"spiffe://acme/*\", roles: [idle] }\n",
            "    - { name: \"ci.example.com\", roles: [reader] }\n",
            "    - { name: \"ops@example.com\", roles: [reader] }\n",
            "    - { name: \"a common name\", roles: [reader] }\n",
        ];
        let roles = "roles: { reader: [ { tools: [echo] } ], idle: [ { tools: [nothing] } ] }\n";
        format!("{}auth:\n{keys}  certificates:\n{}{roles}{}", server(&tls), known.concat(), backend(stub))
    }

    fn builder(&self, identity: Option<&reqwest::Identity>) -> reqwest::ClientBuilder {
        let builder = reqwest::Client::builder().tls_certs_only([self.root.clone()]);
        identity.into_iter().fold(builder, |builder, identity| builder.identity(identity.clone()))
    }

    /// Status, code and version of an answer; `None` if the connection is refused.
    async fn ask(&self, http: &reqwest::Client, headers: &[(&str, &str)]) -> Option<(u16, String, reqwest::Version)> {
        let request = http.post(&self.url).json(&call());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = request.send().await.ok()?;
        let (status, version) = (answer.status().as_u16(), answer.version());
        let body: Value = answer.json().await.unwrap_or_default();
        Some((status, code(&body).to_owned(), version))
    }

    async fn status(&self, identity: Option<&reqwest::Identity>, headers: &[(&str, &str)]) -> Option<u16> {
        self.ask(&client(self.builder(identity)), headers).await.map(|answer| answer.0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_certificate_is_required_nobody_comes_without_a_good_one() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    // The same name as ours, and another key.
    let twin = Authority::new("ours");
    let world = World::start(&ours, true).await;
    let reader = ours.signs(uri("spiffe://acme/reader"), "x");
    assert_eq!(world.status(Some(&reader), &[]).await, Some(200));
    assert_eq!(world.stub.calls(), 1);
    assert_eq!(world.status(None, &[]).await, None);
    assert_eq!(world.status(None, &[("x-api-key", KEY)]).await, None, "a key is no certificate");
    for stranger in [&theirs, &twin] {
        let forged = stranger.signs(uri("spiffe://acme/reader"), "x");
        assert_eq!(world.status(Some(&forged), &[]).await, None);
        assert_eq!(world.status(Some(&forged), &[("x-api-key", KEY)]).await, None);
    }
    assert_eq!(world.stub.calls(), 1, "none of them reached the backend");
    let plain = crate::support::http().post(world.gateway.at("/api/mcp/stub")).json(&call()).send().await.expect("an answer");
    assert_eq!(plain.status(), 401, "the cleartext listener knows no certificates");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_stands_for_whom_its_names_say() {
    let ours = Authority::new("ours");
    let world = World::start(&ours, false).await;
    let dns = |name: &str| vec![SanType::DnsName(name.try_into().expect("ASCII"))];
    let mail = vec![SanType::Rfc822Name("ops@example.com".try_into().expect("ASCII"))];
    for (what, names, common, status) in [
        ("a URI", uri("spiffe://acme/reader"), "x", 200),
        ("a DNS name", dns("ci.example.com"), "x", 200),
        ("an e-mail address", mail, "x", 200),
        ("the common name", uri("spiffe://elsewhere"), "a common name", 200),
        ("a URI of a lesser role", uri("spiffe://acme/ci"), "x", 403),
        ("a longer URI", uri("spiffe://acme/ci/reader"), "x", 401),
        ("a URI within another", uri("https://evil.example/spiffe://acme/reader"), "x", 401),
        ("a longer DNS name", dns("ci.example.com.evil.example"), "x", 401),
        ("no name of ours", vec![], "nobody", 401),
    ] {
        let identity = ours.signs(names, common);
        for is_h2 in [true, false] {
            let builder = world.builder(Some(&identity));
            let http = client(if is_h2 { builder } else { builder.http1_only() });
            // The second request may come on the first one's connection.
            for _ in 0..2 {
                let answer = world.ask(&http, &[]).await.expect("an answer");
                assert_eq!(answer.0, status, "{what}: {answer:?}");
                assert_eq!(answer.2 == reqwest::Version::HTTP_2, is_h2, "{what}");
            }
        }
    }
    let said = world.gateway.said().await.join("\n");
    assert!(said.contains("certificate") && said.contains("spiffe://acme/reader"), "the audit log tells by which name: {said}");
}

/// One call on a connection of its own: how the connection came about, and the answer.
fn call_once(config: &Arc<ClientConfig>, url: &str) -> (Option<HandshakeKind>, String) {
    let authority = url.trim_start_matches("https://").split('/').next().expect("an authority");
    let mut tls = ClientConnection::new(Arc::clone(config), "localhost".try_into().expect("a name")).expect("a connection");
    let mut tcp = TcpStream::connect(authority.replace("localhost", "127.0.0.1")).expect("connected");
    let body = call().to_string();
    let head = format!("content-type: application/json\r\ncontent-length: {}\r\nconnection: close", body.len());
    let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
    write!(stream, "POST /api/mcp/stub HTTP/1.1\r\nhost: {authority}\r\n{head}\r\n\r\n{body}").expect("sent");
    let mut answer = Vec::new();
    // An end without a farewell is one as well.
    let _ = stream.read_to_end(&mut answer);
    (tls.handshake_kind(), String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_connection_is_whose_it_was() {
    let ours = Authority::new("ours");
    let world = World::start(&ours, false).await;
    let [certificate, key] = ours.pair(uri("spiffe://acme/reader"), "x");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(world.dir.path().join("cert.pem")).expect("a certificate")).expect("a root");
    let config = ClientConfig::builder().with_root_certificates(roots);
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let reader = Arc::new(config.clone().with_client_auth_cert(chain, key).expect("an identity"));
    let nobody = Arc::new(config.with_no_client_auth());
    for (config, status) in [(reader, "HTTP/1.1 200"), (nobody, "HTTP/1.1 401")] {
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let (config, url) = (Arc::clone(&config), world.url.clone());
            let (kind, answer) = tokio::task::spawn_blocking(move || call_once(&config, &url)).await.expect("no panic");
            assert_eq!(kind, Some(expected));
            assert!(answer.starts_with(status), "{expected:?}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_not_required_a_header_goes_before_the_certificate() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let world = World::start(&ours, false).await;
    let reader = ours.signs(uri("spiffe://acme/reader"), "x");
    let (bearer, wrong) = (format!("Bearer {KEY}"), "a-key-that-nobody-has-in-this-test");
    assert_eq!(world.status(None, &[]).await, Some(401), "a certificate or another credential");
    // The key's role is the lesser one, so the answer tells which was looked at.
    for (identity, what) in [(None, "no certificate"), (Some(&reader), "the reader's")] {
        assert_eq!(world.status(identity, &[("x-api-key", KEY)]).await, Some(403), "{what}");
        assert_eq!(world.status(identity, &[("authorization", &bearer)]).await, Some(403), "{what}");
        for headers in [("x-api-key", wrong), ("authorization", "Bearer wrong"), ("authorization", "Basic x"), ("x-api-key", "")] {
            assert_eq!(world.status(identity, &[headers]).await, Some(401), "{what} {headers:?}: a wrong credential is not none");
        }
    }
    assert_eq!(world.stub.calls(), 0);
    assert_eq!(world.status(Some(&reader), &[]).await, Some(200));
    let forged = theirs.signs(uri("spiffe://acme/reader"), "x");
    assert_eq!(world.status(Some(&forged), &[]).await, None, "one of another authority is refused, not overlooked");
    assert_eq!(world.status(Some(&forged), &[("x-api-key", KEY)]).await, None);
}
