//! Carrying an upstream's answer to the client as it comes: nothing buffered, the client's departure noticed at once
//! and passed on by closing the upstream connection, streams ended cleanly when the process closes.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pingora::protocols::http::ServerSession;

use crate::egress::{Failure, Incoming};
use crate::mcp::{self, rewrite, sse};
use crate::snapshot::Life;
use crate::upstream::trial::Trial;

/// How long a client may take for what is written to it before its place at the backend is somebody else's.
const SLOW_CLIENT: Duration = Duration::from_secs(1);

/// How a relay ended.
#[derive(Debug)]
pub enum End {
    /// The whole answer reached the client.
    Whole { bytes: usize },
    /// We are closing: the stream was ended cleanly before its time.
    Closed { bytes: usize },
    /// The client went away, or took so long to read that the time was up.
    ClientGone { bytes: usize },
    /// The backend broke off within the answer, or within its last event; the client's connection must be cut, so that it does not take the part
    /// for the whole.
    Cut { bytes: usize, cause: String },
}

impl End {
    pub const fn bytes(&self) -> usize {
        match self {
            Self::Whole { bytes } | Self::Closed { bytes } | Self::ClientGone { bytes } | Self::Cut { bytes, .. } => *bytes,
        }
    }
}

/// What happened next.
enum Next {
    Chunk(Result<Option<Bytes>, Failure>),
    Gone,
    Closing,
}

/// How long a relay may go on.
#[derive(Debug, Clone, Copy)]
pub enum Patience {
    /// An event stream: the longest silence, and whether its client comes back when it is told to.
    Idle(Duration, Returns),
    /// Any other body: the whole of it.
    Whole(Duration),
}

/// Whether a client takes up a stream that is ended before its time. Revision 2025-11-25 has servers say when (`retry:`,
/// "Sending Messages to the Server"); older clients may stumble over it, newer ones have nothing to take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returns {
    WhenTold,
    Untold,
}

impl Returns {
    /// By the revision a client speaks.
    pub fn of(version: Option<&str>) -> Self {
        if version == Some(mcp::LEGACY) { Self::WhenTold } else { Self::Untold }
    }
}

/// When a client should come back, in milliseconds: soon, and not all at once.
const BACK: std::ops::Range<u64> = 200..2000;

/// Relays a body whose header has been written. Only event streams are ended when the process closes; a part of any
/// other body must not be taken for the whole.
/// `stream` rewrites an event stream for who may not see all of it; `seen` looks on.
pub async fn body(
    client: &mut ServerSession,
    mut incoming: Incoming<'_>,
    patience: Patience,
    life: &Life,
    mut stream: Option<&mut rewrite::Stream<'_>>,
    trial: &mut Trial,
    seen: &mut (dyn FnMut(&[u8]) + Send),
) -> End {
    let (Patience::Idle(wait, _) | Patience::Whole(wait)) = patience;
    let is_stream = matches!(patience, Patience::Idle(..));
    let mut tail = sse::Tail::default();
    let until = Instant::now() + wait;
    let (mut bytes, mut waited) = (0, Duration::ZERO);
    let mut closing = std::pin::pin!(async { if is_stream { life.closing().await } else { std::future::pending().await } });
    loop {
        incoming.set_wait(if is_stream { wait } else { until.saturating_duration_since(Instant::now()) });
        let asked = Instant::now();
        let next = tokio::select! {
            biased;
            () = &mut closing => Next::Closing,
            chunk = incoming.chunk() => Next::Chunk(chunk),
            () = departure(client) => Next::Gone,
        };
        waited += asked.elapsed();
        match next {
            Next::Chunk(Ok(Some(chunk))) => {
                seen(&chunk);
                let chunk = match stream.as_deref_mut().map(|stream| stream.pass(&chunk)) {
                    None => chunk,
                    Some(Ok(kept)) if kept.is_empty() => continue,
                    Some(Ok(kept)) => kept,
                    Some(Err(_)) => return End::Cut { bytes, cause: "an answer that cannot be read".to_owned() },
                };
                bytes += chunk.len();
                tail.push(&chunk);
                if write(client, chunk, trial).await.is_err() {
                    return End::ClientGone { bytes };
                }
            }
            Next::Chunk(Ok(None)) if stream.as_ref().is_some_and(|stream| !stream.is_through()) => {
                return End::Cut { bytes, cause: "the last event of an answer has no end".to_owned() };
            }
            Next::Chunk(Ok(None)) => {
                incoming.finish().await;
                return finish(client, bytes, |bytes| End::Whole { bytes }).await;
            }
            // Most of the time went by while the client was taking what it had.
            Next::Chunk(Err(Failure::TimedOut)) if waited * 2 < wait => return End::ClientGone { bytes },
            Next::Chunk(Err(failure)) => return End::Cut { bytes, cause: failure.to_string() },
            Next::Gone => return End::ClientGone { bytes },
            Next::Closing => {
                if matches!(patience, Patience::Idle(_, Returns::WhenTold)) && tail.is_between_events() {
                    let _ = client.write_response_body(sse::come_back(Duration::from_millis(fastrand::u64(BACK))).into(), false).await;
                }
                return finish(client, bytes, |bytes| End::Closed { bytes }).await;
            }
        }
    }
}

/// Writes to the client. One who is slow to take it must not keep a place at the backend from others.
async fn write(client: &mut ServerSession, chunk: Bytes, trial: &mut Trial) -> pingora::Result<()> {
    let mut writing = std::pin::pin!(client.write_response_body(chunk, false));
    if trial.has_place() {
        tokio::select! {
            biased;
            done = &mut writing => return done,
            () = tokio::time::sleep(SLOW_CLIENT) => trial.leave(),
        }
    }
    writing.await
}

async fn finish(client: &mut ServerSession, bytes: usize, end: impl FnOnce(usize) -> End) -> End {
    match client.write_response_body(Bytes::new(), true).await {
        Ok(()) => end(bytes),
        Err(_) => End::ClientGone { bytes },
    }
}

/// Completes when the client has gone. The request's body has been read to its end; a pipelined next request is set
/// aside by Pingora and is no departure.
pub async fn departure(client: &mut ServerSession) {
    while let Ok(Some(_)) = client.read_body_or_idle(true).await {}
}
