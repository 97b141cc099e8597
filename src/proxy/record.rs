//! What is written down when a request is over: metrics, an event for analytics, and one access record (`line`).

use pingora::Error;
use pingora::protocols::http::ServerSession;

use super::ctx::Ctx;
use super::event;
use super::line::{self, Ended};
use crate::observe::metrics::Outcome;
use crate::reject::{Code, Reject};
use crate::route::Route;
use crate::snapshot::State;

/// Counts and logs a finished request.
pub fn write(state: &State, client: &ServerSession, ctx: &Ctx, error: Option<&Error>) {
    let course = ctx.clock.read();
    let elapsed = course.whole();
    let status = client.response_written().map_or(0, |head| head.status.as_u16());
    let method = method_label(&client.req_header().method);
    let metrics = &state.shared.metrics;
    metrics.http_requests.with_label_values(&[method, ctx.route, status_label(status, &mut [0; 3])]).inc();
    let is_held_open = is_held_open(method, ctx);
    if !is_held_open {
        metrics.http_duration.with_label_values(&[ctx.route]).observe(elapsed.as_secs_f64());
    }
    if let Some(tenant) = ctx.principal.as_deref().and_then(|principal| ctx.snapshot.auth.tenant_label(principal)) {
        metrics.tenant_requests.with_label_values(&[tenant, status_label(status, &mut [0; 3])]).inc();
    }
    event::whole(client, ctx, status, elapsed);
    if log::log_enabled!(target: "access", log::Level::Info) {
        line::write(client, ctx, &Ended { method, status, course: &course, error, is_held_open });
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
