//! Written `rate_limits:` → the checked model.

use std::collections::HashSet;
use std::time::Duration;

use super::quota::{Cost, Key, Match, OnStoreFailure, Quota, Rate, RateLimits, Rule, Store};
use super::reader::Section;
use super::{check, roles, routing, units};

/// Reads `rate_limits:`.
pub fn rate_limits(root: &Section<'_>) -> RateLimits {
    let section = root.section("rate_limits");
    let store = section.choice("store", &[("local", Store::Local), ("redis", Store::Redis)]).unwrap_or_default();
    if store == Store::Redis && !root.has("redis") {
        section.problem("store", "needs the top-level redis: { url: … }");
    }
    let failure = [("local", OnStoreFailure::Local), ("allow", OnStoreFailure::Allow), ("deny", OnStoreFailure::Deny)];
    let mut names = HashSet::new();
    let tiers = section.section("tiers").named_mappings();
    let limits = RateLimits {
        store,
        on_store_failure: section.choice("on_store_failure", &failure).unwrap_or_default(),
        tiers: tiers.into_iter().filter_map(|(name, section)| Some((name, tier(&section)?))).collect(),
        rules: section.sections("rules").iter().enumerate().map(|(i, section)| rule(section, i, &mut names)).collect(),
        costs: section.sections("costs").iter().map(cost).collect(),
    };
    section.finish();
    limits
}

fn tier(section: &Section<'_>) -> Option<Rate> {
    let rate = rate(section);
    if !section.has("rate") {
        section.problem("rate", "missing, such as 60/min");
    }
    section.finish();
    rate
}

/// `rate` with its `burst`, which is as many as `rate` names where it is not said.
fn rate(section: &Section<'_>) -> Option<Rate> {
    let written = section.parse("rate", units::rate);
    let burst = section.integer("burst", 1..=u64::from(u32::MAX)).and_then(|n| u32::try_from(n).ok());
    let (count, per) = written?;
    Some(Rate { count, per, burst: burst.unwrap_or(count) })
}

fn rule(section: &Section<'_>, index: usize, names: &mut HashSet<String>) -> Rule {
    let name = section.parse("name", |text| check::label(text, "rule name")).unwrap_or_else(|| format!("rule-{}", index + 1));
    if name.starts_with("tier-") {
        section.problem("name", format!("`{name}` is what the limit of a tier is called; use another name"));
    }
    if !names.insert(name.clone()) {
        section.problem("name", format!("`{name}` is already the name of another rule"));
    }
    let quota = section.parse("quota", units::rate).map(|(count, window)| Quota { count, window });
    if quota.is_some_and(|quota| quota.window < Duration::from_secs(1)) {
        section.problem("quota", "a window of less than a second; use rate");
    }
    let concurrency = section.integer("concurrency", 1..=1_000_000).and_then(|n| u32::try_from(n).ok());
    let rule = Rule { name, matches: matches(&section.section("match")), by: keys(section), rate: rate(section), quota, concurrency };
    if !["rate", "quota", "concurrency"].iter().any(|key| section.has(key)) {
        section.problem("rate", "a rule limits something: give rate, quota or concurrency");
    }
    if section.has("burst") && !section.has("rate") {
        section.problem("burst", "goes with rate");
    }
    section.finish();
    rule
}

fn matches(section: &Section<'_>) -> Match {
    let glob = |key| section.parse(key, roles::glob);
    let matches = Match {
        route: glob("route"),
        server: glob("server"),
        method: section.parse("method", roles::method),
        tool: glob("tool"),
        tenant: glob("tenant"),
        tier: glob("tier"),
    };
    section.finish();
    matches
}

/// Rules for a route that there is not: they would never apply, and nobody would know.
pub fn check_routes(root: &Section<'_>, limits: &RateLimits, routes: &[routing::Rule]) {
    for rule in &limits.rules {
        let wanted = rule.matches.route.as_ref().filter(|route| !route.contains(['*', '?', '[']));
        if let Some(route) = wanted.filter(|route| **route != "custom" && routes.iter().all(|known| known.name != **route)) {
            root.problem("rate_limits.rules", format!("`{}`: there is no route `{route}` below routes", rule.name));
        }
    }
}

fn keys(section: &Section<'_>) -> Vec<Key> {
    let written = section.strings("by");
    let key = |text: &String| {
        let key = key(text);
        if key.is_none() {
            let known = "tenant, subject, key, ip, server, method, tool, header:NAME";
            section.problem("by", format!("`{text}` is not one of {known}"));
        }
        key
    };
    written.iter().filter_map(key).collect()
}

fn key(text: &str) -> Option<Key> {
    Some(match text {
        "tenant" => Key::Tenant,
        "subject" => Key::Subject,
        "key" => Key::Key,
        "ip" => Key::Ip,
        "server" => Key::Server,
        "method" => Key::Method,
        "tool" => Key::Tool,
        _ => Key::Header(http::HeaderName::try_from(text.strip_prefix("header:")?.trim()).ok()?.as_str().to_owned()),
    })
}

fn cost(section: &Section<'_>) -> Cost {
    let glob = |key| section.parse(key, roles::glob).unwrap_or_else(|| "*".to_owned());
    let amount = section.integer("cost", 0..=1_000_000);
    if !section.has("cost") {
        section.problem("cost", "missing: what a call of these tools counts");
    }
    let cost = Cost { server: glob("server"), tool: glob("tool"), cost: amount.map_or(1, |n| u32::try_from(n).unwrap_or(1)) };
    section.finish();
    cost
}
