//! The checked configuration: what we believe after reading what was written. Everything here is valid by construction
//! (`check` is the only maker), so the rest of the program never validates again.
//!
//! `reader` walks the YAML and gathers all problems, `lines` tells where they stand, `env` lays the environment over
//! the file, `check` (with `backends`, `discovery`, `auth` and `roles`) turns the result into these types, `identity` is the
//! model of who may do what, `cache` that of answers that are kept, `routing` and `transform` are the model of where requests go and what is changed on the way,
//! `quota` and `traffic` that of limits and resilience, `compression` that of content codings, `analytics` that of what is written down, `log` that of what is told of, `risk` knows what is dangerous, `units` knows durations and sizes.

pub mod analytics;
mod auth;
mod backends;
mod balancing;
pub mod cache;
mod check;
mod collector;
pub mod compression;
mod datadog;
pub mod discovery;
mod env;
pub mod identity;
mod lines;
mod log;
mod observability;
pub mod quota;
mod rate_limits;
mod reader;
mod redis;
pub mod risk;
mod roles;
pub mod routing;
pub mod traffic;
pub mod transform;
mod units;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Serialize, Serializer};
use url::Url;

pub use auth::{FORWARDED, instant, key_hash, pem_key};
pub use check::label;
pub use collector::{Collector, OtlpMetrics, Tracing};
pub use datadog::{Datadog, LONGEST_TAG, Statsd};
pub use discovery::Discovery;
pub use identity::{Auth, Roles};
pub use log::{Log, is_our_module, level as log_level};
pub use observability::Observability;
pub use reader::Problem;
pub use redis::Redis;
pub use traffic::{CircuitBreaker, LoadBalancer};
pub use units::duration;

/// A value that must never be shown: `Debug` and serialization print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself; the name is meant to stand out in review.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// Everything the gateway was told.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    pub server: Server,
    /// The configured ones; in a snapshot, those discovered as well.
    pub backends: Vec<Arc<Backend>>,
    pub discovery: Discovery,
    pub load_balancer: LoadBalancer,
    pub circuit_breaker: CircuitBreaker,
    pub rate_limits: quota::RateLimits,
    /// The first that matches a request decides where it may go.
    pub routes: Vec<routing::Rule>,
    /// Versions of the REST API, the built-in ones among them.
    pub versions: Vec<routing::Version>,
    /// What is changed of requests and answers.
    pub transforms: Vec<transform::Transform>,
    /// `None`: everyone is anonymous.
    pub auth: Option<Auth>,
    /// Empty: whoever is let in may do everything.
    pub roles: Roles,
    pub access: Access,
    /// `None`: nothing is kept.
    pub cache: Option<cache::Cache>,
    pub redis: Option<Redis>,
    pub observability: Observability,
    /// `None`: nothing is written down.
    pub analytics: Option<analytics::Analytics>,
}

/// Listeners and limits of the process. `limits`, `compression`, `grace_period` and `admin_token` change with a reload, the
/// rest with a restart (`bootstrap/caretaker`).
#[derive(Debug, Clone, Serialize)]
pub struct Server {
    pub listen: SocketAddr,
    pub workers: usize,
    /// Cleartext HTTP/2 has a port of its own because Pingora's preface peek stalls short HTTP/1 requests.
    pub h2c: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
    /// Required of every admin request when set; must be set when `admin` is not a loopback address.
    pub admin_token: Option<Secret>,
    pub state_dir: PathBuf,
    /// Networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether trusted proxies begin a connection with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether the arguments of tool calls are checked against the tool's `inputSchema`.
    pub validate_arguments: bool,
    /// Seals session ids; when absent one is generated into `state_dir`.
    pub session_secret: Option<Secret>,
    pub tls: Option<Tls>,
    #[serde(serialize_with = "seconds")]
    pub grace_period: Duration,
    pub limits: Limits,
    /// `None`: answers go as they are.
    pub compression: Option<compression::Compression>,
}

/// The TLS listener; both files are watched and reloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tls {
    pub listen: SocketAddr,
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The authority of client certificates (mutual TLS).
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused.
    pub client_required: bool,
}

/// What one client may take of us.
#[derive(Debug, Clone, Serialize)]
pub struct Limits {
    /// Bytes of a request body.
    pub body: usize,
    /// Bytes of all request headers with their names.
    pub headers: usize,
    /// Open downstream connections; 0 is unlimited.
    pub connections: usize,
    /// Open downstream connections of one address; 0 is unlimited.
    pub connections_per_ip: usize,
    /// Requests under way at the same time, pages and GET streams aside; 0 is unlimited.
    pub in_flight: usize,
    /// Where the next ones wait.
    pub queue: traffic::Queue,
    /// Requests of one address in a second, estimated; 0 is unlimited.
    pub requests_per_ip: u32,
    /// How far the workers may be behind before a part of the requests is refused; zero never refuses any.
    #[serde(serialize_with = "seconds")]
    pub shed_lag: Duration,
    /// From the first byte of a request to the last of its answer, event streams excepted.
    #[serde(serialize_with = "seconds")]
    pub request_timeout: Duration,
    /// For a client to send its whole header block.
    #[serde(serialize_with = "seconds")]
    pub header_timeout: Duration,
    /// The longest silence on an event stream.
    #[serde(serialize_with = "seconds")]
    pub stream_idle: Duration,
}

/// One instance that serves MCP servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backend {
    pub name: String,
    pub url: Url,
    pub weight: u32,
    pub health_check: HealthCheck,
    /// Until the response header, and for a whole non-streamed answer.
    #[serde(serialize_with = "seconds")]
    pub timeout: Duration,
    /// MCP servers it serves; empty means they are discovered.
    pub capabilities: Vec<String>,
    pub protocol: Protocol,
    /// Path of its MCP endpoint; may hold `{server}`.
    pub mcp_path: String,
    pub era: EraChoice,
    pub credential: Option<Secret>,
    /// Exchanges callers' tokens for ones of this backend's; `credential` is then for our own questions.
    pub exchange: Option<TokenExchange>,
    pub tls: BackendTls,
    /// A label that routing rules choose by.
    pub shard: Option<String>,
    /// Where it stands; balancing prefers the gateway's own zone.
    pub zone: Option<String>,
    /// Requests it is given at the same time; 0 is unlimited.
    pub max_in_flight: usize,
}

/// The backends a rule sends requests to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Among {
    /// Those of these names.
    Names(Vec<String>),
    /// Those with this label.
    Shard(String),
}

impl Among {
    pub fn admits(&self, backend: &Backend) -> bool {
        match self {
            Self::Names(names) => names.contains(&backend.name),
            Self::Shard(shard) => backend.shard.as_ref() == Some(shard),
        }
    }
}

/// RFC 8693.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenExchange {
    pub site: identity::Site,
    pub client_id: String,
    pub client_secret: Secret,
    pub audience: Option<String>,
    pub scope: Option<String>,
}

/// How to verify an `https://` backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BackendTls {
    pub ca: Option<PathBuf>,
    pub sni: Option<String>,
}

/// What a backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Asked in the background: MCP at `mcp_path` first, then `GET /api/servers`.
    Auto,
    Mcp,
    Middleware,
}

/// Which MCP era a backend speaks, or `auto` to ask it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EraChoice {
    Auto,
    Legacy,
    Modern,
}

/// How a backend's health is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    pub probe: Probe,
    #[serde(serialize_with = "seconds")]
    pub interval: Duration,
    #[serde(serialize_with = "seconds")]
    pub timeout: Duration,
}

/// The question a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// By protocol: MCP for MCP backends, `GET /health` for middleware.
    Auto,
    /// `server/discover` or `ping`, by era.
    Mcp,
    /// `GET` of this path, healthy on 2xx.
    Path(String),
}

/// Who may reach us at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Access {
    /// Networks that may connect; empty is all.
    pub allow: Vec<IpNet>,
    /// Networks that may not, whatever `allow` says.
    pub deny: Vec<IpNet>,
    /// Host names beside loopback ones that a request over loopback may carry.
    pub hosts: Vec<String>,
    /// Origins beside our own that a browser may come from.
    pub origins: Vec<String>,
}

/// Where a configuration comes from, kept so that it can be read again at reload.
#[derive(Debug, Clone)]
pub enum Source {
    /// A YAML file under the process environment, or the environment alone.
    File(Option<PathBuf>),
    /// The bundled demo configuration, with the address of the demo server.
    Demo(SocketAddr),
}

impl Source {
    /// Reads it.
    ///
    /// # Errors
    /// Every problem found, in the order of the text.
    pub fn load(&self) -> Result<Config, Vec<Problem>> {
        let environment = |name: &str| std::env::var(name).ok();
        match self {
            Self::File(Some(path)) => {
                let text = std::fs::read_to_string(path).map_err(|e| vec![unreadable(path, &e)])?;
                parse(&self.name(), &text, &environment)
            }
            Self::File(None) => parse(&self.name(), "", &environment),
            Self::Demo(address) => {
                let lookup = |name: &str| if name == "DEMO_MCP_ADDRESS" { Some(address.to_string()) } else { environment(name) };
                parse(&self.name(), DEMO, &lookup)
            }
        }
    }

    /// Where a gateway with this configuration listens, whatever else is wrong with it: one that runs goes on with its last
    /// good configuration.
    pub fn listen(&self) -> SocketAddr {
        check::listen(&self.text().unwrap_or_default(), &|name| std::env::var(name).ok())
    }

    /// How problems and risks call it.
    pub fn name(&self) -> String {
        match self {
            Self::File(Some(path)) => path.display().to_string(),
            Self::File(None) => "environment".to_owned(),
            Self::Demo(_) => "demo.yaml".to_owned(),
        }
    }

    /// The file behind it, if it is one.
    pub fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => path.as_ref(),
            Self::Demo(_) => None,
        }
    }

    /// The file's text as it is now, for telling whether it changed.
    pub fn text(&self) -> Option<String> {
        std::fs::read_to_string(self.file()?).ok()
    }
}

/// The configuration of `mcp-gateway demo`.
const DEMO: &str = include_str!("../../conf/demo.yaml");

/// Reads a configuration text under the environment `lookup`; `name` is how problems call the text.
///
/// # Errors
/// Every problem found, in the order of the text.
pub fn parse(name: &str, text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<Problem>> {
    check::read(name, text, lookup)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    let message = format!("cannot be read: {error}");
    Problem { source: path.display().to_string(), line: None, path: String::new(), message }
}

/// A duration that serializes as seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timespan(pub Duration);

impl Serialize for Timespan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        seconds(&self.0, serializer)
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
