//! Written `load_balancer:` and `circuit_breaker:` → the checked model.

use std::time::Duration;

use super::check::positive;
use super::reader::Section;
use super::traffic::{Affinity, Breaker, CircuitBreaker, LoadBalancer, Outlier, Queue, Repeat, Retries, Strategy, Thresholds, ToolBreaker};
use super::{Timespan, check, roles};

/// Strategies by name.
const STRATEGIES: &[(&str, u8)] = &[("weighted_round_robin", 0), ("least_requests", 1), ("consistent_hash", 2), ("random", 3)];
const REPEAT: &[(&str, Repeat)] = &[("never", Repeat::Never), ("reads", Repeat::Reads), ("annotated", Repeat::Annotated)];

/// Reads `load_balancer:`.
pub fn balancer(section: &Section<'_>) -> LoadBalancer {
    let balancer = LoadBalancer {
        strategy: strategy(section),
        thresholds: Thresholds {
            unhealthy: count(section, "unhealthy_threshold", 3) as usize,
            healthy: count(section, "healthy_threshold", 2) as usize,
        },
        slow_start: section.duration("slow_start").unwrap_or_default(),
        zone: section.parse("zone", |text| check::label(text, "zone")),
        spill_below: section.share("spill_below").unwrap_or(0.7),
        panic_threshold: section.share("panic_threshold").unwrap_or(0.0),
        queue: queue(&section.section("queue")),
        retries: retries(&section.section("retries")),
        hedge: hedge(section),
        outlier: section.has("outlier").then(|| outlier(&section.section("outlier"))),
    };
    if balancer.hedge.is_some() && (balancer.retries.max == 0 || balancer.retries.repeat == Repeat::Never) {
        section.problem("hedge", "a second backend is never asked with retries.max: 0 or retries.repeat: never");
    }
    // Read before, as the default of the backends' own.
    section.value("health_check_interval");
    section.finish();
    balancer
}

/// A whole number from 1.
fn count(section: &Section<'_>, key: &'static str, default: u32) -> u32 {
    section.integer(key, 1..=1_000_000).map_or(default, |n| u32::try_from(n).unwrap_or(default))
}

fn strategy(section: &Section<'_>) -> Strategy {
    let hash_by = section.parse("hash_by", affinity);
    let strategy = section.choice("strategy", STRATEGIES).unwrap_or(0);
    if section.has("hash_by") && strategy != 2 {
        section.problem("hash_by", "goes with strategy: consistent_hash");
    }
    match strategy {
        0 => Strategy::WeightedRoundRobin,
        1 => Strategy::LeastRequests,
        2 => Strategy::ConsistentHash(hash_by.unwrap_or(Affinity::Subject)),
        _ => Strategy::Random,
    }
}

fn affinity(text: &str) -> Result<Affinity, String> {
    match text {
        "session" => Ok(Affinity::Session),
        "subject" => Ok(Affinity::Subject),
        "tenant" => Ok(Affinity::Tenant),
        _ => match text.strip_prefix("header:").map(|name| http::HeaderName::try_from(name.trim())) {
            Some(Ok(name)) => Ok(Affinity::Header(name.as_str().to_owned())),
            _ => Err(format!("`{text}` is not one of session, subject, tenant, header:NAME")),
        },
    }
}

/// Reads a queue, as it stands at backends and at the gateway as a whole.
pub fn queue(section: &Section<'_>) -> Queue {
    let queue = Queue {
        length: section.integer("length", 0..=1_000_000).map_or(100, |n| usize::try_from(n).unwrap_or(100)),
        wait: section.duration("wait").unwrap_or(Duration::from_millis(500)),
    };
    section.finish();
    queue
}

fn retries(section: &Section<'_>) -> Retries {
    let retries = Retries {
        max: section.integer("max", 0..=10).map_or(2, |n| u32::try_from(n).unwrap_or(2)),
        budget: section.share("budget").unwrap_or(0.2),
        repeat: section.choice("repeat", REPEAT).unwrap_or(Repeat::Reads),
        per_try: section.has("per_try").then(|| Timespan(positive(section, "per_try", 30))),
    };
    section.finish();
    retries
}

fn hedge(section: &Section<'_>) -> Option<Timespan> {
    section.has("hedge").then(|| {
        let hedge = section.section("hedge");
        let after = positive(&hedge, "after", 1);
        if !hedge.has("after") {
            hedge.problem("after", "missing: how long the first backend may take before a second is asked");
        }
        hedge.finish();
        Timespan(after)
    })
}

fn outlier(section: &Section<'_>) -> Outlier {
    let outlier = Outlier {
        consecutive_failures: count(section, "consecutive_failures", 5),
        failure_rate: section.share("failure_rate").unwrap_or(0.5),
        min_requests: count(section, "min_requests", 20),
        interval: positive(section, "interval", 10),
        ejection: positive(section, "ejection", 30),
        max_ejected: section.share("max_ejected").unwrap_or(0.5),
    };
    section.finish();
    outlier
}

/// Reads `circuit_breaker:`.
pub fn circuit_breaker(section: &Section<'_>) -> CircuitBreaker {
    let off = section.bool("enabled") == Some(false);
    let default = breaker(section, None);
    let tools = section.sections("tools");
    let tools = tools.iter().map(|section| tool_breaker(section, default)).collect();
    section.finish();
    CircuitBreaker { backend: (!off).then_some(default), tools }
}

fn tool_breaker(section: &Section<'_>, default: Breaker) -> ToolBreaker {
    let glob = |key| section.parse(key, roles::glob).unwrap_or_else(|| "*".to_owned());
    let breaker = ToolBreaker { server: glob("server"), tool: glob("tool"), breaker: breaker(section, Some(default)) };
    section.finish();
    breaker
}

fn breaker(section: &Section<'_>, default: Option<Breaker>) -> Breaker {
    let default = default.unwrap_or(Breaker {
        failure_threshold: 5,
        failure_rate: None,
        window: Duration::from_secs(10),
        min_requests: 20,
        recovery_timeout: Duration::from_secs(60),
        probes: 1,
    });
    Breaker {
        failure_threshold: count(section, "failure_threshold", default.failure_threshold),
        failure_rate: section.share("failure_rate").or(default.failure_rate),
        window: if section.has("window") { positive(section, "window", 10) } else { default.window },
        min_requests: count(section, "min_requests", default.min_requests),
        recovery_timeout: if section.has("recovery_timeout") {
            positive(section, "recovery_timeout", 60)
        } else {
            default.recovery_timeout
        },
        probes: count(section, "probes", default.probes),
    }
}
