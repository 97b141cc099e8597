//! The admin listener: what operators see and do. Loopback by default; a token is needed where one is configured, and
//! must be configured beyond loopback. A browser on the same machine is kept out: no cross-site request carries the
//! right Host and no Origin.

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, Response, header};
use pingora::apps::http_app::ServeHttp;
use pingora::protocols::http::ServerSession;
use serde::Serialize;
use serde_json::json;
use subtle::ConstantTimeEq as _;
use tokio::sync::oneshot;

use super::csrf::Tokens;
use crate::access::{self, Access};
use crate::digest::sha256;
use crate::observe::trace;
use crate::page::Page;
use crate::reject::{Code, Reject, Verdict};
use crate::route::Route;
use crate::snapshot::{Reload, State};

/// The admin service.
pub struct Admin {
    state: Arc<State>,
    csrf: Tokens,
}

impl Admin {
    pub fn new(state: Arc<State>) -> Self {
        Self { state, csrf: Tokens::new() }
    }
}

/// The header that shows an action to come from a page of ours.
const CSRF: &str = "x-csrf-token";

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, client: &mut ServerSession) -> Response<Vec<u8>> {
        let request_id = trace::request_id(&client.req_header().headers);
        let page = match self.answer(client).await {
            Ok(page) => page,
            Err(reject) => refusal(&reject, request_id.to_str().unwrap_or("-")),
        };
        let mut response = Response::builder()
            .status(page.status)
            .header(header::CONTENT_TYPE, page.content_type.as_ref())
            .header(header::CONTENT_LENGTH, page.body.len())
            .header(header::CACHE_CONTROL, "no-store")
            .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
            .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
            .header(header::REFERRER_POLICY, "no-referrer")
            .header("X-Request-ID", request_id);
        for (name, value) in page.headers {
            response = response.header(name, value);
        }
        response.body(page.body.to_vec()).unwrap_or_default()
    }
}

fn refusal(reject: &Reject, request_id: &str) -> Page {
    let page = Page { content_type: "application/problem+json".into(), ..Page::json(reject.code.status(), reject.problem(request_id)) };
    let page = match reject.allow {
        Some(allow) => page.with(header::ALLOW, header::HeaderValue::from_static(allow)),
        None => page,
    };
    if reject.code == Code::Unauthorized { page.with(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer")) } else { page }
}

impl Admin {
    async fn answer(&self, client: &mut ServerSession) -> Verdict<Page> {
        self.guard(client)?;
        let request = client.req_header().clone();
        let snapshot = self.state.snapshot();
        match (&request.method, request.uri.path()) {
            (&Method::GET, "/health") => super::page(&self.state, &snapshot, Route::Health, None),
            (&Method::GET, "/ready") => super::page(&self.state, &snapshot, Route::Ready, None),
            (&Method::GET, "/metrics") => Ok(super::metrics(&self.state)),
            (&Method::GET, "/admin/config") => Ok(json_page(&Effective { revision: snapshot.revision, config: &snapshot.config })),
            (&Method::GET, "/admin/breakers") => Ok(super::breakers::page(&snapshot)),
            (&Method::GET, "/admin/csrf") => Ok(json_page(&json!({ "token": self.csrf.issue() }))),
            (&Method::GET, "/admin/analytics") => super::analytics::answer(&snapshot, request.uri.query()).await,
            (&Method::POST, "/admin/reload") => self.reload().await,
            (method, "/admin/log") => super::log::answer(&snapshot, client, &method.clone()).await,
            (method, path) if path == "/admin/keys" || path.starts_with("/admin/keys/") => {
                super::keys::answer(&snapshot, client, &method.clone(), path).await
            }
            (method, path) if path == "/admin/backends" || path.starts_with("/admin/backends/") => {
                super::backends::answer(&self.state, client, &method.clone(), path).await
            }
            (method, path) if path == "/admin/cache" || path.starts_with("/admin/cache/") => {
                super::cache::answer(&snapshot, client, &method.clone(), path).await
            }
            (_, "/health" | "/ready" | "/metrics" | "/admin/config" | "/admin/breakers" | "/admin/csrf" | "/admin/analytics") => {
                Err(Reject::method_not_allowed("GET"))
            }
            (_, "/admin/reload") => Err(Reject::method_not_allowed("POST")),
            _ => Err(Reject::new(Code::NotFound, "no such path on the admin listener")),
        }
    }

    fn guard(&self, client: &ServerSession) -> Verdict<()> {
        let request = client.req_header();
        let address = client.client_addr().and_then(|address| Some(address.as_inet()?.ip()));
        let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let peer = access::Client { peer: address, address, tls: false };
        Access::default().judge(peer, host, &request.headers)?;
        // Whoever may say where backends are must not be able to say that one of them is us.
        let ours = |via: &header::HeaderValue| via.to_str().is_ok_and(|via| via.contains("mcp-gateway"));
        if request.headers.get_all(header::VIA).iter().any(ours) {
            return Err(Reject::new(Code::Forbidden, "a gateway does not drive the admin listener"));
        }
        let site = request.headers.get("sec-fetch-site").map(header::HeaderValue::as_bytes);
        if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
            return Err(Reject::new(Code::OriginForbidden, "no other site may drive the admin listener"));
        }
        // A page of ours shows that it was written by us: it alone could read the token.
        let acts = !matches!(request.method, Method::GET | Method::HEAD);
        let is_browser = request.headers.contains_key(header::ORIGIN) || request.headers.contains_key(header::COOKIE) || site.is_some();
        if acts && is_browser && !self.csrf.is_good(request.headers.get(CSRF)) {
            return Err(Reject::new(Code::OriginForbidden, "a browser's action needs X-CSRF-Token from GET /admin/csrf"));
        }
        let snapshot = self.state.snapshot();
        let Some(token) = &snapshot.config.server.admin_token else { return Ok(()) };
        let given = request.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        // Digests have one length, so that not even the token's own length can be timed.
        let digest = |text: &str| sha256(text.as_bytes());
        match given {
            Some(given) if bool::from(digest(given).ct_eq(&digest(token.expose()))) => Ok(()),
            _ => Err(Reject::new(Code::Unauthorized, "the admin listener wants Authorization: Bearer <server.admin_token>")),
        }
    }

    async fn reload(&self) -> Verdict<Page> {
        let unavailable = || Reject::new(Code::Internal, "the background service is not running");
        let (sender, receiver) = oneshot::channel();
        let wish = Reload { because: "POST /admin/reload", told: Some(sender) };
        self.state.shared.reload.send(wish).await.map_err(|_| unavailable())?;
        match receiver.await.map_err(|_| unavailable())? {
            Ok(revision) => Ok(json_page(&json!({ "reloaded": true, "revision": revision }))),
            Err(problems) => {
                let told = json!({ "reloaded": false, "problems": problems });
                Ok(Page { status: 422, ..json_page(&told) })
            }
        }
    }
}

/// The effective configuration; secrets serialize as `***`.
#[derive(Serialize)]
struct Effective<'a> {
    revision: u64,
    config: &'a crate::config::Config,
}

pub(super) fn json_page(value: &impl Serialize) -> Page {
    Page::json(200, serde_json::to_vec_pretty(value).unwrap_or_default())
}
