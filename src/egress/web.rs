//! Asking a web service the operator named: an identity provider's keys, an introspection endpoint, an authenticator.
//! The name is resolved, what it resolves to is judged and dialled, and nothing is followed elsewhere, so that no answer
//! and no DNS record can send us where the operator did not (SSRF).

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use url::Url;

use super::dial::Dialer;
use super::{Client, Failure, Incoming, Outgoing};

/// Bytes of the longest answer read; key sets and introspections are far smaller.
const MAX_ANSWER: usize = 1 << 20;

/// One URL of a web service.
pub struct Site {
    url: Url,
    host: HeaderValue,
    path: String,
    dialer: Dialer,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

impl Site {
    /// `url` is absolute, http or https; `ca` replaces the system's authorities.
    ///
    /// # Errors
    /// When the CA file cannot be used, or the URL cannot be written into a request.
    pub fn new(url: &Url, ca: Option<&PathBuf>) -> Result<Self, String> {
        let name = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        let path = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        Ok(Self {
            host: HeaderValue::from_str(&host).map_err(|_| format!("{url}: not a host"))?,
            path,
            dialer: Dialer::new("web", url, None, ca)?,
            url: url.clone(),
        })
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// A request to it that accepts JSON; the caller adds headers.
    pub fn request(&self, method: &'static str) -> Outgoing {
        let mut head = Outgoing::new(method, &self.path, &self.host);
        head.header(&header::ACCEPT, &HeaderValue::from_static("application/json"));
        head.header(&header::USER_AGENT, &HeaderValue::from_static(super::AGENT));
        head
    }

    /// Sends a request and reads its answer whole, within `wait` from the first lookup to the last byte.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn ask(&self, client: &Client, head: Outgoing, body: Bytes, wait: Duration) -> Result<Answer, Failure> {
        let asked = async {
            let incoming = self.open(client, head, body, wait).await?;
            let status = incoming.status();
            let retry_after = incoming.text("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
            Ok(Answer { status, retry_after, body: incoming.collect(MAX_ANSWER).await? })
        };
        tokio::time::timeout(wait, asked).await.unwrap_or(Err(Failure::TimedOut))
    }

    /// Sends to the first address that can be reached; for answers that are not read whole.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn open<'c>(&self, client: &'c Client, head: Outgoing, body: Bytes, wait: Duration) -> Result<Incoming<'c>, Failure> {
        let mut last = None;
        for address in self.resolve().await? {
            match client.send(&self.dialer.target(address), head.clone(), body.clone(), wait).await {
                Err(failure @ Failure::NotSent(_)) => last = Some(failure),
                answered => return answered,
            }
        }
        let host = self.url.host_str().unwrap_or_default();
        Err(last.unwrap_or_else(|| Failure::NotSent(format!("{host} resolves to no address that may be asked"))))
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.url.port_or_known_default().unwrap_or(443);
        let found = tokio::net::lookup_host((host, port)).await;
        let found = found.map_err(|e| Failure::NotSent(format!("resolving {host}: {e}")))?;
        Ok(found.filter(|address| !is_forbidden(address.ip())).collect())
    }
}

/// `Authorization` of an OAuth client that shows its secret (RFC 6749 §2.3.1: both parts are form-encoded before they are
/// joined).
pub fn basic(id: &str, secret: &str) -> HeaderValue {
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = STANDARD.encode(format!("{}:{}", encode(id), encode(secret)));
    let mut value = HeaderValue::from_str(&format!("Basic {pair}")).expect("base64 is visible ASCII");
    value.set_sensitive(true);
    value
}

/// Addresses that no identity provider has, but that a forged DNS record would like us to ask: link-local ones, where
/// clouds keep their credentials, and those that are no unicast address.
pub fn is_forbidden(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cloud_metadata_is_asked() {
        for ip in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "255.255.255.255"] {
            assert!(is_forbidden(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["127.0.0.1", "10.0.0.1", "93.184.216.34", "::1", "2606:4700::1"] {
            assert!(!is_forbidden(ip.parse().unwrap()), "{ip}");
        }
    }
}
