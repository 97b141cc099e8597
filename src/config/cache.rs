//! Written `cache:` → the checked model: what answers are kept, for whom and for how long.

use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::{Timespan, roles};

/// The methods whose answers can be kept, beside tool calls; `prompts/get` only where a rule says so.
pub const METHODS: &[&str] =
    &["tools/list", "resources/list", "resources/templates/list", "prompts/list", "server/discover", "resources/read", "prompts/get"];

/// The response cache; there is none unless it is switched on.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// Whether a call of a tool that may write drops what was kept of its server's reads and calls.
    pub invalidate_on_write: bool,
    /// The first that matches a list, read or prompt says for whom and how long it is kept.
    pub methods: Vec<Rule>,
    /// The only tool calls that are kept.
    pub tools: Vec<Rule>,
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
    section.not_yet(&["warm"]);
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
        invalidate_on_write: section.bool("invalidate_on_write").unwrap_or(true),
        methods: section.sections("methods").iter().map(|section| rule(section, "method", method)).collect(),
        tools: section.sections("tools").iter().map(|section| rule(section, "tool", roles::glob)).collect(),
    };
    if cache.memory < 1 << 20 {
        section.problem("memory", "less than 1MiB keeps next to nothing");
    }
    if cache.max_entry > cache.memory / 4 {
        section.problem("max_entry", "more than a quarter of memory");
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
    };
    section.finish();
    rule
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
