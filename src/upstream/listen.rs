//! Listening to a server on a stream of our own, for what it says of its own accord: that its lists changed.

use std::time::Duration;

use bytes::Bytes;

use super::ask::{Ear, Exchange, MAX_ANSWER, Manner, OPENING, Question, Trouble, UNSENDABLE, next_id};
use super::backend::Backend;
use super::catalog;
use super::facts::Speaks;
use crate::call::Era;
use crate::egress::{Client, Incoming};
use crate::mcp::members::Members;
use crate::mcp::message::Answer;
use crate::mcp::{method, rest, sse};

/// The method of modern servers; legacy ones are asked for their stream by GET.
const METHOD: &str = "subscriptions/listen";
const LISTS: &str = r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true}"#;

/// Asks a server to tell of its lists, for at most `most`; `heard` is told what it says.
pub fn question<'q>(server: &'q str, heard: Ear<'q>, most: Duration) -> Question<'q> {
    Question { heard: Some(heard), ..catalog::plain(server, METHOD, &request, most) }
}

/// The request for a modern server's stream about its lists.
fn request(_: Era, id: u64) -> Vec<u8> {
    let Some(row) = method::find(METHOD) else { return Vec::new() };
    let lists = serde_json::from_str(LISTS).expect("a constant object");
    let params = Members(vec![("notifications".into(), lists)]);
    rest::Request::with(row, params).encode(id, None, &rest::Meta { modern: true, ..rest::Meta::default() })
}

/// Listens until the server ends the stream or the question's time is over; `opened` is told when it is listened to.
///
/// # Errors
/// Why it cannot be listened to, or no longer.
pub async fn listen(client: &Client, backend: &Backend, question: &Question<'_>, opened: &(dyn Fn() + Sync)) -> Result<(), Trouble> {
    let target = backend.target().ok_or(Trouble::NotReady)?;
    let exchange = Exchange { client, backend, target: &target, question };
    match backend.speaks() {
        Some(Speaks::Mcp(Era::Modern)) => {
            let id = next_id();
            let incoming = exchange.post((question.encode)(Era::Modern, id).into(), Manner::Modern, OPENING).await?;
            exchange.overhear(incoming, id, Manner::Modern, opened).await
        }
        Some(Speaks::Mcp(Era::Legacy)) => {
            let slot = exchange.slot();
            let session = slot.obtain(exchange.open()).await?;
            let manner = Manner::Legacy(&session);
            let head = exchange.head("GET", manner).map_err(|_| UNSENDABLE)?;
            let incoming = client.send(&target, head, Bytes::new(), OPENING).await?;
            let ended = exchange.overhear(incoming, next_id(), manner, opened).await;
            if matches!(ended, Err(Trouble::SessionLost)) {
                slot.forget(&session);
            }
            ended
        }
        _ => Err(Trouble::NotReady),
    }
}

impl Exchange<'_, '_> {
    async fn overhear(&self, mut incoming: Incoming<'_>, id: u64, manner: Manner<'_>, opened: &(dyn Fn() + Sync)) -> Result<(), Trouble> {
        let status = incoming.status();
        if !status.is_success() || !incoming.is_event_stream() {
            let in_session = manner.session().is_some_and(|session| session.id.is_some());
            incoming.collect(MAX_ANSWER).await?;
            return Err(if in_session && status == http::StatusCode::NOT_FOUND { Trouble::SessionLost } else { Trouble::Status(status) });
        }
        opened();
        let mut events = sse::Decoder::new(MAX_ANSWER);
        loop {
            incoming.set_wait(self.time_left()?);
            let Some(chunk) = incoming.chunk().await? else { return Ok(()) };
            events.push(&chunk);
            if let Some(answer) = self.look(&mut events, id, manner).await? {
                return match Answer::read(&answer, id) {
                    Some(Answer::Result(_)) => Ok(()),
                    _ => Err(Trouble::Protocol("it does not tell of changes")),
                };
            }
        }
    }
}
