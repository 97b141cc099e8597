//! Server-sent events: a decoder that takes bytes at any boundary, and an encoder (WHATWG HTML, "Server-sent events").

use std::time::Duration;

use bytes::{Buf, BytesMut};

/// One event; `data` lines are joined by newlines. Priming events have empty data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    pub name: String,
    pub data: Vec<u8>,
}

/// Splits a byte stream into events.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// How far `buffer` was searched for a line end, so that a long line is not scanned again with every chunk.
    scanned: usize,
    event: Event,
    started: bool,
    has_data: bool,
    /// The last line ended with CR.
    swallow: bool,
    limit: usize,
    /// The id of the event under way; it counts once the event is whole.
    id: Option<String>,
    last_id: Option<String>,
    retry: Option<Duration>,
}

/// An event grew beyond the limit.
#[derive(Debug, PartialEq, Eq)]
pub struct TooLarge;

/// The end of a stream that is passed on as it comes: between two events, and there alone, something may be added.
#[derive(Debug, Default)]
pub struct Tail([u8; 4]);

impl Tail {
    pub fn push(&mut self, chunk: &[u8]) {
        for byte in &chunk[chunk.len().saturating_sub(self.0.len())..] {
            self.0.rotate_left(1);
            self.0[3] = *byte;
        }
    }

    pub fn is_between_events(&self) -> bool {
        self.0 == [0; 4] || self.0 == *b"\r\n\r\n" || self.0.ends_with(b"\n\n") || self.0.ends_with(b"\r\r")
    }
}

/// Asks the client to wait this long before it comes back. It is no event, and changes no `Last-Event-ID`.
pub fn come_back(wait: Duration) -> Vec<u8> {
    format!("retry: {}\n\n", wait.as_millis()).into_bytes()
}

impl Decoder {
    /// `limit` bounds one event, in bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            event: Event::default(),
            started: false,
            has_data: false,
            swallow: false,
            limit,
            id: None,
            last_id: None,
            retry: None,
        }
    }

    /// The id of the last event that had one, to take up the stream with; empty ids forget it.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref().filter(|id| !id.is_empty())
    }

    /// How long the server asks to wait before coming back.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Forgets an unfinished event: the stream is taken up on a new connection.
    pub fn restart(&mut self) {
        self.buffer.clear();
        self.id = None;
        (self.scanned, self.started, self.has_data, self.swallow, self.event) = (0, false, false, false, Event::default());
    }

    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
        if !self.started && self.buffer.len() >= 3 {
            self.started = true;
            if self.buffer.starts_with(b"\xef\xbb\xbf") {
                self.buffer.advance(3);
            }
        }
    }

    /// The next whole event.
    ///
    /// # Errors
    /// [`TooLarge`] when what is pending exceeds the limit; the stream cannot go on.
    pub fn event(&mut self) -> Result<Option<Event>, TooLarge> {
        // Fewer bytes may be the beginning of a byte order mark, and are no event in any case.
        if !self.started {
            return Ok(None);
        }
        while let Some(line) = self.line() {
            if line.is_empty() {
                self.last_id = self.id.take().or(self.last_id.take());
                let event = std::mem::take(&mut self.event);
                if std::mem::take(&mut self.has_data) {
                    return Ok(Some(event));
                }
            } else {
                self.field(&line);
            }
        }
        if self.buffer.len() + self.event.data.len() > self.limit { Err(TooLarge) } else { Ok(None) }
    }

    /// One line without its end, which is LF, CRLF or CR. A CR ends its line at once; the LF that may follow it with the
    /// next bytes is swallowed then.
    fn line(&mut self) -> Option<BytesMut> {
        if self.swallow && !self.buffer.is_empty() {
            self.swallow = false;
            if self.buffer[0] == b'\n' {
                self.buffer.advance(1);
            }
        }
        let found = self.buffer[self.scanned..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = found.map(|at| at + self.scanned) else {
            self.scanned = self.buffer.len();
            return None;
        };
        self.scanned = 0;
        self.swallow = self.buffer[end] == b'\r';
        let line = self.buffer.split_to(end);
        self.buffer.advance(1);
        Some(line)
    }

    fn field(&mut self, line: &[u8]) {
        let (name, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (line, &line[line.len()..]),
        };
        match name {
            b"data" => {
                if self.has_data {
                    self.event.data.push(b'\n');
                }
                self.has_data = true;
                self.event.data.extend_from_slice(value);
            }
            // An id with a NUL is ignored by specification; one that cannot be a header value is of no use to us.
            b"id" if value.iter().all(u8::is_ascii_graphic) => self.id = Some(String::from_utf8_lossy(value).into_owned()),
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let wait = std::str::from_utf8(value).ok().and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
                self.retry = wait.or(self.retry);
            }
            b"event" => self.event.name = String::from_utf8_lossy(value).into_owned(),
            _ => {}
        }
    }
}

/// Writes one event. `data` is JSON on a single line as our serializer makes it; a stray line break would end the field,
/// so each line gets its own.
pub fn encode(name: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + name.len() + 24);
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"\ndata: ");
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b"\n\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &[u8] = b"\xef\xbb\xbf: hello\n\nid: 1\ndata:\n\nevent: message\r\ndata: {\"a\":\rdata: 1}\n\nretry: 5\n\ndata:x\n\n";

    fn events(chunks: impl IntoIterator<Item = Vec<u8>>) -> Vec<Event> {
        let mut decoder = Decoder::new(1 << 20);
        let mut found = Vec::new();
        for chunk in chunks {
            decoder.push(&chunk);
            while let Some(event) = decoder.event().unwrap() {
                found.push(event);
            }
        }
        found
    }

    #[test]
    fn something_may_be_added_between_events_only() {
        let after = |chunks: &[&str]| {
            let mut tail = Tail::default();
            for chunk in chunks {
                tail.push(chunk.as_bytes());
            }
            tail.is_between_events()
        };
        for chunks in [&[][..], &["data: 1\n\n"], &["data: 1\n", "\n"], &["data: 1\r\n", "\r", "\n"], &["data: 1\r\r"], &[": ping\n\n"]] {
            assert!(after(chunks), "{chunks:?}");
        }
        for chunks in [&["data: 1"][..], &["data: 1\n"], &["\n\n", "d"], &["data: 1\r\n"], &["data: 1\n\r"]] {
            assert!(!after(chunks), "{chunks:?}");
        }
    }

    #[test]
    fn a_stream_is_a_list_of_events() {
        let data: Vec<_> = events([STREAM.to_vec()]).into_iter().map(|event| (event.name, event.data)).collect();
        let expected = [("", ""), ("message", "{\"a\":\n1}"), ("", "x")];
        assert_eq!(data, expected.map(|(name, data)| (name.to_owned(), data.as_bytes().to_vec())));
    }

    #[test]
    fn an_event_is_whole_with_its_last_line_end() {
        for end in ["\n\n", "\r\r", "\r\n\r\n", "\r\n\r", "\n\r"] {
            assert_eq!(events([format!("data: x{end}").into_bytes()]).len(), 1, "{end:?}");
        }
    }

    #[test]
    fn an_endless_event_is_cut() {
        let mut decoder = Decoder::new(10);
        decoder.push(b"data: 12345678901");
        assert_eq!(decoder.event(), Err(TooLarge));
    }

    proptest! {
        #[test]
        fn chunk_boundaries_do_not_matter(cuts in proptest::collection::vec(0..STREAM.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|cut| STREAM[cut[0]..cut[1]].to_vec());
            prop_assert_eq!(events(chunks), events([STREAM.to_vec()]));
        }

        #[test]
        fn what_is_encoded_is_decoded(data in "[^\r\n]{0,40}") {
            let encoded = encode("message", data.as_bytes());
            prop_assert_eq!(events([encoded]), vec![Event { name: "message".into(), data: data.into_bytes() }]);
        }
    }
}
