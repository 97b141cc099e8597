//! The operator's page: `GET /admin/` on the admin listener, for the engineer at 3 a.m. Server-rendered from one look at
//! what is in memory (`overview`, from `fleet`, `keeping` and `attention`); without JavaScript it can be read and its
//! buttons work, with it it renews itself and has the playground. Everything shown was written by others, and every text is
//! escaped by the template (`page.html`); numbers become words in `words` and lines in `chart`.
//!
//! `login` lets a browser in where a token is required, `act` does what the buttons say, `playground` calls a tool as a
//! caller would.

pub mod act;
mod attention;
mod chart;
mod fleet;
mod keeping;
pub mod login;
pub mod overview;
mod playground;
mod words;

use std::borrow::Cow;

use askama::Template;
use http::header::{self, HeaderValue};
pub use playground::Playground;

use self::chart::Chart;
use self::fleet::Server;
use self::overview::Overview;
use crate::config::Config;
use crate::page::Page;
use crate::snapshot::{Snapshot, State};

/// Nothing from elsewhere is loaded or talked to, and nothing written into the page is executed.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
const HTML: &str = "text/html; charset=utf-8";

/// The page.
#[derive(Template)]
#[template(path = "page.html", config = "src/sidecar/console/askama.toml")]
struct Console<'p> {
    overview: &'p Overview,
    requests: Chart,
    latency: Chart,
    /// For the forms, and what JavaScript sends.
    csrf: String,
    /// Whether there is something to sign out of.
    signed_in: bool,
    /// Headers that may carry a caller's credential.
    credentials: Vec<&'p str>,
    /// Where callers call.
    public: String,
}

impl Console<'_> {
    fn healthy(&self) -> usize {
        self.overview.backends.iter().filter(|backend| backend.status != "unhealthy").count()
    }

    #[expect(clippy::unused_self, reason = "templates call methods")]
    fn tools(&self, server: &Server) -> String {
        let all = server.tools_count.unwrap_or_default().max(server.tools.len());
        let shown = server.tools.len();
        let of = if shown < all { format!(", the first {shown}") } else { String::new() };
        words::count(all, "tool", "tools") + &of
    }
}

/// The page as it is now.
pub fn page(state: &State, snapshot: &Snapshot, csrf: String, signed_in: bool) -> Page {
    let overview = Overview::gather(state, snapshot);
    let stretches = &overview.traffic.stretches;
    let console = Console {
        requests: chart::requests(stretches),
        latency: chart::latency(stretches),
        csrf,
        signed_in,
        credentials: credentials(&snapshot.config),
        public: format!("http://{}", snapshot.config.server.listen),
        overview: &overview,
    };
    html(200, &console)
}

/// Headers in which callers may show who they are, the likeliest first.
fn credentials(config: &Config) -> Vec<&str> {
    let Some(auth) = &config.auth else { return Vec::new() };
    let keys = auth.api_keys.iter().map(|keys| keys.header.as_str());
    let external = auth.external.iter().flat_map(|external| external.headers.iter().map(String::as_str));
    let mut all = Vec::new();
    for header in keys.chain(["authorization"]).chain(external) {
        if !all.contains(&header) {
            all.push(header);
        }
    }
    all
}

/// The door: where the token is asked for, or something is told to somebody in a browser.
#[derive(Template)]
#[template(path = "gate.html", config = "src/sidecar/console/askama.toml")]
struct Gate<'g> {
    title: &'g str,
    text: Option<&'g str>,
    form: bool,
    /// Whether it goes on to the page by itself.
    onward: bool,
}

/// Asks for the token; `text` says why the last one was none.
pub fn gate(text: Option<&str>) -> Page {
    let page = html(401, &Gate { title: "Sign in", text, form: true, onward: false });
    page.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

/// Tells somebody in a browser what came of it.
pub fn told(status: u16, text: &str) -> Page {
    html(status, &Gate { title: "Not done", text: Some(text), form: false, onward: false })
}

/// For a link on a page of another site: goes on from here, since a browser that comes from there sends no cookie.
pub fn onward() -> Page {
    html(200, &Gate { title: "One moment", text: None, form: false, onward: true })
}

fn html(status: u16, template: &impl Template) -> Page {
    // What is shown is in memory, so this cannot fail; an empty page would show that it did.
    let body = template.render().unwrap_or_default();
    dressed(Page { content_type: Cow::Borrowed(HTML), ..Page::json(status, body) })
}

/// A file the page loads; there is nothing of ours to know in it.
pub fn file(path: &str) -> Option<Page> {
    let (content_type, text) = match path {
        "/admin/page.css" => ("text/css; charset=utf-8", include_str!("page.css")),
        "/admin/page.js" => ("text/javascript; charset=utf-8", include_str!("page.js")),
        _ => return None,
    };
    Some(dressed(Page { content_type: Cow::Borrowed(content_type), ..Page::json(200, text) }))
}

/// A browser that is told `no-referrer` names no origin with a form, and the forms are judged by it.
fn dressed(page: Page) -> Page {
    page.with(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))
        .with(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"))
}

/// Sends a browser to another page of ours.
pub fn see(place: &'static str) -> Page {
    Page::json(303, "").with(header::LOCATION, HeaderValue::from_static(place))
}
