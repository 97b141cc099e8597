//! Backends that are DNS records: each A or AAAA address, or each target of an SRV record, is one, like the template of the
//! configuration. The records' own time to live says when to ask again. A name without records is treated as one that
//! cannot be asked: the addresses last told stay, and their health checks say what they are worth.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, Record};
use serde::{Deserialize, Serialize};

use super::{Feed, Found, Outage, Registry, Set, usable};
use crate::config::Backend;
use crate::config::discovery::{Dns, Records};
use crate::digest;
use crate::egress::web::is_forbidden;
use crate::observe::upstream::DiscoveryMeter;

/// However short or long the records live, they are asked for this often at most and at least.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(300);
/// For one answer of a name server, of which there may be several.
const WAIT: Duration = Duration::from_secs(2);
/// Characters of a backend's name.
const LONGEST: usize = 64;

/// What the records say of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    address: SocketAddr,
    /// Where an SRV record says it.
    weight: Option<u16>,
}

/// Keeps the registry in step with the records for as long as the task lives.
pub async fn run(feed: Feed, conf: Arc<Dns>, registry: Arc<Registry>, meter: DiscoveryMeter) {
    let label = feed.label();
    let mut outage = Outage::new(&label);
    meter.found(registry.set(&feed).len());
    loop {
        let pause = match ask(&conf).await {
            Ok((told, ttl)) => {
                let set = found(&conf, &told, &meter);
                meter.found(set.len());
                registry.put(&feed, set);
                meter.up.set(1);
                outage.end();
                ttl.clamp(SOONEST, LATEST)
            }
            Err(cause) => {
                meter.up.set(0);
                outage.begin(format!("{}: {cause}", conf.host));
                SOONEST
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// A resolver that follows what the system's own configuration is now, and remembers nothing: when to ask is ours to say.
fn resolver(conf: &Dns) -> Result<TokioResolver, NetError> {
    let mut builder = match conf.nameserver {
        None => TokioResolver::builder_tokio()?,
        Some(address) => {
            let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
                let mut connection = ConnectionConfig::new(protocol);
                connection.port = address.port();
                connection
            });
            let server = NameServerConfig::new(address.ip(), true, connections.into());
            let servers = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    options.timeout = WAIT;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

/// What the records say now, and how long that holds.
async fn ask(conf: &Dns) -> Result<(Vec<Told>, Duration), String> {
    let resolver = resolver(conf).map_err(|e| e.to_string())?;
    let (mut told, ttl) = match conf.records {
        Records::A => {
            let port = conf.template.url.port_or_known_default().unwrap_or(80);
            let (addresses, ttl) = addresses(&resolver, &conf.host).await.map_err(|e| e.to_string())?;
            (addresses.into_iter().map(|ip| Told { address: SocketAddr::new(ip, port), weight: None }).collect(), ttl)
        }
        Records::Srv => services(&resolver, &conf.host).await?,
    };
    told.retain(|told| !is_forbidden(told.address.ip()));
    if told.is_empty() { Err("no address that can be used".to_owned()) } else { Ok((told, ttl)) }
}

fn life<'r>(records: impl Iterator<Item = &'r Record>) -> Duration {
    Duration::from_secs(records.map(|record| u64::from(record.ttl)).min().unwrap_or_default())
}

async fn addresses(resolver: &TokioResolver, host: &str) -> Result<(Vec<IpAddr>, Duration), NetError> {
    let answer = resolver.lookup_ip(host).await?;
    Ok((answer.iter().collect(), life(answer.as_lookup().answers().iter())))
}

async fn services(resolver: &TokioResolver, host: &str) -> Result<(Vec<Told>, Duration), String> {
    let answer = resolver.srv_lookup(host).await.map_err(|e| e.to_string())?;
    let services = answer.answers().iter().filter_map(|record| match &record.data {
        // A target that is the root says that there is none (RFC 2782).
        RData::SRV(srv) if !srv.target.is_root() => Some(srv),
        _ => None,
    });
    let services: Vec<_> = services.collect();
    let first = services.iter().map(|srv| srv.priority).min();
    let (mut told, mut ttl) = (Vec::new(), life(answer.answers().iter()));
    for srv in services.iter().filter(|srv| Some(srv.priority) == first) {
        match addresses(resolver, &srv.target.to_utf8()).await {
            Ok((addresses, life)) => {
                ttl = ttl.min(life);
                told.extend(addresses.into_iter().map(|ip| Told { address: SocketAddr::new(ip, srv.port), weight: Some(srv.weight) }));
            }
            // One that leads nowhere must not take the others with it; one that cannot be asked says nothing.
            Err(error) if error.is_no_records_found() => {
                log::warn!("discovery, {host}: the target {} has no address", srv.target);
                ttl = SOONEST;
            }
            Err(error) => return Err(format!("{}: {error}", srv.target)),
        }
    }
    Ok((told, ttl))
}

fn found(conf: &Dns, told: &[Told], meter: &DiscoveryMeter) -> Set {
    let mut set = Set::new();
    for told in told {
        let written = serde_json::to_string(told).unwrap_or_default();
        match backend(conf, *told) {
            Ok(backend) => drop(set.entry(told.address.to_string()).or_insert(Found { backend, written })),
            Err(message) => {
                meter.rejected.inc();
                log::error!("discovery, {}: {message}", conf.host);
            }
        }
    }
    set
}

/// A backend as it was once told.
///
/// # Errors
/// When it was not told by this.
pub fn read(conf: &Dns, key: &str, written: &str) -> Result<Arc<Backend>, String> {
    let told: Told = serde_json::from_str(written).map_err(|_| format!("{key}: not what was written there"))?;
    backend(conf, told)
}

fn backend(conf: &Dns, told: Told) -> Result<Arc<Backend>, String> {
    let mut backend = conf.template.clone();
    let port = told.address.port();
    let placed = backend.url.set_ip_host(told.address.ip()).and_then(|()| backend.url.set_port(Some(port)));
    placed.map_err(|()| format!("{}: not an address of a backend", told.address))?;
    backend.name = name(&conf.name, told.address);
    if let Some(weight) = told.weight {
        // RFC 2782 has 0 for "hardly ever"; here it is the smallest share there is.
        backend.weight = u32::from(weight).max(1);
    }
    usable(&backend).map_err(|message| format!("{}: {message}", backend.name))?;
    Ok(Arc::new(backend))
}

/// `tools-10-0-0-1-8000`. Long IPv6 addresses stand there by their digest.
fn name(base: &str, address: SocketAddr) -> String {
    let ip = address.ip().to_string().replace([':', '.'], "-");
    let name = format!("{base}-{ip}-{}", address.port());
    if name.len() <= LONGEST {
        return name;
    }
    let digest = digest::hex(&digest::sha256(ip.as_bytes()));
    format!("{base}-{}-{}", &digest[..16], address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_a_backend_like_the_template() {
        let yaml = "discovery: { dns: { name: tools, host: tools.example, port: 8000, scheme: https, path: /base, capabilities: [x] } }";
        let config = crate::config::parse("test", yaml, &|_| None).unwrap();
        let dns = &config.discovery.dns[0];
        let told = |address: &str, weight| Told { address: address.parse().unwrap(), weight };
        let four = backend(dns, told("10.0.0.1:8000", None)).unwrap();
        assert_eq!((four.name.as_str(), four.url.as_str(), four.weight), ("tools-10-0-0-1-8000", "https://10.0.0.1:8000/base", 1));
        assert_eq!(four.tls.sni.as_deref(), Some("tools.example"), "the certificate is for the name");
        let six = backend(dns, told("[2001:db8::1]:443", Some(0))).unwrap();
        assert_eq!((six.name.as_str(), six.weight, six.url.host_str()), ("tools-2001-db8--1-443", 1, Some("[2001:db8::1]")));
        let written = serde_json::to_string(&told("10.0.0.1:8000", Some(7))).unwrap();
        assert_eq!(read(dns, "k", &written).unwrap().weight, 7);
        let long = name(&"n".repeat(32), "[2001:db8:1111:2222:3333:4444:5555:6666]:65535".parse().unwrap());
        assert!(crate::config::label(&long, "backend name").is_ok(), "{long}");
    }
}
