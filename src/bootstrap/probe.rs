//! `mcp-gateway health`: asks a running gateway how it is, for health checks in containers that hold nothing but the binary.

use std::io::{ErrorKind, Read as _, Write as _};
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

/// Asks whether it serves. One that has as many connections as it may (`server.limits.connections`) hangs up on more, and
/// whoever ended it for that would end all of those.
///
/// # Errors
/// Why there is no answer, or an answer other than 200.
pub fn ask_health(base: &Url) -> Result<String, String> {
    ask(base, "/health").or_else(|why| match why {
        Silence::HungUp => Ok("it takes connections, and hangs up: there are as many as it may have".to_owned()),
        Silence::Other(why) => Err(why),
    })
}

/// Asks whether traffic should come to it.
///
/// # Errors
/// Why there is no answer, or an answer other than 200.
pub fn ask_ready(base: &Url) -> Result<String, String> {
    ask(base, "/ready").map_err(|why| match why {
        Silence::HungUp => format!("{base}: it hung up"),
        Silence::Other(why) => why,
    })
}

/// Why there is no answer.
enum Silence {
    /// The connection was accepted, and ended without a word.
    HungUp,
    Other(String),
}

/// Asks for one page and gives back its body.
fn ask(base: &Url, path: &str) -> Result<String, Silence> {
    let url = base.join(path).map_err(|e| Silence::Other(format!("{base}: {e}")))?;
    if url.scheme() != "http" {
        return Err(Silence::Other(format!("{url}: ask the plain listener, http://")));
    }
    let mut stream = connect(&url).map_err(|e| Silence::Other(format!("{url}: {e}")))?;
    let answer = exchange(&mut stream, &url).map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Silence::HungUp,
        _ => Silence::Other(format!("{url}: {e}")),
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.split_ascii_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ if answer.is_empty() => Err(Silence::HungUp),
        _ => Err(Silence::Other(format!("{url}: {} {body}", head.lines().next().unwrap_or("no answer")))),
    }
}

fn exchange(stream: &mut TcpStream, url: &Url) -> std::io::Result<String> {
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(80);
    write!(stream, "GET {} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n", url.path())?;
    let mut answer = Vec::new();
    let read = stream.take(LONGEST).read_to_end(&mut answer);
    // Whoever began to answer did not hang up.
    read.map_err(|e| if answer.is_empty() { e } else { std::io::Error::other(e) })?;
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
