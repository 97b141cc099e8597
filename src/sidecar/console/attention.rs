//! What somebody should look at, in one sentence each: the first thing on the operator's page.

use serde::Serialize;
use utoipa::ToSchema;

use super::overview::Overview;
use super::words;
use crate::config::risk::Risk;

/// Requests in a minute before a share of them says anything.
const ENOUGH: u64 = 20;
/// The share of failures that is worth a look.
const FAILING: f64 = 0.05;
/// The share of refusals that is.
const REFUSING: f64 = 0.25;
/// Notices that are told; the sections tell the rest.
const TOLD: usize = 20;

/// One sentence, and where more is told.
#[derive(Serialize, ToSchema)]
pub struct Notice {
    /// `problem` or `note`.
    pub level: &'static str,
    pub text: String,
    /// The section of the page.
    pub section: &'static str,
}

fn problem(section: &'static str, text: impl Into<String>) -> Notice {
    Notice { level: "problem", text: text.into(), section }
}

fn note(section: &'static str, text: impl Into<String>) -> Notice {
    Notice { level: "note", text: text.into(), section }
}

/// Everything worth a look, problems first. `refused` callers are beyond a limit.
pub fn notices(overview: &Overview, dangerous: &[Risk], refused: usize) -> Vec<Notice> {
    let mut all = Vec::new();
    process(overview, &mut all);
    backends(overview, &mut all);
    servers(overview, &mut all);
    traffic(overview, refused, &mut all);
    risks(dangerous, &mut all);
    all.sort_by_key(|notice| notice.level == "note");
    if all.len() > TOLD {
        let more = all.len() - TOLD;
        all.truncate(TOLD);
        all.push(note("backends", format!("and {more} more")));
    }
    all
}

fn process(overview: &Overview, all: &mut Vec<Notice>) {
    if overview.phase != "serving" {
        all.push(problem("configuration", format!("this process is ending ({}): it is not ready for new traffic", overview.phase)));
    }
    let configuration = &overview.configuration;
    if let Some(first) = configuration.problems.first() {
        let more = configuration.problems.len() - 1;
        let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
        all.push(problem("configuration", format!("the configuration last read is not served: {first}{more}")));
    }
    if !configuration.waiting.is_empty() {
        all.push(note("configuration", format!("changed, but takes a restart or an upgrade: {}", configuration.waiting.join(", "))));
    }
}

fn backends(overview: &Overview, all: &mut Vec<Notice>) {
    if !overview.backends.iter().any(|backend| backend.status != "unhealthy") {
        all.push(problem("backends", "no backend is healthy: every call fails"));
    }
    for backend in &overview.backends {
        let name = &backend.name;
        if backend.status == "unhealthy" {
            all.push(problem("backends", format!("backend {name} fails its health checks")));
        } else if backend.breaker != "closed" {
            all.push(problem("backends", format!("the breaker of backend {name} is {}", backend.breaker)));
        } else if let Some(seconds) = backend.ejected_for {
            all.push(problem("backends", format!("backend {name} fails more than the others and is left out for {seconds:.0} s yet")));
        }
        if backend.requests >= ENOUGH && backend.failed_share >= FAILING {
            let share = words::percent(backend.failed_share);
            all.push(problem("backends", format!("backend {name} failed {share} of the requests of the last minute")));
        }
        if backend.draining {
            all.push(note("backends", format!("backend {name} is being drained: it gets no new requests")));
        }
    }
}

fn servers(overview: &Overview, all: &mut Vec<Notice>) {
    for server in &overview.servers {
        if server.status == "unhealthy" && overview.backends.iter().any(|backend| backend.status != "unhealthy") {
            all.push(problem("servers", format!("no backend takes requests for server {}", server.name)));
        }
        for tool in server.tools.iter().filter(|tool| !tool.breakers.is_empty()) {
            all.push(problem("servers", format!("the breaker of {} {} is {}", server.name, tool.name, tool.breakers.join(", "))));
        }
    }
}

fn traffic(overview: &Overview, refused: usize, all: &mut Vec<Notice>) {
    let traffic = &overview.traffic;
    if traffic.requests >= ENOUGH && traffic.failed_share >= FAILING {
        let share = words::percent(traffic.failed_share);
        all.push(problem("refusals", format!("{share} of the requests of the last minute failed")));
    }
    if traffic.requests >= ENOUGH && traffic.refused_share >= REFUSING {
        let share = words::percent(traffic.refused_share);
        all.push(note("refusals", format!("{share} of the requests of the last minute were refused")));
    }
    if overview.limits.store_up == Some(false) {
        all.push(problem("limits", "Redis, where rate limits are counted, does not answer"));
    }
    if refused > 0 {
        all.push(note("limits", format!("{} beyond a rate limit", words::count(refused, "caller is", "callers are"))));
    }
}

/// What the start warned of as well.
fn risks(risks: &[Risk], all: &mut Vec<Notice>) {
    let grave = risks.iter().filter(|risk| risk.is_grave);
    all.extend(grave.map(|risk| note("configuration", format!("{}: {} [{}]", risk.path, risk.message, risk.name))));
}
