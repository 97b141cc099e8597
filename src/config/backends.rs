//! Written `backends:` → the checked model.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_yaml::Value;
use url::Url;

use super::check::{SOONEST, backend_url, label, positive, readable};
use super::reader::Section;
use super::{Backend, BackendTls, EraChoice, HealthCheck, Probe, Protocol, Secret, TokenExchange, auth};

/// `elsewhere`: others may come from elsewhere, where that is said (`discovery:`, or an empty list and an admin listener).
pub(super) fn backends(root: &Section<'_>, interval: Duration, elsewhere: bool) -> Vec<Arc<Backend>> {
    let mut names = HashSet::new();
    let sections = root.sections("backends");
    if sections.is_empty() && !elsewhere {
        root.problem(
            "backends",
            "list at least one backend, set MCP_BACKENDS=name:url,…, give discovery, or write [] to register all by the admin listener",
        );
    }
    let mut list = Vec::new();
    for section in sections {
        if let Some(name) = section.string("name").filter(|name| !names.insert(name.clone())) {
            section.problem("name", format!("`{name}` is already the name of another backend"));
        }
        list.push(Arc::new(backend(&section, None, interval)));
    }
    list
}

/// One backend; `called` is its name where it has none of its own.
pub(super) fn backend(section: &Section<'_>, called: Option<&str>, interval: Duration) -> Backend {
    let name = match called {
        Some(called) if !section.has("name") => label(called, "backend name").map_err(|e| section.problem("name", e)).ok(),
        _ => section.parse("name", |text| label(text, "backend name")),
    };
    let url = section.parse("url", backend_url);
    for (key, missing) in [("name", called.is_none() && !section.has("name")), ("url", !section.has("url"))] {
        if missing {
            section.problem(key, "missing");
        }
    }
    let url = url.unwrap_or_else(|| Url::parse("http://127.0.0.1").expect("a constant"));
    let backend = template(section, name.unwrap_or_default(), url, interval);
    section.finish();
    backend
}

/// What of a backend is neither its name nor its URL.
pub(super) fn template(section: &Section<'_>, name: String, url: Url, interval: Duration) -> Backend {
    section.not_yet(&["command"]);
    let protocol = [("auto", Protocol::Auto), ("mcp", Protocol::Mcp), ("middleware", Protocol::Middleware)];
    let era = [("auto", EraChoice::Auto), ("legacy", EraChoice::Legacy), ("modern", EraChoice::Modern)];
    let written = section.section("credential");
    let exchange = written.has("exchange").then(|| exchange(&written.section("exchange"))).flatten();
    let backend = Backend {
        name,
        url,
        weight: section.integer("weight", 1..=10_000).map_or(1, |n| u32::try_from(n).unwrap_or(1)),
        health_check: health_check(section, interval),
        timeout: positive(section, "timeout", 30),
        capabilities: capabilities(section),
        protocol: section.choice("protocol", &protocol).unwrap_or(Protocol::Auto),
        mcp_path: section.parse("mcp_path", path).unwrap_or_else(|| "/mcp".to_owned()),
        era: section.choice("era", &era).unwrap_or(EraChoice::Auto),
        credential: credential(written),
        exchange,
        tls: backend_tls(section.section("tls")),
        shard: section.parse("shard", |text| label(text, "shard")),
        zone: section.parse("zone", |text| label(text, "zone")),
        max_in_flight: section.integer("max_in_flight", 0..=1_000_000).map_or(0, |n| usize::try_from(n).unwrap_or(usize::MAX)),
    };
    if backend.mcp_path.contains("{server}") && backend.capabilities.is_empty() {
        section.problem("mcp_path", "holds {server}, so capabilities must list the servers");
    }
    backend
}

fn capabilities(section: &Section<'_>) -> Vec<String> {
    let names = section.strings("capabilities");
    for name in &names {
        if let Err(message) = label(name, "server name") {
            section.problem("capabilities", message);
        }
    }
    names
}

pub(super) fn path(text: &str) -> Result<String, String> {
    let plain = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if plain { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a path; it starts with / and has no spaces")) }
}

fn health_check(parent: &Section<'_>, interval: Duration) -> HealthCheck {
    let default = |probe| HealthCheck { probe, interval, timeout: Duration::from_secs(5) };
    match parent.value("health_check") {
        None => default(Probe::Auto),
        Some(Value::String(_)) => default(parent.parse("health_check", path).map_or(Probe::Auto, Probe::Path)),
        Some(_) => {
            let section = parent.section("health_check");
            let mcp = section.bool("mcp") == Some(true);
            let by_path = section.parse("path", path).map(Probe::Path);
            if mcp && by_path.is_some() {
                section.problem("path", "give either path or mcp, not both");
            }
            let check = HealthCheck {
                probe: if mcp { Probe::Mcp } else { by_path.unwrap_or(Probe::Auto) },
                interval: if section.has("interval") { positive(&section, "interval", 30).max(SOONEST) } else { interval },
                timeout: positive(&section, "timeout", 5),
            };
            section.finish();
            check
        }
    }
}

fn credential(section: Section<'_>) -> Option<Secret> {
    let token = section.secret("bearer", "bearer_file").filter(|token| {
        let fits = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            section.problem("bearer", "must be visible ASCII without spaces");
        }
        fits
    });
    section.finish();
    token.map(Secret::new)
}

fn exchange(section: &Section<'_>) -> Option<TokenExchange> {
    let (id, secret) = (section.string("client_id"), section.secret("client_secret", "client_secret_file"));
    let exchange = (section.string("audience"), section.string("scope"));
    for (key, missing) in [("token_url", !section.has("token_url")), ("client_id", id.is_none()), ("client_secret", secret.is_none())] {
        if missing {
            section.problem(key, "missing");
        }
    }
    let site = auth::site(section, "token_url", false);
    section.finish();
    let (audience, scope) = exchange;
    Some(TokenExchange { site: site?, client_id: id?, client_secret: Secret::new(secret?), audience, scope })
}

fn backend_tls(section: Section<'_>) -> BackendTls {
    section.not_yet(&["client_cert", "client_key"]);
    let tls = BackendTls { ca: section.parse("ca", readable), sni: section.string("sni") };
    section.finish();
    tls
}
