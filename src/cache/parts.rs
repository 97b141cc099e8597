//! A result as it is kept: taken apart once, when it came, so that giving it takes copies only, however long it is.

use std::borrow::Cow;

use crate::mcp::members::Members;
use crate::mcp::rewrite;
use crate::verbatim::Verbatim;

/// The member that tells how long an answer is fresh; it is written anew for each caller.
const TTL: &str = "ttlMs";
/// What a member takes beside its texts (see `memory` for how it was measured).
const MEMBER: usize = 20;

/// The members of an MCP result, less `ttlMs`.
pub struct Parts(Box<[(Box<str>, Box<str>)]>);

impl Parts {
    pub fn of(result: &Members<'_>) -> Self {
        let rest = result.0.iter().filter(|(name, _)| name != TTL);
        Self(rest.map(|(name, value)| (Box::from(&**name), value.get().into())).collect())
    }

    /// Bytes of the object that it is.
    pub fn len(&self) -> usize {
        2 + self.0.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>()
    }

    /// Bytes of memory.
    pub fn weight(&self) -> usize {
        self.len() + self.0.len() * MEMBER
    }

    /// The members, for a caller who is told how long they are fresh if at all.
    pub fn members<'p>(&'p self, ttl: Option<Verbatim<'p>>) -> Members<'p> {
        let first = ttl.map(|ttl| (Cow::Borrowed(TTL), ttl));
        Members(first.into_iter().chain(self.0.iter().map(|(name, value)| (Cow::Borrowed(&**name), Verbatim::found(value)))).collect())
    }

    /// Appends the object.
    pub fn write(&self, ttl: Option<u128>, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        let first = ttl.map(|ttl| (TTL, digits.format(ttl)));
        rewrite::append(out, first.into_iter().chain(self.0.iter().map(|(name, value)| (&**name, &**value))));
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
                assert!(out.len() <= parts.len() + "\"ttlMs\":7,".len() + 2);
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
