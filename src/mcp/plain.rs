//! Bodies as nearly all are written, taken apart in one pass: whole numbers, texts with no escapes but the short ones, names
//! without any, nothing deep. What is plain in this sense reads the same for everyone (`strict`); what is not is no fault,
//! but left to those who read with care, and say what is wrong. They take three passes for the same.

use std::borrow::Cow;

use super::members::Members;
use super::strict::Place;
use crate::verbatim::Verbatim;

/// Nesting that is followed.
const DEEPEST: usize = 24;
/// Names that may be known at once, of all objects that are open.
const MOST_NAMES: usize = 32;
/// Digits of a number: fewer than any reader may round.
pub const DIGITS: usize = 15;

/// A plain body: a message, taken apart as far as we judge by it.
#[derive(Debug, Default)]
pub struct Plain<'b> {
    pub jsonrpc: Option<Verbatim<'b>>,
    pub id: Option<Verbatim<'b>>,
    pub method: Option<Verbatim<'b>>,
    pub params: Option<Verbatim<'b>>,
    pub result: Option<Verbatim<'b>>,
    pub error: Option<Verbatim<'b>>,
    /// The members of `params`, where it is an object.
    pub members: Option<Members<'b>>,
    /// Those of its `_meta`.
    pub meta: Option<Members<'b>>,
}

/// Takes a message apart; `None` for what is not plain, or no single message.
pub fn read(text: &str) -> Option<Plain<'_>> {
    let mut names = [None; MOST_NAMES];
    let mut walk = Walk::new(text, &mut names);
    walk.space();
    if walk.next()? != b'{' {
        return None;
    }
    walk.value(Place::Body, DEEPEST)?;
    walk.space();
    (walk.at == text.len()).then_some(walk.found)
}

/// Whether a value is written in the one form of `canonical` already.
pub fn is_canonical(value: &str) -> bool {
    let mut names = [None; MOST_NAMES];
    let mut walk = Walk::new(value, &mut names);
    walk.value(Place::Free, DEEPEST).is_some() && walk.at == value.len() && walk.is_canonical
}

/// A way through a text, byte by byte.
struct Walk<'b, 'n> {
    text: &'b str,
    at: usize,
    /// The names of the objects that are open, the innermost last.
    names: &'n mut [Option<&'b str>; MOST_NAMES],
    known: usize,
    found: Plain<'b>,
    /// Whether everything so far was written as `canonical` does: of the body, or of the value that is being walked of those
    /// that are noted.
    is_canonical: bool,
}

impl<'b, 'n> Walk<'b, 'n> {
    fn new(text: &'b str, names: &'n mut [Option<&'b str>; MOST_NAMES]) -> Self {
        Self { text, at: 0, names, known: 0, found: Plain::default(), is_canonical: true }
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.next() {
            self.is_canonical = false;
            self.at += 1;
        }
    }

    /// Goes on behind this byte, if it is the next.
    fn pass(&mut self, byte: u8) -> bool {
        let is_next = self.next() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self, place: Place, depth: usize) -> Option<()> {
        match self.next()? {
            b'{' => self.object(place, depth.checked_sub(1)?),
            b'[' => self.list(depth.checked_sub(1)?),
            b'"' => self.string(),
            b'-' | b'0'..=b'9' => self.number(),
            _ => self.word(),
        }
    }

    fn object(&mut self, place: Place, depth: usize) -> Option<()> {
        let (place, from) = (place.inside(), self.known);
        self.found.open(place);
        self.at += 1;
        self.space();
        if self.pass(b'}') {
            return Some(());
        }
        loop {
            let name = self.name(place, from)?;
            self.space();
            if !self.pass(b':') {
                return None;
            }
            self.space();
            let begin = self.at;
            if place == Place::Free {
                self.value(place, depth)?;
            } else {
                let around = std::mem::replace(&mut self.is_canonical, true);
                self.value(place.into(name), depth)?;
                let value = Verbatim::found(self.text.get(begin..self.at)?);
                self.found.note(place, name, value.canonical(self.is_canonical));
                self.is_canonical &= around;
            }
            self.space();
            if self.pass(b'}') {
                self.known = from;
                return Some(());
            }
            if !self.pass(b',') {
                return None;
            }
            self.space();
        }
    }

    /// A name that is no other's, among those of its object, which begin at `from`.
    fn name(&mut self, place: Place, from: usize) -> Option<&'b str> {
        let begin = self.at + 1;
        if self.next()? != b'"' {
            return None;
        }
        self.at = ending(self.text.as_bytes(), begin)?;
        let name = self.text.get(begin..self.at)?;
        // Some letters of other alphabets fold into ours.
        if !self.pass(b'"') || !name.is_ascii() {
            return None;
        }
        let others = self.names.get(from..self.known)?;
        if others.contains(&Some(name)) || place.is_another_writing(name) {
            return None;
        }
        self.is_canonical = self.is_canonical && others.last().is_none_or(|last| *last < Some(name));
        *self.names.get_mut(self.known)? = Some(name);
        self.known += 1;
        Some(name)
    }

    fn list(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        self.space();
        if self.pass(b']') {
            return Some(());
        }
        loop {
            self.value(Place::Free, depth)?;
            self.space();
            if self.pass(b']') {
                return Some(());
            }
            if !self.pass(b',') {
                return None;
            }
            self.space();
        }
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            self.at = ending(self.text.as_bytes(), self.at)?;
            match self.next()? {
                b'"' => break,
                b'\\' => {
                    self.is_canonical = false;
                    let escaped = self.text.as_bytes().get(self.at + 1)?;
                    // A code point may be half of one.
                    if !matches!(escaped, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') {
                        return None;
                    }
                    self.at += 2;
                }
                _ => return None,
            }
        }
        self.at += 1;
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        self.pass(b'-');
        let digits = self.digits();
        // No number begins with a zero but zero itself.
        if digits.is_empty() || digits.len() > DIGITS || (digits.len() > 1 && digits.starts_with('0')) {
            return None;
        }
        if self.pass(b'.') {
            self.is_canonical = false;
            if !(1..=DIGITS).contains(&self.digits().len()) {
                return None;
            }
        }
        // The careful know how large it may be.
        (!matches!(self.next(), Some(b'e' | b'E'))).then_some(())
    }

    fn digits(&mut self) -> &'b str {
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    fn word(&mut self) -> Option<()> {
        let rest = &self.text[self.at..];
        let word = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word))?;
        self.at += word.len();
        Some(())
    }
}

/// Where what may stand in a text ends: at the next quote, backslash or control character. Eight bytes are looked at together,
/// as most of a body is text.
pub(super) fn ending(bytes: &[u8], mut at: usize) -> Option<usize> {
    while let Some(lane) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let found = endings(u64::from_le_bytes(*lane));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    rest.iter().position(|byte| matches!(byte, ..b' ' | b'"' | b'\\')).map(|more| at + more)
}

/// The high bit of each byte that ends a text; what is above the lowest of them may be wrong.
const fn endings(lane: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let quotes = lane ^ (ONES * b'"' as u64);
    let slashes = lane ^ (ONES * b'\\' as u64);
    let zeros = (quotes.wrapping_sub(ONES) & !quotes) | (slashes.wrapping_sub(ONES) & !slashes);
    (zeros | (lane.wrapping_sub(ONES * b' ' as u64) & !lane)) & HIGH
}

impl<'b> Plain<'b> {
    fn open(&mut self, place: Place) {
        match place {
            Place::Params => self.members = Some(Members(Vec::with_capacity(4))),
            Place::Meta => self.meta = Some(Members(Vec::with_capacity(4))),
            _ => {}
        }
    }

    fn note(&mut self, place: Place, name: &'b str, value: Verbatim<'b>) {
        match place {
            Place::Envelope => {
                let slot = match name {
                    "jsonrpc" => &mut self.jsonrpc,
                    "id" => &mut self.id,
                    "method" => &mut self.method,
                    "params" => &mut self.params,
                    "result" => &mut self.result,
                    "error" => &mut self.error,
                    _ => return,
                };
                *slot = Some(value);
            }
            Place::Params => self.members.iter_mut().for_each(|members| members.0.push((Cow::Borrowed(name), value))),
            Place::Meta => self.meta.iter_mut().for_each(|meta| meta.0.push((Cow::Borrowed(name), value))),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mcp::message::Payload;
    use crate::mcp::{canonical, rest, strict};

    /// The one form of a value, made of it with nothing known.
    fn form(value: Verbatim<'_>) -> String {
        let mut out = String::new();
        canonical::value(Verbatim::found(value.get()), &mut out).unwrap();
        out
    }

    /// Asserts that a body that is plain is what careful reading makes of it; whether it was.
    fn agrees(text: &str) -> bool {
        if read(text).is_none() {
            return false;
        }
        strict::with_care(text).unwrap();
        for (_, value) in read(text).into_iter().flat_map(|plain| [plain.members, plain.meta]).flatten().flat_map(|members| members.0) {
            assert!(!value.is_canonical() || form(value) == value.get(), "{value:?}");
        }
        let checked = || strict::check(text.as_bytes()).unwrap();
        assert_eq!(format!("{:?}", Payload::of(checked())), format!("{:?}", Payload::read(text.as_bytes())), "{text}");
        assert_eq!(format!("{:?}", rest::Payload::of(checked())), format!("{:?}", rest::Payload::read(text.as_bytes())), "{text}");
        true
    }

    #[test]
    fn plain_bodies_are_taken_apart() {
        let call = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","arguments":{"b":[1,-2.5,{"c":"\n\"é"}],"name":true},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
        let plain = read(call).unwrap();
        assert_eq!(plain.id.unwrap().get(), "7");
        assert_eq!(plain.members.as_ref().unwrap().get("arguments").unwrap().get(), r#"{"b":[1,-2.5,{"c":"\n\"é"}],"name":true}"#);
        assert_eq!(plain.meta.as_ref().unwrap().0.len(), 1);
        let known = |text: &str| read(text).unwrap().members.unwrap().get("arguments").unwrap().is_canonical();
        assert!(known(r#"{"method":"x", "params":{"name":"\n","arguments":{"a":1,"b":["é"]}, "_meta":{}}}"#));
        assert!(!known(r#"{"method":"x","params":{"name":"a","arguments":{"b":1,"a":2}}}"#));
        let long = format!(r#"{{"method":"x","params":{{"a":"{}\"é{}"}}}}"#, "é".repeat(70), "y".repeat(99));
        for text in [call, &long, " {\r\n\t\"method\" : \"call_tool\" , \"params\" : null } ", r#"{"id":null,"params":{},"method":"ping"}"#]
        {
            assert!(agrees(text), "{text}");
        }
    }

    #[test]
    fn what_needs_care_is_not_plain() {
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(DEEPEST), "]".repeat(DEEPEST));
        let many: Vec<String> = (0..=MOST_NAMES).map(|name| format!("\"m{name}\":1")).collect();
        for text in [
            "",
            "7",
            "[]",
            "{",
            "{}x",
            r#"{"a":1,}"#,
            r#"{"a" 1}"#,
            r#"{"a":01}"#,
            r#"{"a":-}"#,
            r#"{"a":1.}"#,
            r#"{"a":1e9}"#,
            r#"{"a":1.5E9}"#,
            r#"{"a":1234567890123456}"#,
            r#"{"a":tru}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"Method":1}"#,
            r#"{"\u0061":1}"#,
            r#"{"é":1}"#,
            r#"{"a":"\u0061"}"#,
            r#"{"a":"\x"}"#,
            "{\"a\":\"\n\"}",
            r#"{"a":"b}"#,
            r#"{"a":"\"}"#,
            r#"{"params":{"Name":1}}"#,
            r#"{"params":{"_meta":{"a":1,"a":2}}}"#,
            "{a:1}",
            r#"{"a":[1 2]}"#,
            r#"{"a":[1,]}"#,
            "\u{feff}{}",
            &deep,
            &format!("{{{}}}", many.join(",")),
        ] {
            assert!(read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn only_the_one_form_is_canonical() {
        for text in ["{}", "[]", r#"{"a":[1,0,-5,100,"x",null,true],"b":{"c":"é"}}"#, "[[],{}]"] {
            assert!(is_canonical(text), "{text}");
        }
        for text in [r#"{"a": 1}"#, r#"{"b":1,"a":2}"#, "[1.0]", r#"["\n"]"#, "[1 ]", "[1][", "[1e1]"] {
            assert!(!is_canonical(text), "{text}");
        }
    }

    /// JSON of all kinds, often what we judge by and often almost.
    fn json() -> impl Strategy<Value = String> {
        let name = prop_oneof!["(jsonrpc|id|method|params|result|error|name|uri|_meta|ref|Params|a|b)", "[ -~é\\\\\"]{0,4}"];
        let space = prop_oneof![9 => Just(""), 1 => Just(" ")];
        let leaf = prop_oneof![
            "-?[0-9]{1,17}(\\.[0-9]{1,3})?(e[0-9])?",
            "\"(2\\.0|tools/call|tools/list|[ -~é\\\\\"\n]{0,40})\"",
            "(true|false|null|x)",
        ];
        leaf.prop_recursive(6, 40, 6, move |inner| {
            let member =
                (name.clone(), inner.clone(), space.clone()).prop_map(|(name, value, space)| format!("\"{name}\"{space}:{space}{value}"));
            prop_oneof![
                1 => prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
                4 => prop::collection::vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(","))),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_plain_reads_the_same_with_care(params in json(), more in json(), method in "(tools/call|ping|call_tool|x)") {
            agrees(&params);
            agrees(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params},"x":{more}}}"#));
        }

        #[test]
        fn what_is_canonical_stays_as_it_is(value in json()) {
            if is_canonical(&value) {
                let object = format!("{{\"a\":{value}}}");
                let mut out = String::new();
                canonical::object(&serde_json::from_str(&object).unwrap(), &|_| true, &mut out).unwrap();
                prop_assert_eq!(out, object);
            }
        }
    }
}
