//! The model of `rate_limits:`: how often and how much at once callers may ask.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::seconds;

/// Everything about rate limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RateLimits {
    pub store: Store,
    pub on_store_failure: OnStoreFailure,
    /// What each caller of a tier may do; `default` is for callers without one.
    pub tiers: BTreeMap<String, Rate>,
    /// All that match a request apply.
    pub rules: Vec<Rule>,
    /// What a tool call counts; the first that matches, else 1.
    pub costs: Vec<Cost>,
}

impl RateLimits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.tiers.is_empty() && self.rules.is_empty()
    }
}

/// Where counts are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// In this process: each replica counts for itself.
    #[default]
    Local,
    /// In Redis, for all replicas together.
    Redis,
}

/// What happens while Redis cannot be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStoreFailure {
    /// Each replica counts for itself.
    #[default]
    Local,
    /// Nothing is limited.
    Allow,
    /// What is limited is refused.
    Deny,
}

/// So many in so much time, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rate {
    pub count: u32,
    #[serde(serialize_with = "seconds")]
    pub per: Duration,
    /// Requests that may come at once after a silence.
    pub burst: u32,
}

/// So many in each window of the clock (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quota {
    pub count: u32,
    #[serde(serialize_with = "seconds")]
    pub window: Duration,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    /// The `rule` label of metrics and headers.
    pub name: String,
    pub matches: Match,
    /// What is counted apart.
    pub by: Vec<Key>,
    pub rate: Option<Rate>,
    pub quota: Option<Quota>,
    /// Requests under way at the same time, in each replica.
    pub concurrency: Option<u32>,
}

/// Globs over what is asked and who asks; absent ones match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Match {
    pub route: Option<String>,
    pub server: Option<String>,
    pub method: Option<String>,
    pub tool: Option<String>,
    pub tenant: Option<String>,
    pub tier: Option<String>,
}

/// What tells one count from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Key {
    Tenant,
    /// The caller; the client's address for the anonymous.
    Subject,
    /// The API key; nobody else is told apart.
    Key,
    /// The client's address; of IPv6 its /64 network.
    Ip,
    Server,
    Method,
    Tool,
    Header(String),
}

/// What a tool call counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Globs.
    pub server: String,
    pub tool: String,
    pub cost: u32,
}
