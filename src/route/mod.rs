//! Where a path leads. The table is small and fixed, so it is matched exactly, byte for byte: `//x`, `/./x`, `/%2e%2e/x`
//! and a trailing slash lead nowhere. Which backends a request may go to from there is said by `rule` and `version`.

pub mod rule;
pub mod version;

use http::Method;

use self::version::Versions;
use crate::mcp::rest::Form;
use crate::reject::{Code, Reject, Verdict, clip};

/// What a path stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'p> {
    Health,
    Ready,
    Metrics,
    Servers,
    OpenApi,
    /// OAuth metadata of the resource at this path below us (RFC 9728).
    ProtectedResource(&'p str),
    /// `/docs` and the files below it; empty for the page itself.
    Docs(&'p str),
    Rest {
        server: &'p str,
        form: Form,
        /// The API version; `v1` where the path names none.
        version: &'p str,
    },
    Native {
        server: &'p str,
    },
}

impl Route<'_> {
    /// The `route` label of metrics and log.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Health => "/health",
            Self::Ready => "/ready",
            Self::Metrics => "/metrics",
            Self::Servers => "/api/servers",
            Self::OpenApi => "/openapi.json",
            Self::ProtectedResource(_) => "/.well-known/oauth-protected-resource",
            Self::Docs(_) => "/docs",
            Self::Rest { version: "v1", .. } => "/api/mcp/{server}",
            Self::Rest { version: "v2", .. } => "/api/v2/mcp/{server}",
            Self::Rest { .. } => "/api/{version}/mcp/{server}",
            Self::Native { .. } => "/mcp/{server}",
        }
    }

    /// Whether it is answered from memory, without a backend.
    pub const fn is_page(&self) -> bool {
        !matches!(self, Self::Rest { .. } | Self::Native { .. })
    }

    /// Whether nobody needs to say who they are.
    pub const fn is_open(&self) -> bool {
        self.is_page() && !matches!(self, Self::Servers)
    }

    /// The methods it answers, as `Allow` lists them.
    pub const fn allow(&self) -> &'static str {
        match self {
            Self::Rest { .. } => "POST",
            Self::Native { .. } => "POST, GET, DELETE",
            _ => "GET, HEAD",
        }
    }
}

/// Finds the route of a path.
///
/// # Errors
/// `not_found`, for another version naming those there are, or `method_not_allowed` naming what is.
pub fn find<'p>(method: &Method, path: &'p str, versions: &Versions) -> Verdict<Route<'p>> {
    let route = match lookup(path).ok_or_else(|| Reject::new(Code::NotFound, format!("no such path: {}", clip(path))))? {
        Route::Rest { server, version, .. } => {
            let form = versions.find(version).map(|version| version.form);
            let none = || Reject::new(Code::NotFound, format!("no API version `{}`; there are {}", clip(version), versions.names()));
            Route::Rest { server, version, form: form.ok_or_else(none)? }
        }
        route => route,
    };
    if route.allow().split(", ").any(|allowed| allowed == method.as_str()) {
        Ok(route)
    } else {
        Err(Reject::method_not_allowed(route.allow()))
    }
}

fn lookup(path: &str) -> Option<Route<'_>> {
    Some(match path {
        "/health" => Route::Health,
        "/ready" => Route::Ready,
        "/metrics" => Route::Metrics,
        "/api/servers" => Route::Servers,
        "/openapi.json" => Route::OpenApi,
        "/docs" => Route::Docs(""),
        _ => return deeper(path),
    })
}

fn deeper(path: &str) -> Option<Route<'_>> {
    if let Some(server) = path.strip_prefix("/mcp/") {
        return segment(server).map(|server| Route::Native { server });
    }
    if let Some(file) = path.strip_prefix("/docs/") {
        return Some(Route::Docs(file));
    }
    if let Some(resource) = path.strip_prefix("/.well-known/oauth-protected-resource") {
        // Our own base path may stand before it, which is for the configuration to know.
        return (resource.is_empty() || resource.starts_with('/')).then_some(Route::ProtectedResource(resource));
    }
    let rest = path.strip_prefix("/api/")?;
    let (version, rest) = match rest.split_once('/')? {
        ("mcp", server) => ("v1", server),
        (version, rest) => (version, rest.strip_prefix("mcp/")?),
    };
    // The form is the version's, which is for the configuration to know.
    segment(rest).map(|server| Route::Rest { server, form: Form::V1, version })
}

fn segment(text: &str) -> Option<&str> {
    (!text.is_empty() && !text.contains('/')).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_the_contract_says() {
        let versions = Versions::new(&crate::config::parse("", "backends: [{ name: a, url: 'http://a' }]", &|_| None).unwrap().versions);
        let find = |path| find(&Method::POST, path, &versions).ok();
        let rest = |server, form, version| Some(Route::Rest { server, form, version });
        assert_eq!(find("/api/mcp/files"), rest("files", Form::V1, "v1"));
        assert_eq!(find("/api/v1/mcp/files"), rest("files", Form::V1, "v1"));
        assert_eq!(find("/api/v2/mcp/files"), rest("files", Form::V2, "v2"));
        assert_eq!(find("/api/v3/mcp/files"), None);
        assert_eq!(lookup("/mcp/files"), Some(Route::Native { server: "files" }));
        assert_eq!(lookup("/docs/swagger-ui.css"), Some(Route::Docs("swagger-ui.css")));
    }

    #[test]
    fn nothing_near_a_path_leads_there() {
        for path in [
            "",
            "/",
            "//health",
            "/health/",
            "/./health",
            "/%2e%2e/health",
            "/mcp/",
            "/mcp/a/b",
            "/api/v3/mpc/a",
            "/api/v3/mcp/a/b",
            "/api//mcp/a/b",
            "/api/mcp/",
            "/HEALTH",
            "/.well-known/oauth-protected-resourcex",
        ] {
            assert_eq!(lookup(path), None, "{path}");
        }
        assert_eq!(find(&Method::PUT, "/mcp/a", &Versions::default()).unwrap_err().code, Code::MethodNotAllowed);
    }
}
