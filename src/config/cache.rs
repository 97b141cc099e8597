//! Written `cache:` → the checked model: what answers are kept, for whom and for how long.

use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::transform::json;
use super::{Timespan, roles};

/// The methods whose answers can be kept, beside tool calls; `prompts/get` only where a rule says so.
pub const METHODS: &[&str] =
    &["tools/list", "resources/list", "resources/templates/list", "prompts/list", "server/discover", "resources/read", "prompts/get"];

/// The response cache; there is none unless it is switched on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
pub struct Cache {
    /// How long answers of legacy servers are fresh, which say nothing about it themselves.
    pub ttl: Timespan,
    /// Bytes of all that is kept in this process, with its keys.
    pub memory: usize,
    /// Bytes of the longest answer that is kept.
    pub max_entry: usize,
    pub stale: Stale,
    /// What replicas share of what they keep; `None`: nothing.
    pub redis: Option<Shared>,
    /// Whether answers within the sessions of native legacy clients are kept and shared like others.
    pub sessions: bool,
    /// Whether what is asked for often is asked for anew before its time is over.
    pub refresh_ahead: bool,
    /// Whether servers are listened to for changes of their lists.
    pub listen: bool,
    /// Whether a call of a tool that may write drops what was kept of its server's reads and calls.
    pub invalidate_on_write: bool,
    /// The first that matches a list, read or prompt says for whom and how long it is kept.
    pub methods: Vec<Rule>,
    /// The only tool calls that are kept.
    pub tools: Vec<Rule>,
    /// What is asked for before anybody does, and kept as fresh as it can be.
    pub warm: Vec<Warm>,
}

/// A question to be answered from the cache at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warm {
    /// A glob.
    pub server: String,
    /// Of MCP.
    pub method: String,
    /// A JSON object.
    pub params: String,
    /// The tenant whose callers are answered; `None`: those of no tenant.
    pub tenant: Option<String>,
    /// What native clients declare that are answered: a JSON object.
    pub capabilities: String,
    /// Whether no traffic is asked for (`/ready`) until it was tried.
    pub before_ready: bool,
}

impl Cache {
    /// How long past its time an answer is kept.
    pub fn stays(&self) -> Duration {
        self.stale.while_revalidate.0.max(self.stale.if_error.0)
    }
}

/// What is kept in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shared {
    /// Whether it is compressed where it is long.
    pub compression: bool,
}

/// How long after its time an answer may still be given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stale {
    /// While it is asked for anew.
    pub while_revalidate: Timespan,
    /// Where asking anew failed.
    pub if_error: Timespan,
}

/// For whom and how long the answers to some requests are kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    /// Globs. `what` is the method, or the tool.
    pub server: String,
    pub what: String,
    /// Where the server does not say itself; zero: never.
    pub ttl: Option<Timespan>,
    pub vary_by: Option<Vary>,
    /// Names under which what is kept by this rule is purged.
    pub tags: Vec<String>,
}

/// Who shares an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Vary {
    /// All callers of a tenant.
    Tenant,
    /// Nobody but the caller.
    Subject,
}

/// Reads `cache:`; `None` where it is not switched on.
pub(super) fn cache(root: &Section<'_>) -> Option<Cache> {
    let section = root.section("cache");
    let redis = section.bool("redis").unwrap_or(false);
    let compression = section.choice("compression", &[("zstd", true), ("none", false)]);
    if compression.is_some() && !redis {
        section.problem("compression", "goes with redis: true");
    }
    if redis && !root.has("redis") {
        section.problem("redis", "needs the top-level redis: { url: … }");
    }
    let enabled = section.bool("enabled").unwrap_or(false);
    let stale = section.section("stale");
    let cache = Cache {
        ttl: span(&section, "ttl", 300),
        memory: section.size("memory").unwrap_or(64 << 20),
        max_entry: section.size("max_entry").unwrap_or(1 << 20),
        stale: Stale { while_revalidate: span(&stale, "while_revalidate", 30), if_error: span(&stale, "if_error", 300) },
        redis: redis.then_some(Shared { compression: compression.unwrap_or(true) }),
        sessions: section.bool("sessions").unwrap_or(false),
        refresh_ahead: section.bool("refresh_ahead").unwrap_or(true),
        listen: section.bool("listen").unwrap_or(true),
        invalidate_on_write: section.bool("invalidate_on_write").unwrap_or(true),
        methods: section.sections("methods").iter().map(|section| rule(section, "method", method)).collect(),
        tools: section.sections("tools").iter().map(|section| rule(section, "tool", roles::glob)).collect(),
        warm: section.sections("warm").iter().map(warm).collect(),
    };
    if cache.memory < 1 << 20 {
        section.problem("memory", "less than 1MiB keeps next to nothing");
    }
    if cache.max_entry > cache.memory / 4 {
        section.problem("max_entry", "more than a quarter of memory");
    }
    for (at, warm) in cache.warm.iter().enumerate() {
        if let Err(why) = may_warm(&cache, warm) {
            section.problem(&format!("warm[{at}].method"), format!("{} {why}", warm.method));
        }
    }
    stale.finish();
    section.finish();
    enabled.then_some(cache)
}

fn span(section: &Section<'_>, key: &'static str, default: u64) -> Timespan {
    Timespan(section.duration(key).unwrap_or(Duration::from_secs(default)))
}

fn rule(section: &Section<'_>, what: &'static str, read: impl Fn(&str) -> Result<String, String>) -> Rule {
    if !section.has(what) {
        section.problem(what, "missing; `*` is all");
    }
    let rule = Rule {
        server: section.parse("server", roles::glob).unwrap_or_else(|| "*".to_owned()),
        what: section.parse(what, read).unwrap_or_default(),
        ttl: section.duration("ttl").map(Timespan),
        vary_by: section.choice("vary_by", &[("tenant", Vary::Tenant), ("subject", Vary::Subject)]),
        tags: section.strings("tags"),
    };
    section.finish();
    rule
}

/// Members that only some methods have, and need.
const NEEDED: &[(&str, &str)] = &[("resources/read", "uri"), ("prompts/get", "name"), ("tools/call", "name")];

fn warm(section: &Section<'_>) -> Warm {
    let object = |key| match section.value(key) {
        Some(value) if value.is_mapping() => json(value).map_err(|message| section.problem(key, message)).unwrap_or_default(),
        None => "{}".to_owned(),
        Some(_) => {
            section.problem(key, "expected a mapping");
            String::new()
        }
    };
    if !section.has("method") {
        section.problem("method", "missing");
    }
    let warm = Warm {
        server: section.parse("server", roles::glob).unwrap_or_else(|| "*".to_owned()),
        method: section.parse("method", asked).unwrap_or_default(),
        params: object("params"),
        tenant: section.string("tenant"),
        capabilities: object("capabilities"),
        before_ready: section.bool("before_ready").unwrap_or(false),
    };
    for (_, member) in NEEDED.iter().filter(|(method, _)| *method == warm.method) {
        if section.value("params").is_none_or(|params| params.get(*member).and_then(serde_yaml::Value::as_str).is_none()) {
            section.problem("params", format!("{} needs params.{member}", warm.method));
        }
    }
    section.finish();
    warm
}

/// Whether what is warmed can be kept for more than one caller.
fn may_warm(cache: &Cache, warm: &Warm) -> Result<(), &'static str> {
    let params: serde_json::Value = serde_json::from_str(&warm.params).unwrap_or_default();
    if NEEDED.iter().any(|(method, member)| *method == warm.method && params[*member].as_str().is_none()) {
        // That is the fault that was told.
        return Ok(());
    }
    let (rules, what) = match warm.method.as_str() {
        "tools/call" => (&cache.tools, params["name"].as_str().unwrap_or_default()),
        method => (&cache.methods, method),
    };
    let about = |rule: &&Rule| globset::Glob::new(&rule.what).is_ok_and(|glob| glob.compile_matcher().is_match(what));
    let mut rules = rules.iter().filter(about).peekable();
    if rules.peek().is_none() && matches!(warm.method.as_str(), "tools/call" | "prompts/get" | "resources/read") {
        return Err("is kept for all only where a rule of cache says so");
    }
    if rules.peek().is_some() && rules.all(|rule| rule.vary_by == Some(Vary::Subject)) {
        return Err("is kept for each caller alone (vary_by: subject)");
    }
    Ok(())
}

/// A method that can be asked ahead.
fn asked(text: &str) -> Result<String, String> {
    if METHODS.contains(&text) || text == "tools/call" {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is none of {}, tools/call", METHODS.join(", ")))
    }
}

/// A glob over the methods that can be kept.
fn method(text: &str) -> Result<String, String> {
    let glob = globset::Glob::new(text).map_err(|e| e.to_string())?.compile_matcher();
    if METHODS.iter().any(|method| glob.is_match(method)) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is none of {}; tool calls go below tools", METHODS.join(", ")))
    }
}
