//! Who may reach us at all, before anyone is asked for a credential: browsers by Origin, and requests over loopback by
//! Host, so that a web page cannot drive a gateway on the visitor's own machine (DNS rebinding).

use std::net::IpAddr;

use http::HeaderMap;
use url::Url;

use crate::config;
use crate::reject::{Code, Reject, Verdict};

/// The compiled `access:` section.
#[derive(Debug, Default)]
pub struct Access {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Access {
    pub fn new(config: &config::Access) -> Self {
        Self { hosts: config.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(), origins: config.origins.clone() }
    }

    /// Judges a request by where it comes from. `host` is `Host` or `:authority`.
    ///
    /// # Errors
    /// `host_forbidden` or `origin_forbidden`.
    pub fn judge(&self, client: Option<IpAddr>, host: Option<&str>, headers: &HeaderMap) -> Verdict<()> {
        if client.is_some_and(|ip| ip.to_canonical().is_loopback()) && !host.is_some_and(|host| self.may_be_called(host)) {
            return Err(Reject::new(Code::HostForbidden, "this Host is not served over loopback; list it in access.hosts"));
        }
        let mut origins = headers.get_all(http::header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return Ok(()) };
        let allowed = origins.next().is_none() && origin.to_str().is_ok_and(|origin| self.may_come_from(origin, host));
        if allowed { Ok(()) } else { Err(Reject::new(Code::OriginForbidden, "this Origin is neither ours nor listed in access.origins")) }
    }

    fn may_be_called(&self, host: &str) -> bool {
        let name = host_name(host).to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name == "localhost"
            || name.ends_with(".localhost")
            || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
            || self.hosts.iter().any(|listed| *listed == name || *listed == host.to_ascii_lowercase())
    }

    fn may_come_from(&self, origin: &str, host: Option<&str>) -> bool {
        if self.origins.iter().any(|listed| listed.eq_ignore_ascii_case(origin)) {
            return true;
        }
        // Ours is what the browser believes to talk to: the same host and port as the request.
        let Ok(url) = Url::parse(origin) else { return false };
        let Some(name) = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https")) else { return false };
        let authority = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        host.is_some_and(|host| host.eq_ignore_ascii_case(&authority))
    }
}

/// The name in `name:port`, brackets of an IPv6 address included.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access::new(&config::Access { hosts: vec!["gw.example.com".into()], origins: vec!["https://app.example.com".into()] })
    }

    fn judge(client: &str, host: Option<&str>, origin: Option<&str>) -> Option<Code> {
        let headers = origin.map(|origin| (http::header::ORIGIN, origin.parse().unwrap())).into_iter().collect();
        access().judge(Some(client.parse().unwrap()), host, &headers).err().map(|reject| reject.code)
    }

    #[test]
    fn over_loopback_only_loopback_and_listed_hosts_are_served() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "x.localhost", "gw.example.com", "GW.example.com:443"] {
            assert_eq!(judge("127.0.0.1", Some(host), None), None, "{host}");
        }
        for host in [Some("evil.example"), Some("127.0.0.1.evil.example"), Some(""), None] {
            assert_eq!(judge("::1", host, None), Some(Code::HostForbidden), "{host:?}");
            assert_eq!(judge("::ffff:127.0.0.1", host, None), Some(Code::HostForbidden), "{host:?}");
            assert_eq!(judge("10.0.0.7", host, None), None, "{host:?}");
        }
    }

    #[test]
    fn a_browser_must_come_from_us_or_a_listed_origin() {
        let from = |origin| judge("10.0.0.7", Some("gw:8080"), Some(origin));
        assert_eq!(from("http://gw:8080"), None);
        assert_eq!(from("https://app.example.com"), None);
        for origin in ["http://gw", "http://gw:80801", "null", "https://app.example.com.evil", "http://evil", "", "file://gw:8080"] {
            assert_eq!(from(origin), Some(Code::OriginForbidden), "{origin}");
        }
    }
}
