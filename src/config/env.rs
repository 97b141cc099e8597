//! The environment laid over the written file. Each variable stands for one YAML path, so it is checked, defaulted
//! and reported exactly like the key it replaces.

use serde_yaml::{Mapping, Value};

/// Variables that replace one scalar key, with the path they stand for.
const SCALARS: &[(&str, &[&str])] = &[
    ("GATEWAY_WORKERS", &["server", "workers"]),
    ("REDIS_URL", &["redis", "url"]),
    ("CACHE_ENABLED", &["cache", "enabled"]),
    ("CACHE_TTL_SECONDS", &["cache", "ttl"]),
    ("METRICS_ENABLED", &["observability", "metrics", "enabled"]),
    ("LOG_LEVEL", &["observability", "log", "level"]),
    ("TRACING_ENABLED", &["observability", "tracing", "enabled"]),
    ("CIRCUIT_BREAKER_FAILURE_THRESHOLD", &["circuit_breaker", "failure_threshold"]),
    ("CIRCUIT_BREAKER_RECOVERY_TIMEOUT", &["circuit_breaker", "recovery_timeout"]),
    ("DATABASE_URL", &["analytics", "postgres"]),
];

/// A YAML path that was set by a variable.
pub struct Origin {
    pub path: String,
    pub variable: &'static str,
}

/// Lays every set variable over `document` and says which paths it touched; malformed ones are in the second list.
pub fn overlay(document: &mut Value, lookup: &dyn Fn(&str) -> Option<String>) -> (Vec<Origin>, Vec<(String, String)>) {
    let mut origins = Vec::new();
    let mut problems = Vec::new();
    let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
    for (variable, path) in SCALARS {
        if let Some(text) = lookup(variable) {
            set(document, path, Value::String(text));
            origins.push(Origin { path: path.join("."), variable });
        }
    }
    if let Some(count) = lookup("RATE_LIMIT_REQUESTS_PER_MINUTE") {
        // Of each caller that has no tier of its own.
        set(document, &["rate_limits", "tiers", "default", "rate"], Value::String(format!("{count}/min")));
        origins.push(Origin { path: "rate_limits.tiers.default.rate".into(), variable: "RATE_LIMIT_REQUESTS_PER_MINUTE" });
    }
    origins.extend(identity(document, &lookup));
    origins.extend(datadog(document, &lookup));
    if let Some(listen) = listen(document, &lookup) {
        set(document, &["server", "listen"], Value::String(listen));
        origins.push(Origin { path: "server.listen".into(), variable: "GATEWAY_HOST/GATEWAY_PORT" });
    }
    if let Some(text) = lookup("MCP_BACKENDS") {
        match backends(&text) {
            Ok(list) => {
                set(document, &["backends"], list);
                origins.push(Origin { path: "backends".into(), variable: "MCP_BACKENDS" });
            }
            Err(message) => problems.push(("backends".into(), message)),
        }
    }
    (origins, problems)
}

/// `JWT_SECRET_KEY` is an issuer of its own where the file has none: a file that names the variable itself has said what
/// the secret is for. `API_KEY_HEADER` renames a header, which alone must not lock everybody out.
fn identity(document: &mut Value, lookup: &dyn Fn(&str) -> Option<String>) -> Vec<Origin> {
    let mut origins = Vec::new();
    let written = |document: &Value, key: &str| document.get("auth").is_some_and(|auth| auth.get(key).is_some());
    if let Some(secret) = lookup("JWT_SECRET_KEY").filter(|_| !written(document, "jwt")) {
        let entry = [("algorithms", Value::Sequence(vec!["HS256".into()])), ("secret", Value::String(secret))];
        let entry = Value::Mapping(entry.into_iter().map(|(key, value)| (key.into(), value)).collect());
        set(document, &["auth", "jwt"], Value::Sequence(vec![entry]));
        origins.push(Origin { path: "auth.jwt".into(), variable: "JWT_SECRET_KEY" });
    }
    if let Some(header) = lookup("API_KEY_HEADER").filter(|_| written(document, "api_keys")) {
        set(document, &["auth", "api_keys", "header"], Value::String(header));
        origins.push(Origin { path: "auth.api_keys.header".into(), variable: "API_KEY_HEADER" });
    }
    origins
}

/// What Datadog's own variables say of an agent that the file wants told. They are in every container that its tools set
/// up, so they turn nothing on, and what the file says holds.
fn datadog(document: &mut Value, lookup: &dyn Fn(&str) -> Option<String>) -> Vec<Origin> {
    const TAGS: [(&str, &str); 4] =
        [("DD_ENV", "env"), ("DD_SERVICE", "service"), ("DD_VERSION", "version"), ("DD_ENTITY_ID", "dd.internal.entity_id")];
    let written = document.get("observability").and_then(|observability| observability.get("datadog"));
    let Some(written) = written.filter(|written| written.is_mapping()).cloned() else { return Vec::new() };
    let mut origins = Vec::new();
    let mut fill = |variable, path: &[&str], text: String| {
        if path.iter().try_fold(&written, |value, key| value.get(*key)).is_none() {
            let path: Vec<_> = ["observability", "datadog"].iter().chain(path).copied().collect();
            set(document, &path, Value::String(text));
            origins.push(Origin { path: path.join("."), variable });
        }
    };
    if let Some(url) = lookup("DD_DOGSTATSD_URL") {
        fill("DD_DOGSTATSD_URL", &["statsd"], url);
    } else if let Some(host) = lookup("DD_AGENT_HOST") {
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let port = lookup("DD_DOGSTATSD_PORT").map(|port| format!(":{port}")).unwrap_or_default();
        fill("DD_AGENT_HOST", &["statsd"], host + &port);
    }
    for (variable, tag) in TAGS {
        if let Some(text) = lookup(variable) {
            fill(variable, &["tags", tag], text);
        }
    }
    origins
}

fn listen(document: &Value, lookup: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let (host, port) = (lookup("GATEWAY_HOST"), lookup("GATEWAY_PORT"));
    if host.is_none() && port.is_none() {
        return None;
    }
    let written = document.get("server").and_then(|server| server.get("listen")).and_then(Value::as_str);
    let (old_host, old_port) = written.and_then(|listen| listen.rsplit_once(':')).unwrap_or(("0.0.0.0", "8080"));
    let host = host.unwrap_or_else(|| old_host.to_owned());
    // A bare IPv6 address needs brackets beside a port.
    let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
    Some(format!("{host}:{}", port.as_deref().unwrap_or(old_port)))
}

fn backends(text: &str) -> Result<Value, String> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(backend).collect::<Result<Vec<_>, _>>().map(Value::Sequence)
}

fn backend(entry: &str) -> Result<Value, String> {
    let (name, url) = entry
        .split_once(':')
        .filter(|(name, url)| !name.is_empty() && url.contains("://"))
        .ok_or_else(|| format!("MCP_BACKENDS: `{entry}` is not `name:url`, such as `mcp1:http://10.0.0.1:8000`"))?;
    let pairs = [("name", name), ("url", url)];
    Ok(Value::Mapping(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()))
}

fn set(document: &mut Value, path: &[&str], value: Value) {
    let Some((key, rest)) = path.split_first() else {
        *document = value;
        return;
    };
    if !document.is_mapping() {
        // What stood here was replaced as a whole; a wrong shape in the file would have been reported under its own key.
        *document = Value::Mapping(Mapping::new());
    }
    if let Value::Mapping(map) = document {
        set(map.entry((*key).into()).or_insert(Value::Null), rest, value);
    }
}
