//! The socket of a Datadog agent. It is opened anew after every fault, and a name is looked up before every flush, so that an
//! agent that was started again is found.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{UdpSocket, UnixDatagram};

use crate::config::Statsd;

/// Largest datagrams: what passes through networks in one piece (Datadog's own clients keep to it), and what agents read
/// from a socket.
const UDP: usize = 1432;
const UNIX: usize = 8192;
/// How soon a host tells that nobody listens (ICMP).
const ECHO: Duration = Duration::from_millis(5);

/// Where an agent is, and the way to it.
pub struct Agent {
    at: Statsd,
    socket: Option<Socket>,
}

enum Socket {
    Udp(UdpSocket, SocketAddr),
    Unix(UnixDatagram),
}

impl Agent {
    pub fn new(at: Statsd) -> Self {
        Self { at, socket: None }
    }

    /// Bytes that one datagram may have.
    pub fn room(&self) -> usize {
        if matches!(self.at, Statsd::Udp { .. }) { UDP } else { UNIX }
    }

    /// # Errors
    /// Why there is no way to it.
    pub async fn connect(&mut self) -> Result<(), String> {
        match &self.at {
            Statsd::Unix(path) if self.socket.is_none() => {
                let open = || UnixDatagram::unbound().and_then(|socket| socket.connect(path).map(|()| socket));
                self.socket = Some(Socket::Unix(open().map_err(|e| e.to_string())?));
            }
            Statsd::Unix(_) => {}
            Statsd::Udp { host, port } => {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|e| format!("resolving {host}: {e}"))?;
                let found: Vec<_> = found.collect();
                let known = matches!(&self.socket, Some(Socket::Udp(_, to)) if found.contains(to));
                if !known {
                    let to = *found.first().ok_or_else(|| format!("{host} resolves to no address"))?;
                    self.socket = Some(Socket::Udp(udp(to).await.map_err(|e| e.to_string())?, to));
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// Why it was not sent.
    pub async fn send(&mut self, datagram: &[u8]) -> Result<(), String> {
        let sent = match &self.socket {
            Some(Socket::Udp(socket, _)) => socket.send(datagram).await,
            Some(Socket::Unix(socket)) => socket.send(datagram).await,
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        self.checked(sent.map(drop))
    }

    /// Whether the host said that nobody listens.
    ///
    /// # Errors
    /// If it did.
    pub async fn heard(&mut self) -> Result<(), String> {
        let Some(Socket::Udp(socket, _)) = &self.socket else { return Ok(()) };
        tokio::time::sleep(ECHO).await;
        let said = socket.take_error().and_then(|fault| fault.map_or(Ok(()), Err));
        self.checked(said)
    }

    fn checked(&mut self, result: io::Result<()>) -> Result<(), String> {
        if result.is_err() {
            self.socket = None;
        }
        result.map_err(|e| e.to_string())
    }
}

async fn udp(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}
