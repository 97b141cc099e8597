//! The operator's own authenticator over HTTP: it is shown the headers it was configured for and answers who that is.
//! `200` with an identity, `401` or `403` for a wrong credential; anything else, and silence, lets nobody in.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use ring::digest;
use serde::Deserialize;

use super::introspect::Memory;
use crate::config::identity::External;
use crate::egress::Client;
use crate::egress::web::Site;
use crate::principal::{Identity, Principal, Way};

/// One authenticator.
pub struct Authenticator {
    site: Site,
    conf: External,
    headers: Vec<HeaderName>,
    memory: Memory,
}

/// Its answer.
#[derive(Deserialize)]
struct Answer {
    subject: String,
    tenant: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    tier: Option<String>,
}

impl Authenticator {
    /// # Errors
    /// When its CA file cannot be used.
    pub fn new(conf: &External) -> Result<Self, String> {
        let headers = conf.headers.iter().filter_map(|name| name.parse().ok()).collect();
        Ok(Self { site: Site::new(&conf.site.url, conf.site.ca.as_ref())?, headers, memory: Memory::new(conf.cache.0), conf: conf.clone() })
    }

    /// Whether a request carries one of its headers.
    pub fn is_asked(&self, headers: &HeaderMap) -> bool {
        self.headers.iter().any(|name| headers.contains_key(name))
    }

    /// Whether it judges bearer tokens.
    pub fn takes_bearers(&self) -> bool {
        self.headers.contains(&http::header::AUTHORIZATION)
    }

    /// Says who it is, or why not.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub async fn judge(&self, client: &Client, headers: &HeaderMap) -> Result<Result<Arc<Principal>, &'static str>, String> {
        self.memory.recall(self.digest(headers), Box::pin(self.ask(client, headers))).await
    }

    /// What is remembered is remembered for exactly these headers: each name and value with its length.
    fn digest(&self, headers: &HeaderMap) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for (at, name) in self.headers.iter().enumerate() {
            for value in headers.get_all(name) {
                context.update(&at.to_le_bytes());
                context.update(&value.len().to_le_bytes());
                context.update(value.as_bytes());
            }
        }
        let mut whole = [0; 32];
        whole.copy_from_slice(context.finish().as_ref());
        whole
    }

    async fn ask(&self, client: &Client, headers: &HeaderMap) -> Result<(Result<Arc<Principal>, &'static str>, Option<i64>), String> {
        let mut head = self.site.request("GET");
        for name in &self.headers {
            headers.get_all(name).iter().for_each(|value| head.header(name, value));
        }
        let answer = self.site.ask(client, head, Bytes::new(), self.conf.site.timeout.0).await.map_err(|e| e.to_string())?;
        match answer.status {
            StatusCode::OK => self.read(&answer.body).map(|principal| (Ok(principal), None)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok((Err("the authenticator refused the credential"), None)),
            other => Err(format!("the authenticator answered {other}")),
        }
    }

    fn read(&self, body: &[u8]) -> Result<Arc<Principal>, String> {
        // An array would be taken for the members in order.
        let object = body.trim_ascii_start().starts_with(b"{");
        let answer: Answer = serde_json::from_slice(if object { body } else { b"" })
            .map_err(|_| "the authenticator's answer is not an identity".to_owned())?;
        if answer.subject.is_empty() {
            return Err("the authenticator's answer has an empty subject".to_owned());
        }
        let identity = Identity {
            issuer: self.site.url().to_string(),
            subject: answer.subject,
            tenant: answer.tenant,
            roles: answer.roles,
            scopes: answer.scopes,
            tier: answer.tier,
            ..Identity::default()
        };
        Ok(Principal::new(Way::External, identity))
    }
}
