//! The little HTTP/1.1 that both ends of the benchmark speak: read a head, read its body, write bytes.
//!
//! Written by hand because a full client and server would spend more CPU than the proxies they measure, and share
//! the other core with them; it is strict instead of complete and refuses what it does not understand.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

/// Far above any head the gateway may send; a larger one is a fault, not something to wait for.
const MAX_HEAD: usize = 64 * 1024;
/// Small enough to keep 1,000 idle connections cheap, large enough for one small exchange.
const BUFFER: usize = 16 * 1024;

/// One connection and what was read from it beyond the last message.
pub struct Wire {
    stream: TcpStream,
    buffer: BytesMut,
}

/// The start line and headers of one message, as they came.
pub struct Head(Bytes);

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Framing {
    Sized(usize),
    Chunked,
}

impl Wire {
    pub async fn connect(addr: SocketAddr) -> Result<Self> {
        Self::over(TcpStream::connect(addr).await?)
    }

    pub fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(BUFFER) })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// The next head, or `None` when the peer closed between two messages.
    pub async fn head(&mut self) -> Result<Option<Head>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                return Ok(Some(Head(self.buffer.split_to(end + 4).freeze())));
            }
            if self.buffer.len() > MAX_HEAD {
                return Err("a message head of more than 64 KiB".into());
            }
            if self.fill(BUFFER).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err("closed within a head".into()) };
            }
        }
    }

    pub async fn body(&mut self, framing: Framing) -> Result<BytesMut> {
        match framing {
            Framing::Sized(length) => self.take(length).await,
            Framing::Chunked => self.chunks().await,
        }
    }

    /// One piece of a body that has no end, such as an event stream.
    pub async fn piece(&mut self) -> Result<BytesMut> {
        if self.buffer.is_empty() && self.fill(BUFFER).await? == 0 {
            return Err("closed before the first event".into());
        }
        Ok(self.buffer.split())
    }

    /// Waits until the peer closes, discarding what it sends.
    pub async fn until_closed(&mut self) -> Result<()> {
        while self.fill(BUFFER).await? > 0 {
            self.buffer.clear();
        }
        Ok(())
    }

    /// Has the peer left the connection open? What it sent meanwhile does not matter.
    pub fn is_open(&self) -> bool {
        let mut sink = [0; 1024];
        match self.stream.try_read(&mut sink) {
            Ok(length) => length > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }

    async fn chunks(&mut self) -> Result<BytesMut> {
        let mut body = BytesMut::new();
        loop {
            let line = self.line().await?;
            let length = std::str::from_utf8(&line)?.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(length, 16).map_err(|_| format!("bad chunk size {line:?}"))?;
            body.unsplit(self.take(length).await?);
            if !self.line().await?.is_empty() {
                return Err("a chunk longer than its size, or trailers".into());
            }
            if length == 0 {
                return Ok(body);
            }
        }
    }

    async fn line(&mut self) -> Result<BytesMut> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = self.take(end).await?;
                self.take(2).await?;
                return Ok(line);
            }
            if self.fill(BUFFER).await? == 0 {
                return Err("closed within a chunked body".into());
            }
        }
    }

    async fn take(&mut self, length: usize) -> Result<BytesMut> {
        while self.buffer.len() < length {
            let missing = length - self.buffer.len();
            if self.fill(missing.max(BUFFER)).await? == 0 {
                return Err(format!("closed {missing} bytes before the end of a body").into());
            }
        }
        Ok(self.buffer.split_to(length))
    }

    async fn fill(&mut self, room: usize) -> Result<usize> {
        self.buffer.reserve(room);
        Ok(self.stream.read_buf(&mut self.buffer).await?)
    }
}

impl Head {
    /// Second word of the start line: the path of a request, the status of a response.
    pub fn subject(&self) -> &str {
        self.lines().next().unwrap_or_default().split(' ').nth(1).unwrap_or_default()
    }

    pub fn is_post(&self) -> bool {
        self.0.starts_with(b"POST ")
    }

    pub fn is_get(&self) -> bool {
        self.0.starts_with(b"GET ")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn framing(&self) -> Result<Framing> {
        if let Some(length) = self.header("content-length") {
            return Ok(Framing::Sized(length.parse()?));
        }
        match self.header("transfer-encoding") {
            Some(coding) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            Some(coding) => Err(format!("transfer-encoding {coding}").into()),
            None => Ok(Framing::Sized(0)),
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("(not UTF-8)")
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        self.text().split("\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &'static str) -> Head {
        Head(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn the_framing_of_a_head_is_read_whatever_the_case() {
        assert_eq!(head("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n").framing().unwrap(), Framing::Sized(12));
        assert_eq!(head("HTTP/1.1 200 OK\r\nTRANSFER-encoding: Chunked\r\n\r\n").framing().unwrap(), Framing::Chunked);
    }

    #[tokio::test]
    async fn a_chunked_body_is_joined_and_the_next_head_is_left_alone() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = Wire::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut far = Wire::over(listener.accept().await.unwrap().0).unwrap();
        far.send(b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\nHTTP/1.1 204 No\r\n\r\n").await.unwrap();
        assert_eq!(&near.body(Framing::Chunked).await.unwrap()[..], b"abc0123456789");
        assert_eq!(near.head().await.unwrap().unwrap().subject(), "204");
    }
}
