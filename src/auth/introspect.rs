//! Opaque tokens, introspected (RFC 7662). An answer is believed for a while, so a revocation is seen that much later at
//! most; many requests with one token ask once; a flood of tokens cannot make a flood of questions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, header};
use moka::future::Cache;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::claims::{self, Audience, Written};
use crate::config::identity::Introspection;
use crate::egress::Client;
use crate::egress::web::{self, Site};
use crate::principal::{Principal, Way};

/// Tokens remembered.
const REMEMBERED: u64 = 50_000;
/// Questions at the same time.
const AT_ONCE: usize = 256;
/// How long a credential waits for its turn: a flood of strangers must not turn away who comes among them at once.
const QUEUE: Duration = Duration::from_secs(2);
/// How long a refusal is remembered at most: a token may become active.
const REFUSAL: Duration = Duration::from_secs(5);

/// What an authority said of a credential, and how long that is believed.
#[derive(Clone)]
pub struct Said {
    pub verdict: Result<Arc<Principal>, &'static str>,
    until: Instant,
}

impl Said {
    fn new(verdict: Result<Arc<Principal>, &'static str>, cache: Duration, expires: Option<i64>) -> Self {
        let left = |at: i64| Duration::from_secs(u64::try_from(at.saturating_sub(jiff::Timestamp::now().as_second())).unwrap_or(0));
        let limit = if verdict.is_ok() { cache } else { cache.min(REFUSAL) };
        Self { verdict, until: Instant::now() + expires.map_or(limit, |at| limit.min(left(at))) }
    }
}

/// What authorities said lately, by a digest of the credential. One question is asked for all who wait for it.
pub struct Memory {
    cache: Duration,
    said: Cache<[u8; 32], Said>,
    room: Semaphore,
}

impl Memory {
    pub fn new(cache: Duration) -> Self {
        Self { cache, said: Cache::builder().max_capacity(REMEMBERED).time_to_live(cache).build(), room: Semaphore::new(AT_ONCE) }
    }

    /// What was said of a credential, asked with `ask` where nothing is remembered.
    ///
    /// # Errors
    /// Why nobody could be asked; that is not remembered.
    pub async fn recall<F>(&self, digest: [u8; 32], ask: F) -> Result<Result<Arc<Principal>, &'static str>, String>
    where
        F: Future<Output = Result<(Result<Arc<Principal>, &'static str>, Option<i64>), String>>,
    {
        if let Some(said) = self.said.get(&digest).await {
            if said.until > Instant::now() {
                return Ok(said.verdict);
            }
            self.said.invalidate(&digest).await;
        }
        let asked = self.said.try_get_with(digest, async {
            let place = tokio::time::timeout(QUEUE, self.room.acquire()).await;
            let _place = place.map_err(|_| "too many questions at once".to_owned())?;
            let (verdict, expires) = ask.await?;
            Ok::<_, String>(Said::new(verdict, self.cache, expires))
        });
        asked.await.map(|said| said.verdict).map_err(|cause| cause.to_string())
    }
}

/// The introspection endpoint of one authorization server.
pub struct Introspector {
    site: Site,
    conf: Introspection,
    audience: Audience,
    credential: HeaderValue,
    memory: Memory,
}

impl Introspector {
    /// # Errors
    /// When its CA file cannot be used.
    pub fn new(conf: &Introspection, resource: Option<&url::Url>) -> Result<Self, String> {
        Ok(Self {
            site: Site::new(&conf.site.url, conf.site.ca.as_ref())?,
            audience: Audience::new(&conf.audience, resource),
            credential: web::basic(&conf.client_id, conf.client_secret.expose()),
            memory: Memory::new(conf.cache.0),
            conf: conf.clone(),
        })
    }

    /// Says who a token stands for, or why it is not good.
    ///
    /// # Errors
    /// Why the endpoint could not be asked.
    pub async fn judge(&self, client: &Client, digest: [u8; 32], token: &str) -> Result<Result<Arc<Principal>, &'static str>, String> {
        self.memory.recall(digest, Box::pin(self.ask(client, token))).await
    }

    async fn ask(&self, client: &Client, token: &str) -> Result<(Result<Arc<Principal>, &'static str>, Option<i64>), String> {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("token", token)
            .append_pair("token_type_hint", "access_token")
            .finish();
        let mut head = self.site.request("POST");
        head.header(&header::CONTENT_TYPE, &HeaderValue::from_static("application/x-www-form-urlencoded"));
        head.header(&header::AUTHORIZATION, &self.credential);
        let answer = self.site.ask(client, head, Bytes::from(form), self.conf.site.timeout.0).await.map_err(|e| e.to_string())?;
        if !answer.status.is_success() {
            return Err(format!("the introspection endpoint answered {}", answer.status));
        }
        let written: Written = serde_json::from_slice(&answer.body).map_err(|_| "the introspection is not a JSON object".to_owned())?;
        Ok((self.read(&written), written.get("exp").and_then(Value::as_i64)))
    }

    fn read(&self, written: &Written) -> Result<Arc<Principal>, &'static str> {
        if written.get("active") != Some(&Value::Bool(true)) {
            return Err("the token is not active");
        }
        if written.get("exp").is_some_and(|exp| exp.as_i64().is_none_or(|exp| exp <= jiff::Timestamp::now().as_second())) {
            return Err("the token is expired");
        }
        let servers = self.audience.judge(written.get("aud"))?;
        let issuer = written.get("iss").and_then(Value::as_str).unwrap_or_else(|| self.site.url().as_str());
        let mut identity = claims::identity(written, &self.conf.claims, issuer)?;
        identity.servers = servers;
        Ok(Principal::new(Way::OAuth2, identity))
    }
}
