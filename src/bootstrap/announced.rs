//! The PROXY protocol (versions 1 and 2): a balancer that passes bytes on announces the client's address before them. It
//! is read from trusted proxies only, and they must send it: a receiver that guessed could be told anything by anyone.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use pingora::listeners::PreTlsProcess;
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::{GetSocketDigest as _, SocketDigest};
use pingora::{Error, ErrorType, Result};
use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::io::AsyncReadExt as _;

use crate::snapshot::State;

/// Bytes of the longest header read: version 2 with the extensions balancers send.
const LONGEST: usize = 1024;

/// Reads announcements, where `server.proxy_protocol` is on.
pub struct Announced {
    pub state: Arc<State>,
}

#[async_trait]
impl PreTlsProcess for Announced {
    async fn process(&self, stream: &mut Stream) -> Result<()> {
        let snapshot = self.state.snapshot();
        let server = &snapshot.config.server;
        if !server.proxy_protocol {
            return Ok(());
        }
        let patience = server.limits.header_timeout;
        let read = read(stream, &server.trusted_proxies, patience).await;
        read.map_err(|reason| Error::explain(ErrorType::InvalidHTTPHeader, reason))
    }
}

async fn read(stream: &mut Stream, trusted: &[IpNet], patience: Duration) -> std::result::Result<(), &'static str> {
    let peer = stream.get_socket_digest().and_then(|digest| Some(digest.peer_addr()?.as_inet()?.ip().to_canonical()));
    if !peer.is_some_and(|ip: IpAddr| trusted.iter().any(|network| network.contains(&ip))) {
        return Ok(());
    }
    let header = tokio::time::timeout(patience, header(stream)).await.map_err(|_| "no PROXY header in time")?;
    if let Some(client) = header? {
        let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
        // It was made a moment ago and holds nothing yet.
        let _ = digest.peer_addr.set(Some(PingoraAddr::Inet(client)));
        stream.set_socket_digest(digest);
    }
    Ok(())
}

/// Reads the header byte by byte, so that nothing behind it is taken; the stream is buffered.
async fn header(stream: &mut Stream) -> std::result::Result<Option<SocketAddr>, &'static str> {
    let mut bytes = Vec::with_capacity(128);
    while bytes.len() < LONGEST {
        bytes.push(stream.read_u8().await.map_err(|_| "the connection ended before its PROXY header")?);
        // Version 1 is a line; its parser takes the beginning of one for a wrong one.
        let is_line = b"PROXY ".starts_with(&bytes) || bytes.starts_with(b"PROXY ");
        if is_line && bytes.last() != Some(&b'\n') {
            continue;
        }
        if !is_line && !b"\r\n\r\n\0\r\nQUIT\n".starts_with(&bytes[..bytes.len().min(12)]) {
            return Err("a trusted proxy sent no PROXY header");
        }
        let parsed = HeaderResult::parse(&bytes);
        if is_line || !parsed.is_incomplete() {
            return client(parsed);
        }
    }
    Err("the PROXY header is too long")
}

/// The client that was announced; `None` if the balancer speaks for itself (its health checks).
fn client(header: HeaderResult<'_>) -> std::result::Result<Option<SocketAddr>, &'static str> {
    match header {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) if header.command == v2::Command::Local => Ok(None),
        HeaderResult::V2(Ok(header)) => Ok(match header.addresses {
            v2::Addresses::IPv4(ip) => Some((ip.source_address, ip.source_port).into()),
            v2::Addresses::IPv6(ip) => Some((ip.source_address, ip.source_port).into()),
            v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err("a trusted proxy sent no PROXY header"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_announce_the_client() {
        let read = |bytes: &[u8]| client(HeaderResult::parse(bytes)).map(|found| found.map(|address| address.to_string()));
        assert_eq!(read(b"PROXY TCP4 1.2.3.4 10.0.0.1 5678 80\r\n"), Ok(Some("1.2.3.4:5678".into())));
        assert_eq!(read(b"PROXY TCP6 2001:db8::7 ::1 5678 80\r\n"), Ok(Some("[2001:db8::7]:5678".into())));
        assert_eq!(read(b"PROXY UNKNOWN\r\n"), Ok(None));
        let v2 = |command: u8| {
            [b"\r\n\r\n\0\r\nQUIT\n".as_slice(), &[command, 0x11, 0, 12, 1, 2, 3, 4, 10, 0, 0, 1, 0x16, 0x2e, 0, 80]].concat()
        };
        assert_eq!(read(&v2(0x21)), Ok(Some("1.2.3.4:5678".into())));
        assert_eq!(read(&v2(0x20)), Ok(None), "a health check of the balancer");
        assert!(read(b"GET / HTTP/1.1\r\n").is_err());
    }
}
