//! The addresses of a configured backend, by DNS.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use pingora::lb::Backend as Endpoint;
use pingora::lb::discovery::ServiceDiscovery;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::{Error, ErrorType, Result};

use crate::config::Backend;

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
