//! The keys of an issuer (JWK Set, RFC 7517): fetched in the background, asked for again when a token names a key we do
//! not know (at most once in half a minute, whoever asks), and kept through any outage. Only keys that are certainly
//! meant for verifying are taken.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};

use crate::config::identity;
use crate::egress::Client;
use crate::egress::web::Site;

/// How often keys are fetched without anyone asking.
const REFRESH: Duration = Duration::from_secs(300);
/// How often an unknown key may make us ask.
const UNKNOWN: Duration = Duration::from_secs(30);
/// After a failed fetch.
const RETRY: Duration = Duration::from_secs(2);
/// How long a request waits for the keys it made us ask for.
const PATIENCE: Duration = Duration::from_secs(6);
/// Bits below which an RSA key is too weak (RFC 7518 §3.3).
const RSA_BITS: usize = 2048;

/// One usable key.
pub struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    pub decoding: DecodingKey,
}

/// The keys as they were fetched once.
pub struct Keys {
    keys: Vec<Arc<Key>>,
    body: Bytes,
}

/// What a look for a key found.
pub enum Found {
    Key(Arc<Key>),
    /// No key of that name: there may be one by now.
    Unknown,
    /// Keys are there, but none may verify this.
    Unfit,
    /// No key was ever fetched.
    Nothing,
}

/// The keys of one URL. Lives on through reloads.
pub struct KeySet {
    site: Site,
    timeout: Duration,
    current: ArcSwapOption<Keys>,
    wanted: Notify,
    /// Fetches begun, and the last one ended, failed ones as well.
    begun: AtomicU64,
    ended: watch::Sender<u64>,
    forced: Mutex<Option<Forced>>,
}

/// A fetch that an unknown key made us want.
#[derive(Clone, Copy)]
struct Forced {
    at: Instant,
    /// The fetch that began after it was wanted.
    fetch: u64,
}

impl KeySet {
    /// # Errors
    /// When the site's CA file cannot be used.
    pub fn new(conf: &identity::Site) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            site: Site::new(&conf.url, conf.ca.as_ref())?,
            timeout: conf.timeout.0,
            current: ArcSwapOption::empty(),
            wanted: Notify::new(),
            begun: AtomicU64::new(0),
            ended: watch::Sender::new(0),
            forced: Mutex::new(None),
        }))
    }

    /// Looks for the key a token names, or for the only one that fits where it names none.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Found {
        let Some(current) = self.current.load_full() else { return Found::Nothing };
        let fits = |key: &&Arc<Key>| key.algorithms.contains(&algorithm);
        let mut named = current.keys.iter().filter(|key| kid.is_none_or(|kid| key.kid.as_deref() == Some(kid))).peekable();
        if named.peek().is_none() {
            return Found::Unknown;
        }
        let mut fitting = named.filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Found::Key(Arc::clone(key)),
            _ => Found::Unfit,
        }
    }

    /// Whether a key is still one of the issuer's.
    pub fn holds(&self, key: &Arc<Key>) -> bool {
        self.current.load().as_ref().is_some_and(|current| current.keys.iter().any(|held| Arc::ptr_eq(held, key)))
    }

    /// Asks for the keys anew, unless that was done a moment ago, and waits until they came, or did not; whoever comes
    /// meanwhile waits along. `false` if nothing came in time. What was fetched may be there before this is asked for: the
    /// fetch is quicker than a thread that is not given its turn.
    pub async fn refreshed(&self) -> bool {
        let fetch = self.force();
        self.ended(fetch).await
    }

    /// The fetch to wait for, wanted now or a moment ago.
    fn force(&self) -> u64 {
        let mut forced = self.forced.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(forced) = forced.filter(|forced| forced.at.elapsed() < UNKNOWN) {
            return forced.fetch;
        }
        // One under way may have read the keys before the new one was among them.
        let fetch = self.begun.load(Ordering::SeqCst) + 1;
        *forced = Some(Forced { at: Instant::now(), fetch });
        self.wanted.notify_one();
        fetch
    }

    /// Waits for a first answer, for those who come before it.
    pub async fn first(&self) {
        self.ended(1).await;
    }

    async fn ended(&self, fetch: u64) -> bool {
        let mut ended = self.ended.subscribe();
        let waited = tokio::time::timeout(PATIENCE, ended.wait_for(|last| *last >= fetch)).await;
        matches!(waited, Ok(Ok(_)))
    }

    /// Whether any keys are known.
    pub fn is_known(&self) -> bool {
        self.current.load().is_some()
    }

    /// Keeps the keys fresh for as long as the task lives.
    pub async fn tend(self: Arc<Self>, client: Arc<Client>) {
        loop {
            let fetch = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let fetched = self.fetch(&client).await;
            if let Err(cause) = &fetched {
                log::warn!("the keys at {} cannot be fetched, those known go on serving: {cause}", self.site.url());
            }
            self.ended.send_replace(fetch);
            let pause = if fetched.is_err() { if self.current.load().is_some() { UNKNOWN } else { RETRY } } else { REFRESH };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    async fn fetch(&self, client: &Client) -> Result<(), String> {
        let answer = self.site.ask(client, self.site.request("GET"), Bytes::new(), self.timeout).await.map_err(|e| e.to_string())?;
        if !answer.status.is_success() {
            return Err(format!("answered {}", answer.status));
        }
        // The same keys stay the same objects, so that tokens verified with them stay remembered.
        if self.current.load().as_ref().is_some_and(|current| current.body == answer.body) {
            return Ok(());
        }
        let keys = read(&answer.body)?;
        if keys.is_empty() {
            log::warn!("{} has no usable key", self.site.url());
        }
        self.current.store(Some(Arc::new(Keys { keys, body: answer.body })));
        Ok(())
    }
}

#[derive(Deserialize)]
struct Written<'b> {
    #[serde(borrow)]
    keys: Vec<&'b RawValue>,
}

/// The usable keys of a set. One that cannot be understood is passed over (RFC 7517 §5).
fn read(body: &[u8]) -> Result<Vec<Arc<Key>>, String> {
    let written: Written<'_> = serde_json::from_slice(body).map_err(|e| format!("not a JWK set: {e}"))?;
    let jwks: Vec<Jwk> = written.keys.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect();
    let mut named: HashMap<&str, usize> = HashMap::new();
    for kid in jwks.iter().filter_map(|jwk| jwk.common.key_id.as_deref()) {
        *named.entry(kid).or_default() += 1;
    }
    // Which of two keys of one name is meant cannot be known.
    let unique = |jwk: &&Jwk| jwk.common.key_id.as_deref().is_none_or(|kid| named.get(kid) == Some(&1));
    Ok(jwks.iter().filter(unique).filter_map(key).map(Arc::new).collect())
}

fn key(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let verifies = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let mut algorithms = algorithms(&jwk.algorithm);
    if let Some(pinned) = common.key_algorithm {
        algorithms.retain(|algorithm| format!("{algorithm:?}") == pinned.to_string());
    }
    if !verifies || algorithms.is_empty() {
        return None;
    }
    Some(Key { kid: common.key_id.clone(), algorithms, decoding: DecodingKey::from_jwk(jwk).ok()? })
}

/// What a key can verify; nothing for secrets, which have no place at a URL, and for weak keys.
fn algorithms(parameters: &AlgorithmParameters) -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match parameters {
        AlgorithmParameters::RSA(rsa) if bits(&rsa.n) >= RSA_BITS => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => vec![ES256],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => vec![ES384],
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => vec![EdDSA],
        _ => Vec::new(),
    }
}

fn bits(modulus: &str) -> usize {
    let bytes = URL_SAFE_NO_PAD.decode(modulus).unwrap_or_default();
    let leading = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(leading).map_or(0, |first| (bytes.len() - leading) * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Timespan;

    #[tokio::test]
    async fn a_fetch_that_is_over_before_it_is_waited_for_is_looked_at() {
        let (url, timeout) = ("http://127.0.0.1:1/keys".parse().unwrap(), Timespan(Duration::from_secs(1)));
        let set = KeySet::new(&identity::Site { url, ca: None, timeout }).unwrap();
        // Wanted, and done before whoever wanted it has its turn again.
        set.ended.send_replace(set.force());
        assert!(set.refreshed().await);
    }
}
