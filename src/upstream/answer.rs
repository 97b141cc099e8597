//! Reading the answer to a question: from a JSON body, or from an event stream on which other messages may come first
//! and which may break off and be taken up again.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::ask::{Exchange, MAX_ANSWER, Manner, OPENING, Trouble, UNSENDABLE};
use crate::egress::{Failure, Incoming};
use crate::mcp::message::Response;
use crate::mcp::{error, sse};

/// How long the end of a stream may take once the answer is there. A stream read to its end leaves its connection for
/// the next call.
const LINGER: Duration = Duration::from_millis(10);
/// How long to wait before taking up a stream whose server did not say (`retry:`).
const RETRY: Duration = Duration::from_millis(500);
/// However soon the server wants us back.
const SOONEST: Duration = Duration::from_millis(50);

impl Exchange<'_, '_> {
    /// The answer with our id.
    pub(super) async fn answer(&self, incoming: Incoming<'_>, id: u64, manner: Manner<'_>) -> Result<Bytes, Trouble> {
        let status = incoming.status();
        if status.is_success() && incoming.is_event_stream() {
            return Box::pin(self.read_stream(incoming, id, manner)).await;
        }
        let body = incoming.collect(MAX_ANSWER).await?;
        if status.is_success() {
            return Ok(body);
        }
        // An error with our own id answers our request, whatever the status; one about the session cannot have it.
        if status.is_client_error() && is_error(&body) && names_id(&body, id) {
            return Ok(body);
        }
        let in_session = manner.session().is_some_and(|session| session.id.is_some());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Trouble::Refused(status)),
            StatusCode::NOT_FOUND if in_session => Err(Trouble::SessionLost),
            // Not only 404: server-everything says 400 `No valid session ID provided`.
            StatusCode::BAD_REQUEST if in_session && denies_session(&body) => Err(Trouble::SessionLost),
            _ if status.is_client_error() && is_error(&body) => Ok(body),
            _ => Err(Trouble::Status(status)),
        }
    }

    /// Reads events until the answer. Where the server hangs up first, and gave an event id to come back with, the
    /// stream is taken up where it ended (2025-11-25, "Resumability"); the request itself is not sent again.
    async fn read_stream(&self, mut incoming: Incoming<'_>, id: u64, manner: Manner<'_>) -> Result<Bytes, Trouble> {
        let mut events = sse::Decoder::new(MAX_ANSWER);
        loop {
            // A deadline of the whole answer, not of one read: keep-alive comments must not extend it.
            incoming.set_wait(self.time_left()?);
            match incoming.chunk().await {
                Ok(Some(chunk)) => {
                    events.push(&chunk);
                    if let Some(answer) = self.look(&mut events, id, manner).await? {
                        leave(incoming).await;
                        return Ok(answer);
                    }
                }
                Err(Failure::TimedOut) => return Err(Failure::TimedOut.into()),
                ended => match events.last_id().zip(manner.session()) {
                    Some((last, _)) => {
                        let last = last.to_owned();
                        let wait = events.retry().unwrap_or(RETRY).max(SOONEST).min(self.time_left()?);
                        tokio::time::sleep(wait).await;
                        incoming = self.resume(&last, manner).await?;
                        events.restart();
                    }
                    None => return Err(ended.err().map_or(Trouble::Protocol("the event stream ended before the answer"), Trouble::from)),
                },
            }
        }
    }

    pub(super) fn time_left(&self) -> Result<Duration, Trouble> {
        let left = self.remaining();
        if left.is_zero() { Err(Failure::TimedOut.into()) } else { Ok(left) }
    }

    async fn resume(&self, last: &str, manner: Manner<'_>) -> Result<Incoming<'_>, Trouble> {
        let mut head = self.head("GET", manner).map_err(|_| UNSENDABLE)?;
        head.text("last-event-id", last).map_err(|_| UNSENDABLE)?;
        let sent = self.client.send(self.target, head, Bytes::new(), self.time_left()?).await;
        // However this ends, the request itself was sent and may have been executed: nobody may send it elsewhere.
        let incoming = sent.map_err(|failure| match failure {
            Failure::NotSent(cause) => Failure::Broken(cause),
            other => other,
        })?;
        if incoming.status().is_success() && incoming.is_event_stream() {
            Ok(incoming)
        } else {
            Err(Trouble::Protocol("the event stream ended before the answer and cannot be resumed"))
        }
    }

    /// Goes through the events that are whole: priming events are skipped, notifications handed on, and requests of the
    /// server declined, because a server that waits for an answer nobody can give would hang forever.
    pub(super) async fn look(&self, events: &mut sse::Decoder, id: u64, manner: Manner<'_>) -> Result<Option<Bytes>, Trouble> {
        while let Some(event) = events.event().map_err(|_| Failure::TooLarge)? {
            let data = Bytes::from(event.data);
            match serde_json::from_slice::<Response<'_>>(&data) {
                Ok(message) if message.method.is_none() && has_id(&message, id) => return Ok(Some(data)),
                Ok(message) if message.method.is_some() && message.id.is_some() => self.decline(&message, manner).await,
                Ok(message) if message.method.is_some() => self.notice(data.clone()).await,
                // A priming event, or an answer to somebody else.
                _ => {}
            }
        }
        Ok(None)
    }

    async fn notice(&self, message: Bytes) {
        if let Some(heard) = self.question.heard {
            heard(&message);
        }
        if let Some(notices) = &self.question.notices {
            // The receiver goes when the caller went, and then nobody waits for the answer either.
            let _ = notices.send(message).await;
        }
    }

    async fn decline(&self, request: &Response<'_>, manner: Manner<'_>) {
        let (Some(id), Some(_)) = (request.id, manner.session()) else { return };
        let answer = if request.method.as_deref() == Some("ping") {
            format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id.get())
        } else {
            let code = error::METHOD_NOT_FOUND;
            format!(r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":{code},"message":"the caller cannot answer requests"}}}}"#, id.get())
        };
        // Whether it arrives or not, the answer to our own request is what counts, and that request was sent.
        if let Ok(incoming) = self.post(answer.into(), manner, OPENING).await {
            let _ = incoming.collect(MAX_ANSWER).await;
        }
    }
}

/// Gives the connection back if the stream ends now; otherwise it is closed.
async fn leave(mut incoming: Incoming<'_>) {
    incoming.set_wait(LINGER);
    if matches!(incoming.chunk().await, Ok(None)) {
        incoming.finish().await;
    }
}

fn has_id(message: &Response<'_>, id: u64) -> bool {
    message.id.is_some_and(|raw| raw.get().parse() == Ok(id))
}

fn names_id(body: &[u8], id: u64) -> bool {
    serde_json::from_slice::<Response<'_>>(body).is_ok_and(|message| has_id(&message, id))
}

fn is_error(body: &[u8]) -> bool {
    serde_json::from_slice::<Response<'_>>(body).is_ok_and(|message| message.error.is_some())
}

/// Whether a 400 says that there is no such session, as a transport says it: with a code of its own and no request's id.
/// A server that merely mentions a session may have executed the request.
fn denies_session(body: &[u8]) -> bool {
    let Ok(message) = serde_json::from_slice::<Response<'_>>(body) else { return false };
    let code = message.error.map_or(0, error::code);
    let by_transport = message.id.is_none() && matches!(code, -32000 | -32001 | -32600);
    by_transport && message.error.is_some_and(|error| error.get().to_ascii_lowercase().contains("session"))
}
