//! One line of the access log: what `conf/log/README.md` has a table of. No arguments, no credentials.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use pingora::Error;
use pingora::protocols::http::ServerSession;

use super::ctx::Ctx;
use crate::config::Log;
use crate::mcp::method::shown;
use crate::observe::clock::{Course, Stage};
use crate::observe::log;
use crate::observe::metrics::Outcome;
use crate::observe::object::{Object, name};
use crate::reject::clip;

struct Line<'a> {
    request_id: &'a str,
    client: Option<IpAddr>,
    principal: Option<&'a str>,
    tenant: Option<&'a str>,
    http_method: &'a str,
    route: &'static str,
    status: u16,
    duration: Duration,
    // Where its time went: the first six are all of it, `connect` is within `upstream`.
    admit: Option<Duration>,
    body: Option<Duration>,
    queue: Option<Duration>,
    cache: Option<Duration>,
    upstream: Option<Duration>,
    answer: Option<Duration>,
    connect: Option<Duration>,
    attempts: Option<u32>,
    server: Option<&'a str>,
    method: Option<&'a str>,
    name: Option<Cow<'a, str>>,
    backend: Option<&'a str>,
    rule: Option<&'a str>,
    outcome: Option<&'static str>,
    cached: Option<&'static str>,
    code: Option<&'static str>,
    limit: Option<&'a str>,
    bytes_in: usize,
    bytes: usize,
    encoding: Option<&'static str>,
    encoded_bytes: Option<usize>,
    error: Option<String>,
    /// The share of its kind that is written, where that may be less than all.
    sample: Option<f64>,
}

impl Line<'_> {
    fn members(&self, object: &mut Object<'_>) {
        object.text(name!("request_id"), self.request_id);
        object.address(name!("client"), self.client);
        object.text(name!("principal"), self.principal);
        object.text(name!("tenant"), self.tenant);
        object.text(name!("http_method"), self.http_method);
        object.text(name!("route"), self.route);
        object.number(name!("status"), u64::from(self.status));
        object.milliseconds(name!("duration_ms"), self.duration);
        object.milliseconds(name!("admit_ms"), self.admit);
        object.milliseconds(name!("body_ms"), self.body);
        object.milliseconds(name!("queue_ms"), self.queue);
        object.milliseconds(name!("cache_ms"), self.cache);
        object.milliseconds(name!("upstream_ms"), self.upstream);
        object.milliseconds(name!("answer_ms"), self.answer);
        object.milliseconds(name!("connect_ms"), self.connect);
        object.number(name!("attempts"), self.attempts.map(u64::from));
        object.text(name!("server"), self.server);
        object.text(name!("method"), self.method);
        object.text(name!("name"), self.name.as_deref());
        object.text(name!("backend"), self.backend);
        object.text(name!("rule"), self.rule);
        object.text(name!("outcome"), self.outcome);
        object.text(name!("cache"), self.cached);
        object.text(name!("code"), self.code);
        object.text(name!("limit"), self.limit);
        object.number(name!("bytes_in"), self.bytes_in as u64);
        object.number(name!("bytes"), self.bytes as u64);
        object.text(name!("encoding"), self.encoding);
        object.number(name!("encoded_bytes"), self.encoded_bytes.map(|bytes| bytes as u64));
        object.text(name!("error"), self.error.as_deref());
        object.share(name!("sample"), self.sample);
    }
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
    if share < 1.0 && !ctx.arrival.context.is_among(share, ctx.state().shared.lot) {
        return;
    }
    let line = line(client, ctx, ended, (conf.sample < 1.0).then_some(share));
    log::tell("access", ::log::Level::Info, |object| line.members(object));
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
    let spent = |stage| ended.course.spent(stage);
    Line {
        request_id: ctx.request_id(),
        client: ctx.arrival.client.address,
        principal: identity.map(|identity| clip(&identity.subject)).filter(|subject| !subject.is_empty()),
        tenant: identity.and_then(|identity| identity.tenant.as_deref()).map(clip),
        http_method: ended.method,
        route: ctx.route,
        status: ended.status,
        duration: ended.course.whole(),
        admit: spent(Stage::Admit),
        body: spent(Stage::Body),
        queue: spent(Stage::Queue),
        cache: spent(Stage::Cache),
        upstream: spent(Stage::Upstream),
        answer: spent(Stage::Answer),
        connect: ended.course.connect,
        attempts: Some(ended.course.attempts).filter(|attempts| *attempts > 0),
        server: told.server.as_deref(),
        method: told.method.as_deref().map(clip),
        name: told.name.as_deref().map(|name| shown(told.method.as_deref().unwrap_or_default(), name)),
        backend: told.backend.as_deref(),
        rule: told.rule.as_deref(),
        outcome: told.outcome.map(Outcome::name),
        cached: ctx.cached.as_ref().map(|cached| cached.word),
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
        let time = Some(Duration::ZERO);
        Line {
            request_id: "",
            client: None,
            principal: Some(""),
            tenant: Some(""),
            http_method: "",
            route: "",
            status: 200,
            duration: Duration::ZERO,
            admit: time,
            body: time,
            queue: time,
            cache: time,
            upstream: time,
            answer: time,
            connect: time,
            attempts: Some(1),
            server: Some(""),
            method: Some(""),
            name: Some("".into()),
            backend: Some(""),
            rule: Some(""),
            outcome: Some(""),
            cached: Some(""),
            code: Some(""),
            limit: Some(""),
            bytes_in: 0,
            bytes: 0,
            encoding: Some(""),
            encoded_bytes: Some(0),
            error: Some(String::new()),
            sample: Some(1.0),
        }
    }

    #[test]
    fn every_field_has_a_row_in_the_documentation_and_no_row_is_of_none() {
        let mut line = b"{\"ts\":1".to_vec();
        full().members(&mut Object::within(&mut line));
        line.push(b'}');
        let line: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&line).unwrap();
        let has: BTreeSet<&str> = line.keys().map(String::as_str).chain(["level", "target"]).collect();
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
