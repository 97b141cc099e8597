//! Telling a legacy server that nobody waits for an answer any more. Its connection does not tell: in the legacy era a
//! disconnect is not a cancellation, and a tool would run on for a caller who left or a deadline that passed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::ask::{Exchange, Manner};
use crate::egress::{Client, Outgoing, Target};

/// How long telling may take.
const WAIT: Duration = Duration::from_secs(5);
/// The largest acknowledgement read.
const MAX_REPLY: usize = 64 << 10;

/// A client's request under way. Dropped before it is settled, it is cancelled at the server.
pub(super) struct Unanswered(Option<Notice>);

struct Notice {
    client: Client,
    target: Arc<Target>,
    head: Outgoing,
    id: u64,
}

impl Unanswered {
    /// Watches a legacy request of a client; modern ones are cancelled by closing their connection, and our own
    /// questions are short.
    pub(super) fn of(exchange: &Exchange<'_, '_>, id: u64, manner: Manner<'_>) -> Self {
        let is_watched = exchange.question.trace.is_some() && manner.session().is_some();
        let head = if is_watched { exchange.head("POST", manner).ok() } else { None };
        Self(head.map(|head| Notice { client: exchange.client.clone(), target: Arc::clone(exchange.target), head, id }))
    }

    /// The server has answered, or broken off.
    pub(super) fn settle(mut self) {
        self.0 = None;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        // A runtime that is shutting down has no more tasks to give.
        if let (Some(notice), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(notice.send());
        }
    }
}

impl Notice {
    async fn send(self) {
        let params = format!(r#"{{"requestId":{},"reason":"the caller no longer waits"}}"#, self.id);
        let body = format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#);
        if let Ok(incoming) = self.client.send(&self.target, self.head, Bytes::from(body), WAIT).await {
            // A server that does not listen has nothing to tell us about it.
            let _ = tokio::time::timeout(WAIT, incoming.collect(MAX_REPLY)).await;
        }
    }
}
