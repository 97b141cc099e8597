//! A backend that wants to know on whose behalf it is asked: the caller's token is exchanged for one that was issued for
//! the backend (RFC 8693), and only that one goes upstream. Exchanged tokens are kept while they are good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, header};
use moka::future::Cache;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::ask::Trouble;
use crate::config::TokenExchange;
use crate::digest::sha256;
use crate::egress::Client;
use crate::egress::web::{self, Site};

/// Tokens kept for one backend.
const KEPT: u64 = 10_000;
/// Exchanges at the same time.
const AT_ONCE: usize = 64;
/// A token is given up this long before it ends, so that it does not end on its way.
const MARGIN: Duration = Duration::from_secs(10);
/// The life of a token that does not say.
const LIFE: u64 = 60;
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// The caller's token, and what it is known by.
#[derive(Clone, Copy)]
pub struct OnBehalf<'t> {
    pub token: &'t str,
    digest: [u8; 32],
}

impl<'t> OnBehalf<'t> {
    pub fn new(token: &'t str) -> Self {
        Self { token, digest: sha256(token.as_bytes()) }
    }
}

/// Exchanges tokens for one backend.
pub struct Exchanger {
    conf: TokenExchange,
    site: Site,
    credential: HeaderValue,
    kept: Cache<[u8; 32], Exchanged>,
    room: Semaphore,
}

/// Why there is no token.
enum Failed {
    Refused(String),
    Unasked(String),
}

#[derive(Clone)]
struct Exchanged {
    header: HeaderValue,
    until: Instant,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
}

impl Exchanger {
    /// # Errors
    /// When its CA file cannot be used.
    pub fn new(conf: &TokenExchange) -> Result<Self, String> {
        let credential = web::basic(&conf.client_id, conf.client_secret.expose());
        let site = Site::new(&conf.site.url, conf.site.ca.as_ref())?;
        Ok(Self { site, credential, kept: Cache::new(KEPT), room: Semaphore::new(AT_ONCE), conf: conf.clone() })
    }

    /// `Authorization` for a request on a caller's behalf.
    ///
    /// # Errors
    /// [`Trouble::NoToken`] if the authorization server grants none, or there is none to exchange.
    pub async fn header(&self, client: &Client, on_behalf: Option<OnBehalf<'_>>) -> Result<HeaderValue, Trouble> {
        let on_behalf = on_behalf.ok_or(Trouble::NoToken("the caller has no token to exchange".to_owned()))?;
        if let Some(kept) = self.kept.get(&on_behalf.digest).await {
            if kept.until > Instant::now() {
                return Ok(kept.header);
            }
            self.kept.invalidate(&on_behalf.digest).await;
        }
        let asked = self.kept.try_get_with(on_behalf.digest, Box::pin(self.ask(client, on_behalf.token)));
        asked.await.map(|exchanged| exchanged.header).map_err(|failed: Arc<Failed>| match &*failed {
            Failed::Refused(cause) => Trouble::NoToken(cause.clone()),
            Failed::Unasked(cause) => Trouble::NoExchange(cause.clone()),
        })
    }

    /// Gives up a token that the backend refused.
    pub async fn forget(&self, on_behalf: OnBehalf<'_>) {
        self.kept.invalidate(&on_behalf.digest).await;
    }

    fn form(&self, token: &str) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            .append_pair("subject_token", token)
            .append_pair("subject_token_type", ACCESS_TOKEN)
            .append_pair("requested_token_type", ACCESS_TOKEN);
        for (name, value) in [("audience", &self.conf.audience), ("scope", &self.conf.scope)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        form.finish()
    }

    async fn ask(&self, client: &Client, token: &str) -> Result<Exchanged, Failed> {
        let _place = self.room.try_acquire().map_err(|_| Failed::Unasked("too many questions at once".to_owned()))?;
        let mut head = self.site.request("POST");
        head.header(&header::CONTENT_TYPE, &HeaderValue::from_static("application/x-www-form-urlencoded"));
        head.header(&header::AUTHORIZATION, &self.credential);
        let answer = self.site.ask(client, head, Bytes::from(self.form(token)), self.conf.site.timeout.0).await;
        let answer = answer.map_err(|e| Failed::Unasked(e.to_string()))?;
        match answer.status.as_u16() {
            200..=299 => read(&answer.body).map_err(Failed::Unasked),
            400 | 401 | 403 => Err(Failed::Refused(format!("the token endpoint answered {}", answer.status))),
            _ => Err(Failed::Unasked(format!("the token endpoint answered {}", answer.status))),
        }
    }
}

fn read(body: &[u8]) -> Result<Exchanged, String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "the token endpoint's answer is no token".to_owned())?;
    if !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err("the exchanged token is no bearer token".to_owned());
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {}", answer.access_token)).map_err(|_| "the exchanged token cannot be sent")?;
    header.set_sensitive(true);
    let life = Duration::from_secs(answer.expires_in.unwrap_or(LIFE).min(86_400));
    Ok(Exchanged { header, until: Instant::now() + life.saturating_sub(MARGIN) })
}
