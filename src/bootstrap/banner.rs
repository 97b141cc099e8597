//! What is on, so that the first lines of the log answer the first questions: what was started, where it listens, whom it
//! asks, where it keeps things, what is asked of callers, and which settings are dangerous.

use super::handover;
use crate::config::identity::KeyStore;
use crate::config::quota::Store;
use crate::config::risk::Risk;
use crate::config::{Auth, Config, Protocol, Source};

/// Writes it.
pub fn show(config: &Config, source: &Source, risks: &[Risk]) {
    for line in lines(config, source) {
        log::info!("{line}");
    }
    warn(risks);
}

/// Tells of risks, each in a line of its own.
pub fn warn<'r>(risks: impl IntoIterator<Item = &'r Risk>) {
    for risk in risks {
        if risk.is_grave {
            log::warn!("{risk}");
        } else {
            log::info!("{risk}");
        }
    }
}

fn lines(config: &Config, source: &Source) -> Vec<String> {
    let mut lines = vec![started(config, source)];
    lines.extend(listeners(config));
    lines.extend([backends(config), stores(config), callers(config), policies(config)]);
    lines
}

fn started(config: &Config, source: &Source) -> String {
    let (version, os, arch) = (env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    let (id, workers) = (std::process::id(), config.server.workers);
    format!("mcp-gateway {version} ({build}, {os} {arch}), process {id}, {workers} worker(s), configuration: {}", source.name())
}

fn listeners(config: &Config) -> Vec<String> {
    let server = &config.server;
    let mut lines = vec![format!("listening on http://{}", server.listen)];
    if let Some(tls) = &server.tls {
        let clients = match (&tls.client_ca, tls.client_required) {
            (None, _) => "",
            (Some(_), true) => " (client certificates required)",
            (Some(_), false) => " (client certificates taken)",
        };
        lines.push(format!("listening on https://{}{clients}", tls.listen));
    }
    lines.extend(server.h2c.map(|h2c| format!("listening on h2c://{h2c}")));
    let token = if server.admin_token.is_some() { "with a token" } else { "without a token" };
    lines.push(server.admin.map_or_else(|| "no admin listener".to_owned(), |admin| format!("admin on http://{admin} ({token})")));
    lines.push(format!("upgrades over {}", handover::meeting_place(&server.state_dir).display()));
    lines
}

fn backends(config: &Config) -> String {
    let of = |protocol: Protocol, name: &str| {
        let count = config.backends.iter().filter(|backend| backend.protocol == protocol).count();
        (count > 0).then(|| format!("{count} {name}"))
    };
    let protocols = [of(Protocol::Mcp, "mcp"), of(Protocol::Middleware, "middleware"), of(Protocol::Auto, "asked what they speak")];
    let sources = [config.discovery.etcd.as_ref().map(|_| "etcd".to_owned()), some("DNS", !config.discovery.dns.is_empty())];
    let registered = some("PUT /admin/backends", config.server.admin.is_some());
    let (protocols, more) = (join(protocols), join(sources.into_iter().chain([registered])));
    let count = config.backends.len();
    let told = if count == 0 { String::new() } else { format!(" ({protocols})") };
    let more = if more.is_empty() { more } else { format!("; more from {more}") };
    format!("backends: {count} configured{told}{more}")
}

fn stores(config: &Config) -> String {
    let auth = config.auth.as_ref();
    let keys = auth.and_then(|auth| auth.api_keys.as_ref()).is_some_and(|keys| keys.store == KeyStore::Redis);
    let limits = config.rate_limits.store == Store::Redis;
    let cache = config.cache.as_ref().is_some_and(|cache| cache.redis.is_some());
    let uses = join([some("backends", true), some("keys", keys), some("rate limits", limits), some("cache", cache)]);
    let all = [
        Some(format!("state in {}", config.server.state_dir.display())),
        config.redis.as_ref().map(|_| format!("Redis ({uses})")),
        config.analytics.as_ref().map(|_| "PostgreSQL (analytics)".to_owned()),
        config.discovery.etcd.as_ref().map(|_| "etcd (backends)".to_owned()),
    ];
    format!("stores: {}", join(all))
}

fn callers(config: &Config) -> String {
    let Some(auth) = &config.auth else { return "callers: all are anonymous".to_owned() };
    let anonymous = if auth.required { "" } else { ", or anonymous" };
    format!("callers: authentication by {}{anonymous}; {} role(s)", ways(auth), config.roles.len())
}

fn ways(auth: &Auth) -> String {
    let introspection = auth.oauth2.as_ref().is_some_and(|oauth2| oauth2.introspection.is_some());
    let on = join([
        some("API keys", auth.api_keys.is_some()),
        some("JWT", !auth.jwt.is_empty()),
        some("OAuth2 introspection", introspection),
        some("external authenticator", auth.external.is_some()),
        some("client certificates", !auth.certificates.is_empty()),
    ]);
    // Then it is by what was compiled in.
    if on.is_empty() { "an authenticator compiled in".to_owned() } else { on }
}

fn policies(config: &Config) -> String {
    let counted = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let limits = &config.rate_limits;
    let observability = &config.observability;
    let all = [
        counted(limits.tiers.len() + limits.rules.len(), "rate limit(s)"),
        counted(config.routes.len(), "route(s)"),
        counted(config.transforms.len(), "transformation(s)"),
        config.cache.as_ref().map(|cache| format!("a cache of {} MiB", cache.memory >> 20)),
        some("circuit breakers", config.circuit_breaker.backend.is_some()),
        some("compression", config.server.compression.is_some()),
        some("argument checks", config.server.validate_arguments),
        observability.tracing.as_ref().map(|tracing| format!("traces to {} ({})", tracing.collector.otlp, share(tracing.sample))),
        observability.otlp_metrics.as_ref().map(|metrics| format!("metrics to {}", metrics.collector.otlp)),
        observability.datadog.as_ref().map(|datadog| format!("metrics to {}", datadog.statsd)),
        Some(format!("log level {}, access records of {} of quick successes", observability.log.level, share(observability.log.sample))),
    ];
    format!("policies: {}", join(all))
}

fn share(share: f64) -> String {
    format!("{} %", (share * 1e5).round() / 1e3)
}

fn some(name: &str, is_on: bool) -> Option<String> {
    is_on.then(|| name.to_owned())
}

fn join(all: impl IntoIterator<Item = Option<String>>) -> String {
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
