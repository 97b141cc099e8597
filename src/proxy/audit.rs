//! The audit log: one record for each decision about a caller (target `audit`): who, what, admitted or why refused. Never
//! an argument, never a credential. Written where authentication is configured; a batch has a record for each request.

use super::ctx::Ctx;
use crate::call::Call;
use crate::mcp::method::shown;
use crate::observe::object::{Object, name};
use crate::reject::{Code, clip};

/// One decision.
pub struct Decision<'d> {
    /// `None` for admitted.
    pub code: Option<Code>,
    pub reason: Option<&'d str>,
    pub server: Option<&'d str>,
    pub call: Option<&'d Call<'d>>,
}

impl<'d> Decision<'d> {
    /// `call` is none for a stream, the end of a session, or an answer to the server.
    pub fn admitted(server: Option<&'d str>, call: Option<&'d Call<'d>>) -> Self {
        Self { code: None, reason: None, server, call }
    }

    pub fn refused(code: Code, reason: &'d str) -> Self {
        Self { code: Some(code), reason: Some(reason), server: None, call: None }
    }
}

/// Writes the record: refusals as warnings, admissions as information.
pub fn tell(ctx: &Ctx, decision: &Decision<'_>) {
    let level = if decision.code.is_some() { log::Level::Warn } else { log::Level::Info };
    if ctx.snapshot.auth.conf().is_none() || !log::log_enabled!(target: "audit", level) {
        return;
    }
    crate::observe::log::tell("audit", level, |object| members(object, ctx, decision));
}

fn members(object: &mut Object<'_>, ctx: &Ctx, decision: &Decision<'_>) {
    let principal = ctx.principal.as_deref();
    object.text(name!("request_id"), ctx.request_id());
    object.text(name!("decision"), if decision.code.is_some() { "refused" } else { "admitted" });
    if let Some(client) = ctx.arrival.client.address {
        object.address(name!("client"), Some(client));
    }
    object.text(name!("way"), principal.map(|principal| principal.way.name()));
    object.text(name!("subject"), principal.map(|principal| clip(&principal.identity.subject)));
    object.text(name!("issuer"), principal.map(|principal| clip(&principal.identity.issuer)));
    object.text(name!("tenant"), principal.and_then(|principal| principal.identity.tenant.as_deref()).map(clip));
    object.text(name!("route"), ctx.route);
    object.text(name!("server"), decision.server.map(clip));
    object.text(name!("method"), decision.call.map(|call| clip(&call.method)));
    object.text(name!("name"), decision.call.and_then(|call| Some(shown(&call.method, call.name.as_deref()?))).as_deref());
    object.text(name!("code"), decision.code.map(Code::name));
    object.text(name!("reason"), decision.reason);
}
