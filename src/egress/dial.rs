//! From a URL to something Pingora can dial: TLS verified against the system's CAs or the ones named, never skipped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{ALPN, HttpPeer};
use pingora::utils::tls::{WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::Url;

use super::Target;

/// A connection attempt that takes longer will not be a good one.
const CONNECT: Duration = Duration::from_secs(3);
/// Below the keep-alive of common servers (uvicorn and Node close after 5 s), so that we never write into a
/// connection the server is just closing: a tool call lost there could not be retried.
const IDLE: Duration = Duration::from_secs(4);

/// Makes the dial targets of one URL.
pub struct Dialer {
    tls: bool,
    sni: String,
    ca: Option<Arc<CaType>>,
    /// Pingora's pool key omits the CA; connections verified by one site's CA must not serve another.
    group: u64,
}

impl Dialer {
    /// `owner` sets its connections apart from those of others to the same address.
    ///
    /// # Errors
    /// When the CA file cannot be read or holds no usable certificate.
    pub fn new(owner: &str, url: &Url, sni: Option<&str>, ca: Option<&PathBuf>) -> Result<Self, String> {
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        Ok(Self {
            tls: url.scheme() == "https",
            // Never empty: Pingora skips verification without a name.
            sni: sni.unwrap_or(host).to_owned(),
            ca: ca.map(|path| load_ca(path)).transpose()?,
            group: fingerprint(&(owner, ca, sni)),
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

fn fingerprint(of: &impl std::hash::Hash) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
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
