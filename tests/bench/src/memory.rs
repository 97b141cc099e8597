//! What a connection costs while nothing happens on it.
//!
//! A fresh process is warmed by calls, then holds many connections or streams; the growth of its resident memory is
//! divided by their number. Afterwards all of them must still be open, or the number would be too good.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::Result;
use crate::call::{self, Call};
use crate::cpu;
use crate::load::{Load, exchange};
use crate::row::{Lane, Row, Size, Subject, What};
use crate::stand::{Running, Stand};
use crate::wire::Wire;

const IDLE: u32 = 1_000;
const STREAMS: u32 = 500;
/// An answer later than this is none.
const PATIENCE: Duration = Duration::from_secs(10);
const WARMING: Load = Load { connections: 32, seconds: 1.0 };

/// The memory of one subject.
pub struct Memory {
    pub subject: Subject,
    pub idle: Held,
    pub get: Held,
    pub listen: Held,
}

/// Bytes for each of the things held open.
pub enum Held {
    Bytes(f64),
    /// A server may decline a kind of stream: the modern revision has no GET stream.
    Declined(String),
}

/// A stream that was opened, or the status it was declined with.
enum Opening {
    Open(Wire),
    Declined(String),
}

pub async fn measure(stand: &Stand, subject: Subject) -> Result<Memory> {
    let named = |error| format!("{} (memory): {error}", subject.name());
    Ok(Memory {
        subject,
        idle: idle(stand, subject).await.map_err(named)?,
        get: streams(stand, subject, call::get).await.map_err(named)?,
        listen: streams(stand, subject, call::listen).await.map_err(named)?,
    })
}

async fn idle(stand: &Stand, subject: Subject) -> Result<Held> {
    let (running, before) = warmed(stand, subject).await?;
    let mut held = Vec::new();
    for number in 0..IDLE {
        let mut wire = Wire::connect(running.addr).await?;
        let mut call = Call::new(Lane::Native, What::Own, Size::Small, running.addr, number % 64, 0);
        timeout(PATIENCE, exchange(&mut wire, &mut call)).await??;
        held.push(wire);
    }
    per_wire(&running, before, held).await
}

async fn streams(stand: &Stand, subject: Subject, request: fn(SocketAddr) -> Vec<u8>) -> Result<Held> {
    let (running, before) = warmed(stand, subject).await?;
    let request = request(running.addr);
    let mut held = Vec::new();
    for _ in 0..STREAMS {
        match timeout(PATIENCE, open(running.addr, &request)).await?? {
            Opening::Open(wire) => held.push(wire),
            Opening::Declined(status) => return Ok(Held::Declined(status)),
        }
    }
    per_wire(&running, before, held).await
}

async fn warmed(stand: &Stand, subject: Subject) -> Result<(Running, u64)> {
    let running = stand.start(subject).await?;
    WARMING.put_on(&running, Row::GatewayNative, Size::Small).await?;
    sleep(Duration::from_millis(300)).await;
    let resident = cpu::resident(running.process.group())?;
    Ok((running, resident))
}

async fn open(addr: SocketAddr, request: &[u8]) -> Result<Opening> {
    let mut wire = Wire::connect(addr).await?;
    wire.send(request).await?;
    let head = wire.head().await?.ok_or("closed instead of a stream")?;
    let status = head.subject();
    if status.starts_with('4') || status == "501" {
        return Ok(Opening::Declined(status.to_owned()));
    }
    if status != "200" || !head.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
        return Err(format!("not a stream\n{}", head.text()).into());
    }
    while !wire.piece().await?.windows(5).any(|window| window == b"data:") {}
    Ok(Opening::Open(wire))
}

async fn per_wire(running: &Running, before: u64, held: Vec<Wire>) -> Result<Held> {
    sleep(Duration::from_millis(500)).await;
    let grown = cpu::resident(running.process.group())?.saturating_sub(before);
    let closed = held.iter().filter(|wire| !wire.is_open()).count();
    if closed > 0 {
        return Err(format!("{closed} of {} connections were closed meanwhile", held.len()).into());
    }
    Ok(Held::Bytes(grown as f64 / held.len() as f64))
}
