//! The audit log: one record for each decision about a caller (target `audit`): who, what, admitted or why refused. Never
//! an argument, never a credential. Written where authentication is configured; a batch has a record for each request.

use std::borrow::Cow;

use serde::Serialize;

use super::ctx::Ctx;
use crate::call::Call;
use crate::mcp::method::shown;
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

#[derive(Serialize)]
struct Record<'a> {
    request_id: &'a str,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    way: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    route: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Writes the record: refusals as warnings, admissions as information.
pub fn tell(ctx: &Ctx, decision: &Decision<'_>) {
    let level = if decision.code.is_some() { log::Level::Warn } else { log::Level::Info };
    if ctx.snapshot.auth.conf().is_none() || !log::log_enabled!(target: "audit", level) {
        return;
    }
    let principal = ctx.principal.as_deref();
    let record = Record {
        request_id: ctx.request_id(),
        decision: if decision.code.is_some() { "refused" } else { "admitted" },
        client: ctx.arrival.client.address,
        way: principal.map(|principal| principal.way.name()),
        subject: principal.map(|principal| clip(&principal.identity.subject)),
        issuer: principal.map(|principal| clip(&principal.identity.issuer)),
        tenant: principal.and_then(|principal| principal.identity.tenant.as_deref()).map(clip),
        route: ctx.route,
        server: decision.server.map(clip),
        method: decision.call.map(|call| clip(&call.method)),
        name: decision.call.and_then(|call| Some(shown(&call.method, call.name.as_deref()?))),
        code: decision.code.map(Code::name),
        reason: decision.reason,
    };
    crate::observe::log::tell("audit", level, &record);
}
