//! The TLS listener's certificate, read from its files and replaced while running.

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::listeners::TlsAccept;
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::tls::TlsRef;
use rustls::RootCertStore;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use crate::auth::certificate::Names;
use crate::config::Tls;

/// The certificate in use and where it comes from.
#[derive(Debug)]
pub struct Certificates {
    cert: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl Certificates {
    /// # Errors
    /// What is wrong with the files, by name.
    pub fn load(tls: &Tls) -> Result<Self, String> {
        let current = read(&tls.cert, &tls.key)?;
        Ok(Self { cert: tls.cert.clone(), key: tls.key.clone(), current: ArcSwap::from_pointee(current) })
    }

    /// Reads the files again; tells whether the certificate changed. A broken pair leaves the old one in use.
    ///
    /// # Errors
    /// What is wrong with the files, by name.
    pub fn reload(&self) -> Result<bool, String> {
        let fresh = read(&self.cert, &self.key)?;
        if fresh.cert == self.current.load().cert {
            return Ok(false);
        }
        self.current.store(Arc::new(fresh));
        Ok(true)
    }

    /// When the first of the chain in use ends, in seconds since 1970; `None` if none of it can be read.
    pub fn ends(&self) -> Option<i64> {
        let ends = |certificate: &CertificateDer<'_>| {
            x509_parser::parse_x509_certificate(certificate).ok().map(|(_, read)| read.validity().not_after.timestamp())
        };
        self.current.load().cert.iter().filter_map(ends).min()
    }

    /// The files to watch.
    pub fn files(&self) -> [&PathBuf; 2] {
        [&self.cert, &self.key]
    }
}

fn read(cert: &PathBuf, key: &PathBuf) -> Result<CertifiedKey, String> {
    let fault = |path: &PathBuf, e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let chain = CertificateDer::pem_file_iter(cert).map_err(|e| fault(cert, &e))?;
    let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|e| fault(cert, &e))?;
    if chain.is_empty() {
        return Err(fault(cert, &"holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| fault(key, &e))?;
    let signer = any_supported_type(&private).map_err(|e| fault(key, &e))?;
    let pair = CertifiedKey::new(chain, signer);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(pair),
        Err(e) => Err(fault(key, &format_args!("does not belong to {}: {e}", cert.display()))),
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// Notes the names in a client's certificate, once for each connection.
struct Named;

#[async_trait]
impl TlsAccept for Named {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        let names = Names::of(tls.peer_certificate_der()?)?;
        Some(Arc::new(names))
    }
}

/// Who may have signed a client's certificate.
///
/// # Errors
/// What is wrong with the file, by name.
pub fn verifier(tls: &Tls) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let Some(path) = &tls.client_ca else { return Ok(None) };
    let fault = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| fault(&e))? {
        roots.add(certificate.map_err(|e| fault(&e))?).map_err(|e| fault(&e))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
    let builder = if tls.client_required { builder } else { builder.allow_unauthenticated() };
    builder.build().map(Some).map_err(|e| fault(&e))
}

/// Settings of a TLS listener that speaks HTTP/2 and HTTP/1.1.
pub fn settings(certificates: &Arc<Certificates>, verifier: Option<Arc<dyn ClientCertVerifier>>) -> pingora::Result<TlsSettings> {
    let mut settings = TlsSettings::with_callbacks(Box::new(Named))?;
    if let Some(verifier) = verifier {
        settings.set_client_cert_verifier(verifier);
    }
    settings.set_cert_resolver(Arc::clone(certificates) as Arc<dyn ResolvesServerCert>);
    settings.enable_h2();
    Ok(settings)
}
