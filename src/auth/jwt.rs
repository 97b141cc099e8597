//! JSON Web Tokens (RFC 7519, RFC 8725, RFC 9068). What a token says about itself is believed only so far as to find
//! the issuer that was configured; algorithm and key come from there. The signature, `exp`, `nbf` and `iss` are checked
//! by jsonwebtoken; what is around that (shape, duplicates, types, audience) is stricter here than the RFC asks.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::claims::{self, Audience, Written};
use super::jwks::{Found, Key, KeySet};
use crate::config::identity::{Jwt, JwtKeys, Site};
use crate::mcp::members::Members;
use crate::principal::Identity;

/// Header members that would let a token bring its own key, or that change what its bytes mean.
const REFUSED: &[&str] = &["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip", "enc"];
/// What a token may call itself, in lower case; other kinds (logout tokens, DPoP proofs, …) are no access tokens.
const TYPES: &[&str] = &["jwt", "at+jwt", "application/at+jwt"];

/// Why a token does not get in.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    Refused(String),
    /// The issuer's keys could never be fetched.
    Unavailable(&'static str),
}

impl Fault {
    /// What is told of two: a token that may be good once its issuer can be asked is not called wrong.
    fn or(self, next: Self) -> Self {
        if matches!(self, Self::Unavailable(_)) { self } else { next }
    }
}

fn refused(reason: impl Into<String>) -> Fault {
    Fault::Refused(reason.into())
}

/// A verified token.
pub struct Verified {
    pub identity: Identity,
    /// Unix time in seconds until which it may be remembered.
    pub until: i64,
    /// The key that verified it, and the set it must still be in.
    pub key: Option<(Arc<KeySet>, Arc<Key>)>,
}

/// One configured issuer.
pub struct Issuer {
    conf: Jwt,
    keys: Keys,
    audience: Audience,
}

enum Keys {
    Fixed(Box<DecodingKey>),
    Set(Arc<KeySet>),
}

impl Issuer {
    /// `set` is the key set of its `jwks_url`.
    pub fn new(conf: &Jwt, resource: Option<&url::Url>, set: Option<Arc<KeySet>>) -> Option<Self> {
        let keys = match (&conf.keys, set) {
            (JwtKeys::Jwks(_), set) => Keys::Set(set?),
            (JwtKeys::Secret(secret), _) => Keys::Fixed(Box::new(DecodingKey::from_secret(secret.expose().as_bytes()))),
            (JwtKeys::Pem(pem), _) => Keys::Fixed(Box::new(crate::config::pem_key(pem)?)),
        };
        Some(Self { conf: conf.clone(), keys, audience: Audience::new(&conf.audience, resource) })
    }

    /// Where its keys come from, if from a URL.
    pub fn site(&self) -> Option<&Site> {
        match &self.conf.keys {
            JwtKeys::Jwks(site) => Some(site),
            JwtKeys::Secret(_) | JwtKeys::Pem(_) => None,
        }
    }

    pub fn set(&self) -> Option<&Arc<KeySet>> {
        match &self.keys {
            Keys::Set(set) => Some(set),
            Keys::Fixed(_) => None,
        }
    }

    fn is_of(&self, issuer: Option<&str>) -> bool {
        self.conf.issuer.as_deref().is_none_or(|ours| Some(ours) == issuer)
    }
}

/// A token taken apart, its signature not yet checked.
pub struct Token<'t> {
    whole: &'t str,
    algorithm: Option<Algorithm>,
    kid: Option<String>,
    issuer: Option<String>,
}

/// Whether a bearer token is of the shape of a JWT.
pub fn is_shaped(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// Whether it begins as a JWT does. One that does and is wrong is refused; other texts with dots may be somebody else's.
pub fn has_header(token: &str) -> bool {
    let header = token.split('.').next().unwrap_or_default();
    URL_SAFE_NO_PAD.decode(header).is_ok_and(|header| header.trim_ascii_start().starts_with(b"{"))
}

impl<'t> Token<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// What about it cannot be.
    pub fn read(whole: &'t str) -> Result<Self, Fault> {
        let parts: Vec<&str> = whole.split('.').collect();
        let [header, payload, signature] = parts[..] else { return Err(refused("not three parts")) };
        let (header, payload) = (decoded(header)?, decoded(payload)?);
        decoded(signature)?;
        let header: Members<'_> =
            serde_json::from_slice(&header).map_err(|_| refused("the header is not a JSON object of distinct members"))?;
        let payload: Members<'_> =
            serde_json::from_slice(&payload).map_err(|_| refused("the payload is not a JSON object of distinct members"))?;
        if let Some(name) = REFUSED.iter().find(|name| header.get(name).is_some()) {
            return Err(refused(format!("the header has `{name}`")));
        }
        if header.get("typ").is_some() && !header.text("typ").is_some_and(|typ| TYPES.contains(&typ.to_ascii_lowercase().as_str())) {
            return Err(refused("the header's `typ` is not an access token's"));
        }
        if header.get("cty").is_some() {
            return Err(refused("nested tokens are not accepted"));
        }
        if header.get("kid").is_some() && header.text("kid").is_none() {
            return Err(refused("the header's `kid` is not text"));
        }
        if payload.get("iss").is_some() && payload.text("iss").is_none() {
            return Err(refused("`iss` is not text"));
        }
        Ok(Self {
            whole,
            algorithm: header.text("alg").and_then(|name| name.parse().ok()),
            kid: header.text("kid").map(Cow::into_owned),
            issuer: payload.text("iss").map(Cow::into_owned),
        })
    }

    /// Whether one of the issuers would claim it.
    pub fn is_of(&self, issuers: &[Issuer]) -> bool {
        issuers.iter().any(|issuer| issuer.is_of(self.issuer.as_deref()))
    }

    /// Verifies it with what is configured for its issuer.
    ///
    /// # Errors
    /// Why it is not good.
    pub async fn verify(&self, issuers: &[Issuer]) -> Result<Verified, Fault> {
        let algorithm = self.algorithm.ok_or_else(|| refused("no such algorithm"))?;
        let mut last = refused("no issuer of that name");
        for issuer in issuers.iter().filter(|issuer| issuer.is_of(self.issuer.as_deref())) {
            if !issuer.conf.algorithms.contains(&algorithm) {
                last = last.or(refused("the algorithm is not one of its issuer's"));
                continue;
            }
            match self.verify_by(issuer, algorithm).await {
                Ok(verified) => return Ok(verified),
                Err(fault) => last = last.or(fault),
            }
        }
        Err(last)
    }

    async fn verify_by(&self, issuer: &Issuer, algorithm: Algorithm) -> Result<Verified, Fault> {
        match &issuer.keys {
            Keys::Fixed(key) => self.check(issuer, algorithm, key).map(|(identity, until)| Verified { identity, until, key: None }),
            Keys::Set(set) => {
                let key = self.key(set, algorithm).await?;
                let (identity, until) = self.check(issuer, algorithm, &key.decoding)?;
                Ok(Verified { identity, until, key: Some((Arc::clone(set), key)) })
            }
        }
    }

    /// The key it names, fetched anew if it is not known.
    async fn key(&self, set: &KeySet, algorithm: Algorithm) -> Result<Arc<Key>, Fault> {
        let mut found = set.find(self.kid.as_deref(), algorithm);
        if matches!(found, Found::Nothing) {
            set.first().await;
            found = set.find(self.kid.as_deref(), algorithm);
        }
        if matches!(found, Found::Unknown) && set.refreshed().await {
            found = set.find(self.kid.as_deref(), algorithm);
        }
        match found {
            Found::Key(key) => Ok(key),
            Found::Unknown => Err(refused("no key of that `kid`")),
            Found::Unfit => Err(refused("no key, or more than one, fits the algorithm")),
            Found::Nothing => Err(Fault::Unavailable("the issuer's keys could not be fetched yet")),
        }
    }

    fn check(&self, issuer: &Issuer, algorithm: Algorithm, key: &DecodingKey) -> Result<(Identity, i64), Fault> {
        let conf = &issuer.conf;
        let mut validation = Validation::new(algorithm);
        validation.leeway = conf.leeway;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(if conf.issuer.is_some() { &["exp", "iss"] } else { &["exp"] });
        conf.issuer.iter().for_each(|issuer| validation.set_issuer(&[issuer]));
        // Judged below, because an audience of ours may be one server alone.
        validation.validate_aud = false;
        let decoded = jsonwebtoken::decode::<Written>(self.whole, key, &validation).map_err(|e| refused(e.to_string()))?;
        let written = decoded.claims;
        for claim in ["exp", "nbf", "iat"] {
            if written.get(claim).is_some_and(|value| !is_time(value)) {
                return Err(refused(format!("`{claim}` is not a time")));
            }
        }
        let servers = issuer.audience.judge(written.get("aud")).map_err(refused)?;
        let name = conf.issuer.as_deref().or(self.issuer.as_deref()).unwrap_or("jwt");
        let identity = claims::identity(&written, &conf.claims, name).map_err(refused)?;
        let until = written.get("exp").and_then(Value::as_f64).unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, reason = "a float converts saturating, and a later end is no end")]
        Ok((Identity { servers, ..identity }, (until as i64).saturating_add(i64::try_from(conf.leeway).unwrap_or(0))))
    }
}

/// A NumericDate (RFC 7519 §2) that a clock could show.
fn is_time(value: &Value) -> bool {
    value.as_f64().is_some_and(|seconds| (0.0..1e12).contains(&seconds))
}

fn decoded(part: &str) -> Result<Vec<u8>, Fault> {
    if part.is_empty() {
        return Err(refused("an empty part"));
    }
    URL_SAFE_NO_PAD.decode(part).map_err(|_| refused("a part is not base64url"))
}
