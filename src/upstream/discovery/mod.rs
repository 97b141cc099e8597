//! Backends beside the configured ones: registered through the admin listener, keys in etcd, DNS records. Each place
//! they come from is a feed; a feed tells the `Registry` its whole set whenever that changed, and the registry, which
//! outlives reloads, remembers it, also on disk: what a feed last told is served while it cannot be asked, also by a
//! process that starts meanwhile. Nothing here serves: the caretaker builds a snapshot of what is configured and what is
//! in the registry, and a backend new in it gets no traffic before its first health check.
//!
//! Reading order: here (what a feed is), `registry`, `tending` (the loops), then `admin`, `etcd`, `dns`.

pub mod admin;
mod dns;
pub mod etcd;
mod known;
pub mod registry;
mod tending;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::exchange::Exchanger;
use crate::config::discovery::{Dns, Etcd, Records};
use crate::config::{self, Backend, Config};
use crate::egress::dial::Dialer;

pub use self::registry::{Merged, Registry};
pub use self::tending::Tending;

/// Causes told of one outage.
const CAUSES: usize = 16;

/// Characters told of one text that is no backend.
const TOLD: usize = 1000;

/// Where a backend comes from, the one that wins a name clash first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The configuration.
    File,
    Admin,
    Etcd,
    Dns,
}

impl Source {
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Admin => "admin",
            Self::Etcd => "etcd",
            Self::Dns => "dns",
        }
    }
}

/// Where the sources of a set are named by backend; one that is not there is configured.
pub type Sources = BTreeMap<String, Source>;

/// One place backends come from, with all that decides what it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Feed {
    Admin { place: Place, interval: Duration },
    Etcd { conf: Etcd, interval: Duration },
    Dns { conf: Arc<Dns> },
}

/// Where registered backends are kept.
#[derive(Debug, Clone)]
pub enum Place {
    /// For one node.
    File(PathBuf),
    /// For replicas.
    Redis(config::Redis),
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => one == other,
            (Self::Redis(one), Self::Redis(other)) => config::Redis::is_same(Some(one), Some(other)),
            _ => false,
        }
    }
}

impl Eq for Place {}

impl Feed {
    /// Every feed of a configuration.
    pub fn of(config: &Config) -> Vec<Self> {
        let interval = config.discovery.health_check_interval;
        let place = match &config.redis {
            Some(redis) => Place::Redis(redis.clone()),
            None => Place::File(config.server.state_dir.join("backends.json")),
        };
        let mut feeds = vec![Self::Admin { place, interval }];
        feeds.extend(config.discovery.etcd.clone().map(|conf| Self::Etcd { conf, interval }));
        feeds.extend(config.discovery.dns.iter().map(|conf| Self::Dns { conf: Arc::clone(conf) }));
        feeds
    }

    pub const fn source(&self) -> Source {
        match self {
            Self::Admin { .. } => Source::Admin,
            Self::Etcd { .. } => Source::Etcd,
            Self::Dns { .. } => Source::Dns,
        }
    }

    /// Its name in logs, metrics and on disk: `admin`, `etcd`, `dns:tools`.
    pub fn label(&self) -> String {
        match self {
            Self::Admin { .. } | Self::Etcd { .. } => self.source().name().to_owned(),
            Self::Dns { conf } => format!("dns:{}", conf.name),
        }
    }

    /// Whether what it told must be remembered for a start without it.
    const fn is_far(&self) -> bool {
        !matches!(self, Self::Admin { place: Place::File(_), .. })
    }

    /// Whose set it is: what was remembered of another place is not this one's.
    fn identity(&self) -> String {
        match self {
            Self::Admin { .. } => String::new(),
            Self::Etcd { conf, .. } => conf.prefix.clone(),
            Self::Dns { conf } if conf.records == Records::Srv => format!("{} srv", conf.host),
            Self::Dns { conf } => format!("{} {}", conf.host, conf.template.url.port_or_known_default().unwrap_or(80)),
        }
    }

    /// A backend as this feed once told it.
    fn read(&self, key: &str, written: &str) -> Result<Arc<Backend>, String> {
        match self {
            Self::Admin { interval, .. } => read(&format!("registered backend {key}"), written, key, *interval),
            Self::Etcd { interval, .. } => etcd::read(key, written, *interval),
            Self::Dns { conf } => dns::read(conf, key, written),
        }
    }
}

/// One backend a feed found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub backend: Arc<Backend>,
    /// As its source wrote it, with its secrets.
    pub written: String,
}

/// What a feed found, by the key it has there.
pub type Set = BTreeMap<String, Found>;

/// Reads one backend that others than the configuration tell, and sees that it can be used, so that none of theirs can
/// keep a configuration from being built.
///
/// # Errors
/// Every problem, without a secret.
pub fn read(place: &str, text: &str, name: &str, interval: Duration) -> Result<Arc<Backend>, String> {
    let told = |problems: Vec<config::Problem>| {
        let told = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        // It quotes what others wrote: neither lines of theirs nor a book of theirs belong into our log.
        told.chars().take(TOLD).map(|c| if c.is_control() { ' ' } else { c }).collect::<String>()
    };
    let backend = config::discovery::backend(place, text, name, interval).map_err(told)?;
    usable(&backend).map_err(|message| format!("{place}: {message}"))?;
    Ok(Arc::new(backend))
}

/// # Errors
/// What the backend names that cannot be used.
pub fn usable(conf: &Backend) -> Result<(), String> {
    Dialer::new(&conf.name, &conf.url, conf.tls.sni.as_deref(), conf.tls.ca.as_ref())?;
    conf.exchange.as_ref().map_or(Ok(()), |exchange| Exchanger::new(exchange).map(drop))
}

/// Says once that a feed cannot be asked, and once that it can again.
struct Outage<'f> {
    label: &'f str,
    /// The causes told since it began: endpoints that are tried in turn may each have their own.
    told: BTreeSet<String>,
}

impl<'f> Outage<'f> {
    const fn new(label: &'f str) -> Self {
        Self { label, told: BTreeSet::new() }
    }

    fn begin(&mut self, cause: String) {
        if self.told.len() < CAUSES && !self.told.contains(&cause) {
            log::error!("discovery, {}: {cause}; the backends last told go on serving", self.label);
            self.told.insert(cause);
        }
    }

    fn end(&mut self) {
        if !self.told.is_empty() {
            log::info!("discovery, {}: can be asked again", self.label);
            self.told.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_text_is_one_short_line() {
        let text = format!("{{ url: 'http://x', weight: \"1\\nERROR forged {}\" }}", "x".repeat(5000));
        let told = read("etcd key a", &text, "a", Duration::from_secs(1)).unwrap_err();
        assert!(told.starts_with("etcd key a:1: weight: `1 ERROR forged xxx") && told.chars().count() == TOLD, "{told}");
    }
}
