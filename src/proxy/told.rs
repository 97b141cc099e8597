//! What a collector of traces is told of a request that is over. Names are those of OpenTelemetry's semantic conventions for
//! MCP, JSON-RPC and HTTP where they have any, `mcp_gateway.*` where not. No arguments, no credentials.

use std::time::{Instant, SystemTime};

use pingora::protocols::http::ServerSession;

use super::ctx::Ctx;
use crate::digest::{hex, sha256};
use crate::mcp::{self, headers, method};
use crate::observe::metrics::Outcome;
use crate::observe::spans::{Attributes, Finished, Value};
use crate::reject::clip;
use crate::snapshot::State;

/// Queues a request if its trace is sampled or it failed.
pub fn tell(state: &State, client: &ServerSession, ctx: &Ctx) {
    let (Some(spans), Some(attempts)) = (&state.shared.spans, &ctx.attempts) else { return };
    let status = client.response_written().map_or(0, |head| head.status.as_u16());
    // What was refused without asking anybody comes in crowds, and the metrics count it.
    let failed = matches!(ctx.told.outcome, Some(Outcome::Failed | Outcome::ServerError));
    let is_wanted = ctx.arrival.context.is_sampled() || (failed && spans.spares());
    if !is_wanted {
        return;
    }
    spans.tell(Finished {
        context: ctx.arrival.context,
        name: name(client, ctx),
        began: ctx.arrival.started,
        ended: Instant::now(),
        at: SystemTime::now(),
        attributes: attributes(client, ctx, status, failed),
        failed,
        attempts: attempts.take(),
    });
}

/// `tools/call read_file`, or `GET /health` where MCP was not spoken. Spans are grouped by their names, so that only what MCP
/// and the catalogue know is part of one.
fn name(client: &ServerSession, ctx: &Ctx) -> String {
    let Some(method) = &ctx.told.method else {
        return format!("{} {}", super::record::method_label(&client.req_header().method), ctx.route);
    };
    let Some(known) = method::find(method) else { return "other".to_owned() };
    let pool = || ctx.snapshot.upstream.pool(ctx.told.server.as_deref()?);
    let tool = ctx.told.name.as_deref().filter(|name| known.mcp == "tools/call" && pool().is_some_and(|pool| pool.knows_tool(name)));
    tool.map_or_else(|| known.mcp.to_owned(), |tool| [known.mcp, tool].join(" "))
}

fn attributes(client: &ServerSession, ctx: &Ctx, status: u16, failed: bool) -> Attributes {
    let request = client.req_header();
    let mut all = Attributes::with_room();
    all.add("http.request.method", request.method.as_str());
    all.add("http.route", ctx.route);
    all.add("http.response.status_code", Value::Number(status.into()));
    all.add("http.response.body.size", Value::Number(i64::try_from(ctx.told.bytes).unwrap_or(i64::MAX)));
    all.add("mcp_gateway.request_id", ctx.request_id());
    if let Some(address) = ctx.arrival.client.address {
        all.address("client.address", address);
    }
    let mut text = |name: &'static str, value: Option<&str>| value.into_iter().for_each(|value| all.add(name, clip(value)));
    let told = &ctx.told;
    let is_tool = told.method.as_deref() == Some("tools/call");
    text("mcp.method.name", told.method.as_deref());
    text("gen_ai.tool.name", told.name.as_deref().filter(|_| is_tool));
    text("gen_ai.operation.name", is_tool.then_some("execute_tool"));
    text("gen_ai.prompt.name", told.name.as_deref().filter(|_| told.method.as_deref() == Some("prompts/get")));
    let version = headers::version(&request.headers);
    text("mcp.protocol.version", version);
    text("mcp_gateway.era", version.map(|version| if mcp::era_of(version) == crate::call::Era::Modern { "modern" } else { "legacy" }));
    text("mcp.session.id", session(client).as_deref());
    text("mcp_gateway.server", told.server.as_deref());
    text("mcp_gateway.backend", told.backend.as_deref());
    text("mcp_gateway.rule", told.rule.as_deref());
    text("mcp_gateway.outcome", told.outcome.map(Outcome::name));
    text("mcp_gateway.cache", ctx.cached.as_ref().map(|cached| cached.word));
    text("mcp_gateway.limit", told.limit.as_deref());
    text("mcp_gateway.code", told.code);
    text("error.type", told.code.or(failed.then_some("failed")).or(is_error(told.outcome)));
    let identity = ctx.principal.as_deref().map(|principal| &principal.identity);
    text("enduser.id", identity.map(|identity| identity.subject.as_str()).filter(|subject| !subject.is_empty()));
    text("mcp_gateway.tenant", identity.and_then(|identity| identity.tenant.as_deref()));
    all
}

/// A tool that reported failure (semantic conventions for MCP: `tool_error`).
fn is_error(outcome: Option<Outcome>) -> Option<&'static str> {
    (outcome == Some(Outcome::ToolError)).then_some("tool_error")
}

/// What tells sessions apart and opens none.
fn session(client: &ServerSession) -> Option<String> {
    let session = client.req_header().headers.get(&headers::SESSION)?;
    Some(hex(&sha256(session.as_bytes())[..8]))
}
