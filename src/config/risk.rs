//! Settings that are allowed and dangerous: what a start, a reload and `mcp-gateway check` warn of. Each has a name, so that
//! whoever accepts one can say which; `conf/log/README.md` has the table.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use log::LevelFilter;
use serde_yaml::Value;
use url::Url;

use super::check::{is_here, is_local};
use super::collector::Collector;
use super::identity::{JwtKeys, Site};
use super::lines::Lines;
use super::quota::{OnStoreFailure, Store};
use super::{Config, Source, units};

/// One setting of a configuration that is dangerous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Risk {
    pub name: &'static str,
    /// Whether it is worth a warning where nobody asked.
    pub is_grave: bool,
    /// The file or `environment`.
    pub source: String,
    /// Line in that file, from 1.
    pub line: Option<usize>,
    /// YAML path.
    pub path: String,
    /// What may come of it, and what to do.
    pub message: String,
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}: {} [{}]", self.path, self.message, self.name)
    }
}

/// What was configured, and where.
struct Given<'g> {
    config: &'g Config,
    source: &'g Source,
    /// Of the file, unexpanded.
    document: Value,
}

/// The YAML path of a risk, and what to say about it.
type Found = (String, String);

/// A kind of risk.
pub struct Kind {
    pub name: &'static str,
    pub is_grave: bool,
    find: fn(&Given<'_>) -> Option<Found>,
}

/// All kinds, those first that open the most.
pub const KINDS: &[Kind] = &[
    grave("no_auth", no_auth),
    slight("no_auth_on_loopback", no_auth_on_loopback),
    grave("auth_not_required", auth_not_required),
    grave("every_proxy_trusted", every_proxy_trusted),
    grave("secrets_in_readable_file", secrets_in_readable_file),
    grave("credentials_over_http", credentials_over_http),
    grave("no_client_certificates_over_http", no_client_certificates_over_http),
    grave("admin_beyond_loopback", admin_beyond_loopback),
    grave("origin_over_http", origin_over_http),
    grave("identity_over_http", identity_over_http),
    grave("backend_credential_over_http", backend_credential_over_http),
    grave("collector_credential_over_http", collector_credential_over_http),
    slight("stores_in_the_clear", stores_in_the_clear),
    grave("limits_fail_open", limits_fail_open),
    slight("no_rate_limits", no_rate_limits),
    slight("no_roles", no_roles),
    grave("cached_calls_by_pattern", cached_calls_by_pattern),
    grave("verbose_log", verbose_log),
    grave("every_trace", every_trace),
];

const fn grave(name: &'static str, find: fn(&Given<'_>) -> Option<Found>) -> Kind {
    Kind { name, is_grave: true, find }
}

const fn slight(name: &'static str, find: fn(&Given<'_>) -> Option<Found>) -> Kind {
    Kind { name, is_grave: false, find }
}

/// The risks of a configuration that was read from `source`.
pub fn risks(config: &Config, source: &Source) -> Vec<Risk> {
    let text = source.text().unwrap_or_default();
    let lines = Lines::scan(&text);
    let given = Given { config, source, document: serde_yaml::from_str(&text).unwrap_or_default() };
    let told = |kind: &Kind| {
        let (path, message) = (kind.find)(&given)?;
        Some(Risk { name: kind.name, is_grave: kind.is_grave, source: source.name(), line: lines.of(&path), path, message })
    };
    KINDS.iter().filter_map(told).collect()
}

fn found(path: impl Into<String>, message: impl Into<String>) -> Found {
    (path.into(), message.into())
}

/// The first listener for data that others than this machine reach: plain ones, then TLS.
fn beyond_loopback(config: &Config) -> Option<SocketAddr> {
    plain(config).map(|(_, address)| address).or_else(|| Some(config.server.tls.as_ref()?.listen).filter(|tls| !tls.ip().is_loopback()))
}

/// The first listener without TLS that others reach, and its path.
fn plain(config: &Config) -> Option<(&'static str, SocketAddr)> {
    let all = [("server.listen", Some(config.server.listen)), ("server.h2c", config.server.h2c)];
    all.into_iter().filter_map(|(path, address)| Some((path, address?))).find(|(_, address)| !address.ip().is_loopback())
}

fn is_in_the_clear(url: &Url) -> bool {
    url.scheme() == "http" && !is_local(url)
}

fn no_auth(given: &Given<'_>) -> Option<Found> {
    let address = beyond_loopback(given.config).filter(|_| given.config.auth.is_none())?;
    Some(found("auth", format!("NO AUTHENTICATION: everyone who reaches {address} is anonymous and may use every server")))
}

fn no_auth_on_loopback(given: &Given<'_>) -> Option<Found> {
    let is_it = given.config.auth.is_none() && beyond_loopback(given.config).is_none();
    is_it.then(|| found("auth", "no authentication: everyone on this machine is anonymous and may use every server"))
}

fn auth_not_required(given: &Given<'_>) -> Option<Found> {
    given.config.auth.as_ref().filter(|auth| !auth.required)?;
    let address = beyond_loopback(given.config)?;
    Some(found(
        "auth.required",
        format!("whoever reaches {address} without a credential is let in; what auth.anonymous may do, everybody may"),
    ))
}

fn every_proxy_trusted(given: &Given<'_>) -> Option<Found> {
    given.config.server.trusted_proxies.iter().find(|network| network.prefix_len() == 0)?;
    let message = "everybody is believed who they say they are (X-Forwarded-For): address lists and limits by address protect nothing";
    Some(found("server.trusted_proxies", message))
}

fn credentials_over_http(given: &Given<'_>) -> Option<Found> {
    let (path, address) = plain(given.config)?;
    given.config.auth.as_ref().filter(|_| given.config.server.trusted_proxies.is_empty())?;
    let message = "credentials cross it as plain HTTP: let TLS end here (server.tls), or at a proxy in front (server.trusted_proxies)";
    Some(found(path, format!("{address}: {message}")))
}

fn no_client_certificates_over_http(given: &Given<'_>) -> Option<Found> {
    given.config.server.tls.as_ref()?.client_ca.as_ref()?;
    let (_, address) = plain(given.config)?;
    let message = "client certificates are asked for on https only; http takes none: let only those reach it who may";
    Some(found("server.tls.client_ca", format!("{message} ({address})")))
}

fn admin_beyond_loopback(given: &Given<'_>) -> Option<Found> {
    let address = given.config.server.admin.filter(|address| !address.ip().is_loopback())?;
    Some(found("server.admin", format!("{address} is reached from elsewhere, and its token crosses the network as plain HTTP")))
}

fn origin_over_http(given: &Given<'_>) -> Option<Found> {
    let of = |origin: &String| Url::parse(origin).is_ok_and(|url| is_in_the_clear(&url));
    let at = given.config.access.origins.iter().position(of)?;
    let message = "whoever is on the network between can write the pages of this origin, and so drive the browsers that use us";
    Some(found(format!("access.origins[{at}]"), format!("`{}`: {message}", given.config.access.origins[at])))
}

fn identity_over_http(given: &Given<'_>) -> Option<Found> {
    let auth = given.config.auth.as_ref()?;
    let keys = auth.jwt.iter().enumerate().filter_map(|(at, jwt)| match &jwt.keys {
        JwtKeys::Jwks(site) => Some((format!("auth.jwt[{at}].jwks_url"), site)),
        JwtKeys::Secret(_) | JwtKeys::Pem(_) => None,
    });
    let introspection = auth.oauth2.as_ref().and_then(|oauth2| oauth2.introspection.as_ref());
    let others = [
        introspection.map(|asked| ("auth.oauth2.introspection_url".to_owned(), &asked.site)),
        auth.external.as_ref().map(|asked| ("auth.external.url".to_owned(), &asked.site)),
    ];
    let is_plain = |(_, site): &(String, &Site)| is_in_the_clear(&site.url);
    let (path, _) = keys.chain(others.into_iter().flatten()).find(is_plain)?;
    Some(found(path, "who callers are is asked over plain HTTP: whoever is on the network between decides it, and sees what they show"))
}

fn backend_credential_over_http(given: &Given<'_>) -> Option<Found> {
    let shows = |backend: &super::Backend| backend.credential.is_some() || backend.exchange.is_some();
    let at = given.config.backends.iter().position(|backend| shows(backend) && is_in_the_clear(&backend.url))?;
    Some(found(
        format!("backends[{at}].url"),
        format!("the credential for {} crosses the network as plain HTTP", given.config.backends[at].name),
    ))
}

fn collector_credential_over_http(given: &Given<'_>) -> Option<Found> {
    let observed = &given.config.observability;
    let traces = observed.tracing.as_ref().map(|tracing| ("observability.tracing", &tracing.collector));
    let metrics = observed.otlp_metrics.as_ref().map(|otlp| ("observability.metrics.otlp", &otlp.collector));
    let shows = |(_, to): &(&str, &Collector)| !to.headers.is_empty() && is_in_the_clear(&to.otlp);
    let (path, to) = [traces, metrics].into_iter().flatten().find(shows)?;
    Some(found(format!("{path}.headers"), format!("they authenticate us to {} as plain HTTP", to.otlp.host_str().unwrap_or_default())))
}

fn stores_in_the_clear(given: &Given<'_>) -> Option<Found> {
    let config = given.config;
    let redis = config
        .redis
        .as_ref()
        .and_then(|redis| Url::parse(redis.url.expose()).ok())
        .filter(|url| matches!(url.scheme(), "redis" | "valkey"));
    let (etcd, analytics) = (config.discovery.etcd.as_ref(), config.analytics.as_ref());
    let stores = [
        (redis.is_some_and(|url| !is_local(&url)), "redis.url", "rediss://"),
        (
            analytics.is_some_and(|analytics| analytics.postgres.in_the_clear().iter().any(|host| !is_here(host))),
            "analytics.postgres",
            "sslmode=require",
        ),
        (etcd.is_some_and(|etcd| etcd.endpoints.iter().any(is_in_the_clear)), "discovery.etcd.endpoints", "https://"),
    ];
    let (_, path, instead) = stores.into_iter().find(|(is_plain, ..)| *is_plain)?;
    let message = "whoever is on the network between reads what is stored, passwords included, and may change it";
    Some(found(path, format!("{message}; {instead} encrypts it")))
}

fn limits_fail_open(given: &Given<'_>) -> Option<Found> {
    let limits = &given.config.rate_limits;
    let is_open = limits.store == Store::Redis && limits.on_store_failure == OnStoreFailure::Allow;
    is_open.then(|| found("rate_limits.on_store_failure", "nothing is limited while Redis cannot be asked; `local` goes on counting"))
}

fn no_rate_limits(given: &Given<'_>) -> Option<Found> {
    given.config.auth.as_ref().filter(|_| given.config.rate_limits.is_empty())?;
    Some(found("rate_limits", "no caller is limited: one that loops takes what the others need"))
}

fn no_roles(given: &Given<'_>) -> Option<Found> {
    given.config.auth.as_ref().filter(|_| given.config.roles.is_empty())?;
    Some(found("roles", "there are none: whoever is let in may use every tool of every server"))
}

fn cached_calls_by_pattern(given: &Given<'_>) -> Option<Found> {
    let rules = given.config.cache.iter().flat_map(|cache| &cache.tools);
    let at = rules.into_iter().position(|rule| rule.what.contains(['*', '?', '[', '{']))?;
    let message = "calls of every tool of such a name are answered from the cache, those that write as well; name the tools that only read";
    Some(found(format!("cache.tools[{at}].tool"), message))
}

fn verbose_log(given: &Given<'_>) -> Option<Found> {
    let level = &given.config.observability.log.level;
    let is_verbose = |part: &str| part.rsplit('=').next().and_then(|level| level.parse().ok()) > Some(LevelFilter::Info);
    level.split(',').find(|part| is_verbose(part))?;
    Some(found(
        "observability.log.level",
        format!("`{level}` slows requests down and fills disks; PUT /admin/log sets a level for a while"),
    ))
}

fn every_trace(given: &Given<'_>) -> Option<Found> {
    given.config.observability.tracing.as_ref().filter(|tracing| tracing.sample >= 1.0)?;
    Some(found("observability.tracing.sample", "every request is told to the collector, which costs CPU here and memory there"))
}

fn secrets_in_readable_file(given: &Given<'_>) -> Option<Found> {
    let file = given.source.file()?;
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    let secrets = if mode & 0o004 == 0 { Vec::new() } else { inline(&given.document, "") };
    let first = secrets.first()?.clone();
    let (count, mode) = (secrets.len(), mode & 0o777);
    Some(found(
        first,
        format!("{count} secret(s) stand in a file that every user here can read (mode {mode:o}): chmod o-r, or give ${{NAME}} or …_file"),
    ))
}

/// Keys whose values are secrets.
const SECRET: &[&str] = &["admin_token", "session_secret", "bearer", "client_secret", "secret", "password"];
/// Keys whose values are URLs that may hold a password.
const URLS: &[&str] = &["url", "postgres"];
/// Where headers of collectors stand, which authenticate us.
const HEADERS: &[&str] = &["observability.tracing.headers.", "observability.metrics.otlp.headers."];

/// Where secrets are written out.
fn inline(value: &Value, path: &str) -> Vec<String> {
    let below = |key: &str, value: &Value| {
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let is_header = HEADERS.iter().any(|of| path.starts_with(of)) && !key.ends_with("_file");
        match value.as_str().and_then(written) {
            Some(text) if is_header || SECRET.contains(&key) || (URLS.contains(&key) && holds_password(&text)) => vec![path],
            Some(_) => Vec::new(),
            None => inline(value, &path),
        }
    };
    match value {
        Value::Mapping(map) => map.iter().flat_map(|(key, value)| below(key.as_str().unwrap_or("?"), value)).collect(),
        Value::Sequence(items) => items.iter().enumerate().flat_map(|(at, item)| inline(item, &format!("{path}[{at}]"))).collect(),
        _ => Vec::new(),
    }
}

/// A text as it stands in the file; `None` if the environment is needed to know it.
fn written(text: &str) -> Option<String> {
    units::expand(text, &|_| None).ok().filter(|text| !text.is_empty())
}

/// PostgreSQL takes it as a parameter as well, in a URL or without one.
fn holds_password(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| url.password().is_some()) || text.contains("password=")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_seen_where_they_are_written_out_only() {
        let yaml = r#"
server: { admin_token: a, session_secret: "${S}", session_secret_file: x }
backends: [ { name: a, url: "http://a", credential: { bearer: "${B:-fallback}" } }, { credential: { exchange: { client_secret: x } } } ]
auth: { jwt: [ { secret: "${JWT}" } ] }
redis: { url: "redis://:pass@redis" }
analytics: { postgres: "postgres://user@host/db" }
others: [ { postgres: { url: "postgres://host/db?user=u&password=x" } }, { postgres: "host=db user=u password=x" } ]
observability:
  tracing: { headers: { authorization: "Bearer x", other_file: y, third: "${T}" } }
  metrics: { otlp: { headers: { x-api-key: x, other_file: y } } }
"#;
        let document: Value = serde_yaml::from_str(yaml).unwrap();
        assert_eq!(
            inline(&document, ""),
            [
                "server.admin_token",
                "backends[0].credential.bearer",
                "backends[1].credential.exchange.client_secret",
                "redis.url",
                "others[0].postgres.url",
                "others[1].postgres",
                "observability.tracing.headers.authorization",
                "observability.metrics.otlp.headers.x-api-key"
            ]
        );
    }
}
