//! From a request to its caller, and from a denial to what the client is told: the only place where authentication and
//! permission meet HTTP. Every decision is told to the audit log here.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use pingora::protocols::http::ServerSession;

use super::admit::host;
use super::audit::{self, Decision};
use super::ctx::Ctx;
use crate::auth::certificate::Names;
use crate::auth::challenge::{self, Wrong};
use crate::auth::permit::Denial;
use crate::auth::{Denied, Request, credential};
use crate::call::Call;
use crate::extend::Arriving;
use crate::principal::Principal;
use crate::reject::{Code, Reject, Verdict};
use crate::route::Route;
use crate::snapshot::State;
use crate::upstream::pool::Pool;

/// Who asks, and how to tell them what they lack.
pub struct Caller {
    pub principal: Arc<Principal>,
    /// Our public URL, and the protected resource below it.
    base: String,
    resource: String,
}

/// Finds out who asks.
///
/// # Errors
/// `unauthorized` with a challenge, or `auth_unavailable`.
pub async fn recognise(state: &State, client: &ServerSession, ctx: &mut Ctx, route: Route<'_>) -> Verdict<Caller> {
    let snapshot = Arc::clone(&ctx.snapshot);
    let header = client.req_header();
    let digest = client.digest().and_then(|digest| digest.ssl_digest.clone());
    let request = Request {
        arriving: Arriving { headers: &header.headers, client: ctx.arrival.client.address },
        certificate: digest.as_ref().and_then(|digest| digest.extension.get::<Names>()),
        client: &state.shared.client,
    };
    let recognised = snapshot.auth.recognise(request, &state.shared.metrics).await;
    match recognised {
        Ok(principal) => {
            ctx.principal = Some(Arc::clone(&principal));
            let (base, resource) = if snapshot.auth.conf().is_some() { place(client, ctx, route) } else { Default::default() };
            Ok(Caller { principal, base, resource })
        }
        Err(denied) => {
            let (base, resource) = place(client, ctx, route);
            Err(refuse(ctx, denied, &base, &resource))
        }
    }
}

/// Our public URL as the client knows it, and the resource it wants.
pub fn place(client: &ServerSession, ctx: &Ctx, route: Route<'_>) -> (String, String) {
    let oauth2 = ctx.snapshot.auth.conf().and_then(|auth| auth.oauth2.as_ref());
    let base = match oauth2.and_then(|oauth2| oauth2.resource.as_ref()) {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => format!("{}://{}", if ctx.arrival.client.tls { "https" } else { "http" }, host(client).unwrap_or("localhost")),
    };
    let resource = match route {
        Route::Native { server } => format!("/mcp/{server}"),
        Route::ProtectedResource(path) => path.to_owned(),
        _ => String::new(),
    };
    (base, resource)
}

fn refuse(ctx: &Ctx, denied: Denied, base: &str, resource: &str) -> Reject {
    let (wrong, reason) = match denied {
        Denied::Unavailable(cause) => {
            audit::tell(ctx, &Decision::refused(Code::AuthUnavailable, &cause));
            let detail = "the credential cannot be judged now; try again";
            return Reject::new(Code::AuthUnavailable, detail).because(cause).retry_after(Duration::from_secs(1));
        }
        Denied::Missing => (Wrong::Missing, "no credential".to_owned()),
        Denied::Invalid(reason) => (Wrong::InvalidToken, reason),
    };
    audit::tell(ctx, &Decision::refused(Code::Unauthorized, &reason));
    let oauth2 = ctx.snapshot.auth.conf().and_then(|auth| auth.oauth2.as_ref());
    let scopes = oauth2.map(|oauth2| oauth2.challenge_scopes.as_slice()).unwrap_or_default();
    let detail = if wrong == Wrong::Missing { "a credential is required" } else { "the credential is not valid" };
    Reject::new(Code::Unauthorized, detail).because(reason).challenge(challenge::value(oauth2, base, resource, wrong, scopes))
}

/// The caller's token, where a backend of the pool is asked on its behalf. It was judged before; nothing else keeps it.
pub fn token(pool: &Pool, headers: &HeaderMap) -> Option<String> {
    if !pool.members.iter().any(|member| member.backend.exchanges()) {
        return None;
    }
    credential::find(headers, None).ok()?.bearer.map(str::to_owned)
}

impl Caller {
    /// Lets the caller in to a server.
    ///
    /// # Errors
    /// `forbidden` or `insufficient_scope`.
    pub fn enter(&self, ctx: &Ctx, server: &str) -> Verdict<()> {
        let permitted = ctx.snapshot.permits.enter(&self.principal, server);
        permitted.map_err(|denial| self.deny(ctx, denial, server, None))
    }

    /// Permits a call.
    ///
    /// # Errors
    /// `forbidden` or `insufficient_scope`.
    pub fn may(&self, ctx: &Ctx, server: &str, call: &Call<'_>) -> Verdict<()> {
        match ctx.snapshot.permits.judge(&self.principal, server, call) {
            Ok(()) => {
                audit::tell(ctx, &Decision::admitted(server, call));
                Ok(())
            }
            Err(denial) => Err(self.deny(ctx, denial, server, Some(call))),
        }
    }

    fn deny(&self, ctx: &Ctx, denial: Denial, server: &str, call: Option<&Call<'_>>) -> Reject {
        let oauth2 = ctx.snapshot.auth.conf().and_then(|auth| auth.oauth2.as_ref());
        let (code, reason, challenge) = match denial {
            Denial::Role => (Code::Forbidden, "no role permits it", None),
            Denial::Audience => (Code::Forbidden, "the token was issued for another server", None),
            Denial::Scope(scopes) => {
                let challenge = challenge::value(oauth2, &self.base, &self.resource, Wrong::InsufficientScope, &scopes);
                (Code::InsufficientScope, "the token's scopes do not permit it", Some(challenge))
            }
        };
        audit::tell(ctx, &Decision { server: Some(server), call, ..Decision::refused(code, reason) });
        let reject = Reject::new(code, Cow::Borrowed(reason));
        match challenge {
            Some(challenge) => reject.challenge(challenge),
            None => reject,
        }
    }
}
