//! The model of `auth:` and `roles:`: how callers are recognised and what they may do.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Secret, Timespan};

/// How callers are recognised, in the order they are asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Auth {
    /// Whether a request without a credential is refused.
    pub required: bool,
    /// What callers without a credential are, where they are let in.
    pub anonymous: Standing,
    pub api_keys: Option<ApiKeys>,
    pub jwt: Vec<Jwt>,
    pub oauth2: Option<OAuth2>,
    pub external: Option<External>,
    pub certificates: Vec<Certificate>,
    /// Tenants that tokens may name and metrics are to tell apart.
    pub tenants: Vec<String>,
    /// Roles that a scope of a token brings.
    pub scopes: BTreeMap<String, Vec<String>>,
}

/// What a caller is to us, whoever it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub tenant: Option<String>,
    #[serde(default)]
    pub roles: Vec<String>,
    pub tier: Option<String>,
}

/// Keys that callers send as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiKeys {
    /// The header beside `Authorization: Bearer`.
    pub header: String,
    pub keys: Vec<ApiKey>,
    /// Where keys made through the admin API are kept.
    pub store: KeyStore,
}

/// One configured key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiKey {
    /// Its public name, in logs and metrics.
    pub id: String,
    /// SHA-256 of the key. Keys are random and long, so a slow hash would protect nothing more.
    #[serde(serialize_with = "hidden")]
    pub hash: [u8; 32],
    #[serde(flatten)]
    pub standing: Standing,
    /// Unix time in seconds.
    pub expires: Option<i64>,
}

/// Where managed keys are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyStore {
    /// A file, for one node.
    File(PathBuf),
    /// Redis, for replicas.
    Redis,
}

/// One issuer of JSON Web Tokens (RFC 7519, RFC 9068).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Jwt {
    /// `iss`; only a shared secret or a configured key may do without.
    pub issuer: Option<String>,
    /// Accepted `aud` values; empty accepts what `oauth2.resource` says, or without one, any.
    pub audience: Vec<String>,
    /// The only algorithms accepted, whatever a token's header says.
    pub algorithms: Vec<Algorithm>,
    pub keys: JwtKeys,
    /// Seconds that clocks may differ.
    pub leeway: u64,
    pub claims: Claims,
}

/// What tokens are verified with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JwtKeys {
    Jwks(Site),
    Secret(Secret),
    /// A public key as PEM.
    Pem(String),
}

/// A web service we ask.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Site {
    pub url: Url,
    /// Instead of the system's authorities.
    pub ca: Option<PathBuf>,
    pub timeout: Timespan,
}

/// Which claim says what; a path with dots leads into nested objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claims {
    pub subject: String,
    pub tenant: Option<String>,
    pub roles: String,
    pub scopes: String,
    pub tier: Option<String>,
}

/// The gateway as an OAuth protected resource, and the introspection of opaque tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OAuth2 {
    /// Our public base URL; absent, it is taken from each request.
    pub resource: Option<Url>,
    pub authorization_servers: Vec<String>,
    /// Scopes a client is told to ask for at first.
    pub challenge_scopes: Vec<String>,
    pub introspection: Option<Introspection>,
}

/// RFC 7662.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Introspection {
    pub site: Site,
    pub client_id: String,
    pub client_secret: Secret,
    /// Accepted `aud` values; empty as with [`Jwt::audience`].
    pub audience: Vec<String>,
    /// How long an answer is believed, so how late a revocation is seen.
    pub cache: Timespan,
    pub claims: Claims,
}

/// The operator's own authenticator over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct External {
    pub site: Site,
    /// The request headers it is shown; at least one must be there for it to be asked.
    pub headers: Vec<String>,
    pub cache: Timespan,
}

/// Whom a client certificate stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// A name in the certificate (DNS, URI or e-mail SAN, or the common name), as a glob.
    pub name: String,
    #[serde(flatten)]
    pub standing: Standing,
}

/// What a role may do: the sum of its rules.
pub type Roles = BTreeMap<String, Vec<Rule>>;

/// One permission. Lists are globs; an absent one does not restrict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    pub servers: Vec<String>,
    pub methods: Vec<String>,
    pub tools: Option<Vec<String>>,
    pub prompts: Option<Vec<String>>,
    pub resources: Option<Vec<String>>,
    /// A CEL condition.
    pub when: Option<String>,
}

fn hidden<S: serde::Serializer>(_: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("***")
}
