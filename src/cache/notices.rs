//! What servers say of their own accord about lists and resources that changed, seen on streams on their way to clients.

use std::borrow::Cow;
use std::sync::Arc;

use super::Cache;
use crate::mcp::message::Response;
use crate::mcp::sse::{Decoder, TooLarge};

/// Bytes of the longest notification that is read; those that count are short.
const MAX_EVENT: usize = 1 << 20;

/// Watches one stream of one server.
pub struct Notices {
    cache: Arc<Cache>,
    server: Arc<str>,
    decoder: Decoder,
}

impl Notices {
    pub fn new(cache: &Arc<Cache>, server: &Arc<str>) -> Self {
        Self { cache: Arc::clone(cache), server: Arc::clone(server), decoder: Decoder::new(MAX_EVENT) }
    }

    /// Takes the next piece of the stream.
    pub fn pass(&mut self, chunk: &[u8]) {
        self.decoder.push(chunk);
        loop {
            match self.decoder.event() {
                Ok(Some(event)) => self.cache.notice(&self.server, &event.data),
                Ok(None) => return,
                // What is left of it is no message of its own.
                Err(TooLarge) => self.decoder = Decoder::new(MAX_EVENT),
            }
        }
    }
}

impl Cache {
    /// Takes a message of a server, and drops what it says is no longer true.
    pub fn notice(&self, server: &str, message: &[u8]) {
        const SIGN: &[u8] = b"notifications/";
        if !message.windows(SIGN.len()).any(|window| window == SIGN) {
            return;
        }
        let Ok(message) = serde_json::from_slice::<Response<'_>>(message) else { return };
        let Some(method) = message.method.as_deref().filter(|_| message.id.is_none()) else { return };
        let (methods, uri): (&[&str], _) = match method {
            "notifications/tools/list_changed" => (&["tools/list"], None),
            "notifications/prompts/list_changed" => (&["prompts/list", "prompts/get"], None),
            "notifications/resources/list_changed" => (&["resources/list", "resources/templates/list"], None),
            "notifications/resources/updated" => {
                let params = message.params.and_then(|raw| serde_json::from_str::<crate::mcp::members::Members<'_>>(raw.get()).ok());
                // Without a readable name it may be any.
                (&["resources/read"], params.and_then(|params| params.text("uri").map(Cow::into_owned)))
            }
            _ => return,
        };
        self.void(Some(server), |row| methods.contains(&row.mcp), uri.as_deref());
    }
}
