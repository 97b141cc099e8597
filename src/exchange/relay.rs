//! Carrying an upstream's answer to the client as it comes: nothing buffered beyond what a content coding holds back while
//! more is there already, the client's departure noticed at once
//! and passed on by closing the upstream connection, streams ended cleanly when the process closes.

use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::poll;
use pingora::protocols::http::ServerSession;

use crate::coding::encoder::Encoder;
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

/// What is made of a body on its way.
pub enum Way<'w, 's> {
    AsItIs,
    /// An event stream is rewritten for who may not see all of it.
    Rewritten(&'w mut rewrite::Stream<'s>),
    /// It is put into a content coding, which holds back what may shorten what follows.
    Coded(&'w mut Encoder),
}

impl Way<'_, '_> {
    /// What of a piece can go on at once.
    fn pass(&mut self, chunk: Bytes) -> Result<Bytes, String> {
        match self {
            Self::AsItIs => Ok(chunk),
            Self::Rewritten(stream) => stream.pass(&chunk).map_err(|_| "an answer that cannot be read".to_owned()),
            Self::Coded(encoder) => encoder.push(&chunk).map_err(|e| e.to_string()),
        }
    }

    /// What is held back, where a reader can make something of it.
    fn flush(&mut self) -> Result<Bytes, String> {
        match self {
            Self::Coded(encoder) if encoder.holds() => encoder.flush().map_err(|e| e.to_string()),
            _ => Ok(Bytes::new()),
        }
    }

    /// The last of it.
    fn finish(&mut self) -> Result<Bytes, String> {
        match self {
            Self::AsItIs => Ok(Bytes::new()),
            Self::Rewritten(stream) if stream.is_through() => Ok(Bytes::new()),
            Self::Rewritten(_) => Err("the last event of an answer has no end".to_owned()),
            Self::Coded(encoder) => encoder.finish().map_err(|e| e.to_string()),
        }
    }

    const fn holds(&self) -> bool {
        matches!(self, Self::Coded(encoder) if encoder.holds())
    }
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
/// other body must not be taken for the whole. `seen` looks on.
pub async fn body(
    client: &mut ServerSession,
    mut incoming: Incoming<'_>,
    patience: Patience,
    life: &Life,
    mut way: Way<'_, '_>,
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
        let next = {
            let mut chunk = std::pin::pin!(incoming.chunk());
            let mut there = Poll::Pending;
            if way.holds() {
                there = poll!(chunk.as_mut());
                // The backend pauses: what it said so far must not wait for what it says next.
                if there.is_pending()
                    && let Err(end) = send(client, way.flush(), &mut bytes, trial).await
                {
                    return end;
                }
            }
            let asked = Instant::now();
            let next = match there {
                Poll::Ready(chunk) => Next::Chunk(chunk),
                Poll::Pending => tokio::select! {
                    biased;
                    () = &mut closing => Next::Closing,
                    chunk = chunk => Next::Chunk(chunk),
                    () = departure(client) => Next::Gone,
                },
            };
            waited += asked.elapsed();
            next
        };
        match next {
            Next::Chunk(Ok(Some(chunk))) => {
                seen(&chunk);
                let passed = way.pass(chunk);
                tail.push(passed.as_deref().unwrap_or_default());
                if let Err(end) = send(client, passed, &mut bytes, trial).await {
                    return end;
                }
            }
            Next::Chunk(Ok(None)) => {
                if let Err(end) = send(client, way.finish(), &mut bytes, trial).await {
                    return end;
                }
                incoming.finish().await;
                return finish(client, bytes, |bytes| End::Whole { bytes }).await;
            }
            // Most of the time went by while the client was taking what it had.
            Next::Chunk(Err(Failure::TimedOut)) if waited * 2 < wait => return End::ClientGone { bytes },
            Next::Chunk(Err(failure)) => return End::Cut { bytes, cause: failure.to_string() },
            Next::Gone => return End::ClientGone { bytes },
            Next::Closing => {
                say_when(client, patience, &tail).await;
                return finish(client, bytes, |bytes| End::Closed { bytes }).await;
            }
        }
    }
}

/// Writes what a way gave, if it gave something.
async fn send(client: &mut ServerSession, piece: Result<Bytes, String>, bytes: &mut usize, trial: &mut Trial) -> Result<(), End> {
    let piece = piece.map_err(|cause| End::Cut { bytes: *bytes, cause })?;
    if piece.is_empty() {
        return Ok(());
    }
    *bytes += piece.len();
    write(client, piece, trial).await.map_err(|_| End::ClientGone { bytes: *bytes })
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

/// Tells a client that comes back when to do so.
async fn say_when(client: &mut ServerSession, patience: Patience, tail: &sse::Tail) {
    if matches!(patience, Patience::Idle(_, Returns::WhenTold)) && tail.is_between_events() {
        let _ = client.write_response_body(sse::come_back(Duration::from_millis(fastrand::u64(BACK))).into(), false).await;
    }
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
