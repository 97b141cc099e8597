//! One line of the access log: what `conf/log/README.md` has a table of. No arguments, no credentials.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use pingora::Error;
use pingora::protocols::http::ServerSession;
use serde::Serialize;

use super::ctx::Ctx;
use crate::config::Log;
use crate::mcp::method::shown;
use crate::observe::clock::{Course, Stage};
use crate::observe::metrics::Outcome;
use crate::reject::clip;

#[derive(Serialize)]
struct Line<'a> {
    request_id: &'a str,
    client: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    http_method: &'a str,
    route: &'static str,
    status: u16,
    duration_ms: f64,
    // Where its time went: the first six are all of it, `connect_ms` is within `upstream_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    admit_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a str>,
    bytes_in: usize,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoded_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The share of its kind that is written, where that may be less than all.
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<f64>,
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// How a request ended.
pub struct Ended<'e> {
    pub method: &'static str,
    pub status: u16,
    pub course: &'e Course,
    pub error: Option<&'e Error>,
    /// It lasted for as long as its client liked.
    pub is_held_open: bool,
}

/// Writes the line, if it is one of those that are written.
pub fn write(client: &ServerSession, ctx: &Ctx, ended: &Ended<'_>) {
    let conf = &ctx.snapshot.config.observability.log;
    let share = if is_notable(conf, ctx, ended) { 1.0 } else { conf.sample };
    if share < 1.0 && !ctx.arrival.context.is_among(share) {
        return;
    }
    let line = line(client, ctx, ended, (conf.sample < 1.0).then_some(share));
    crate::observe::log::tell("access", log::Level::Info, &line);
}

/// Whether it is written whatever share of others is: it failed, was refused, or took long.
fn is_notable(conf: &Log, ctx: &Ctx, ended: &Ended<'_>) -> bool {
    let told = &ctx.told;
    let went_well = matches!(told.outcome, None | Some(Outcome::Ok)) && told.code.is_none() && !told.partly;
    let is_slow = !conf.slow.0.is_zero() && !ended.is_held_open && ended.course.whole() >= conf.slow.0;
    !(100..400).contains(&ended.status) || !went_well || ended.error.is_some() || is_slow
}

fn line<'a>(client: &ServerSession, ctx: &'a Ctx, ended: &'a Ended<'_>, sample: Option<f64>) -> Line<'a> {
    let identity = ctx.principal.as_deref().map(|principal| &principal.identity);
    let told = &ctx.told;
    let spent = |stage| ended.course.spent(stage).map(milliseconds);
    Line {
        request_id: ctx.request_id(),
        client: ctx.arrival.client.address,
        principal: identity.map(|identity| clip(&identity.subject)).filter(|subject| !subject.is_empty()),
        tenant: identity.and_then(|identity| identity.tenant.as_deref()).map(clip),
        http_method: ended.method,
        route: ctx.route,
        status: ended.status,
        duration_ms: milliseconds(ended.course.whole()),
        admit_ms: spent(Stage::Admit),
        body_ms: spent(Stage::Body),
        queue_ms: spent(Stage::Queue),
        cache_ms: spent(Stage::Cache),
        upstream_ms: spent(Stage::Upstream),
        answer_ms: spent(Stage::Answer),
        connect_ms: ended.course.connect.map(milliseconds),
        attempts: Some(ended.course.attempts).filter(|attempts| *attempts > 0),
        server: told.server.as_deref(),
        method: told.method.as_deref().map(clip),
        name: told.name.as_deref().map(|name| shown(told.method.as_deref().unwrap_or_default(), name)),
        backend: told.backend.as_deref(),
        rule: told.rule.as_deref(),
        outcome: told.outcome.map(Outcome::name),
        cache: ctx.cached.as_ref().map(|cached| cached.word),
        code: told.code,
        limit: told.limit.as_deref(),
        bytes_in: client.body_bytes_read(),
        bytes: told.bytes,
        encoding: told.coded.map(|coded| coded.coding.name()),
        encoded_bytes: told.coded.map(|coded| coded.bytes),
        error: ended.error.map(ToString::to_string),
        sample,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn full() -> Line<'static> {
        let some = Some(1.0);
        Line {
            request_id: "",
            client: None,
            principal: Some(""),
            tenant: Some(""),
            http_method: "",
            route: "",
            status: 200,
            duration_ms: 1.0,
            admit_ms: some,
            body_ms: some,
            queue_ms: some,
            cache_ms: some,
            upstream_ms: some,
            answer_ms: some,
            connect_ms: some,
            attempts: Some(1),
            server: Some(""),
            method: Some(""),
            name: Some("".into()),
            backend: Some(""),
            rule: Some(""),
            outcome: Some(""),
            cache: Some(""),
            code: Some(""),
            limit: Some(""),
            bytes_in: 0,
            bytes: 0,
            encoding: Some(""),
            encoded_bytes: Some(0),
            error: Some(String::new()),
            sample: some,
        }
    }

    #[test]
    fn every_field_has_a_row_in_the_documentation_and_no_row_is_of_none() {
        let line = serde_json::to_value(full()).unwrap();
        let has: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).chain(["ts", "level", "target"]).collect();
        // Read, not bundled: the container's build has no documentation in its context.
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/log/README.md")).unwrap();
        let (_, table) = text.split_once("<!-- access: this table is held true by a test -->").unwrap();
        let (table, _) = table.split_once("<!-- end -->").unwrap();
        let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |")).map(|(cell, _)| cell);
        let told: Vec<&str> = cells.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`')).collect();
        assert_eq!(told.iter().copied().collect::<BTreeSet<_>>(), has);
        assert_eq!(told.len(), has.len(), "no field has two rows");
    }
}
