//! Whom a PostgreSQL's certificate must be from. `sslmode=require`, or a `ca`, is checked like any https; `prefer` is what it
//! is in `libpq`: encrypted where the server offers it, which keeps listeners out and nobody who can change what is sent.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// The client's side of TLS.
///
/// # Errors
/// What is wrong with the authorities.
pub fn config(ca: Option<&Path>, is_verified: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
    if is_verified {
        return Ok(builder.with_root_certificates(authorities(ca)?).with_no_client_auth());
    }
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth())
}

fn authorities(ca: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let Some(path) = ca else {
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(store);
    };
    let fault = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| fault(&e))? {
        store.add(certificate.map_err(|e| fault(&e))?).map_err(|e| fault(&e))?;
    }
    if store.is_empty() { Err(fault(&"holds no certificate")) } else { Ok(store) }
}

/// Takes any certificate, though only from who has its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
