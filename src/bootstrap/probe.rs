//! `mcp-gateway health`: asks a running gateway how it is, for health checks in containers that hold nothing but the binary.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use url::Url;

/// The longest that connecting may take, and each silence after it.
const WAIT: Duration = Duration::from_secs(3);
/// Bytes of the longest answer read.
const LONGEST: u64 = 64 << 10;

/// How a gateway that listens on `address` is reached from the same machine.
///
/// # Errors
/// Port 0 does not say where it listens.
pub fn base(address: SocketAddr) -> Result<Url, String> {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        ip if ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
        _ => Ipv6Addr::LOCALHOST.into(),
    };
    if address.port() == 0 {
        return Err("server.listen has port 0; say where it listens with --url".into());
    }
    Url::parse(&format!("http://{}", SocketAddr::new(ip, address.port()))).map_err(|e| e.to_string())
}

/// Asks for one page and gives back its body.
///
/// # Errors
/// Why there is no answer, or an answer other than 200.
pub fn ask(base: &Url, path: &str) -> Result<String, String> {
    let url = base.join(path).map_err(|e| format!("{base}: {e}"))?;
    if url.scheme() != "http" {
        return Err(format!("{url}: ask the plain listener, http://"));
    }
    let answer = exchange(&url).map_err(|e| format!("{url}: {e}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split_ascii_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(format!("{url}: {} {body}", head.lines().next().unwrap_or("no answer"))),
    }
}

fn exchange(url: &Url) -> std::io::Result<String> {
    let mut stream = connect(url)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(80);
    write!(stream, "GET {} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n", url.path())?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// To the first address of the name that can be reached.
fn connect(url: &Url) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("no such host");
    for address in url.socket_addrs(|| None)? {
        match TcpStream::connect_timeout(&address, WAIT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
