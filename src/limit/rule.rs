//! One limit, compiled: which requests it is for, and under which key each is counted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::meter::Meter;
use crate::call::Call;
use crate::config::quota::{self, Key, Rate};
use crate::digest::sha256;
use crate::observe::metrics::{LimitMeter, Metrics};
use crate::pattern::Pattern;
use crate::principal::{Principal, Way};

/// Bytes of a key that is kept as it is; of a longer one its digest.
const LONGEST: usize = 128;

/// The tier of callers that have none.
pub const DEFAULT_TIER: &str = "default";

/// What a limit looks at.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The routing rule that chose where it goes.
    pub route: Option<&'a str>,
    pub server: &'a str,
    pub call: &'a Call<'a>,
    pub principal: &'a Principal,
    /// The real client.
    pub client: Option<IpAddr>,
    pub headers: &'a HeaderMap,
}

impl Asked<'_> {
    /// The tool that is called.
    pub fn tool(&self) -> Option<&str> {
        if self.call.method == "tools/call" { self.call.name.as_deref() } else { None }
    }

    fn tier(&self) -> &str {
        self.principal.identity.tier.as_deref().unwrap_or(DEFAULT_TIER)
    }
}

/// What a limit is for.
pub struct Scope {
    route: Pattern,
    server: Pattern,
    method: Pattern,
    tool: Pattern,
    tenant: Pattern,
    tier: Pattern,
}

impl Scope {
    pub fn new(written: &quota::Match) -> Self {
        // Here `*` stands for what has none as well.
        let pattern = |written: &Option<String>| Pattern::new(written.as_deref().filter(|text| *text != "*"));
        Self {
            route: pattern(&written.route),
            server: pattern(&written.server),
            method: pattern(&written.method),
            tool: pattern(&written.tool),
            tenant: pattern(&written.tenant),
            tier: pattern(&written.tier),
        }
    }

    pub fn covers(&self, asked: &Asked<'_>) -> bool {
        self.server.fits(Some(asked.server))
            && self.tool.fits(asked.tool())
            && self.method.fits(Some(&asked.call.method))
            && self.tenant.fits(asked.principal.identity.tenant.as_deref())
            && self.tier.fits(Some(asked.tier()))
            && self.route.fits(asked.route)
    }
}

/// A limit.
pub struct Rule {
    pub name: String,
    scope: Scope,
    by: Vec<Key>,
    /// What it counts; a rate and a quota may stand side by side.
    pub counts: Vec<Arc<Count>>,
    pub concurrency: Option<u32>,
    /// What the keys of places begin with.
    pub places: [u8; 8],
    pub meter: LimitMeter,
}

/// One count of a rule.
#[derive(Debug)]
pub struct Count {
    pub meter: Meter,
    /// What its keys begin with; another one when the rule says something else.
    pub name: [u8; 8],
    /// So many in so many seconds, for refusals.
    pub requests: u32,
    pub seconds: u64,
    /// `RateLimit-Policy`, and what `RateLimit` begins with.
    pub policy: HeaderValue,
    pub label: String,
}

impl Count {
    fn new(rule: &str, meter: Meter, requests: u32, per: Duration, burst: Option<u32>) -> Arc<Self> {
        let name = short(&format!("{rule} {meter:?}"));
        let seconds = per.as_secs().max(1);
        let burst = burst.filter(|burst| *burst != requests).map(|burst| format!(";burst={burst}")).unwrap_or_default();
        // Rule names are of an alphabet that headers can carry.
        let policy = HeaderValue::from_str(&format!("\"{rule}\";q={requests};w={seconds}{burst}"));
        let policy = policy.unwrap_or_else(|_| HeaderValue::from_static(""));
        Arc::new(Self { meter, name, requests, seconds, policy, label: format!("\"{rule}\";r=") })
    }
}

/// The first bytes of a digest: names without a length of their own.
fn short(text: &str) -> [u8; 8] {
    let mut name = [0; 8];
    name.copy_from_slice(&sha256(text.as_bytes())[..8]);
    name
}

impl Rule {
    pub fn new(rule: &quota::Rule, metrics: &Metrics) -> Self {
        let rate = rule.rate.map(|rate| Count::new(&rule.name, Meter::rate(rate), rate.count, rate.per, Some(rate.burst)));
        let quota = rule.quota.map(|quota| Count::new(&rule.name, Meter::quota(quota), quota.count, quota.window, None));
        Self {
            name: rule.name.clone(),
            scope: Scope::new(&rule.matches),
            by: rule.by.clone(),
            counts: rate.into_iter().chain(quota).collect(),
            concurrency: rule.concurrency,
            places: short(&format!("{} places", rule.name)),
            meter: metrics.limit(&rule.name),
        }
    }

    /// The limit of each caller of a tier; `default` is for those whose tier is none of `tiers`.
    pub fn of_tier<'t>(tier: &str, rate: Rate, tiers: impl Iterator<Item = &'t String>, metrics: &Metrics) -> Self {
        let name = format!("tier-{tier}");
        let matches = quota::Match::default();
        let rule = quota::Rule { name, matches, by: vec![Key::Subject], rate: Some(rate), quota: None, concurrency: None };
        let mut rule = Self::new(&rule, metrics);
        rule.scope.tier = if tier == DEFAULT_TIER {
            Pattern::NoneOf(tiers.filter(|tier| *tier != DEFAULT_TIER).cloned().collect())
        } else {
            Pattern::Exactly(tier.to_owned())
        };
        rule
    }

    pub fn covers(&self, asked: &Asked<'_>) -> bool {
        self.scope.covers(asked)
    }

    /// What it counts by.
    pub fn by(&self) -> &[Key] {
        &self.by
    }

    /// Where a request is counted: the name of the count, then what tells it from others, each with its length, so that
    /// no two read alike.
    pub fn key(&self, name: [u8; 8], asked: &Asked<'_>) -> Vec<u8> {
        let mut key = Vec::with_capacity(64);
        key.extend_from_slice(&name);
        for by in &self.by {
            part(&mut key, by, asked);
        }
        if key.len() > LONGEST {
            // Keys are kept, and how long they are is for callers to say.
            let digest = sha256(&key);
            key.truncate(name.len());
            key.extend_from_slice(&digest);
            key.shrink_to_fit();
        }
        key
    }
}

fn part(key: &mut Vec<u8>, by: &Key, asked: &Asked<'_>) {
    let identity = &asked.principal.identity;
    match by {
        Key::Tenant => push(key, identity.tenant.as_deref().map(str::as_bytes)),
        Key::Subject if asked.principal.way == Way::Anonymous => address(key, asked.client),
        Key::Subject => {
            push(key, Some(identity.issuer.as_bytes()));
            push(key, identity.tenant.as_deref().map(str::as_bytes));
            push(key, Some(identity.subject.as_bytes()));
        }
        Key::Key => push(key, Some(identity.subject.as_bytes()).filter(|_| asked.principal.way == Way::ApiKey)),
        Key::Ip => address(key, asked.client),
        Key::Server => push(key, Some(asked.server.as_bytes())),
        Key::Method => push(key, Some(asked.call.method.as_bytes())),
        Key::Tool => push(key, asked.tool().map(str::as_bytes)),
        Key::Header(name) => push(key, asked.headers.get(name).map(HeaderValue::as_bytes)),
    }
}

fn push(key: &mut Vec<u8>, text: Option<&[u8]>) {
    let length = text.map_or(u32::MAX, |text| u32::try_from(text.len()).unwrap_or(u32::MAX - 1));
    key.extend_from_slice(&length.to_le_bytes());
    key.extend_from_slice(text.unwrap_or_default());
}

/// One who has an IPv6 network has all its addresses.
fn address(key: &mut Vec<u8>, client: Option<IpAddr>) {
    match client.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => push(key, Some(&address.octets())),
        Some(IpAddr::V6(address)) => push(key, Some(&address.octets()[..8])),
        None => push(key, None),
    }
}
