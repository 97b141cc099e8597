//! From a configured backend to something Pingora can dial: addresses by DNS, one `HttpPeer` for each.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::lb::Backend as Endpoint;
use pingora::lb::discovery::ServiceDiscovery;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{ALPN, HttpPeer};
use pingora::utils::tls::{WrappedX509, parse_x509};
use pingora::{Error, ErrorType, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::Backend;
use crate::egress::Target;

/// A connection attempt that takes longer will not be a good one.
const CONNECT: Duration = Duration::from_secs(3);
/// Below the keep-alive of common servers (uvicorn and Node close after 5 s), so that we never write into a
/// connection the server is just closing: a tool call lost there could not be retried.
const IDLE: Duration = Duration::from_secs(4);

/// Resolves a backend's host each time it is asked, so that a changed DNS record is followed.
pub struct Resolver {
    host: String,
    port: u16,
}

impl Resolver {
    pub fn new(backend: &Backend) -> Self {
        let host = backend.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        Self { host, port: backend.url.port_or_known_default().unwrap_or(80) }
    }
}

#[async_trait]
impl ServiceDiscovery for Resolver {
    async fn discover(&self) -> Result<(BTreeSet<Endpoint>, HashMap<u64, bool>)> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found = found.map_err(|e| Error::because(ErrorType::ConnectError, format!("resolving {}", self.host), e))?;
        let endpoints = found.map(|address| Endpoint { addr: PingoraAddr::Inet(address), weight: 1, ext: http::Extensions::new() });
        Ok((endpoints.collect(), HashMap::new()))
    }
}

/// Makes the dial targets of one backend.
pub struct Dialer {
    tls: bool,
    sni: String,
    ca: Option<Arc<CaType>>,
    /// Pingora's pool key omits the CA; connections verified by one backend's CA must not serve another.
    group: u64,
}

impl Dialer {
    /// # Errors
    /// When the CA file cannot be read or holds no usable certificate.
    pub fn new(backend: &Backend) -> Result<Self, String> {
        let host = backend.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        Ok(Self {
            tls: backend.url.scheme() == "https",
            // Never empty: Pingora skips verification without a name.
            sni: backend.tls.sni.clone().unwrap_or(host),
            ca: backend.tls.ca.as_deref().map(load_ca).transpose()?,
            group: fingerprint(backend),
        })
    }

    pub fn target(&self, address: SocketAddr) -> Arc<Target> {
        let mut peer = HttpPeer::new(address, self.tls, self.sni.clone());
        peer.group_key = self.group;
        peer.options.ca.clone_from(&self.ca);
        peer.options.alpn = ALPN::H1;
        peer.options.connection_timeout = Some(CONNECT);
        peer.options.total_connection_timeout = Some(CONNECT);
        peer.options.idle_timeout = Some(IDLE);
        Target::new(peer, address)
    }
}

fn fingerprint(backend: &Backend) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (&backend.name, &backend.tls.ca, &backend.tls.sni).hash(&mut hasher);
    hasher.finish()
}

fn load_ca(path: &Path) -> Result<Arc<CaType>, String> {
    let fault = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut store = rustls::RootCertStore::empty();
    let mut wrapped = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| fault(&e))? {
        let certificate = certificate.map_err(|e| fault(&e))?;
        // Pingora's parser panics on what is no certificate, so a strict one looks first.
        store.add(certificate.clone()).map_err(|e| fault(&e))?;
        wrapped.push(WrappedX509::new(certificate.to_vec(), parse_x509));
    }
    if wrapped.is_empty() {
        return Err(fault(&"holds no certificate"));
    }
    Ok(wrapped.into())
}
