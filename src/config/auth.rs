//! Written `auth:` and `roles:` → the checked model.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey};
use url::Url;

use super::identity::{
    ApiKey, ApiKeys, Auth, Certificate, Claims, External, Introspection, Jwt, JwtKeys, KeyStore, OAuth2, Site, Standing,
};
use super::reader::Section;
use super::{Secret, Timespan, check, roles};

/// Client headers that go upstream beside those of MCP.
pub const FORWARDED: &[&str] = &["accept", "accept-language", "user-agent", "last-event-id", "tracestate", "baggage"];

const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Reads `auth:`; `None` when the section is absent, which makes everyone anonymous.
pub fn auth(root: &Section<'_>, state_dir: &Path) -> Option<Auth> {
    if !root.has("auth") {
        return None;
    }
    let section = root.section("auth");
    let oauth2 = section.has("oauth2").then(|| oauth2(&section.section("oauth2")));
    let resource = oauth2.as_ref().is_some_and(|oauth2| oauth2.resource.is_some());
    let auth = Auth {
        required: section.bool("required").unwrap_or(true),
        anonymous: anonymous(&section.section("anonymous")),
        api_keys: section.has("api_keys").then(|| api_keys(&section.section("api_keys"), root.has("redis"), state_dir)),
        jwt: section.sections("jwt").iter().filter_map(|entry| jwt(entry, resource)).collect(),
        oauth2,
        external: section.has("external").then(|| external(&section.section("external"))).flatten(),
        certificates: section.sections("certificates").iter().map(certificate).collect(),
        tenants: section.strings("tenants"),
        scopes: section.section("scopes").named_strings().into_iter().collect(),
    };
    let nobody = auth.api_keys.is_none() && auth.jwt.is_empty() && auth.external.is_none() && auth.certificates.is_empty();
    // An authenticator compiled in needs no more than the section itself.
    if nobody
        && !section.bool("custom").unwrap_or(false)
        && auth.oauth2.as_ref().is_none_or(|oauth2| oauth2.introspection.is_none())
        && auth.required
    {
        root.problem(
            "auth",
            "nobody can authenticate: give api_keys, jwt, oauth2.introspection_url, external, certificates, or custom: true",
        );
    }
    if !auth.certificates.is_empty() && !root.section("server").section("tls").has("client_ca") {
        section.problem("certificates", "needs server.tls.client_ca: who may have signed them");
    }
    section.finish();
    Some(auth)
}

fn anonymous(section: &Section<'_>) -> Standing {
    let standing = standing(section);
    section.finish();
    standing
}

fn standing(section: &Section<'_>) -> Standing {
    let label = |key| section.parse(key, |text| check::label(text, key));
    Standing { tenant: label("tenant"), roles: section.strings("roles"), tier: label("tier") }
}

fn api_keys(section: &Section<'_>, redis: bool, state_dir: &Path) -> ApiKeys {
    let header = section.parse("header", |text| match text.parse::<http::HeaderName>() {
        Ok(name) if goes_upstream(&name) => Err(format!("`{name}` goes upstream, and a credential must not; give another header")),
        Ok(name) if name != http::header::AUTHORIZATION && name != http::header::COOKIE => Ok(name.as_str().to_owned()),
        Ok(_) => Err("Authorization and Cookie cannot be the key's header; keys are accepted as Authorization: Bearer anyway".to_owned()),
        Err(_) => Err(format!("`{text}` is not a header name")),
    });
    let keys: Vec<ApiKey> = section.sections("keys").iter().filter_map(api_key).collect();
    for (i, key) in keys.iter().enumerate() {
        if keys[..i].iter().any(|other| other.id == key.id || other.hash == key.hash) {
            section.problem("keys", format!("the id or hash of `{}` is there twice", key.id));
        }
    }
    let written = section.section("store");
    let file = written.string("file").map_or_else(|| state_dir.join("keys.json"), PathBuf::from);
    let in_redis = written.bool("redis").unwrap_or(redis && !written.has("file"));
    if in_redis && !redis {
        written.problem("redis", "needs the top-level redis: { url: … }");
    }
    if in_redis && written.has("file") {
        written.problem("file", "give either file or redis, not both");
    }
    written.finish();
    section.finish();
    let store = if in_redis { KeyStore::Redis } else { KeyStore::File(file) };
    ApiKeys { header: header.unwrap_or_else(|| "x-api-key".to_owned()), keys, store }
}

/// Whether a client's header of this name is passed on to servers (`exchange/native`).
fn goes_upstream(name: &http::HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("mcp-") || FORWARDED.contains(&name)
}

fn api_key(section: &Section<'_>) -> Option<ApiKey> {
    for key in ["id", "hash"] {
        if !section.has(key) {
            section.problem(key, "missing; `mcp-gateway keys new` makes both");
        }
    }
    let id = section.parse("id", |text| check::label(text, "key id"));
    let hash = section.parse("hash", key_hash);
    let expires = section.parse("expires", instant);
    let standing = standing(section);
    section.finish();
    Some(ApiKey { id: id?, hash: hash?, standing, expires })
}

/// `sha256:` and 64 hex digits.
///
/// # Errors
/// When it is something else.
pub fn key_hash(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "not `sha256:` and 64 hex digits; `mcp-gateway keys hash` makes one".to_owned();
    let digits = text.strip_prefix("sha256:").filter(|digits| digits.len() == 64 && digits.is_ascii()).ok_or_else(wrong)?;
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(hash)
}

/// A day (its first moment in UTC) or an RFC 3339 time, as Unix seconds.
///
/// # Errors
/// When it is something else.
pub fn instant(text: &str) -> Result<i64, String> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = whole
        .parse::<jiff::Timestamp>()
        .map_err(|_| format!("`{text}` is not a day or time, such as 2027-06-30 or 2027-06-30T12:00:00Z"))?;
    Ok(time.as_second())
}

fn jwt(section: &Section<'_>, resource: bool) -> Option<Jwt> {
    let algorithms = algorithms(section);
    let keys = jwt_keys(section, &algorithms);
    let by_url = section.has("jwks_url");
    if by_url && !section.has("issuer") {
        section.problem("issuer", "missing; with jwks_url it must be the `iss` of the tokens");
    }
    let audience = section.strings("audience");
    if by_url && audience.is_empty() && !resource {
        section.problem("audience", "missing; list what `aud` of tokens for this gateway says, or set oauth2.resource (RFC 8707)");
    }
    let jwt = Jwt {
        issuer: section.string("issuer"),
        audience,
        algorithms,
        leeway: section.duration("leeway").map_or(60, |leeway| leeway.as_secs()),
        claims: claims(&section.section("claims")),
        keys: keys?,
    };
    section.finish();
    Some(jwt)
}

fn algorithms(section: &Section<'_>) -> Vec<Algorithm> {
    let names = section.strings("algorithms");
    if names.is_empty() {
        section.problem("algorithms", "missing; pin them, such as [ES256]");
    }
    let known = |name: &String| {
        let found = ALGORITHMS.iter().find(|(known, _)| known == name).map(|(_, algorithm)| *algorithm);
        if found.is_none() {
            let all: Vec<_> = ALGORITHMS.iter().map(|(name, _)| *name).collect();
            section.problem("algorithms", format!("`{name}` is not one of {}", all.join(", ")));
        }
        found
    };
    names.iter().filter_map(known).collect()
}

fn jwt_keys(section: &Section<'_>, algorithms: &[Algorithm]) -> Option<JwtKeys> {
    let secret = section.secret("secret", "secret_file");
    let pem = section.secret("public_key", "public_key_file");
    let jwks = section.has("jwks_url").then(|| site(section, "jwks_url", false)).flatten();
    if [secret.is_some(), pem.is_some(), section.has("jwks_url")].iter().filter(|given| **given).count() != 1 {
        section.problem("jwks_url", "give exactly one of jwks_url, secret and public_key");
        return None;
    }
    let symmetric = |algorithm: &Algorithm| matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
    // One key must never be both a public key and a secret (algorithm confusion).
    if algorithms.iter().any(|algorithm| symmetric(algorithm) != secret.is_some()) {
        section.problem("algorithms", "HS256, HS384 and HS512 go with a secret, the others with jwks_url or public_key");
    }
    if let Some(secret) = secret {
        let least = if algorithms.contains(&Algorithm::HS512) {
            64
        } else if algorithms.contains(&Algorithm::HS384) {
            48
        } else {
            32
        };
        if secret.len() < least {
            section.problem(
                "secret",
                format!("shorter than {least} bytes, which its algorithm needs (RFC 7518 §3.2); use `openssl rand -hex 32`"),
            );
        }
        return Some(JwtKeys::Secret(Secret::new(secret)));
    }
    if let Some(pem) = pem {
        if pem_key(&pem).is_none() {
            section.problem("public_key", "not a public key in PEM");
        }
        return Some(JwtKeys::Pem(pem));
    }
    jwks.map(JwtKeys::Jwks)
}

/// The key in a PEM text, of whichever kind it is.
pub fn pem_key(pem: &str) -> Option<DecodingKey> {
    let bytes = pem.as_bytes();
    let tries = [DecodingKey::from_rsa_pem(bytes), DecodingKey::from_ec_pem(bytes), DecodingKey::from_ed_pem(bytes)];
    tries.into_iter().find_map(Result::ok)
}

fn claims(section: &Section<'_>) -> Claims {
    let claims = Claims {
        subject: section.string("subject").unwrap_or_else(|| "sub".to_owned()),
        tenant: section.string("tenant"),
        roles: section.string("roles").unwrap_or_else(|| "roles".to_owned()),
        scopes: section.string("scopes").unwrap_or_else(|| "scope".to_owned()),
        tier: section.string("tier"),
    };
    section.finish();
    claims
}

/// A URL to ask, with its CA and timeout from the same section. Plain HTTP is for loopback, or where it is wished.
pub(super) fn site(section: &Section<'_>, key: &'static str, plain: bool) -> Option<Site> {
    let plain = section.bool("insecure_http").unwrap_or(plain);
    let url = section.parse(key, |text| {
        let url = site_url(text)?;
        if url.scheme() == "http" && !check::is_local(&url) && !plain {
            return Err(format!("{url} is not https; set insecure_http: true if the network between is trusted"));
        }
        Ok(url)
    });
    let timeout = check::positive(section, "timeout", 5);
    Some(Site { url: url?, ca: section.parse("ca", check::readable), timeout: Timespan(timeout) })
}

/// A URL that may have a query, as some key sets do.
fn site_url(text: &str) -> Result<Url, String> {
    let (base, query) = text.split_once('?').map_or((text, None), |(base, query)| (base, Some(query)));
    let mut url = check::backend_url(base).map_err(|e| e.replace("use credential.bearer_file", "give them in keys of their own"))?;
    url.set_query(query);
    Ok(url)
}

fn oauth2(section: &Section<'_>) -> OAuth2 {
    let servers = section.strings("authorization_servers");
    for server in &servers {
        if let Err(message) = check::backend_url(server) {
            section.problem("authorization_servers", message);
        }
    }
    let oauth2 = OAuth2 {
        resource: section.parse("resource", check::backend_url),
        authorization_servers: servers,
        challenge_scopes: section.strings("challenge_scopes"),
        introspection: introspection(section),
    };
    section.finish();
    oauth2
}

fn introspection(section: &Section<'_>) -> Option<Introspection> {
    let (id, secret) = (section.string("client_id"), section.secret("client_secret", "client_secret_file"));
    let (audience, claims) = (section.strings("audience"), claims(&section.section("claims")));
    let cache = section.duration("cache").unwrap_or(Duration::from_secs(30));
    if !section.has("introspection_url") {
        for key in ["client_id", "client_secret", "client_secret_file", "audience", "cache", "claims", "timeout", "ca"] {
            if section.has(key) {
                section.problem(key, "is for introspection, and there is no introspection_url");
            }
        }
    }
    let site = site(section, "introspection_url", false)?;
    if id.is_none() || secret.is_none() {
        section.problem("client_id", "introspection needs client_id and client_secret or client_secret_file");
    }
    if audience.is_empty() && !section.has("resource") {
        section.problem("audience", "missing; list what `aud` of tokens for this gateway says, or set resource (RFC 8707)");
    }
    Some(Introspection { site, client_id: id?, client_secret: Secret::new(secret?), audience, cache: Timespan(cache), claims })
}

fn external(section: &Section<'_>) -> Option<External> {
    let headers = section.strings("headers");
    if headers.is_empty() {
        section.problem("headers", "missing; list the request headers that carry the credential");
    }
    for header in &headers {
        match header.parse::<http::HeaderName>() {
            Err(_) => section.problem("headers", format!("`{header}` is not a header name")),
            Ok(name) if goes_upstream(&name) => section.problem("headers", format!("`{header}` goes upstream, and a credential must not")),
            Ok(_) => {}
        }
    }
    if !section.has("url") {
        section.problem("url", "missing");
    }
    let cache = section.duration("cache").unwrap_or(Duration::from_secs(10));
    let site = site(section, "url", true);
    section.finish();
    Some(External { site: site?, headers: headers.iter().map(|name| name.to_ascii_lowercase()).collect(), cache: Timespan(cache) })
}

fn certificate(section: &Section<'_>) -> Certificate {
    let name = section.parse("name", roles::glob);
    if !section.has("name") {
        section.problem("name", "missing; a name in the client certificate, such as spiffe://acme/ci");
    }
    let certificate = Certificate { name: name.unwrap_or_default(), standing: standing(section) };
    section.finish();
    certificate
}
