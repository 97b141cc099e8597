//! A REST call to a backend that speaks the REST form itself: handed on as one `POST /api/mcp/{server}`, its envelope
//! rewritten so that `backend`, `response_time` and `cached` tell the truth about this gateway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use pingora::time::timeout;
use serde::Serialize;

use super::call::{Call, Done, Raw};
use super::tries::Stop;
use crate::egress::{Failure, Outgoing, Target};
use crate::mcp::members::Members;
use crate::mcp::rest;
use crate::observe::metrics::Outcome;
use crate::observe::trace::{REQUEST_ID, Traceparent};
use crate::reject::{Code, Reject};
use crate::transform::Shape;
use crate::upstream::ask::Trouble;
use crate::upstream::pool::Member;
use crate::verbatim::Verbatim;

/// The largest answer read into memory.
const MAX_ANSWER: usize = 16 << 20;

/// The REST form as the middleware gets it.
#[derive(Serialize)]
struct Written<'a> {
    method: &'a str,
    params: Params<'a>,
}

struct Params<'a>(&'a Members<'a>, bool);

impl Serialize for Params<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The REST form's own word, whichever one the caller used.
        let name = |name: &'_ str| if self.1 && name == "name" { "tool_name".to_owned() } else { name.to_owned() };
        serializer.collect_map(self.0.0.iter().map(|(key, value)| (name(key), *value)))
    }
}

/// Hands the call on.
///
/// # Errors
/// Where to go from here.
pub async fn forward(call: &Call<'_>, member: &Member, target: &Arc<Target>) -> Result<Done, Stop> {
    let backend = &member.backend;
    let credential = backend.credential(call.client, call.on_behalf).await?;
    let body = written(call);
    let started = Instant::now();
    let deadline = call.deadline(backend);
    let begun = call.trace.begin("POST", backend);
    let head = head(call, member, credential.as_ref(), call.trace.parent(begun.as_ref()));
    let sent = call.client.send(target, head, body, left(deadline)).await;
    call.trace.end(begun.as_ref(), backend, &sent, started);
    let incoming = sent.map_err(Trouble::from)?;
    let status = incoming.status();
    let answer = timeout(left(deadline), incoming.collect(MAX_ANSWER)).await.unwrap_or(Err(Failure::TimedOut));
    let answer = answer.map_err(Trouble::from)?;
    read(call, member, status, &answer)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn written(call: &Call<'_>) -> Bytes {
    let method = call.request.method;
    let is_call = method.mcp == "tools/call";
    let written = Written { method: method.rest.unwrap_or(method.mcp), params: Params(&call.request.params, is_call) };
    serde_json::to_vec(&written).unwrap_or_default().into()
}

fn head(call: &Call<'_>, member: &Member, credential: Option<&HeaderValue>, traceparent: Traceparent) -> Outgoing {
    let path = member.backend.path(&format!("/api/mcp/{}", call.pool.server));
    let mut head = member.backend.request_with("POST", &path, HeaderValue::from_static("application/json"), credential);
    head.header(&REQUEST_ID, call.trace.request_id);
    head.trace(traceparent);
    call.headers.iter().for_each(|(name, value)| head.header(name, value));
    head
}

/// Its list with what the caller may see; `None` if nothing is to be filtered.
fn kept(call: &Call<'_>, envelope: Option<&Members<'_>>) -> Result<Option<String>, Stop> {
    let list = envelope.and_then(|members| members.get("result")).filter(|_| call.request.method.paged);
    let Some(items) = list.map(|raw| call.kept(raw.get())).transpose()?.flatten() else { return Ok(None) };
    Ok(Some(format!("[{items}]")))
}

/// Its result as the operator's rules have it, as an MCP result; `None` if it stays as it is.
fn shaped(call: &Call<'_>, envelope: Option<&Members<'_>>) -> Result<Option<String>, Stop> {
    if !call.shape.is_some_and(Shape::reshapes) {
        return Ok(None);
    }
    match envelope.and_then(|members| rest::middleware_result(call.request.method, members)) {
        Some(result) => call.shaped(&result),
        None => Ok(None),
    }
}

fn read(call: &Call<'_>, member: &Member, status: StatusCode, answer: &[u8]) -> Result<Done, Stop> {
    let name = member.backend.name();
    if status.is_success() {
        let mut envelope = serde_json::from_slice::<Members<'_>>(answer).ok();
        let whole = envelope.as_ref().filter(|_| call.keeps).and_then(|members| rest::middleware_result(call.request.method, members));
        let raw = whole.map(|result| Raw::of(&result, member));
        let kept = kept(call, envelope.as_ref())?;
        if let (Some(members), Some(kept)) = (&mut envelope, &kept)
            && let Some((_, value)) = members.0.iter_mut().find(|(name, _)| name == "result")
        {
            *value = Verbatim::found(kept);
        }
        let failed = envelope.as_ref().is_some_and(rest::is_tool_error);
        let shaped = shaped(call, envelope.as_ref())?;
        let body = match shaped.as_deref().map(serde_json::from_str::<Members<'_>>) {
            Some(Ok(result)) => Some(rest::envelope(call.form(), call.request.method, &result, call.facts(member))?),
            _ => envelope.and_then(|members| rest::middleware_envelope(call.form, call.request.method, &members, call.facts(member))),
        };
        let body = body.ok_or_else(|| Reject::new(Code::BackendFailed, format!("backend {name} answered without a `result`")))?;
        let outcome = if failed { Outcome::ToolError } else { Outcome::Ok };
        return Ok(Done { body, outcome, backend: Arc::clone(member.backend.label()), raw });
    }
    let code = match status.as_u16() {
        400 => Code::InvalidParams,
        401 | 403 => Code::BackendRefused,
        404 => Code::UnknownName,
        422 => Code::InputRequired,
        504 => Code::BackendTimeout,
        // It works, and refuses in words of its own (409, 429, …).
        402..=499 => Code::ServerError,
        _ => Code::BackendFailed,
    };
    let reject = Reject::new(code, format!("backend {name} answered {status}"));
    let told = serde_json::from_slice::<Verbatim<'_>>(answer).ok().filter(|raw| raw.get().len() < 4096);
    Err(Stop::Refused(match told {
        Some(raw) => reject.with_rpc_error(raw),
        None => reject,
    }))
}
