//! What the operator's page is told of a refusal. Only refused requests come here. What a server said of arguments stays out.

use pingora::protocols::http::ServerSession;

use super::ctx::Ctx;
use crate::call::Call;
use crate::observe::refusals::Refusal;
use crate::reject::{Reject, clip};

/// Characters of the longest text kept.
const LONGEST: usize = 300;

/// Notes a request that was refused as a whole.
pub fn whole(client: &ServerSession, ctx: &Ctx, reject: &Reject) {
    let told = &ctx.told;
    // Refused before its server was looked for: what its path says.
    let path = client.req_header().uri.path();
    let asked = || path.rsplit_once("/mcp/").map(|(_, server)| brief(server));
    let server = told.server.as_deref().map(str::to_owned).or_else(asked);
    note(ctx, reject, server, told.method.as_deref().map(brief), told.name.as_deref().map(brief));
}

/// Notes one element of a batch; `call` is none where it is not one.
pub fn element(ctx: &Ctx, reject: &Reject, call: Option<&Call<'_>>) {
    let method = call.map(|call| brief(&call.method));
    let name = call.and_then(|call| call.name.as_deref()).map(brief);
    note(ctx, reject, ctx.told.server.as_deref().map(str::to_owned), method, name);
}

fn note(ctx: &Ctx, reject: &Reject, server: Option<String>, method: Option<String>, name: Option<String>) {
    let identity = ctx.principal.as_deref().map(|principal| &principal.identity);
    // URIs may hold secrets.
    let name = name.filter(|_| method.as_deref().is_some_and(|method| matches!(method, "tools/call" | "prompts/get")));
    ctx.state().shared.refusals.note(Refusal {
        at: jiff::Timestamp::now(),
        times: 1,
        code: reject.code.name(),
        status: reject.code.status(),
        detail: detail(reject),
        // The log tells the causes of these, and of no others.
        cause: reject.cause.as_deref().filter(|_| reject.code.status() >= 500).map(cut),
        request_id: ctx.request_id().to_owned(),
        principal: identity.map(|identity| brief(&identity.subject)).filter(|subject| !subject.is_empty()),
        tenant: identity.and_then(|identity| identity.tenant.as_deref()).map(brief),
        client: ctx.arrival.client.address,
        server,
        method,
        name,
        limit: reject.limit.as_ref().map(|limit| limit.rule.clone()),
    });
}

/// What the caller was told, without the server's own words.
fn detail(reject: &Reject) -> String {
    match (&reject.rpc_error, reject.detail.split_once(": ")) {
        (Some(_), Some((ours, _))) => cut(ours),
        _ => cut(&reject.detail),
    }
}

fn brief(text: &str) -> String {
    clip(text).to_owned()
}

fn cut(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}
