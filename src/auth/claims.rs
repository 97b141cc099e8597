//! From the claims of a token, or the members of an introspection, to an identity; and whom a token is meant for.

use serde_json::{Map, Value};

use crate::config::identity::Claims;
use crate::principal::Identity;

/// The claims of a token as they were written.
pub type Written = Map<String, Value>;

/// Reads an identity by the mapping that was configured.
///
/// # Errors
/// What is missing or of the wrong type.
pub fn identity(written: &Written, mapping: &Claims, issuer: &str) -> Result<Identity, &'static str> {
    let text = |path: &str| find(written, path).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    let subject = text(&mapping.subject).ok_or("the subject claim is missing, empty or not text")?;
    let optional = |path: &Option<String>| match path.as_deref().map(|path| (find(written, path), text(path))) {
        Some((Some(_), None)) => Err("a mapped claim is not text"),
        Some((_, found)) => Ok(found),
        None => Ok(None),
    };
    Ok(Identity {
        issuer: issuer.to_owned(),
        subject,
        client: text("azp").or_else(|| text("client_id")),
        tenant: optional(&mapping.tenant)?,
        roles: find(written, &mapping.roles).map(words).unwrap_or_default(),
        scopes: find(written, &mapping.scopes).map(words).unwrap_or_default(),
        tier: optional(&mapping.tier)?,
        servers: None,
    })
}

/// The claim of that very name, or else the one a path with dots leads to.
fn find<'w>(written: &'w Written, path: &str) -> Option<&'w Value> {
    written.get(path).or_else(|| {
        let (first, rest) = path.split_once('.')?;
        find(written.get(first)?.as_object()?, rest)
    })
}

/// A list of texts, or one text of words between spaces (RFC 6749 §3.3).
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Value::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// Which audiences are ours.
pub struct Audience {
    /// As configured.
    accepted: Vec<String>,
    /// Our own resource identifier, without a slash at its end (RFC 8707).
    resource: Option<String>,
}

impl Audience {
    pub fn new(accepted: &[String], resource: Option<&url::Url>) -> Self {
        let resource = resource.map(|url| url.as_str().trim_end_matches('/').to_owned());
        Self { accepted: accepted.to_vec(), resource }
    }

    /// Judges `aud`: `Err` if the token is for somebody else, else the servers it is for (`None` is all).
    ///
    /// # Errors
    /// Why it is not for us.
    pub fn judge(&self, aud: Option<&Value>) -> Result<Option<Vec<String>>, &'static str> {
        if self.accepted.is_empty() && self.resource.is_none() {
            return Ok(None);
        }
        let claimed = match aud {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            Some(_) => return Err("aud is neither text nor a list"),
            None => return Err("aud is missing"),
        };
        if claimed.iter().any(|aud| self.accepted.iter().any(|ours| ours == aud) || self.is_whole(aud)) {
            return Ok(None);
        }
        let servers: Vec<String> = claimed.iter().filter_map(|aud| self.server_of(aud)).map(str::to_owned).collect();
        if servers.is_empty() { Err("the token is for another audience") } else { Ok(Some(servers)) }
    }

    /// Whether an audience is the gateway as a whole.
    fn is_whole(&self, aud: &str) -> bool {
        self.resource.as_deref().and_then(|base| aud.strip_prefix(base)).is_some_and(|rest| matches!(rest, "" | "/" | "/mcp"))
    }

    /// The server whose resource identifier an audience is.
    fn server_of<'a>(&self, aud: &'a str) -> Option<&'a str> {
        let server = aud.strip_prefix(self.resource.as_deref()?)?.strip_prefix("/mcp/")?;
        (!server.is_empty() && !server.contains('/')).then_some(server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(value: Value) -> Written {
        value.as_object().unwrap().clone()
    }

    fn mapping() -> Claims {
        Claims {
            subject: "sub".into(),
            tenant: Some("org".into()),
            roles: "realm_access.roles".into(),
            scopes: "scope".into(),
            tier: Some("https://example.com/plan".into()),
        }
    }

    #[test]
    fn claims_are_found_by_name_and_by_path() {
        let claims = json!({"sub": "ann", "org": "acme", "realm_access": {"roles": ["a", 5, "b"]}, "scope": "x y", "https://example.com/plan": "free", "azp": "app"});
        let identity = identity(&written(claims), &mapping(), "iss").unwrap();
        assert_eq!((identity.subject.as_str(), identity.tenant.as_deref(), identity.tier.as_deref()), ("ann", Some("acme"), Some("free")));
        assert_eq!(
            (identity.roles, identity.scopes, identity.client.as_deref()),
            (vec!["a".into(), "b".into()], vec!["x".into(), "y".into()], Some("app"))
        );
    }

    #[test]
    fn a_claim_of_the_wrong_type_is_not_overlooked() {
        for claims in
            [json!({}), json!({"sub": ""}), json!({"sub": 7}), json!({"sub": "a", "org": 5}), json!({"sub": "a", "org": ["acme"]})]
        {
            assert!(identity(&written(claims.clone()), &mapping(), "iss").is_err(), "{claims}");
        }
    }

    #[test]
    fn a_token_for_one_server_is_for_no_other() {
        let url = url::Url::parse("https://gw.example.com/").unwrap();
        let audience = Audience::new(&["api".into()], Some(&url));
        let judge = |aud: Value| audience.judge(Some(&aud));
        for aud in
            [json!("api"), json!("https://gw.example.com"), json!(["x", "https://gw.example.com/mcp"]), json!("https://gw.example.com/")]
        {
            assert_eq!(judge(aud.clone()), Ok(None), "{aud}");
        }
        assert_eq!(judge(json!(["https://gw.example.com/mcp/files", "x"])), Ok(Some(vec!["files".into()])));
        for aud in [
            json!("https://gw.example.com.evil"),
            json!("https://gw.example.com/mcp/"),
            json!("https://gw.example.com/mcp/a/b"),
            json!([]),
            json!({}),
            json!(5),
            json!([5]),
        ] {
            assert!(judge(aud.clone()).is_err(), "{aud}");
        }
        assert!(audience.judge(None).is_err());
    }
}
