//! How to get in: `WWW-Authenticate` (RFC 6750 §3, RFC 9728 §5.1) and the protected resource metadata (RFC 9728) that it
//! points to. MCP clients discover everything from these, so both are written the way clients read them: `Bearer` first,
//! `scope` before anything that could look like it, and every URL absolute.

use std::fmt::Write as _;

use serde::Serialize;
use url::Url;

use crate::config::identity::OAuth2;

/// Where the metadata is, before the path of the resource.
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// What is wrong with a request (RFC 6750 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// There was no credential, so nothing is said of one.
    Missing,
    InvalidToken,
    InsufficientScope,
}

/// The value of `WWW-Authenticate`. `base` is our public URL, `path` that of the protected resource below it (`""`,
/// `/mcp` or `/mcp/{server}`).
pub fn value(oauth2: Option<&OAuth2>, base: &str, path: &str, wrong: Wrong, scopes: &[String]) -> String {
    let mut text = String::from("Bearer realm=\"mcp-gateway\"");
    if !scopes.is_empty() {
        let _ = write!(text, ", scope=\"{}\"", quoted(&scopes.join(" ")));
    }
    match wrong {
        Wrong::Missing => {}
        Wrong::InvalidToken => text.push_str(", error=\"invalid_token\""),
        Wrong::InsufficientScope => text.push_str(", error=\"insufficient_scope\""),
    }
    if oauth2.is_some_and(|oauth2| !oauth2.authorization_servers.is_empty()) {
        let _ = write!(text, ", resource_metadata=\"{}\"", quoted(&metadata_url(base, path)));
    }
    text
}

/// The well-known part goes between host and path (RFC 9728 §3.1).
fn metadata_url(base: &str, path: &str) -> String {
    match Url::parse(base) {
        Ok(url) => format!("{}{WELL_KNOWN}{}{path}", url.origin().ascii_serialization(), url.path().trim_end_matches('/')),
        Err(_) => format!("{base}{WELL_KNOWN}{path}"),
    }
}

/// Text for a quoted string: what cannot stand in one is left out.
fn quoted(text: &str) -> String {
    text.chars().filter(|c| (' '..='~').contains(c) && !matches!(c, '"' | '\\')).collect()
}

#[derive(Serialize)]
struct Metadata<'a> {
    resource: String,
    authorization_servers: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scopes_supported: Vec<&'a String>,
    bearer_methods_supported: [&'static str; 1],
    resource_name: String,
}

/// The metadata document of the resource at `path`.
pub fn metadata<'a>(oauth2: &OAuth2, scopes: impl Iterator<Item = &'a String>, base: &str, path: &str) -> Vec<u8> {
    let document = Metadata {
        resource: format!("{base}{path}"),
        authorization_servers: &oauth2.authorization_servers,
        scopes_supported: scopes.collect(),
        bearer_methods_supported: ["header"],
        resource_name: path.strip_prefix("/mcp/").map_or_else(|| "mcp-gateway".to_owned(), |server| format!("mcp-gateway: {server}")),
    };
    serde_json::to_vec(&document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_reads_as_clients_expect() {
        let oauth2 = OAuth2 {
            resource: None,
            authorization_servers: vec!["https://as.example".into()],
            challenge_scopes: vec![],
            introspection: None,
        };
        let scopes = ["mcp:read".to_owned(), "evil\"\r\nX: y".to_owned()];
        assert_eq!(
            value(Some(&oauth2), "https://gw.example", "/mcp/files", Wrong::InsufficientScope, &scopes),
            "Bearer realm=\"mcp-gateway\", scope=\"mcp:read evilX: y\", error=\"insufficient_scope\", \
             resource_metadata=\"https://gw.example/.well-known/oauth-protected-resource/mcp/files\""
        );
        assert_eq!(value(None, "https://gw.example", "", Wrong::Missing, &[]), "Bearer realm=\"mcp-gateway\"");
        assert_eq!(metadata_url("https://a.example/gw", "/mcp"), "https://a.example/.well-known/oauth-protected-resource/gw/mcp");
    }
}
