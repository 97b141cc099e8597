//! Who asks, and may they. `Auth` recognises callers in whichever of the configured ways knows their credential;
//! `permit` says what the recognised may do; `challenge` tells the others how to get in.
//!
//! Reading order: `credential` (what a request presents), `api_key` with `keys` and `key_store`, `jwt` with `jwks` and
//! `claims`, `introspect`, `external`, `certificate`, then `permit`.

pub mod api_key;
pub mod certificate;
pub mod challenge;
pub mod claims;
pub mod credential;
pub mod external;
pub mod introspect;
pub mod jwks;
pub mod jwt;
pub mod key_store;
pub mod keys;
pub mod permit;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use http::HeaderName;
use moka::sync::Cache;
use prometheus::IntCounter;

use self::api_key::Table;
use self::certificate::Names;
use self::credential::Presented;
use self::jwks::KeySet;
use self::jwt::{Fault, Issuer, Token};
use self::key_store::Store;
use self::keys::Managed;
use crate::config::identity::{self, JwtKeys, KeyStore};
use crate::config::{self, Config};
use crate::digest;
use crate::egress::Client;
use crate::extend::{Arriving, Authenticator, Extensions, Recognition};
use crate::observe::metrics::Metrics;
use crate::principal::{Identity, Principal, Way};
use crate::store::redis::Redis;

/// Verified tokens remembered; a signature costs up to 90 µs to check, a look here less than one.
const REMEMBERED: u64 = 100_000;

/// Why a caller is not let in.
#[derive(Debug, PartialEq, Eq)]
pub enum Denied {
    /// No credential, and one is required.
    Missing,
    /// A credential that is wrong. The reason is for the audit log, except where it is about the form.
    Invalid(String),
    /// A credential that nobody can judge now.
    Unavailable(String),
}

/// A request as authentication sees it.
#[derive(Clone, Copy)]
pub struct Request<'r> {
    pub arriving: Arriving<'r>,
    /// The names in the client's certificate.
    pub certificate: Option<&'r Names>,
    /// For asking identity providers.
    pub client: &'r Client,
}

/// All configured ways to authenticate, compiled.
pub struct Auth {
    conf: Option<identity::Auth>,
    anonymous: Arc<Principal>,
    key_header: Option<HeaderName>,
    keys: Table,
    managed: Option<Arc<Managed>>,
    issuers: Vec<Issuer>,
    introspector: Option<introspect::Introspector>,
    external: Option<external::Authenticator>,
    certificates: certificate::Known,
    custom: Vec<Arc<dyn Authenticator>>,
    remembered: Cache<[u8; 32], Remembered>,
    tenants: HashSet<String>,
    /// Counters by way, and for no way at all.
    counted: [OnceLock<[IntCounter; 3]>; Way::ALL.len() + 1],
    /// Where the managed keys may be.
    redis: Option<config::Redis>,
}

/// A verified token. It is looked at again when it ends or its key is withdrawn.
#[derive(Clone)]
struct Remembered {
    principal: Arc<Principal>,
    until: i64,
    key: Option<(Arc<KeySet>, Arc<jwks::Key>)>,
}

impl Auth {
    /// Compiles `auth:`. Key sets and managed keys of `old` live on where their place is the same.
    ///
    /// # Errors
    /// What it names that cannot be used.
    pub fn build(config: &Config, old: Option<&Self>, extensions: &Extensions) -> Result<Self, String> {
        let conf = config.auth.clone();
        let written = conf.as_ref();
        let resource = written.and_then(|auth| auth.oauth2.as_ref()?.resource.as_ref());
        let introspection = written.and_then(|auth| auth.oauth2.as_ref()?.introspection.as_ref());
        let api_keys = written.and_then(|auth| auth.api_keys.as_ref());
        let standing = written.map(|auth| auth.anonymous.clone()).unwrap_or_default();
        Ok(Self {
            anonymous: anonymous(standing),
            key_header: api_keys.and_then(|keys| keys.header.parse().ok()),
            keys: table(api_keys),
            managed: api_keys.map(|keys| managed(keys, config, old)).transpose()?,
            issuers: issuers(written, resource, old)?,
            introspector: introspection.map(|conf| introspect::Introspector::new(conf, resource)).transpose()?,
            external: written.and_then(|auth| auth.external.as_ref()).map(external::Authenticator::new).transpose()?,
            certificates: certificate::Known::new(written.map(|auth| auth.certificates.as_slice()).unwrap_or_default()),
            custom: extensions.authenticators.clone(),
            remembered: Cache::new(REMEMBERED),
            tenants: tenants(written),
            counted: Default::default(),
            redis: config.redis.clone(),
            conf,
        })
    }

    /// Whether it was compiled from the same configuration.
    pub fn is_of(&self, config: &Config) -> bool {
        self.conf == config.auth && config::Redis::is_same(self.redis.as_ref(), config.redis.as_ref())
    }

    /// The configuration it stands for; `None` where everyone is anonymous.
    pub fn conf(&self) -> Option<&identity::Auth> {
        self.conf.as_ref()
    }

    /// The key sets to look after.
    pub fn key_sets(&self) -> Vec<Arc<KeySet>> {
        let mut sets: Vec<Arc<KeySet>> = self.issuers.iter().filter_map(|issuer| issuer.set().cloned()).collect();
        sets.sort_by_key(|set| Arc::as_ptr(set).addr());
        sets.dedup_by(|a, b| Arc::ptr_eq(a, b));
        sets
    }

    /// Whether every key that is kept elsewhere (of issuers, managed ones) is known by now.
    pub fn is_prepared(&self) -> bool {
        self.key_sets().iter().all(|set| set.is_known()) && self.managed.as_ref().is_none_or(|managed| managed.is_known())
    }

    /// A tenant as a metric label: by its name if the configuration names it, so that no token can make series.
    pub fn tenant_label<'p>(&self, principal: &'p Principal) -> Option<&'p str> {
        let tenant = principal.identity.tenant.as_deref()?;
        Some(if self.tenants.contains(tenant) { tenant } else { "other" })
    }

    /// The managed keys, where API keys are on.
    pub fn managed(&self) -> Option<&Arc<Managed>> {
        self.managed.as_ref()
    }

    /// Says who asks. Counts the decision.
    ///
    /// # Errors
    /// Why the caller is not let in.
    pub async fn recognise(&self, request: Request<'_>, metrics: &Metrics) -> Result<Arc<Principal>, Denied> {
        let Some(conf) = &self.conf else { return Ok(Arc::clone(&self.anonymous)) };
        let (way, decided) = self.decide(conf, request).await;
        let row = way.map_or(Way::ALL.len(), |way| way as usize);
        let [admitted, refused, unavailable] = self.counted[row].get_or_init(|| metrics.decisions(way.map_or("none", Way::name)));
        match &decided {
            Ok(_) => admitted.inc(),
            Err(Denied::Missing | Denied::Invalid(_)) => refused.inc(),
            Err(Denied::Unavailable(_)) => unavailable.inc(),
        }
        decided
    }

    /// The first way that knows the credential decides; what nobody knows is refused, never taken for no credential.
    async fn decide(&self, conf: &identity::Auth, request: Request<'_>) -> (Option<Way>, Result<Arc<Principal>, Denied>) {
        let headers = request.arriving.headers;
        if let Some(decided) = self.by_custom(request.arriving).await {
            return (Some(Way::Custom), decided);
        }
        let presented = credential::find(headers, self.key_header.as_ref());
        let external = self.external.as_ref().filter(|external| external.is_asked(headers));
        let presented = match (presented, external) {
            (Ok(presented), _) => presented,
            // What is no credential of ours may be one of theirs.
            (Err(_), Some(_)) => Presented::default(),
            (Err(reason), None) => return (None, Err(Denied::Invalid(reason.to_owned()))),
        };
        if let Some(key) = presented.key {
            return (
                Some(Way::ApiKey),
                self.by_key(&digest::sha256(key.as_bytes()), key.starts_with(keys::PREFIX)).unwrap_or_else(|| Err(unknown_key())),
            );
        }
        if let Some(token) = presented.bearer
            && let Some((way, decided)) = self.by_bearer(token, request.client).await
        {
            return (Some(way), decided);
        }
        if let Some(external) = external {
            return (Some(Way::External), settle(Box::pin(external.judge(request.client, headers)).await));
        }
        if presented.bearer.is_some() {
            return (None, Err(Denied::Invalid("nobody knows the token".to_owned())));
        }
        if let Some(principal) = request.certificate.and_then(|names| self.certificates.find(names)) {
            return (Some(Way::Certificate), Ok(principal));
        }
        if conf.required { (None, Err(Denied::Missing)) } else { (Some(Way::Anonymous), Ok(Arc::clone(&self.anonymous))) }
    }

    async fn by_custom(&self, arriving: Arriving<'_>) -> Option<Result<Arc<Principal>, Denied>> {
        for authenticator in &self.custom {
            match authenticator.authenticate(arriving).await {
                Recognition::NotMine => {}
                Recognition::Known(identity) => return Some(Ok(Principal::new(Way::Custom, identity))),
                Recognition::Refused(reason) => return Some(Err(Denied::Invalid(reason))),
                Recognition::Unavailable(reason) => return Some(Err(Denied::Unavailable(reason))),
            }
        }
        None
    }

    /// `None` if no key of that digest is known, or could be.
    fn by_key(&self, digest: &[u8; 32], is_ours: bool) -> Option<Result<Arc<Principal>, Denied>> {
        let managed = self.managed.as_ref()?;
        let found = self.keys.find(digest).cloned().or_else(|| managed.find(digest));
        match found {
            Some(entry) => Some(entry.admit(now()).map_err(|reason| Denied::Invalid(reason.to_owned()))),
            // Managed keys are recognised by how they begin, so nobody else waits for their store.
            None if managed.is_known() || !is_ours => None,
            None => Some(Err(Denied::Unavailable("the key store was not read yet".to_owned()))),
        }
    }

    async fn by_bearer(&self, token: &str, client: &Client) -> Option<(Way, Result<Arc<Principal>, Denied>)> {
        let digest = digest::sha256(token.as_bytes());
        if let Some(known) = self.remembered.get(&digest).filter(Remembered::is_good) {
            return Some((Way::Jwt, Ok(known.principal)));
        }
        // Everything below is for the first sight of a token, or slow by nature.
        Box::pin(self.by_fresh_bearer(digest, token, client)).await
    }

    async fn by_fresh_bearer(&self, digest: [u8; 32], token: &str, client: &Client) -> Option<(Way, Result<Arc<Principal>, Denied>)> {
        let is_jwt = !self.issuers.is_empty() && jwt::is_shaped(token);
        let is_ours = token.starts_with(keys::PREFIX);
        if let Some(decided) = self.by_key(&digest, is_ours).filter(|decided| !is_jwt || is_ours || decided.is_ok()) {
            return Some((Way::ApiKey, decided));
        }
        if is_ours && self.managed.is_some() {
            return Some((Way::ApiKey, Err(unknown_key())));
        }
        let others = self.introspector.is_some() || self.external.as_ref().is_some_and(external::Authenticator::takes_bearers);
        if is_jwt && let Some(decided) = self.by_jwt(digest, token, others).await {
            return Some((Way::Jwt, decided));
        }
        let introspector = self.introspector.as_ref()?;
        Some((Way::OAuth2, settle(introspector.judge(client, digest, token).await)))
    }

    /// `None` if it is the token of no issuer we know, or none at all, and `others` can still be asked.
    async fn by_jwt(&self, digest: [u8; 32], token: &str, others: bool) -> Option<Result<Arc<Principal>, Denied>> {
        let verified = match Token::read(token) {
            Ok(token) if others && !token.is_of(&self.issuers) => return None,
            Ok(token) => token.verify(&self.issuers).await,
            Err(_) if others && !jwt::has_header(token) => return None,
            Err(fault) => Err(fault),
        };
        Some(match verified {
            Ok(verified) => {
                let principal = Principal::new(Way::Jwt, verified.identity);
                let remembered = Remembered { principal: Arc::clone(&principal), until: verified.until, key: verified.key };
                self.remembered.insert(digest, remembered);
                Ok(principal)
            }
            Err(Fault::Refused(reason)) => Err(Denied::Invalid(reason)),
            Err(Fault::Unavailable(reason)) => Err(Denied::Unavailable(reason.to_owned())),
        })
    }
}

impl Remembered {
    fn is_good(&self) -> bool {
        now() < self.until && self.key.as_ref().is_none_or(|(set, key)| set.holds(key))
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn unknown_key() -> Denied {
    Denied::Invalid("no such API key".to_owned())
}

fn settle(judged: Result<Result<Arc<Principal>, &'static str>, String>) -> Result<Arc<Principal>, Denied> {
    match judged {
        Ok(Ok(principal)) => Ok(principal),
        Ok(Err(reason)) => Err(Denied::Invalid(reason.to_owned())),
        Err(cause) => Err(Denied::Unavailable(cause)),
    }
}

fn anonymous(standing: identity::Standing) -> Arc<Principal> {
    let identity::Standing { tenant, roles, tier } = standing;
    Principal::new(Way::Anonymous, Identity { tenant, roles, tier, ..Identity::default() })
}

/// The tenants the configuration names.
fn tenants(conf: Option<&identity::Auth>) -> HashSet<String> {
    let Some(auth) = conf else { return HashSet::new() };
    let keys = auth.api_keys.iter().flat_map(|keys| &keys.keys).map(|key| &key.standing);
    let certificates = auth.certificates.iter().map(|certificate| &certificate.standing);
    let standings = keys.chain(certificates).chain([&auth.anonymous]);
    standings.filter_map(|standing| standing.tenant.clone()).chain(auth.tenants.iter().cloned()).collect()
}

fn table(conf: Option<&identity::ApiKeys>) -> Table {
    let mut table = Table::default();
    for key in conf.iter().flat_map(|conf| &conf.keys) {
        table.add(key.hash, api_key::Entry::new(&key.id, &key.standing, key.expires));
    }
    table
}

fn managed(conf: &identity::ApiKeys, config: &Config, old: Option<&Auth>) -> Result<Arc<Managed>, String> {
    let is_here = |old: &&Auth| {
        let store = old.conf.as_ref().and_then(|conf| Some(&conf.api_keys.as_ref()?.store));
        store == Some(&conf.store) && config::Redis::is_same(old.redis.as_ref(), config.redis.as_ref())
    };
    let kept = old.filter(is_here).and_then(|old| old.managed.clone());
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let store = match (&conf.store, &config.redis) {
        (KeyStore::File(path), _) => Store::File(path.clone()),
        (KeyStore::Redis, Some(redis)) => Store::in_redis(Redis::new(redis)?),
        (KeyStore::Redis, None) => return Err("auth.api_keys.store.redis needs redis.url".to_owned()),
    };
    Ok(Managed::new(store))
}

fn issuers(conf: Option<&identity::Auth>, resource: Option<&url::Url>, old: Option<&Auth>) -> Result<Vec<Issuer>, String> {
    let mut sets: HashMap<identity::Site, Arc<KeySet>> = HashMap::new();
    let known = |site: &identity::Site| {
        let of = |issuer: &Issuer| issuer.site() == Some(site);
        old.and_then(|old| old.issuers.iter().find(|issuer| of(issuer)).and_then(|issuer| issuer.set().cloned()))
    };
    let mut issuers = Vec::new();
    for jwt in conf.iter().flat_map(|auth| &auth.jwt) {
        let set = match &jwt.keys {
            JwtKeys::Jwks(site) => {
                let set = sets.get(site).cloned().or_else(|| known(site)).map_or_else(|| KeySet::new(site), Ok)?;
                sets.insert(site.clone(), Arc::clone(&set));
                Some(set)
            }
            JwtKeys::Secret(_) | JwtKeys::Pem(_) => None,
        };
        issuers.extend(Issuer::new(jwt, resource, set));
    }
    Ok(issuers)
}
