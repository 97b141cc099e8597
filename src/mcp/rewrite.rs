//! Answers rewritten on their way to the caller, whole or event by event: the results in them are handed to who knows
//! what may stay (`filter`) or how they are to look, and everything around them keeps its bytes. What cannot be read for
//! certain is not passed on.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::members::Members;
use super::strict;
use crate::copy;
use crate::verbatim::Verbatim;

/// Rewrites one result, given the id of the request it answers and its text; `None` leaves it as it is.
pub type Rewrite<'r> = &'r (dyn Fn(Option<Verbatim<'_>>, &str) -> Result<Option<String>, Unreadable> + Send + Sync);

/// Bytes of the longest event.
const MAX_EVENT: usize = 16 << 20;
/// What a message is told by. Readers that ignore case (Go's) take any writing of a name for it, and would find the result
/// that we did not.
const TOLD_BY: &[&str] = &["result", "error", "id", "method", "params"];

/// An answer that could be read in two ways, or is too long to be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Rewrites the results in one JSON-RPC message or batch; `None` if there is nothing to rewrite.
///
/// # Errors
/// [`Unreadable`].
pub fn message(text: &[u8], rewrite: Rewrite<'_>) -> Result<Option<Vec<u8>>, Unreadable> {
    // Some readers strip a byte order mark, and what begins otherwise than JSON does may be JSON in another encoding.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => batch(text, rewrite),
        Some(b'{') => one(text, rewrite),
        Some(_) => Err(Unreadable),
        None => Ok(None),
    }
}

fn batch(text: &[u8], rewrite: Rewrite<'_>) -> Result<Option<Vec<u8>>, Unreadable> {
    let messages: Vec<Verbatim<'_>> = serde_json::from_slice(text).map_err(|_| Unreadable)?;
    let mut out = b"[".to_vec();
    for (at, raw) in messages.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        // Batches do not nest; following them down would be the depth of the stack for the server to choose.
        if !raw.get().starts_with('{') {
            return Err(Unreadable);
        }
        let raw = raw.get().as_bytes();
        out.extend_from_slice(one(raw, rewrite)?.as_deref().unwrap_or(raw));
    }
    out.push(b']');
    Ok(Some(out))
}

fn one(text: &[u8], rewrite: Rewrite<'_>) -> Result<Option<Vec<u8>>, Unreadable> {
    let members: Members<'_> = serde_json::from_slice(text).map_err(|_| Unreadable)?;
    if members.0.iter().any(|(name, _)| strict::is_another_of(name, TOLD_BY)) {
        return Err(Unreadable);
    }
    let Some(written) = members.get("result").filter(|raw| raw.get().starts_with('{')) else { return Ok(None) };
    let Some(result) = rewrite(members.get("id"), written.get())? else { return Ok(None) };
    Ok(Some(object(members.0.iter().map(|(name, value)| (name, if name == "result" { result.as_str() } else { value.get() })))))
}

/// An object of these members.
pub fn object<'m>(members: impl Iterator<Item = (&'m Cow<'m, str>, &'m str)>) -> Vec<u8> {
    let mut out = Vec::new();
    append(&mut out, members.map(|(name, value)| (&**name, value)));
    out
}

/// Appends an object of members whose values are JSON.
pub fn append<'m>(out: &mut Vec<u8>, members: impl Iterator<Item = (&'m str, &'m str)>) {
    out.push(b'{');
    for (at, (name, value)) in members.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        // A text as a JSON text cannot fail.
        let _ = serde_json::to_writer(&mut *out, name);
        out.push(b':');
        copy::append(out, value.as_bytes());
    }
    out.push(b'}');
}

/// Rewrites an event stream, whatever the boundaries of its chunks. Events with nothing to rewrite keep their bytes.
pub struct Stream<'k> {
    rewrite: Rewrite<'k>,
    pending: BytesMut,
    /// Where in `pending` the current line begins.
    line: usize,
    /// How far `pending` was searched for a line end, so that a long line is not scanned again with every chunk.
    scanned: usize,
    /// The last line ended with CR, and the LF that may belong to it was not there yet.
    halved: bool,
    /// The last event went out as it came.
    kept: bool,
    started: bool,
}

impl<'k> Stream<'k> {
    pub fn new(rewrite: Rewrite<'k>) -> Self {
        Self { rewrite, pending: BytesMut::new(), line: 0, scanned: 0, halved: false, kept: false, started: false }
    }

    /// Takes a chunk and gives back the events that are whole.
    ///
    /// # Errors
    /// [`Unreadable`]: the stream must be cut.
    pub fn pass(&mut self, chunk: &[u8]) -> Result<Bytes, Unreadable> {
        self.pending.extend_from_slice(chunk);
        let mut out = BytesMut::new();
        // The other half of a line end whose event went out with the first.
        if self.halved && self.line == 0 && self.pending.starts_with(b"\n") {
            self.halved = false;
            let half = self.pending.split_to(1);
            out.extend_from_slice(if self.kept { &half } else { &[] });
        }
        // A byte order mark would hide the first field from us, and from no client.
        if !self.started && self.pending.len() >= 3 {
            self.started = true;
            if self.pending.starts_with(b"\xef\xbb\xbf") {
                // It stays, or a second one behind it would come first and be taken for it.
                out.extend_from_slice(&self.pending.split_to(3));
            }
        }
        while self.started
            && let Some(block) = self.block()
        {
            let event = self.rewritten(&block)?;
            self.kept = event.is_none();
            out.extend_from_slice(event.as_deref().unwrap_or(&block));
        }
        if self.pending.len() > MAX_EVENT { Err(Unreadable) } else { Ok(out.freeze()) }
    }

    /// Whether the stream may end here: no event that holds data is under way. A reader would drop it as unfinished, and
    /// take an answer that never came for one without a result.
    pub fn is_through(&self) -> bool {
        !lines(&self.pending).any(|line| data_of(line).is_some_and(|data| !data.is_empty()))
    }

    /// The next lines up to and including an empty one.
    fn block(&mut self) -> Option<BytesMut> {
        loop {
            self.mend();
            let from = self.line.max(self.scanned);
            let Some(found) = self.pending[from..].iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.scanned = self.pending.len();
                return None;
            };
            let end = from + found;
            let next = self.pending.get(end + 1);
            // A CR ends its line at once: the server may have nothing more to say.
            self.halved = self.pending[end] == b'\r' && next.is_none();
            let width = if self.pending[end] == b'\r' && next == Some(&b'\n') { 2 } else { 1 };
            let is_empty = end == self.line;
            self.line = end + width;
            self.scanned = self.line;
            if is_empty {
                self.scanned = 0;
                let at = std::mem::take(&mut self.line);
                return Some(self.pending.split_to(at));
            }
        }
    }

    /// Puts a LF to the CR that came before it, so that it is no line of its own.
    fn mend(&mut self) {
        if let Some(next) = self.pending.get(self.line).filter(|_| self.halved) {
            self.line += usize::from(*next == b'\n');
            self.halved = false;
        }
    }

    /// The event with its results rewritten; `None` if there is nothing to rewrite.
    fn rewritten(&self, block: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
        let data: Vec<&[u8]> = lines(block).filter_map(data_of).collect();
        let data = data.join(&b'\n');
        let data = data.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&data);
        // What begins otherwise is no message for anybody. What begins like one and is not JSON to us may still be to
        // readers more lenient (NaN, another encoding), so it is not passed.
        if !matches!(data.trim_ascii_start().first(), Some(b'{' | b'[')) {
            return Ok(None);
        }
        let Some(message) = message(data, self.rewrite)? else { return Ok(None) };
        let mut out = Vec::with_capacity(message.len() + 64);
        for line in lines(block).filter(|line| data_of(line).is_none()) {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        for line in message.split(|byte| matches!(byte, b'\n' | b'\r')) {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        out.push(b'\n');
        Ok(Some(out))
    }
}

/// The lines that say anything.
fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    block.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty())
}

/// The value of a `data` field.
fn data_of(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(b"data")?;
    match rest.first() {
        None => Some(rest),
        Some(b':') => Some(rest[1..].strip_prefix(b" ").unwrap_or(&rest[1..])),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Kind;
    use crate::mcp::filter;
    use proptest::prelude::*;

    fn keeps(_: Option<Verbatim<'_>>, text: &str) -> Result<Option<String>, Unreadable> {
        filter::written(text, &|kind, name| kind == Kind::Tool && name.starts_with("read"))
    }

    const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"read_a","x":1.0},{"name":"write"},{"n\u0061me":"read_b"},{}],"cacheScope":"public","next":{}}}"#;
    const KEPT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"read_a","x":1.0},{"n\u0061me":"read_b"}],"cacheScope":"private","next":{}}}"#;

    #[test]
    fn a_message_told_in_another_case_is_not_passed() {
        for text in [
            r#"{"id":1,"Result":{"tools":[{"name":"write"}]}}"#,
            r#"{"id":1,"result":{},"RESULT":{"tools":[]}}"#,
            r#"{"ID":1,"result":{}}"#,
            r#"{"id":1,"Error":{}}"#,
            r#"[{"method":"a","param\u017f":{}}]"#,
            r#"{"Method":"a"}"#,
            r#"{"id":1,"result":{"Tools":[{"name":"write"}]}}"#,
            r#"{"id":1,"result":{"tools":[],"re\u017fourcetemplates":[]}}"#,
        ] {
            assert_eq!(message(text.as_bytes(), &keeps), Err(Unreadable), "{text}");
            assert_eq!(Stream::new(&keeps).pass(format!("data: {text}\n\n").as_bytes()), Err(Unreadable), "{text}");
        }
        let kept = r#"{"id":1,"result":{"tools":[]}}"#;
        let listed = r#"{"id":1,"result":{"tools":[{"name":"read","Name":"write"}]}}"#;
        assert_eq!(message(listed.as_bytes(), &keeps), Ok(Some(kept.into())), "nor an item that is called two names");
        assert_eq!(message(br#"{"id":1,"x":{"Result":1},"result":{"content":{"Tools":1}}}"#, &keeps), Ok(None));
    }

    #[test]
    fn an_event_only_lenient_readers_understand_is_not_passed() {
        for data in [&br#"{"result":{"tools":[{"name":"write","default":NaN}]}}"#[..], b"{\"result\":{\"tools\":[{\"name\":\"\xe9\"}]}}"] {
            let event = [b"data: ", data, b"\n\n"].concat();
            assert_eq!(Stream::new(&keeps).pass(&event), Err(Unreadable));
        }
    }

    #[test]
    fn an_event_is_whole_with_its_last_line_end() {
        for end in ["\n\n", "\r\r", "\r\n\r\n", "\r\n\r", "\n\r"] {
            let mut stream = Stream::new(&keeps);
            let out = stream.pass(format!("data: {LIST}{end}").as_bytes()).unwrap();
            assert_eq!((&out[..], stream.is_through()), (format!("data: {KEPT}\n\n").as_bytes(), true), "{end:?}");
            // The rest of a line end is no event, nor does it hide one.
            let out = stream.pass(format!("\ndata: {LIST}\r\r").as_bytes()).unwrap();
            assert!(String::from_utf8_lossy(&out).contains(KEPT), "{end:?}");
        }
    }

    #[test]
    fn a_stream_is_not_through_while_data_is_under_way() {
        for pending in ["data: {}", "data: {}\n", "data: {}\r\nid: 1\r\n", "id: 1\rdata: {}\r", ": a\n\ndata:x"] {
            let mut stream = Stream::new(&keeps);
            stream.pass(pending.as_bytes()).unwrap();
            assert!(!stream.is_through(), "{pending:?}");
        }
        for through in ["", ": a\n", "id: 1\ndata:\n", "data: {}\n\n", "data: {}\r\r", "data: {}\n\n: bye", "\n"] {
            let mut stream = Stream::new(&keeps);
            stream.pass(through.as_bytes()).unwrap();
            assert!(stream.is_through(), "{through:?}");
        }
    }

    proptest! {
        #[test]
        fn a_stream_is_filtered_whatever_its_chunks(cuts in proptest::collection::vec(1usize..40, 1..60), end in "\n|\r\n|\r", bom in any::<bool>()) {
            let events = format!(": hi{end}{end}id: 1{end}data: {{}}{end}{end}event: message{end}id: 2{end}data: {LIST}{end}{end}data: /no-json{end}{end}");
            let whole = if bom { format!("\u{feff}{events}") } else { events };
            let mut stream = Stream::new(&keeps);
            let mut out = Vec::new();
            let (mut rest, mut cuts) = (whole.as_bytes(), cuts.into_iter().cycle());
            while !rest.is_empty() {
                let (chunk, left) = rest.split_at(cuts.next().unwrap().min(rest.len()));
                out.extend_from_slice(&stream.pass(chunk).unwrap());
                rest = left;
            }
            prop_assert!(stream.is_through());
            prop_assert_eq!(&out[..], &Stream::new(&keeps).pass(whole.as_bytes()).unwrap()[..]);
            let out = String::from_utf8(out).unwrap();
            prop_assert!(!out.contains("write") && out.contains(KEPT) && out.contains("id: 2") && out.contains(": hi"), "{}", out);
            prop_assert!(out.contains(&format!("data: /no-json{end}{end}")), "{}", out);
        }
    }
}
