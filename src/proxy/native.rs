//! The native lane: open the pass-through, seal the session id on its way back, relay.

use http::header::HeaderValue;
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType, Result};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::admit::{ANONYMOUS, Native};
use super::ctx::Ctx;
use super::reply;
use crate::egress::Incoming;
use crate::exchange::native::{self, Open};
use crate::exchange::relay::{self, End};
use crate::mcp::headers;
use crate::mcp::session::Session;
use crate::observe::metrics::Outcome;
use crate::reject::{Code, Reject, Verdict};
use crate::snapshot::State;

/// Answers up to this size are looked at for how the call ended; failures are short.
const JUDGED: usize = 8 << 10;

/// Serves a native request to its end.
///
/// # Errors
/// The inner error is a refusal to be written; the outer one means the connection must be closed.
pub async fn serve(state: &State, client: &mut ServerSession, ctx: &mut Ctx, plan: &Native<'_>) -> Result<Verdict<()>> {
    let opened = match open(state, client, ctx, plan).await {
        Some(Ok(opened)) => opened,
        Some(Err(reject)) => {
            record(state, ctx, plan, refusal(&reject));
            return Ok(Err(reject));
        }
        None => {
            return Error::e_explain(ErrorType::ConnectionClosed, "the client left before the answer")
                .map_err(|e: Box<Error>| e.into_down());
        }
    };
    ctx.told.backend = Some(opened.backend.name().to_owned());
    let status = opened.incoming.status();
    let mut head = reply::relayed(&opened.incoming, ctx, client)?;
    if let Err(reject) = seal(state, plan, &opened, &mut head) {
        return Ok(Err(reject));
    }
    let whole = opened.incoming.announced().is_some_and(|length| length <= JUDGED) && !opened.incoming.is_event_stream();
    let outcome = if whole {
        match opened.incoming.collect(JUDGED).await {
            Ok(answer) => {
                ctx.told.bytes = answer.len();
                client.write_response_header(Box::new(head)).await?;
                client.write_response_body(answer.clone(), true).await?;
                judge(status, &answer)
            }
            Err(failure) => return Ok(Err(crate::exchange::refuse(&failure.into(), &opened.backend))),
        }
    } else {
        client.write_response_header(Box::new(head)).await?;
        relayed(state, client, ctx, opened.incoming, status).await?
    };
    record(state, ctx, plan, outcome);
    Ok(Ok(()))
}

/// Opens the exchange unless the client leaves first.
async fn open<'s>(state: &'s State, client: &mut ServerSession, ctx: &Ctx, plan: &Native<'_>) -> Option<Verdict<Open<'s>>> {
    let request = client.req_header();
    let native = native::Native {
        pool: &plan.pool,
        method: method(&request.method),
        lines: native::forwarded(&request.headers),
        body: plan.body.clone(),
        session: plan.session.as_ref(),
        trace: ctx.trace(),
    };
    tokio::select! {
        biased;
        opened = native.open(&state.shared.client) => Some(opened),
        () = relay::departure(client) => None,
    }
}

/// The methods that lead here (see `route`).
fn method(method: &http::Method) -> &'static str {
    match *method {
        http::Method::GET => "GET",
        http::Method::DELETE => "DELETE",
        _ => "POST",
    }
}

/// Replaces the upstream's session id by a sealed one that names its backend.
fn seal(state: &State, plan: &Native<'_>, opened: &Open<'_>, head: &mut pingora::http::ResponseHeader) -> Verdict<()> {
    let Some(id) = opened.incoming.text(headers::SESSION) else { return Ok(()) };
    let session = Session { backend: opened.backend.name().to_owned(), id: id.to_owned() };
    let sealed = state.shared.sealer.seal(&plan.pool.server, ANONYMOUS, &session);
    let sealed = sealed.and_then(|token| HeaderValue::from_str(&token).ok());
    let sealed = sealed.ok_or_else(|| Reject::new(Code::BackendFailed, "the backend gave a session id that cannot be carried"))?;
    head.insert_header("Mcp-Session-Id", sealed).map_err(|e| Reject::new(Code::Internal, "the answer cannot be written").because(e))
}

async fn relayed(
    state: &State,
    client: &mut ServerSession,
    ctx: &mut Ctx,
    incoming: Incoming<'_>,
    status: http::StatusCode,
) -> Result<Outcome> {
    let is_stream = incoming.is_event_stream();
    let limits = &ctx.snapshot.config.server.limits;
    let idle = if is_stream { limits.stream_idle } else { limits.request_timeout };
    let gauge = &state.shared.metrics.open_streams;
    if is_stream {
        gauge.inc();
    }
    let end = relay::stream(client, incoming, idle, &state.shared.life).await;
    if is_stream {
        gauge.dec();
    }
    ctx.told.bytes = end.bytes();
    match end {
        End::Whole { .. } | End::Closed { .. } => Ok(judge(status, &[])),
        End::ClientGone { .. } => Error::e_explain(ErrorType::ConnectionClosed, "the client left").map_err(|e: Box<Error>| e.into_down()),
        End::Cut { cause, .. } => Error::e_explain(ErrorType::ReadError, cause).map_err(|e: Box<Error>| e.into_up()),
    }
}

#[derive(Deserialize)]
struct Glance<'b> {
    #[serde(borrow)]
    error: Option<&'b RawValue>,
    #[serde(default)]
    result: Option<ResultGlance>,
}

#[derive(Deserialize)]
struct ResultGlance {
    #[serde(rename = "isError", default)]
    is_error: bool,
}

/// How a call ended, by its status and, where it is short, its answer.
fn judge(status: http::StatusCode, answer: &[u8]) -> Outcome {
    if status.is_server_error() {
        return Outcome::Failed;
    }
    match serde_json::from_slice::<Glance<'_>>(answer) {
        Ok(Glance { error: Some(_), .. }) => Outcome::ServerError,
        Ok(Glance { result: Some(ResultGlance { is_error: true }), .. }) => Outcome::ToolError,
        _ if status.is_client_error() => Outcome::ServerError,
        _ => Outcome::Ok,
    }
}

fn refusal(reject: &Reject) -> Outcome {
    match reject.code.status() {
        500..=599 => Outcome::Failed,
        _ => Outcome::Refused,
    }
}

fn record(state: &State, ctx: &mut Ctx, plan: &Native<'_>, outcome: Outcome) {
    ctx.told.outcome = Some(outcome);
    let Some(call) = &plan.call else { return };
    plan.pool.meter(&state.shared.metrics, call).count(outcome, ctx.arrival.started.elapsed(), ctx.told.bytes);
    if log::log_enabled!(target: "access", log::Level::Info) {
        ctx.told.method = Some(call.method.clone().into_owned());
        ctx.told.name = call.name.clone().map(std::borrow::Cow::into_owned);
    }
}
