//! Who may reach us at all, before anyone is asked for a credential: addresses by network, browsers by Origin, and
//! requests over loopback by Host, so that a web page cannot drive a gateway on the visitor's own machine (DNS
//! rebinding). Also who the client really is, behind proxies that are trusted to say so.

use std::net::IpAddr;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use ipnet::IpNet;
use url::Url;

use crate::config;
use crate::page::Page;
use crate::reject::{Code, Reject, Verdict};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What a page of a listed origin may send, by CORS.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
/// What it may read beside the body.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Mcp-Session-Id, X-Request-ID, WWW-Authenticate, Retry-After, RateLimit, RateLimit-Policy, Deprecation, Sunset, Link",
);
/// Seconds a browser may remember a preflight.
const REMEMBERED: HeaderValue = HeaderValue::from_static("600");

/// The compiled `access:` section, and who is trusted to speak for clients.
#[derive(Debug, Default)]
pub struct Access {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    proxies: Vec<IpNet>,
    hosts: Vec<String>,
    origins: Vec<String>,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The far end of the connection.
    pub peer: Option<IpAddr>,
    /// The real client.
    pub address: Option<IpAddr>,
    /// Whether the client speaks TLS, with us or with a trusted proxy.
    pub tls: bool,
}

impl Access {
    pub fn new(config: &config::Config) -> Self {
        let access = &config.access;
        Self {
            allow: access.allow.clone(),
            deny: access.deny.clone(),
            proxies: config.server.trusted_proxies.clone(),
            hosts: access.hosts.clone(),
            origins: access.origins.clone(),
        }
    }

    /// Finds the real client: the last address in `X-Forwarded-For` that no trusted proxy put there for itself. What is
    /// no address makes the proxy that sent it the client.
    pub fn client(&self, peer: Option<IpAddr>, tls: bool, headers: &HeaderMap) -> Client {
        let peer = peer.map(|ip| ip.to_canonical());
        let Some(mut address) = peer.filter(|ip| within(&self.proxies, *ip)) else { return Client { peer, address: peer, tls } };
        // As bytes: a line that is not text must not vanish with what the proxy added to it.
        for hop in headers.get_all(FORWARDED_FOR).iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b',')) {
            let Some(ip) = std::str::from_utf8(hop).ok().and_then(|hop| parsed(hop.trim())) else { break };
            address = ip;
            if !within(&self.proxies, ip) {
                break;
            }
        }
        let proto = headers.get(FORWARDED_PROTO).map(|value| value.as_bytes().eq_ignore_ascii_case(b"https"));
        Client { peer, address: Some(address), tls: proto.unwrap_or(tls) }
    }

    /// Judges a request by where it comes from. `host` is `Host` or `:authority`. Gives back the origin of a page of
    /// another site that may read the answer.
    ///
    /// # Errors
    /// `address_forbidden`, `host_forbidden` or `origin_forbidden`.
    pub fn judge(&self, client: Client, host: Option<&str>, headers: &HeaderMap) -> Verdict<Option<HeaderValue>> {
        self.judge_address(client.address)?;
        if client.peer.is_some_and(|ip| ip.is_loopback()) && !host.is_some_and(|host| self.may_be_called(host)) {
            return Err(Reject::new(Code::HostForbidden, "this Host is not served over loopback; list it in access.hosts"));
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = origins.next() else { return Ok(None) };
        let refused = || Reject::new(Code::OriginForbidden, "this Origin is neither ours nor listed in access.origins");
        let text = origin.to_str().ok().filter(|_| origins.next().is_none()).ok_or_else(refused)?;
        if self.origins.iter().any(|listed| listed.eq_ignore_ascii_case(text)) {
            return Ok(Some(origin.clone()));
        }
        if is_ours(text, host) { Ok(None) } else { Err(refused()) }
    }

    fn judge_address(&self, address: Option<IpAddr>) -> Verdict<()> {
        if self.allow.is_empty() && self.deny.is_empty() {
            return Ok(());
        }
        let allowed = address.is_some_and(|ip| !within(&self.deny, ip) && (self.allow.is_empty() || within(&self.allow, ip)));
        if allowed { Ok(()) } else { Err(Reject::new(Code::AddressForbidden, "this address may not use the gateway")) }
    }

    fn may_be_called(&self, host: &str) -> bool {
        let name = host_name(host);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        // It, and every name below it (RFC 6761 §6.3).
        name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
            || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
            || self.hosts.iter().any(|listed| listed.eq_ignore_ascii_case(name) || listed.eq_ignore_ascii_case(host))
    }
}

/// The answer to a browser that asks whether a page may send a request (CORS preflight); `None` if it asks no such thing.
pub fn preflight(method: &Method, headers: &HeaderMap) -> Option<Page> {
    if method != Method::OPTIONS || !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    let page = Page::json(200, "").with(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS).with(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED);
    // Whatever it wants to send: which headers count is decided by name when they come.
    Some(match headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        Some(wanted) => page.with(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone()),
        None => page,
    })
}

/// What an answer to a page of another site carries so that the browser lets the page read it.
pub fn shared_with(origin: &HeaderValue) -> [(HeaderName, HeaderValue); 3] {
    [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
        (header::VARY, HeaderValue::from_static("Origin")),
    ]
}

fn within(networks: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

/// An address as proxies write it: bare, or with a port.
fn parsed(hop: &str) -> Option<IpAddr> {
    let bare = hop.parse::<IpAddr>().ok().or_else(|| hop.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()));
    bare.or_else(|| hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok()).map(|ip| ip.to_canonical())
}

/// Ours is what the browser believes to talk to: the same host and port as the request.
fn is_ours(origin: &str, host: Option<&str>) -> bool {
    let Ok(url) = Url::parse(origin) else { return false };
    let Some(name) = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https")) else { return false };
    let authority = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
    host.is_some_and(|host| host.eq_ignore_ascii_case(&authority))
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

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn access() -> Access {
        Access { hosts: vec!["gw.example.com".into()], origins: vec!["https://app.example.com".into()], ..Access::default() }
    }

    fn from(ip: &str) -> Client {
        let ip = Some(ip.parse::<IpAddr>().unwrap().to_canonical());
        Client { peer: ip, address: ip, tls: false }
    }

    fn judge(client: &str, host: Option<&str>, origin: Option<&str>) -> Option<Code> {
        let headers = origin.map(|origin| (header::ORIGIN, origin.parse().unwrap())).into_iter().collect();
        access().judge(from(client), host, &headers).err().map(|reject| reject.code)
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

    #[test]
    fn only_a_trusted_proxy_says_who_the_client_is() {
        let access = Access { proxies: nets(&["10.0.0.0/8", "::1/128"]), ..Access::default() };
        let client = |peer: &str, lists: &[&str]| {
            let value = |list: &&str| HeaderValue::from_bytes(&list.bytes().map(|b| if b == b'?' { 0xff } else { b }).collect::<Vec<_>>());
            let headers = lists.iter().map(|list| (FORWARDED_FOR, value(list).unwrap())).collect();
            access.client(Some(peer.parse().unwrap()), false, &headers).address.unwrap().to_string()
        };
        assert_eq!(client("203.0.113.9", &["1.2.3.4"]), "203.0.113.9", "a stranger's word counts for nothing");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.2.3.4"]), "1.2.3.4", "what the client itself wrote stands further left");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.2.2.2"]), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.2.3.4"]), "1.2.3.4", "several headers are one list");
        assert_eq!(client("10.0.0.1", &["1.2.3.4, nonsense"]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["?, 1.2.3.4"]), "1.2.3.4", "a byte that is no text hides nobody");
        assert_eq!(client("10.0.0.1", &["1.2.3.4:5678"]), "1.2.3.4");
        assert_eq!(client("::1", &["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:1.2.3.4"]), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn networks_are_let_in_and_kept_out() {
        let access = Access { allow: nets(&["10.0.0.0/8", "2001:db8::/32"]), deny: nets(&["10.6.0.0/16"]), ..Access::default() };
        let judge = |ip: &str| access.judge(from(ip), Some("gw"), &HeaderMap::new()).err().map(|reject| reject.code);
        for ip in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"] {
            assert_eq!(judge(ip), None, "{ip}");
        }
        for ip in ["10.6.0.1", "::ffff:10.6.0.1", "11.0.0.1", "2001:db9::1"] {
            assert_eq!(judge(ip), Some(Code::AddressForbidden), "{ip}");
        }
    }
}
