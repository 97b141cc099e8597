//! From a request to its caller, and from a denial to what the client is told: the only place where authentication and
//! permission meet HTTP. Every decision is told to the audit log here.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use pingora::protocols::http::ServerSession;

use super::audit::{self, Decision};
use super::ctx::Ctx;
use crate::auth::certificate::Names;
use crate::auth::challenge::{self, Wrong};
use crate::auth::permit::Denial;
use crate::auth::{Denied, Request, credential};
use crate::call::Call;
use crate::config::traffic::{Affinity, Strategy};
use crate::extend::Arriving;
use crate::mcp::headers;
use crate::principal::{Principal, Way};
use crate::reject::{Code, Reject, Verdict};
use crate::route::Route;
use crate::snapshot::State;
use crate::upstream::pool::Pool;

/// Who asks, and how they called us, to tell them what they lack.
pub struct Caller {
    pub principal: Arc<Principal>,
    place: Place,
}

/// How a client called us. Nothing is written of it before somebody is refused.
struct Place {
    host: Option<HeaderValue>,
    is_native: bool,
}

impl Place {
    fn new(client: &ServerSession, route: Route<'_>) -> Self {
        let header = client.req_header();
        let host = header.headers.get(http::header::HOST).cloned();
        let authority = || HeaderValue::from_str(header.uri.authority()?.as_str()).ok();
        Self { host: host.or_else(authority), is_native: matches!(route, Route::Native { .. }) }
    }

    /// Our public URL as the client knows it.
    fn base(&self, ctx: &Ctx) -> String {
        let oauth2 = ctx.snapshot.auth.conf().and_then(|auth| auth.oauth2.as_ref());
        if let Some(url) = oauth2.and_then(|oauth2| oauth2.resource.as_ref()) {
            return url.as_str().trim_end_matches('/').to_owned();
        }
        let host = self.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        format!("{}://{host}", if ctx.arrival.client.tls { "https" } else { "http" })
    }

    /// What `WWW-Authenticate` says to a client that wanted `server`.
    fn challenge(&self, ctx: &Ctx, server: Option<&str>, wrong: Wrong, scopes: &[String]) -> String {
        let oauth2 = ctx.snapshot.auth.conf().and_then(|auth| auth.oauth2.as_ref());
        let resource = server.filter(|_| self.is_native).map(|server| format!("/mcp/{server}")).unwrap_or_default();
        challenge::value(oauth2, &self.base(ctx), &resource, wrong, scopes)
    }

    /// Tells somebody without a good credential how to get one.
    fn unauthorized(&self, ctx: &Ctx, server: Option<&str>, wrong: Wrong, detail: &'static str) -> Reject {
        let oauth2 = ctx.snapshot.auth.conf().and_then(|auth| auth.oauth2.as_ref());
        let scopes = oauth2.map(|oauth2| oauth2.challenge_scopes.as_slice()).unwrap_or_default();
        Reject::new(Code::Unauthorized, detail).challenge(self.challenge(ctx, server, wrong, scopes))
    }
}

/// Finds out who asks.
///
/// # Errors
/// `unauthorized` with a challenge, or `auth_unavailable`.
pub async fn recognise(state: &State, client: &ServerSession, ctx: &mut Ctx, route: Route<'_>) -> Verdict<Caller> {
    let snapshot = Arc::clone(&ctx.snapshot);
    let digest = client.digest().and_then(|digest| digest.ssl_digest.clone());
    let request = Request {
        arriving: Arriving { headers: &client.req_header().headers, client: ctx.arrival.client.address },
        certificate: digest.as_ref().and_then(|digest| digest.extension.get::<Names>()),
        client: &state.shared.client,
    };
    let recognised = snapshot.auth.recognise(request, &state.shared.metrics).await;
    let place = Place::new(client, route);
    match recognised {
        Ok(principal) => {
            ctx.principal = Some(Arc::clone(&principal));
            Ok(Caller { principal, place })
        }
        Err(denied) => {
            let server = if let Route::Native { server } = route { Some(server) } else { None };
            Err(refuse(ctx, denied, &place, server))
        }
    }
}

/// Our public URL as the client knows it.
pub fn base(client: &ServerSession, ctx: &Ctx, route: Route<'_>) -> String {
    Place::new(client, route).base(ctx)
}

fn refuse(ctx: &Ctx, denied: Denied, place: &Place, server: Option<&str>) -> Reject {
    let (wrong, reason, detail) = match denied {
        Denied::Unavailable(cause) => {
            audit::tell(ctx, &Decision::refused(Code::AuthUnavailable, &cause));
            let detail = "the credential cannot be judged now; try again";
            return Reject::new(Code::AuthUnavailable, detail).because(cause).retry_after(Duration::from_secs(1));
        }
        Denied::Missing => (Wrong::Missing, "no credential".to_owned(), "a credential is required"),
        Denied::Invalid(reason) => (Wrong::InvalidToken, reason, "the credential is not valid"),
    };
    audit::tell(ctx, &Decision::refused(Code::Unauthorized, &reason));
    place.unauthorized(ctx, server, wrong, detail).because(reason)
}

/// The caller's token, where a backend of the pool is asked on its behalf. Only one that was judged: a bearer beside
/// another credential, or a key in its place, is no token of the caller's.
pub fn token(pool: &Pool, principal: &Principal, headers: &HeaderMap) -> Option<String> {
    if !matches!(principal.way, Way::Jwt | Way::OAuth2) || !pool.members.iter().any(|member| member.backend.exchanges()) {
        return None;
    }
    credential::find(headers, None).ok()?.bearer.map(str::to_owned)
}

/// What the caller is known by, where the pool's strategy keeps callers at a backend; `None` where that is not told.
pub fn affinity(pool: &Pool, principal: &Principal, ctx: &Ctx, headers: &HeaderMap) -> Option<u64> {
    let Strategy::ConsistentHash(by) = &pool.policy.balancer.strategy else { return None };
    let mut hasher = DefaultHasher::new();
    let subject = |hasher: &mut DefaultHasher| match principal.way {
        Way::Anonymous => ctx.arrival.client.address.hash(hasher),
        _ => principal.binding().hash(hasher),
    };
    match by {
        Affinity::Subject => subject(&mut hasher),
        Affinity::Session => match headers.get(&headers::SESSION) {
            Some(session) => session.as_bytes().hash(&mut hasher),
            None => subject(&mut hasher),
        },
        Affinity::Tenant => principal.identity.tenant.as_ref()?.hash(&mut hasher),
        Affinity::Header(name) => headers.get(name)?.as_bytes().hash(&mut hasher),
    }
    Some(hasher.finish())
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

    /// Permits a call. A refusal is told to the audit log here, an admission by who sends it.
    ///
    /// # Errors
    /// `forbidden` or `insufficient_scope`.
    pub fn may(&self, ctx: &Ctx, server: &str, call: &Call<'_>) -> Verdict<()> {
        let judged = ctx.snapshot.permits.judge(&self.principal, server, call);
        judged.map_err(|denial| self.deny(ctx, denial, server, Some(call)))
    }

    fn deny(&self, ctx: &Ctx, denial: Denial, server: &str, call: Option<&Call<'_>>) -> Reject {
        let (code, reason, challenge) = match denial {
            // Whoever has shown nothing yet is asked to, or clients that can log in never would.
            Denial::Role if self.principal.way == Way::Anonymous && ctx.snapshot.auth.conf().is_some() => {
                audit::tell(
                    ctx,
                    &Decision { server: Some(server), call, ..Decision::refused(Code::Unauthorized, "not for the anonymous") },
                );
                return self.place.unauthorized(ctx, Some(server), Wrong::Missing, "this takes a credential");
            }
            Denial::Role => (Code::Forbidden, "no role permits it", None),
            Denial::Audience => (Code::Forbidden, "the token was issued for another server", None),
            Denial::Scope(scopes) => {
                let challenge = self.place.challenge(ctx, Some(server), Wrong::InsufficientScope, &scopes);
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
