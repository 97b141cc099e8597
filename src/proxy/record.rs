//! What is written down when a request is over: metrics and one access record. No arguments, no credentials.

use std::borrow::Cow;

use pingora::Error;
use pingora::protocols::http::ServerSession;
use serde::Serialize;

use super::ctx::Ctx;
use super::event;
use crate::mcp::method::shown;
use crate::observe::metrics::Outcome;
use crate::reject::{Code, Reject, clip};
use crate::route::Route;
use crate::snapshot::State;

/// One line of the access log.
#[derive(Serialize)]
struct Access<'a> {
    request_id: &'a str,
    client: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    http_method: &'a str,
    route: &'static str,
    status: u16,
    duration_ms: f64,
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
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoded_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Counts and logs a finished request.
pub fn write(state: &State, client: &ServerSession, ctx: &Ctx, error: Option<&Error>) {
    let elapsed = ctx.arrival.started.elapsed();
    let status = client.response_written().map_or(0, |head| head.status.as_u16());
    let method = method_label(&client.req_header().method);
    let metrics = &state.shared.metrics;
    metrics.http_requests.with_label_values(&[method, ctx.route, status_label(status, &mut [0; 3])]).inc();
    if !is_held_open(method, ctx) {
        metrics.http_duration.with_label_values(&[ctx.route]).observe(elapsed.as_secs_f64());
    }
    if let Some(tenant) = ctx.principal.as_deref().and_then(|principal| ctx.snapshot.auth.tenant_label(principal)) {
        metrics.tenant_requests.with_label_values(&[tenant, status_label(status, &mut [0; 3])]).inc();
    }
    event::whole(client, ctx, status, elapsed);
    if log::log_enabled!(target: "access", log::Level::Info) {
        let access = Access {
            request_id: ctx.request_id(),
            client: ctx.arrival.client.address,
            principal: ctx.principal.as_deref().map(|principal| clip(&principal.identity.subject)).filter(|subject| !subject.is_empty()),
            tenant: ctx.principal.as_deref().and_then(|principal| principal.identity.tenant.as_deref()).map(clip),
            http_method: method,
            route: ctx.route,
            status,
            duration_ms: (elapsed.as_secs_f64() * 1e6).round() / 1e3,
            server: ctx.told.server.as_deref(),
            method: ctx.told.method.as_deref().map(clip),
            name: ctx.told.name.as_deref().map(|name| shown(ctx.told.method.as_deref().unwrap_or_default(), name)),
            backend: ctx.told.backend.as_deref(),
            rule: ctx.told.rule.as_deref(),
            outcome: ctx.told.outcome.map(Outcome::name),
            cache: ctx.cached.as_ref().map(|cached| cached.word),
            code: ctx.told.code,
            limit: ctx.told.limit.as_deref(),
            bytes: ctx.told.bytes,
            encoding: ctx.told.coded.map(|coded| coded.coding.name()),
            encoded_bytes: ctx.told.coded.map(|coded| coded.bytes),
            error: error.map(ToString::to_string),
        };
        log::info!(target: "access", "{}", serde_json::to_string(&access).unwrap_or_default());
    }
}

/// Whether it lasted as long as the client liked, which says nothing of how fast we are.
fn is_held_open(method: &str, ctx: &Ctx) -> bool {
    let is_stream = method == "GET" && ctx.route == Route::Native { server: "" }.label();
    is_stream || ctx.told.method.as_deref() == Some("subscriptions/listen")
}

/// How a call ended that was refused, by us, by its server or for its backend's sake.
pub fn outcome_of(reject: &Reject) -> Outcome {
    match reject.code.status() {
        _ if reject.rpc_error.is_some() => Outcome::ServerError,
        // Nothing was sent.
        _ if matches!(reject.code, Code::CircuitOpen | Code::Overloaded) => Outcome::Refused,
        500..=599 => Outcome::Failed,
        _ => Outcome::Refused,
    }
}

/// Methods are the client's choice of words; only known ones become label values.
pub fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        _ => "other",
    }
}

/// Three digits without an allocation; `0` when nothing was answered.
fn status_label(status: u16, digits: &mut [u8; 3]) -> &str {
    if !(100..1000).contains(&status) {
        return "0";
    }
    let mut rest = status;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    std::str::from_utf8(digits).unwrap_or("0")
}
