//! Written YAML → checked model, section by section in the order of the contract. Nothing stops at the first fault.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde_yaml::Value;
use url::{Host, Url};

use super::lines::Lines;
use super::reader::{Problem, Problems, Section};
use super::redis::redis;
use super::{
    Access, Config, Limits, Secret, Server, Tls, analytics, auth, backends, balancing, cache, compression, discovery, env, observability,
    rate_limits, roles, routing, transform, units,
};
use crate::call::shown;

/// Checking more often than this would be load, not health.
pub(super) const SOONEST: Duration = Duration::from_millis(50);

/// Bytes of a certificate or key file.
const LARGEST: u64 = 1 << 20;

pub fn read(name: &str, text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<Problem>> {
    let mut document: Value = serde_yaml::from_str(text).map_err(|error| vec![syntax(name, &error)])?;
    // The file's references first: what the environment lays over it is meant literally.
    let mut faults = Vec::new();
    expand(&mut document, "", lookup, &mut faults);
    let (origins, malformed) = env::overlay(&mut document, lookup);
    let problems = Problems::new(name, Lines::scan(text), origins);
    for (path, message) in faults.into_iter().chain(malformed) {
        problems.add(&path, message);
    }
    let config = config(&Section::root(&document, &problems));
    match problems.into_sorted() {
        found if found.is_empty() => Ok(config),
        found => Err(found),
    }
}

/// `server.listen` alone, of a text that may have any fault.
pub(super) fn listen(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> SocketAddr {
    let mut document: Value = serde_yaml::from_str(text).unwrap_or_default();
    expand(&mut document, "", lookup, &mut Vec::new());
    env::overlay(&mut document, lookup);
    let problems = Problems::new("", Lines::scan(""), Vec::new());
    listener(&Section::root(&document, &problems).section("server"))
}

fn listener(server: &Section<'_>) -> SocketAddr {
    server.parse("listen", address).unwrap_or(SocketAddr::from(([0, 0, 0, 0], 8080)))
}

pub(super) fn syntax(name: &str, error: &serde_yaml::Error) -> Problem {
    let line = error.location().map(|location| location.line());
    Problem { source: name.to_owned(), line, path: String::new(), message: format!("not valid YAML: {error}") }
}

/// Expands `${…}` in every string of the document.
fn expand(value: &mut Value, path: &str, lookup: &dyn Fn(&str) -> Option<String>, faults: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) if text.contains('$') => match units::expand(text, lookup) {
            Ok(expanded) => *text = expanded,
            Err(message) => faults.push((path.to_owned(), message)),
        },
        Value::Sequence(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                expand(item, &format!("{path}[{i}]"), lookup, faults);
            }
        }
        Value::Mapping(map) => {
            for (key, item) in map.iter_mut() {
                let key = key.as_str().unwrap_or("?");
                let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                expand(item, &path, lookup, faults);
            }
        }
        _ => {}
    }
}

fn config(root: &Section<'_>) -> Config {
    let load_balancer = root.section("load_balancer");
    let interval = positive(&load_balancer, "health_check_interval", 30).max(SOONEST);
    let server = server(root.section("server"));
    let discovery = discovery::discovery(&root.section("discovery"), interval);
    let elsewhere = discovery.etcd.is_some() || !discovery.dns.is_empty() || registered(root, &server);
    let backends = backends::backends(root, interval, elsewhere);
    // The rules of all first, then those of a version, then those of a route.
    let mut transforms = transform::transforms(root);
    let versions = routing::versions(root, &backends, &mut transforms);
    let routes = routing::routes(root, &backends, &mut transforms);
    let config = Config {
        backends,
        discovery,
        routes,
        versions,
        transforms,
        load_balancer: balancing::balancer(&load_balancer),
        circuit_breaker: balancing::circuit_breaker(&root.section("circuit_breaker")),
        rate_limits: rate_limits::rate_limits(root),
        auth: auth::auth(root, &server.state_dir),
        roles: roles::roles(root),
        redis: redis(root),
        server,
        access: access(root.section("access")),
        cache: cache::cache(root),
        observability: observability::observability(root.section("observability")),
        analytics: analytics::analytics(root),
    };
    rate_limits::check_routes(root, &config.rate_limits, &config.routes);
    roles::check_roles(root, config.auth.as_ref(), &config.roles);
    root.finish();
    config
}

/// Whether the operator said that all backends are to be registered: a list that is empty, and a listener to do it.
fn registered(root: &Section<'_>, server: &Server) -> bool {
    let empty = root.value("backends").is_some_and(|list| list.as_sequence().is_some_and(Vec::is_empty));
    empty && server.admin.is_some()
}

fn server(section: Section<'_>) -> Server {
    let admin = if section.has("admin") { address_or_off(&section, "admin") } else { Some(SocketAddr::from(([127, 0, 0, 1], 8081))) };
    let admin_token = section.secret("admin_token", "admin_token_file").map(Secret::new);
    if let Some(address) = admin.filter(|address| !address.ip().is_loopback() && admin_token.is_none()) {
        section.problem("admin", format!("{address} is reachable from outside; set admin_token, or listen on 127.0.0.1"));
    }
    let server = Server {
        listen: listener(&section),
        workers: section.integer("workers", 1..=1024).map_or_else(cores, |n| usize::try_from(n).unwrap_or(1)),
        h2c: address_or_off(&section, "h2c"),
        admin,
        admin_token,
        state_dir: section.string("state_dir").map_or_else(|| PathBuf::from("/var/lib/mcp-gateway"), PathBuf::from),
        trusted_proxies: networks(&section, "trusted_proxies"),
        proxy_protocol: proxy_protocol(&section),
        validate_arguments: section.bool("validate_arguments").unwrap_or(false),
        session_secret: session_secret(&section),
        tls: section.has("tls").then(|| tls(section.section("tls"))).flatten(),
        grace_period: section.duration("grace_period").unwrap_or(Duration::from_secs(30)),
        limits: limits(section.section("limits")),
        compression: compression::compression(&section),
    };
    section.finish();
    server
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn session_secret(section: &Section<'_>) -> Option<Secret> {
    let secret = section.secret("session_secret", "session_secret_file")?;
    if secret.len() < 16 {
        section.problem("session_secret", "shorter than 16 characters; use `openssl rand -hex 32`");
    }
    Some(Secret::new(secret))
}

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an IP address and port, such as 0.0.0.0:8080 or [::]:8080"))
}

fn address_or_off(section: &Section<'_>, key: &'static str) -> Option<SocketAddr> {
    // YAML 1.1 habits write `off` without quotes, which some writers store as `false`.
    section.parse(key, |text| if matches!(text, "off" | "false") { Ok(None) } else { address(text).map(Some) }).flatten()
}

fn proxy_protocol(section: &Section<'_>) -> bool {
    let on = section.bool("proxy_protocol").unwrap_or(false);
    if on && !section.has("trusted_proxies") {
        section.problem("proxy_protocol", "needs trusted_proxies: whose PROXY headers are believed");
    }
    on
}

/// Networks in CIDR notation; a bare address is itself alone.
fn networks(section: &Section<'_>, key: &'static str) -> Vec<IpNet> {
    let network = |text: &String| {
        let found = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
        if found.is_none() {
            section.problem(key, format!("`{text}` is not a network, such as 10.0.0.0/8 or 2001:db8::/32"));
        }
        found.map(|network| network.trunc())
    };
    section.strings(key).iter().filter_map(network).collect()
}

fn tls(section: Section<'_>) -> Option<Tls> {
    let listen = section.parse("listen", address).unwrap_or(SocketAddr::from(([0, 0, 0, 0], 8443)));
    let file = |key| {
        let found = section.parse(key, readable);
        if !section.has(key) {
            section.problem(key, "missing; give the path of a PEM file");
        }
        found
    };
    let (cert, key) = (file("cert"), file("key"));
    let client_ca = section.parse("client_ca", readable);
    let client_required = section.bool("client_required").unwrap_or(true);
    if section.has("client_required") && !section.has("client_ca") {
        section.problem("client_required", "needs client_ca: who may have signed them");
    }
    section.finish();
    Some(Tls { listen, cert: cert?, key: key?, client_ca, client_required })
}

pub(super) fn readable(path: &str) -> Result<PathBuf, String> {
    let fault = |e: &dyn std::fmt::Display| format!("cannot read {path}: {e}");
    let facts = std::fs::metadata(path).map_err(|e| fault(&e))?;
    // A pipe would keep us waiting, and a device is never read to its end.
    if !facts.is_file() || facts.len() > LARGEST {
        return Err(fault(&"not a regular file of at most 1 MiB"));
    }
    std::fs::File::open(path).map(|_| PathBuf::from(path)).map_err(|e| fault(&e))
}

fn limits(section: Section<'_>) -> Limits {
    let count = |key| section.integer(key, 0..=10_000_000).map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let limits = Limits {
        body: section.size("body").unwrap_or(4 << 20),
        headers: section.size("headers").unwrap_or(64 << 10),
        connections: count("connections").unwrap_or(10_000),
        connections_per_ip: count("connections_per_ip").unwrap_or(0),
        in_flight: count("in_flight").unwrap_or(0),
        queue: balancing::queue(&section.section("queue")),
        requests_per_ip: section.integer("requests_per_ip", 0..=10_000_000).map_or(0, |n| u32::try_from(n).unwrap_or(0)),
        shed_lag: section.duration("shed_lag").unwrap_or(Duration::from_secs(1)),
        request_timeout: positive(&section, "request_timeout", 60),
        header_timeout: positive(&section, "header_timeout", 10),
        stream_idle: positive(&section, "stream_idle", 600),
    };
    section.finish();
    limits
}

pub(super) fn positive(section: &Section<'_>, key: &'static str, default: u64) -> Duration {
    match section.duration(key) {
        Some(Duration::ZERO) => {
            section.problem(key, "must be longer than 0");
            Duration::from_secs(default)
        }
        Some(duration) => duration,
        None => Duration::from_secs(default),
    }
}

fn access(section: Section<'_>) -> Access {
    let access = Access {
        allow: networks(&section, "allow"),
        deny: networks(&section, "deny"),
        hosts: section.strings("hosts"),
        origins: section.strings("origins"),
    };
    for origin in &access.origins {
        if !Url::parse(origin).is_ok_and(|url| url.origin().ascii_serialization() == *origin) {
            section.problem("origins", format!("`{origin}` is not an origin, such as https://app.example.com"));
        }
    }
    section.finish();
    access
}

/// Names appear in paths, metric labels and sealed session ids, hence the narrow alphabet.
///
/// # Errors
/// What `what` would have to look like.
pub fn label(text: &str, what: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if fits { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a {what}: 1 to 64 of A-Z a-z 0-9 . _ -")) }
}

pub(super) fn backend_url(text: &str) -> Result<Url, String> {
    let shown = shown(text);
    let url = Url::parse(text).map_err(|e| format!("`{shown}` is not a URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("`{shown}` is not an http:// or https:// URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("`{shown}` holds credentials; use credential.bearer_file"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("`{shown}` has a query or fragment; give scheme, host, port and base path only"));
    }
    Ok(url)
}

/// Whether a host is this machine.
pub(super) fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a URL is of this machine.
pub(super) fn is_local(url: &Url) -> bool {
    match url.host() {
        // An address as well, where the scheme is none of the web's.
        Some(Host::Domain(name)) => is_here(name),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
