//! A call from the operator's page, made as any caller would make it: over HTTP, to our own public listener, with the
//! credential that was typed into the page and nothing of the operator's own. So whoever may use the admin listener may not,
//! for that, call anything; every stage of `proxy::admit` judges the call. An address rule of `access` is asked about the
//! operator's address first, because the call itself comes from ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use pingora::upstreams::peer::HttpPeer;
use serde::{Deserialize, Serialize};

use super::credentials;
use crate::access;
use crate::config;
use crate::egress::{AGENT, Client, Failure, Outgoing, Target};
use crate::mcp::message::{explain, must_be_object};
use crate::page::Page;
use crate::reject::{Code, Reject, Verdict};
use crate::sidecar::admin::json_page;
use crate::snapshot::Snapshot;
use crate::verbatim::Verbatim;

/// How long a call may take.
const WAIT: Duration = Duration::from_secs(120);
/// Bytes of the longest answer that is shown.
const LONGEST: usize = 4 << 20;
/// Headers of the answer that are shown.
const SHOWN: [&str; 6] = ["cache-status", "age", "ratelimit", "ratelimit-policy", "retry-after", "www-authenticate"];

/// Makes the calls. Its connections are its own: the proxy's belong to the proxy's runtime.
pub struct Playground {
    client: Client,
}

/// What is to be called.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish<'b> {
    server: String,
    /// The body of a REST call, sent as it stands.
    #[serde(borrow)]
    request: Verbatim<'b>,
    credential: Option<Credential>,
}

/// What the caller shows; held while the call lasts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credential {
    header: String,
    value: String,
}

/// What came back.
#[derive(Serialize)]
struct Answer {
    status: u16,
    seconds: f64,
    request_id: String,
    headers: Vec<(&'static str, String)>,
    /// As it came.
    body: String,
}

impl Playground {
    pub fn new() -> Self {
        Self { client: Client::new(4) }
    }

    /// Makes a call for an operator at this address.
    ///
    /// # Errors
    /// What is wrong with the wish; what becomes of the call is part of the answer.
    pub async fn call(&self, snapshot: &Snapshot, operator: Option<IpAddr>, body: &[u8]) -> Verdict<Page> {
        must_be_object(body)?;
        let wish: Wish<'_> = serde_json::from_slice(body).map_err(|e| explain(&e))?;
        let operator = operator.map(|address| address.to_canonical());
        let from = access::Client { peer: operator, address: operator, tls: false };
        snapshot.access.judge(from, Some("localhost"), &HeaderMap::new())?;
        let address = reachable(snapshot.config.server.listen);
        let head = head(snapshot, &wish, operator, address)?;
        let began = Instant::now();
        let target = Target::new(HttpPeer::new(address, false, String::new()), address);
        let request = Bytes::copy_from_slice(wish.request.get().as_bytes());
        let incoming = self.client.send(&target, head, request, WAIT).await.map_err(broken)?;
        let status = incoming.status().as_u16();
        let text = |name: &str| incoming.text(name).unwrap_or_default().to_owned();
        let request_id = text("x-request-id");
        let headers = SHOWN.iter().filter_map(|name| Some((*name, incoming.text(*name)?.to_owned()))).collect();
        let body = tokio::time::timeout(WAIT, incoming.collect(LONGEST)).await.unwrap_or(Err(Failure::TimedOut)).map_err(broken)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(json_page(&Answer { status, seconds: began.elapsed().as_secs_f64(), request_id, headers, body }))
    }
}

/// Where a listener can be called from this machine.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

/// The header of the call: what we make of it, the operator's address for where it is believed, and the credential in one
/// of the headers that carry any.
fn head(snapshot: &Snapshot, wish: &Wish<'_>, operator: Option<IpAddr>, address: SocketAddr) -> Verdict<Outgoing> {
    let wrong = |what: &'static str| Reject::new(Code::InvalidParams, what);
    let server = config::label(&wish.server, "server").map_err(|_| wrong("`server` is no name of an MCP server"))?;
    let host = HeaderValue::from_str(&address.to_string()).map_err(|_| wrong("`server.listen` cannot be called"))?;
    let mut head = Outgoing::new("POST", &format!("/api/mcp/{server}"), &host);
    head.header(&header::CONTENT_TYPE, &HeaderValue::from_static("application/json"));
    head.header(&header::ACCEPT, &HeaderValue::from_static("application/json"));
    head.header(&header::USER_AGENT, &HeaderValue::from_static(AGENT));
    if let Some(operator) = operator {
        head.text("x-forwarded-for", &operator.to_string()).map_err(|_| wrong("an address cannot be written"))?;
    }
    let Some(credential) = &wish.credential else { return Ok(head) };
    let known = credentials(&snapshot.config).into_iter().find(|known| known.eq_ignore_ascii_case(&credential.header));
    let header = known.ok_or_else(|| wrong("`credential.header` is none that carries a credential"))?;
    let value = if header == "authorization" { format!("Bearer {}", credential.value) } else { credential.value.clone() };
    head.text(header, &value).map_err(|_| wrong("`credential.value` cannot stand in a header"))?;
    Ok(head)
}

/// The gateway could not call itself.
fn broken(failure: Failure) -> Reject {
    let detail = match failure {
        Failure::TooLarge => "the answer is longer than the 4 MiB that are shown; the call was made",
        Failure::TimedOut => "no answer within two minutes; the call may have been made",
        Failure::NotSent(_) | Failure::Broken(_) => {
            "the public listener cannot be called from here (server.proxy_protocol, or a TLS-only path)"
        }
    };
    Reject::new(Code::BackendFailed, detail).because(failure)
}
