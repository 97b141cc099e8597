//! How often: rates, quotas and concurrency, per caller, tool, or whatever a rule counts by. All rules that cover a
//! request must admit it; one that refuses gives back what the others took.
//!
//! Reading order: `rule` (which requests, under which key), `gcra` and `meter` (the arithmetic), `local` and `redis` (where
//! counts are kept), `coarse` (the cheap look before anything is known of a caller), `near` (who has little left).

pub mod coarse;
pub mod gcra;
pub mod local;
pub mod meter;
pub mod near;
pub mod redis;
pub mod rule;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use self::local::{Local, Slot};
use self::meter::{Left, Meter};
use self::near::{Near, Nearest};
use self::redis::Shared;
use self::rule::{Asked, Count, Rule, Scope};
use crate::config::quota::{Cost, Match, OnStoreFailure, RateLimits, Store};
use crate::config::{Config, Redis};
use crate::observe::metrics::{Fallback, Metrics};
use crate::reject::{Code, Reject, Verdict};

/// What a client whose concurrency is used up is told to wait.
const SOON: Duration = Duration::from_secs(1);

/// The counts, which outlive the rules.
pub struct Counts {
    local: Arc<Local>,
    shared: Option<Shared>,
    nearest: Nearest,
}

/// The limits of one configuration.
pub struct Limits {
    conf: RateLimits,
    redis: Option<Redis>,
    rules: Vec<Rule>,
    costs: Vec<(Scope, u32)>,
    counts: Arc<Counts>,
}

/// What an admitted request took: places it holds while this lives, and how near it came to a limit.
#[derive(Default)]
pub struct Granted {
    taken: Vec<Taken>,
    slots: Vec<Slot>,
    pub notice: Option<Notice>,
}

struct Taken {
    count: Arc<Count>,
    key: Vec<u8>,
    cost: u32,
    /// Whether it came out of the shared count.
    shared: bool,
}

/// The limit a request came nearest to, as the `RateLimit` headers tell it
/// (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Debug, Clone)]
pub struct Notice {
    count: Arc<Count>,
    left: u64,
    seconds: u64,
}

impl Notice {
    /// `RateLimit-Policy`.
    pub fn policy(&self) -> HeaderValue {
        self.count.policy.clone()
    }

    /// `RateLimit`.
    pub fn state(&self) -> HeaderValue {
        let mut text = Vec::with_capacity(self.count.label.len() + 48);
        text.extend_from_slice(self.count.label.as_bytes());
        // Writing to a vector cannot fail.
        let _ = write!(text, "{};t={}", self.left, self.seconds);
        HeaderValue::from_maybe_shared(Bytes::from(text)).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// Whole seconds, rounded up: a client that waits so long is admitted.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl Limits {
    /// Compiles the limits of `config`; counts of `old` go on where they are kept in the same place.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub fn build(config: &Config, old: Option<&Self>, metrics: &Metrics) -> Result<Self, String> {
        let conf = config.rate_limits.clone();
        let redis = config.redis.clone().filter(|_| conf.store == Store::Redis);
        let counts = match old.filter(|old| Redis::is_same(old.redis.as_ref(), redis.as_ref())) {
            Some(old) => {
                old.counts.shared.iter().zip(&redis).for_each(|(shared, redis)| shared.set_timeout(redis.timeout.0));
                Arc::clone(&old.counts)
            }
            None => Arc::new(Counts {
                local: Arc::default(),
                shared: redis.as_ref().map(Shared::new).transpose()?,
                nearest: Nearest::default(),
            }),
        };
        let tiers = conf.tiers.iter().map(|(tier, rate)| Rule::of_tier(tier, *rate, conf.tiers.keys(), metrics));
        let rules = tiers.chain(conf.rules.iter().map(|rule| Rule::new(rule, metrics))).collect();
        let costs = conf.costs.iter().map(|cost| (priced(cost), cost.cost)).collect();
        Ok(Self { conf, redis, rules, costs, counts })
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Looks after the shared counts for as long as the task lives.
    pub async fn tend(self: Arc<Self>) {
        let Some(shared) = &self.counts.shared else { return std::future::pending().await };
        loop {
            shared.connect();
            tokio::time::sleep(Duration::from_secs(1)).await;
            shared.tidy().await;
        }
    }

    /// Whether the shared store answers; `None` without one.
    pub fn store_is_up(&self) -> Option<bool> {
        self.counts.shared.as_ref().map(Shared::is_up)
    }

    /// The limits, in the order they are asked.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Who has little left.
    pub fn nearest(&self) -> Vec<Near> {
        self.counts.nearest.list()
    }

    /// Admits a request, or says when it may come again.
    ///
    /// # Errors
    /// `rate_limited`, or `store_unavailable` where nothing may be admitted without the store.
    pub async fn admit(&self, asked: &Asked<'_>, metrics: &Metrics) -> Verdict<Granted> {
        let mut granted = Granted::default();
        let covering = self.rules.iter().filter(|rule| rule.covers(asked));
        for rule in covering {
            let admitted = self.apply(rule, asked, &mut granted, metrics).await;
            rule.meter.count(admitted.is_ok());
            if let Err(reject) = admitted {
                self.take_back(&granted);
                return Err(reject);
            }
        }
        Ok(granted)
    }

    /// Takes back what a request took that was refused after all.
    pub fn take_back(&self, granted: &Granted) {
        for Taken { count, key, cost, shared } in &granted.taken {
            match &self.counts.shared {
                Some(store) if *shared => store.give_back(key, &count.meter, *cost),
                _ => self.counts.local.give_back(key, &count.meter, *cost),
            }
        }
    }

    async fn apply(&self, rule: &Rule, asked: &Asked<'_>, granted: &mut Granted, metrics: &Metrics) -> Verdict<()> {
        if let Some(limit) = rule.concurrency {
            let slot = self.counts.local.enter(rule.key(rule.places, asked), limit);
            let refused = || {
                let detail = format!("{limit} requests at the same time are all that `{}` allows", rule.name);
                Reject::new(Code::RateLimited, detail).retry_after(SOON).limited(&rule.name, None)
            };
            granted.slots.push(slot.ok_or_else(refused)?);
        }
        let cost = self.cost(asked);
        for count in &rule.counts {
            let key = rule.key(count.name, asked);
            let (taken, shared) = self.take(&key, &count.meter, cost, metrics).await?;
            self.watch(rule, count, &key, taken, asked);
            let notice = |left, reset| Notice { count: Arc::clone(count), left, seconds: whole_seconds(reset) };
            match taken {
                Ok(left) => {
                    granted.taken.push(Taken { count: Arc::clone(count), key, cost, shared });
                    granted.come_near(left.requests, || notice(left.requests, left.reset));
                }
                Err(wait) => {
                    let detail = format!("`{}` allows {} requests in {} s", rule.name, count.requests, count.seconds);
                    let notice = notice(0, wait);
                    let reject = Reject::new(Code::RateLimited, detail).retry_after(Duration::from_secs(notice.seconds));
                    return Err(reject.limited(&rule.name, Some((notice.policy(), notice.state()))));
                }
            }
        }
        Ok(())
    }

    /// Notes a count that has little left.
    fn watch(&self, rule: &Rule, count: &Count, key: &[u8], taken: Result<Left, Duration>, asked: &Asked<'_>) {
        let (left, most) = (taken.map(|left| left.requests).ok(), count.meter.most());
        if Nearest::is_near(left.unwrap_or_default(), most) {
            let reset = taken.map_or_else(|wait| wait, |left| left.reset);
            self.counts.nearest.note(key, left, most, reset, || (rule.name.clone(), near::who(rule.by(), asked)));
        }
    }

    /// From the shared count, or what stands in for it.
    async fn take(&self, key: &[u8], meter: &Meter, cost: u32, metrics: &Metrics) -> Verdict<(Result<Left, Duration>, bool)> {
        let Some(shared) = &self.counts.shared else { return Ok((self.counts.local.take(key, meter, cost), false)) };
        if let Some(taken) = shared.take_held(key, meter, cost) {
            return Ok((taken, true));
        }
        // Boxed: asking Redis is a large future, and most requests need none.
        if let Ok(taken) = Box::pin(shared.take(key, meter, cost)).await {
            return Ok((taken, true));
        }
        match self.conf.on_store_failure {
            OnStoreFailure::Local => {
                metrics.limit_fallback(Fallback::Local);
                Ok((self.counts.local.take(key, meter, cost), false))
            }
            OnStoreFailure::Allow => {
                metrics.limit_fallback(Fallback::Allow);
                Ok((Ok(Left { requests: meter.most(), reset: Duration::ZERO }), false))
            }
            OnStoreFailure::Deny => {
                metrics.limit_fallback(Fallback::Deny);
                let detail = "the store of the rate limits cannot be asked, and nothing is admitted without it";
                Err(Reject::new(Code::StoreUnavailable, detail).retry_after(SOON))
            }
        }
    }

    fn cost(&self, asked: &Asked<'_>) -> u32 {
        self.costs.iter().find(|(scope, _)| scope.covers(asked)).map_or(1, |(_, cost)| *cost)
    }
}

impl Granted {
    /// Notes a limit if it is the nearest so far.
    fn come_near(&mut self, left: u64, notice: impl FnOnce() -> Notice) {
        if self.notice.as_ref().is_none_or(|nearest| left < nearest.left) {
            self.notice = Some(notice());
        }
    }

    /// Joins what several requests of one body took.
    pub fn join(&mut self, other: Self) {
        self.taken.extend(other.taken);
        self.slots.extend(other.slots);
        if let Some(notice) = other.notice {
            self.come_near(notice.left, || notice.clone());
        }
    }
}

/// What a price is for. Only tool calls have one of their own.
fn priced(cost: &Cost) -> Scope {
    let (server, tool) = (Some(cost.server.clone()), Some(cost.tool.clone()));
    Scope::new(&Match { server, tool, method: Some("tools/call".to_owned()), ..Match::default() })
}
