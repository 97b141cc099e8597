//! The admin listener: what operators see and do. Loopback by default; a token is needed where one is configured, and
//! must be configured beyond loopback. A browser on the same machine is kept out: no cross-site request carries the
//! right Host and no Origin. The operator's page (`console`) is here as well, and lets browsers in that showed the token once.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use pingora::apps::http_app::ServeHttp;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use serde::Serialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::body;
use super::console::act::{self, Form};
use super::console::overview::Overview;
use super::console::{self, Playground, login};
use super::csrf::Tokens;
use crate::access::{self, Access};
use crate::observe::trace;
use crate::page::Page;
use crate::reject::{Code, Reject, Verdict};
use crate::route::Route;
use crate::snapshot::{Reload, Snapshot, State};

/// The admin service.
pub struct Admin {
    state: Arc<State>,
    csrf: Tokens,
    playground: Playground,
}

impl Admin {
    pub fn new(state: Arc<State>) -> Self {
        Self { state, csrf: Tokens::new(), playground: Playground::new() }
    }
}

/// What stands on every answer that does not say otherwise.
const USUAL: [(HeaderName, &str); 4] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// The operator's page.
const PAGE: &str = "/admin/";
const LOGIN: &str = "/admin/login";
const LOGOUT: &str = "/admin/logout";
/// What its forms are sent to.
const FORMS: [&str; 3] = [LOGIN, LOGOUT, "/admin/act"];
/// What is only read.
const READ: [&str; 9] =
    ["/health", "/ready", "/metrics", PAGE, "/admin/overview", "/admin/config", "/admin/breakers", "/admin/csrf", "/admin/analytics"];

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
        let mut response = Response::new(page.body.to_vec());
        *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        for (name, value) in USUAL {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.extend(HeaderValue::from_str(&page.content_type).map(|value| (header::CONTENT_TYPE, value)));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(page.body.len()));
        headers.insert("x-request-id", request_id);
        // What a page says of itself stands instead of the usual.
        headers.extend(page.headers.into_iter().map(|(name, value)| (Some(name), value)));
        response
    }
}

/// Why a path is not answered.
fn elsewhere(path: &str) -> Reject {
    if READ.contains(&path) {
        return Reject::method_not_allowed("GET");
    }
    if path == "/admin/reload" || path == "/admin/try" || FORMS.contains(&path) {
        return Reject::method_not_allowed("POST");
    }
    Reject::new(Code::NotFound, "no such path on the admin listener")
}

fn address(client: &ServerSession) -> Option<IpAddr> {
    Some(client.client_addr()?.as_inet()?.ip())
}

fn refusal(reject: &Reject, request_id: &str) -> Page {
    let page = Page { content_type: "application/problem+json".into(), ..Page::json(reject.code.status(), reject.problem(request_id)) };
    let page = match reject.allow {
        Some(allow) => page.with(header::ALLOW, HeaderValue::from_static(allow)),
        None => page,
    };
    if reject.code == Code::Unauthorized { page.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")) } else { page }
}

impl Admin {
    async fn answer(&self, client: &mut ServerSession) -> Verdict<Page> {
        let snapshot = self.state.snapshot();
        if let Some(page) = self.guard(client, &snapshot)? {
            return Ok(page);
        }
        let request = client.req_header().clone();
        match (&request.method, request.uri.path()) {
            (&Method::GET, "/health") => super::page(&self.state, &snapshot, Route::Health, None),
            (&Method::GET, "/ready") => super::page(&self.state, &snapshot, Route::Ready, None),
            (&Method::GET, "/metrics") => Ok(super::metrics(&self.state)),
            (&Method::GET, PAGE) => Ok(self.page(&snapshot)),
            (&Method::GET, "/admin/overview") => Ok(json_page(&Overview::gather(&self.state, &snapshot))),
            (&Method::GET, "/admin/config") => Ok(json_page(&Effective { revision: snapshot.revision, config: &snapshot.config })),
            (&Method::GET, "/admin/breakers") => Ok(super::breakers::page(&snapshot)),
            (&Method::GET, "/admin/csrf") => Ok(json_page(&json!({ "token": self.csrf.issue() }))),
            (&Method::GET, "/admin/analytics") => super::analytics::answer(&snapshot, request.uri.query()).await,
            (&Method::POST, "/admin/reload") => self.reload().await,
            (method, "/admin/log") => super::log::answer(&snapshot, client, &method.clone()).await,
            (&Method::POST, "/admin/try") => {
                let body = body::read(client).await?;
                self.playground.call(&snapshot, address(client), &body).await
            }
            (&Method::POST, path) if FORMS.contains(&path) => Ok(self.submit(client, &request, &snapshot).await),
            (method, path) if path == "/admin/keys" || path.starts_with("/admin/keys/") => {
                super::keys::answer(&snapshot, client, &method.clone(), path).await
            }
            (method, path) if path == "/admin/backends" || path.starts_with("/admin/backends/") => {
                super::backends::answer(&self.state, client, &method.clone(), path).await
            }
            (method, path) if path == "/admin/cache" || path.starts_with("/admin/cache/") => {
                super::cache::answer(&snapshot, client, &method.clone(), path).await
            }
            (_, path) => Err(elsewhere(path)),
        }
    }

    fn page(&self, snapshot: &Snapshot) -> Page {
        console::page(&self.state, snapshot, self.csrf.issue(), snapshot.config.server.admin_token.is_some())
    }

    /// Keeps out whoever may not be here. Gives back what is answered to those who may, in a browser, come in yet.
    fn guard(&self, client: &ServerSession, snapshot: &Snapshot) -> Verdict<Option<Page>> {
        let (request, address) = (client.req_header(), address(client));
        let path = request.uri.path();
        let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let peer = access::Client { peer: address, address, tls: false };
        Access::default().judge(peer, host, &request.headers)?;
        // Whoever may say where backends are must not be able to say that one of them is us.
        let ours = |via: &HeaderValue| via.to_str().is_ok_and(|via| via.contains("mcp-gateway"));
        if request.headers.get_all(header::VIA).iter().any(ours) {
            return Err(Reject::new(Code::Forbidden, "a gateway does not drive the admin listener"));
        }
        let site = request.headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        let is_page = request.method == Method::GET && matches!(path, "/" | "/admin" | PAGE);
        if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
            let follows_a_link = request.headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
            if is_page && follows_a_link {
                return Ok(Some(console::onward()));
            }
            return Err(Reject::new(Code::OriginForbidden, "no other site may drive the admin listener"));
        }
        // A page of ours shows that it was written by us: it alone could read the token. Forms show it in their bodies.
        let acts = !matches!(request.method, Method::GET | Method::HEAD) && !FORMS.contains(&path);
        let is_browser = request.headers.contains_key(header::ORIGIN) || request.headers.contains_key(header::COOKIE) || site.is_some();
        if acts && is_browser && !self.csrf.is_good(request.headers.get(CSRF).map(HeaderValue::as_bytes)) {
            return Err(Reject::new(Code::OriginForbidden, "a browser's action needs X-CSRF-Token from GET /admin/csrf"));
        }
        if request.method == Method::GET && matches!(path, "/" | "/admin") {
            return Ok(Some(console::see(PAGE)));
        }
        if let Some(file) = console::file(path).filter(|_| request.method == Method::GET) {
            return Ok(Some(file));
        }
        if self.is_in(request, snapshot) || path == LOGIN {
            return Ok(None);
        }
        let asks = "the admin listener wants Authorization: Bearer <server.admin_token>";
        if is_page { Ok(Some(console::gate(None))) } else { Err(Reject::new(Code::Unauthorized, asks)) }
    }

    /// Whether a request shows the admin token, or the cookie of who showed it, or none is wanted.
    fn is_in(&self, request: &RequestHeader, snapshot: &Snapshot) -> bool {
        let Some(token) = &snapshot.config.server.admin_token else { return true };
        let given = request.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        given.is_some_and(|given| login::is_token(given, token)) || login::is_in(&self.state.shared.sealer, token, &request.headers)
    }

    /// Does what a form says and leads on.
    async fn submit(&self, client: &mut ServerSession, request: &RequestHeader, snapshot: &Snapshot) -> Page {
        let body = body::read(client).await;
        match body.and_then(|body| Form::read(request, &body)) {
            Ok(form) if request.uri.path() == LOGIN => self.login(client, request, snapshot, &form),
            Ok(form) => {
                let done = self.act(request, snapshot, &form).await;
                done.unwrap_or_else(|reject| console::told(reject.code.status(), &reject.detail))
            }
            Err(reject) => console::told(reject.code.status(), &reject.detail),
        }
    }

    /// Another site can neither read what a login brings nor, without the token, bring one about.
    fn login(&self, client: &ServerSession, request: &RequestHeader, snapshot: &Snapshot, form: &Form) -> Page {
        let Some(token) = &snapshot.config.server.admin_token else { return console::see(PAGE) };
        if !login::is_token(&form.token, token) {
            log::warn!("admin: a wrong token was given in the form, from {:?}", address(client));
            return console::gate(Some("This is not the admin token."));
        }
        log::info!("admin: somebody at {:?} signed in", address(client));
        // We do not speak TLS here; a proxy in front that does says so.
        let secure = request.headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
        let cookie = login::cookie(&self.state.shared.sealer, token, secure);
        cookie.into_iter().fold(console::see(PAGE), |page, cookie| page.with(header::SET_COOKIE, cookie))
    }

    async fn act(&self, request: &RequestHeader, snapshot: &Snapshot, form: &Form) -> Verdict<Page> {
        if !self.csrf.is_good(Some(form.csrf.as_bytes())) {
            return Err(Reject::new(
                Code::OriginForbidden,
                "this form is older than the gateway's process, or not its own; load the page anew",
            ));
        }
        if request.uri.path() == LOGOUT {
            return Ok(login::farewell().into_iter().fold(console::see(PAGE), |page, cookie| page.with(header::SET_COOKIE, cookie)));
        }
        if form.action == "reload" {
            // How it went is what the page shows next.
            self.reload().await?;
            return Ok(console::see("/admin/#configuration"));
        }
        act::act(&self.state, snapshot, form).map(console::see)
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
