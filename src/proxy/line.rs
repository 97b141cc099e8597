//! One line of the access log: what `conf/log/README.md` has a table of. No arguments, no credentials.

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
    let sample = (conf.sample < 1.0).then_some(share);
    log::tell("access", ::log::Level::Info, |object| members(object, client, ctx, ended, sample));
}

/// Whether it is written whatever share of others is: it failed, was refused, or took long.
fn is_notable(conf: &Log, ctx: &Ctx, ended: &Ended<'_>) -> bool {
    let told = &ctx.told;
    let went_well = matches!(told.outcome, None | Some(Outcome::Ok)) && told.code.is_none() && !told.partly;
    let is_slow = !conf.slow.0.is_zero() && !ended.is_held_open && ended.course.whole() >= conf.slow.0;
    !(100..400).contains(&ended.status) || !went_well || ended.error.is_some() || is_slow
}

/// Writes the members. `sample` is the share of its kind that is written, where that may be less than all.
fn members(object: &mut Object<'_>, client: &ServerSession, ctx: &Ctx, ended: &Ended<'_>, sample: Option<f64>) {
    let identity = ctx.principal.as_deref().map(|principal| &principal.identity);
    let (told, course) = (&ctx.told, ended.course);
    let method = told.method.as_deref();
    object.text(name!("request_id"), ctx.request_id());
    object.address(name!("client"), ctx.arrival.client.address);
    object.text(name!("principal"), identity.map(|identity| clip(&identity.subject)).filter(|subject| !subject.is_empty()));
    object.text(name!("tenant"), identity.and_then(|identity| identity.tenant.as_deref()).map(clip));
    object.text(name!("http_method"), ended.method);
    object.text(name!("route"), ctx.route);
    object.number(name!("status"), u64::from(ended.status));
    // Where its time went: the first six are all of it, `connect` is within `upstream`.
    object.milliseconds(name!("duration_ms"), course.whole());
    object.milliseconds(name!("admit_ms"), course.spent(Stage::Admit));
    object.milliseconds(name!("body_ms"), course.spent(Stage::Body));
    object.milliseconds(name!("queue_ms"), course.spent(Stage::Queue));
    object.milliseconds(name!("cache_ms"), course.spent(Stage::Cache));
    object.milliseconds(name!("upstream_ms"), course.spent(Stage::Upstream));
    object.milliseconds(name!("answer_ms"), course.spent(Stage::Answer));
    object.milliseconds(name!("connect_ms"), course.connect);
    object.number(name!("attempts"), Some(u64::from(course.attempts)).filter(|attempts| *attempts > 0));
    object.text(name!("server"), told.server.as_deref());
    object.text(name!("method"), method.map(clip));
    object.text(name!("name"), told.name.as_deref().map(|name| shown(method.unwrap_or_default(), name)).as_deref());
    object.text(name!("backend"), told.backend.as_deref());
    object.text(name!("rule"), told.rule.as_deref());
    object.text(name!("outcome"), told.outcome.map(Outcome::name));
    object.text(name!("cache"), ctx.cached.as_ref().map(|cached| cached.word));
    object.text(name!("code"), told.code);
    object.text(name!("limit"), told.limit.as_deref());
    object.number(name!("bytes_in"), client.body_bytes_read() as u64);
    object.number(name!("bytes"), told.bytes as u64);
    object.text(name!("encoding"), told.coded.map(|coded| coded.coding.name()));
    object.number(name!("encoded_bytes"), told.coded.map(|coded| coded.bytes as u64));
    object.text(name!("error"), ended.error.map(ToString::to_string).as_deref());
    object.share(name!("sample"), sample);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_field_has_a_row_in_the_documentation_and_no_row_is_of_none() {
        // The names that this file writes, behind those of every line.
        let (written, _) = include_str!("line.rs").split_once("#[cfg(test)]").unwrap();
        let names = written.split("name!(\"").skip(1).filter_map(|rest| rest.split('"').next());
        let has: BTreeSet<&str> = names.chain(["ts", "level", "target"]).collect();
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
