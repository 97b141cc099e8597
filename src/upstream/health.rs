//! What a backend is asked to show that it is healthy. Pingora's own HTTP check sends no body, so the MCP check is ours;
//! counting thresholds and flipping states is Pingora's.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use pingora::lb::Backend as Endpoint;
use pingora::lb::health_check::HealthCheck;
use pingora::{Error, ErrorType, Result};

use super::ask::{self, Trouble};
use super::backend::Backend;
use super::facts::Speaks;
use crate::call::Era;
use crate::config::traffic::Thresholds;
use crate::config::{Probe, Protocol};
use crate::egress::{Client, Target};

/// The health check of one backend.
pub struct Check {
    backend: Weak<Backend>,
    client: Arc<Client>,
    unhealthy: usize,
    healthy: usize,
    /// The addresses that ever passed. Until then a single failure counts: Pingora takes a new address for healthy, but
    /// one must show itself before it gets traffic, and one that never did is not given the benefit of a threshold.
    proven: Mutex<HashSet<SocketAddr>>,
    /// Whether the address checked last is proven; addresses are checked one after the other.
    judged: AtomicBool,
    /// Why the last check that failed did, for the log.
    cause: Mutex<String>,
}

impl Check {
    pub fn new(backend: Weak<Backend>, client: Arc<Client>, thresholds: Thresholds) -> Self {
        let Thresholds { unhealthy, healthy } = thresholds;
        Self { backend, client, unhealthy, healthy, proven: Mutex::default(), judged: AtomicBool::new(false), cause: Mutex::default() }
    }

    async fn probe(&self, backend: &Backend, endpoint: &Endpoint) -> Result<(), String> {
        let address = endpoint.addr.as_inet().ok_or("not an IP address")?;
        let target = backend.dial(*address);
        let wait = backend.conf.health_check.timeout;
        match (&backend.conf.health_check.probe, backend.speaks()) {
            (Probe::Path(path), _) => get(&self.client, backend, &target, path, wait).await,
            (Probe::Mcp, _) | (Probe::Auto, Some(Speaks::Mcp(_))) => mcp(&self.client, backend, &target, wait).await,
            (Probe::Auto, None) if backend.conf.protocol == Protocol::Mcp => mcp(&self.client, backend, &target, wait).await,
            // Before anyone knows what it speaks, being reachable is all that can be asked.
            (Probe::Auto, None) if backend.conf.protocol == Protocol::Auto => reachable(&self.client, backend, &target, wait).await,
            (Probe::Auto, _) => get(&self.client, backend, &target, "/health", wait).await,
        }
    }
}

#[async_trait]
impl HealthCheck for Check {
    async fn check(&self, endpoint: &Endpoint) -> Result<()> {
        let Some(backend) = self.backend.upgrade() else { return Ok(()) };
        let Some(address) = endpoint.addr.as_inet().copied() else { return Ok(()) };
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner).contains(&address);
        self.judged.store(proven, Ordering::Relaxed);
        // Pingora gives the check no deadline of its own.
        let probe = tokio::time::timeout(backend.conf.health_check.timeout * 2, self.probe(&backend, endpoint));
        match probe.await.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(()) => {
                self.proven.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
                Ok(())
            }
            Err(cause) => {
                log::debug!("backend {}: health check of {} failed: {cause}", backend.name(), endpoint.addr);
                self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&cause);
                Err(Error::explain(ErrorType::ConnectError, cause))
            }
        }
    }

    async fn health_status_change(&self, endpoint: &Endpoint, healthy: bool) {
        if let Some(backend) = self.backend.upgrade() {
            let (name, address) = (backend.name(), &endpoint.addr);
            if healthy {
                log::warn!("backend {name}: {address} is now healthy");
            } else {
                let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
                log::warn!("backend {name}: {address} is now unhealthy: {cause}");
            }
        }
    }

    fn health_threshold(&self, success: bool) -> usize {
        match (success, self.judged.load(Ordering::Relaxed)) {
            (_, false) => 1,
            (true, true) => self.healthy,
            (false, true) => self.unhealthy,
        }
    }
}

/// `GET` that must give 2xx.
async fn get(client: &Client, backend: &Backend, target: &Arc<Target>, path: &str, wait: Duration) -> Result<(), String> {
    let status = fetch(client, backend, target, path, wait).await?;
    if status.is_success() { Ok(()) } else { Err(format!("GET {path} answered {status}")) }
}

/// Any answer at all will do.
async fn reachable(client: &Client, backend: &Backend, target: &Arc<Target>, wait: Duration) -> Result<(), String> {
    fetch(client, backend, target, "/health", wait).await.map(drop)
}

async fn fetch(client: &Client, backend: &Backend, target: &Arc<Target>, path: &str, wait: Duration) -> Result<http::StatusCode, String> {
    let head = backend.request("GET", &backend.path(path), HeaderValue::from_static("application/json"));
    let incoming = client.send(target, head, Bytes::new(), wait).await.map_err(|e| e.to_string())?;
    let status = incoming.status();
    incoming.collect(1 << 20).await.map_err(|e| e.to_string())?;
    Ok(status)
}

/// `server/discover` or `ping`, by era. Before the era is known the modern question is asked, and every answer that is
/// JSON-RPC shows an MCP server.
async fn mcp(client: &Client, backend: &Backend, target: &Arc<Target>, wait: Duration) -> Result<(), String> {
    let facts = backend.facts();
    let server = facts.servers.keys().next().map_or("", String::as_str);
    let (era, method) = match facts.speaks {
        Some(Speaks::Mcp(Era::Legacy)) => (Era::Legacy, "ping"),
        _ => (Era::Modern, "server/discover"),
    };
    let encode = |era, id| super::catalog::request(method, era, id, None);
    let question = super::catalog::plain(server, method, &encode, wait);
    match ask::ask_at(client, backend, target, era, &question).await {
        Ok(_) => Ok(()),
        // A legacy server may refuse the modern question in words of its own; it is alive.
        Err(Trouble::Status(status)) if status.is_client_error() && facts.speaks.is_none() => Ok(()),
        Err(trouble) => Err(trouble.to_string()),
    }
}
