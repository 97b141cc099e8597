//! Who asks. Every way to authenticate ends in one `Principal`, and everything that depends on the caller (permission,
//! sessions, limits, cache, log) looks at nothing else.

use std::sync::Arc;

/// How a principal was recognised; the `way` label of `auth_decisions_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// No credential was given, and none was required.
    Anonymous,
    ApiKey,
    Jwt,
    /// An opaque token, introspected (RFC 7662).
    OAuth2,
    /// The operator's own authenticator over HTTP.
    External,
    /// A client certificate (mutual TLS).
    Certificate,
    /// An authenticator compiled in (`extend`).
    Custom,
}

impl Way {
    pub const ALL: [Self; 7] = [Self::Anonymous, Self::ApiKey, Self::Jwt, Self::OAuth2, Self::External, Self::Certificate, Self::Custom];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::ApiKey => "api_key",
            Self::Jwt => "jwt",
            Self::OAuth2 => "oauth2",
            Self::External => "external",
            Self::Certificate => "certificate",
            Self::Custom => "custom",
        }
    }
}

/// What an authenticator says about a caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Who vouches: the token's issuer, or the name of our own list.
    pub issuer: String,
    /// Unique for the issuer.
    pub subject: String,
    /// The application acting for the subject (`azp`, `client_id`), if told.
    pub client: Option<String>,
    pub tenant: Option<String>,
    pub roles: Vec<String>,
    pub scopes: Vec<String>,
    /// Names the limits that apply.
    pub tier: Option<String>,
    /// The only MCP servers its token was issued for (RFC 8707); `None` is no such bound.
    pub servers: Option<Vec<String>>,
}

/// The caller of a request.
#[derive(Debug)]
pub struct Principal {
    pub way: Way,
    pub identity: Identity,
    binding: String,
}

impl Principal {
    pub fn new(way: Way, identity: Identity) -> Arc<Self> {
        let Identity { issuer, subject, client, tenant, .. } = &identity;
        // Lengths before texts, so that no two callers read alike.
        let part = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), |text| format!("{}:{text}", text.len()));
        let parts = [Some(issuer.as_str()), tenant.as_deref(), Some(subject.as_str()), client.as_deref()];
        let binding = if way == Way::Anonymous { String::new() } else { parts.map(part).concat() };
        Arc::new(Self { way, identity, binding })
    }

    /// What state of this caller is kept under: (issuer, tenant, subject, client). All anonymous callers are one.
    pub fn binding(&self) -> &str {
        &self.binding
    }

    /// Whether its credential is good for a server at all.
    pub fn is_for(&self, server: &str) -> bool {
        self.identity.servers.as_ref().is_none_or(|servers| servers.iter().any(|name| name == server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_callers_share_a_binding() {
        let principal = |issuer: &str, tenant: Option<&str>, subject: &str| {
            let identity =
                Identity { issuer: issuer.into(), tenant: tenant.map(Into::into), subject: subject.into(), ..Identity::default() };
            Principal::new(Way::Jwt, identity).binding().to_owned()
        };
        let all = [
            principal("a", None, "b"),
            principal("a", Some("b"), ""),
            principal("a", Some(""), "b"),
            principal("", Some("a"), "b"),
            principal("a-", None, "b"),
            principal("a1:b", None, ""),
            Principal::new(Way::Anonymous, Identity::default()).binding().to_owned(),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len(), "{all:?}");
    }
}
