//! A result as it is kept: written out once, when it came, so that giving it is one copy, however long it is.

use std::borrow::Cow;

use crate::copy;
use crate::mcp::members::{self, Members};
use crate::verbatim::Verbatim;

/// The member that tells how long an answer is fresh; it is written anew for each caller.
const TTL: &str = "ttlMs";

/// The members of an MCP result, less `ttlMs`.
pub struct Parts {
    /// All of them as JSON, between the braces of their object.
    text: Box<str>,
    ends: Box<[Ends]>,
}

/// Where in the text a member ends: behind the one before, and a comma, it begins.
#[derive(Clone, Copy)]
struct Ends {
    name: usize,
    value: usize,
}

impl Parts {
    pub fn of(result: &Members<'_>) -> Self {
        let mut text = String::new();
        let mut ends = Vec::new();
        for (name, value) in result.0.iter().filter(|(name, _)| name != TTL) {
            if !text.is_empty() {
                text.push(',');
            }
            // A text as a JSON text cannot fail.
            text.push_str(&serde_json::to_string(name).unwrap_or_default());
            let name = text.len();
            text.push(':');
            text.push_str(value.get());
            ends.push(Ends { name, value: text.len() });
        }
        // Copied, because allocators leave what shrinks in the room that it had.
        Self { text: text.as_str().into(), ends: ends.as_slice().into() }
    }

    /// Bytes of the object that it is.
    pub const fn len(&self) -> usize {
        self.text.len() + 2
    }

    /// Bytes of memory.
    pub const fn weight(&self) -> usize {
        self.text.len() + self.ends.len() * size_of::<Ends>()
    }

    /// The members, for a caller who is told how long they are fresh if at all.
    pub fn members<'p>(&'p self, ttl: Option<Verbatim<'p>>) -> Members<'p> {
        let first = ttl.map(|ttl| (Cow::Borrowed(TTL), ttl));
        let begins = std::iter::once(0).chain(self.ends.iter().map(|ends| ends.value + 1));
        let rest = begins.zip(&self.ends).map(|(begin, ends)| {
            let (name, value) = (&self.text[begin..ends.name], &self.text[ends.name + 1..ends.value]);
            (members::text(Verbatim::found(name)).unwrap_or_default(), Verbatim::found(value))
        });
        Members(first.into_iter().chain(rest).collect())
    }

    /// Bytes of what is written for such a caller: where they are exact, the text becomes a body as it is.
    pub fn size(&self, ttl: Option<u64>) -> usize {
        let digits = |ttl: u64| ttl.checked_ilog10().unwrap_or_default() as usize + 1;
        let comma = usize::from(!self.text.is_empty());
        self.len() + ttl.map_or(0, |ttl| TTL.len() + "\"\":".len() + digits(ttl) + comma)
    }

    /// Appends the object.
    pub fn write(&self, ttl: Option<u64>, out: &mut Vec<u8>) {
        out.push(b'{');
        if let Some(ttl) = ttl {
            out.push(b'"');
            out.extend_from_slice(TTL.as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(itoa::Buffer::new().format(ttl).as_bytes());
            if !self.text.is_empty() {
                out.push(b',');
            }
        }
        copy::append(out, self.text.as_bytes());
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_written_as_it_came_with_a_time_of_its_own() {
        let seven = Verbatim::found("7");
        for (came, rest) in [
            (r#"{"a":[1.0, 2],"ttlMs":5,"q\"":"\u00e9"}"#, r#""a":[1.0, 2],"q\"":"\u00e9""#),
            (r#"{"tools":[]}"#, r#""tools":[]"#),
            (r#"{"ttlMs":1}"#, ""),
        ] {
            let parts = Parts::of(&serde_json::from_str(came).unwrap());
            let written = |ttl: Option<Verbatim<'_>>| {
                let mut out = Vec::new();
                parts.write(ttl.map(|_| 7), &mut out);
                assert_eq!(out.len(), parts.size(ttl.map(|_| 7)));
                (String::from_utf8(out).unwrap(), parts.members(ttl).written())
            };
            let plain = format!("{{{rest}}}");
            assert_eq!(written(None), (plain.clone(), plain));
            let comma = if rest.is_empty() { "" } else { "," };
            let told = format!("{{\"ttlMs\":7{comma}{rest}}}");
            assert_eq!(written(Some(seven)), (told.clone(), told));
        }
    }
}
