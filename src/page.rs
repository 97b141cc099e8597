//! An answer that is whole before it is written: what pages, envelopes and refusals have in common.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};

/// Status, headers and body of an answer.
#[derive(Debug, Clone)]
pub struct Page {
    pub status: u16,
    pub content_type: Cow<'static, str>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

impl Page {
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: Cow::Borrowed("application/json"), headers: Vec::new(), body: body.into() }
    }

    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}
