//! JSON-RPC messages, read without copying. One pass finds what routing and policy need (id, method, the name acted on,
//! the revision claimed); the rest of the body is never interpreted. Duplicate members are refused, because a backend
//! that takes the other one would execute what was never judged.

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::members::{self, Members, borrowed};
use super::params::Params;
use super::plain::Plain;
use super::strict::Checked;
use crate::call::{Call, Era, Kind};
use crate::reject::{Code, Reject, Verdict};
use crate::verbatim::Verbatim;

/// Messages one batch may hold.
const MAX_BATCH: usize = 256;

/// One JSON-RPC message of any kind.
#[derive(Debug, Deserialize)]
pub struct Message<'b> {
    #[serde(borrow, default, deserialize_with = "borrowed")]
    jsonrpc: Option<Cow<'b, str>>,
    /// As it was written. An explicit `null` is read as absent, which JSON-RPC treats alike for our purposes.
    #[serde(borrow)]
    pub id: Option<Verbatim<'b>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    pub method: Option<Cow<'b, str>>,
    #[serde(borrow, default, deserialize_with = "object")]
    pub params: Option<Params<'b>>,
    #[serde(borrow)]
    result: Option<Verbatim<'b>>,
    #[serde(borrow)]
    error: Option<Verbatim<'b>>,
}

/// `params` as an object; positional ones, which MCP does not have, name nothing.
fn object<'de: 'b, 'b, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Params<'b>>, D::Error> {
    Option::<Members<'b>>::deserialize(deserializer)?.map(Params::read).transpose().map_err(D::Error::custom)
}

impl<'b> Message<'b> {
    /// The trace it belongs to, as it was written (W3C Trace Context in `_meta`, MCP 2026-07-28).
    pub fn traceparent(&self) -> Option<Verbatim<'b>> {
        self.params.as_ref()?.meta.as_ref()?.get("traceparent")
    }

    /// The revision the message claims for itself (MCP 2026-07-28).
    pub fn version(&self) -> Option<&str> {
        self.params.as_ref()?.version()
    }

    /// What is asked; `None` for a response, which asks nothing.
    pub fn call(&self) -> Option<Call<'b>> {
        let method = self.method.clone()?;
        let none = Params::default();
        let call = self.params.as_ref().unwrap_or(&none).call(method);
        // A request is no notification, whatever it calls itself.
        Some(if self.id.is_some() && call.method.starts_with("notifications/") { Call { kind: Kind::Unknown, ..call } } else { call })
    }

    fn read(body: &'b [u8]) -> Verdict<Self> {
        let message = serde_json::from_str::<Self>(must_be_object(body)?).map_err(|e| explain(&e))?;
        message.check().map(|()| message)
    }

    /// What was taken apart already; `None` where something is of another type than it must be.
    fn of(plain: Plain<'b>) -> Option<Self> {
        let told = |value: Option<Verbatim<'b>>| value.filter(|value| value.get() != "null");
        let text = |value| told(value).map(|value| members::plain(value).map(Cow::Borrowed).ok_or(())).transpose().ok();
        let params = match (told(plain.params), plain.members) {
            (Some(_), Some(members)) => Some(Params::of_plain(members, plain.meta)?),
            (Some(_), None) => return None,
            (None, _) => None,
        };
        Some(Self {
            jsonrpc: text(plain.jsonrpc)?,
            id: told(plain.id),
            method: text(plain.method)?,
            params,
            result: told(plain.result),
            error: told(plain.error),
        })
    }

    fn check(&self) -> Verdict<()> {
        if self.jsonrpc.as_deref() != Some("2.0") {
            return Err(Reject::new(Code::InvalidRequest, "`jsonrpc` must be \"2.0\""));
        }
        let kinds = [self.method.is_some(), self.result.is_some(), self.error.is_some()];
        if kinds.iter().filter(|present| **present).count() != 1 {
            return Err(Reject::new(Code::InvalidRequest, "a message has exactly one of `method`, `result` and `error`"));
        }
        Ok(())
    }
}

/// What one native POST carries.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each request; a box would be an allocation for each")]
pub enum Payload<'b> {
    One(Message<'b>),
    /// A JSON-RPC batch, which revision 2025-03-26 allows.
    Batch(Vec<Message<'b>>),
}

impl<'b> Payload<'b> {
    /// Reads a native body that was checked.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of(checked: Checked<'b>) -> Verdict<Self> {
        match checked.plain.and_then(|plain| Message::of(*plain)) {
            Some(message) => message.check().map(|()| Payload::One(message)),
            None => Self::read(checked.body),
        }
    }

    /// Reads a native body.
    ///
    /// # Errors
    /// `parse_error` for what is not JSON, `invalid_request` for JSON that is no message.
    pub fn read(body: &'b [u8]) -> Verdict<Self> {
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            let messages: Vec<Verbatim<'b>> = serde_json::from_slice(body).map_err(|e| explain(&e))?;
            if messages.is_empty() || messages.len() > MAX_BATCH {
                return Err(Reject::new(Code::InvalidRequest, format!("a batch has 1 to {MAX_BATCH} messages")));
            }
            return messages.into_iter().map(|raw| Message::read(raw.get().as_bytes())).collect::<Verdict<_>>().map(Payload::Batch);
        }
        Message::read(body).map(Payload::One)
    }

    /// Whether it is a batch with a message of the modern revision, which has none.
    pub fn is_modern_batch(&self) -> bool {
        let modern = |message: &Message<'_>| message.version().is_some_and(|version| super::era_of(version) == Era::Modern);
        matches!(self, Self::Batch(messages) if messages.iter().any(modern))
    }

    /// What a batch asks, message by message.
    pub fn batched(&self) -> Vec<Call<'b>> {
        match self {
            Self::One(_) => Vec::new(),
            Self::Batch(messages) => messages.iter().filter_map(Message::call).collect(),
        }
    }

    /// The single message, if it is one.
    pub fn into_one(self) -> Option<Message<'b>> {
        match self {
            Self::One(message) => Some(message),
            Self::Batch(_) => None,
        }
    }

    /// The single message, if it is one.
    pub fn one(&self) -> Option<&Message<'b>> {
        match self {
            Self::One(message) => Some(message),
            Self::Batch(_) => None,
        }
    }
}

/// A body as text. Refuses what serde would otherwise take for an object: an array, read member by member in the order of our own struct.
/// Nor does it look at the encoding of what it skips.
///
/// # Errors
/// `invalid_request`, or `parse_error` for what is not UTF-8.
pub fn must_be_object(body: &[u8]) -> Verdict<&str> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Err(Reject::new(Code::InvalidRequest, "expected an object, found an array"));
    }
    std::str::from_utf8(body).map_err(|e| Reject::new(Code::ParseError, "the body is not UTF-8").because(e))
}

/// The refusal for a body `serde_json` could not read.
pub fn explain(error: &serde_json::Error) -> Reject {
    let code = if error.is_data() { Code::InvalidRequest } else { Code::ParseError };
    // The position helps; the message may quote a name the client chose, so it is kept short.
    Reject::new(code, crate::reject::clip(&error.to_string()).to_owned()).because(error)
}

/// A response as an upstream sent it: everything kept as written.
#[derive(Debug, Deserialize)]
pub struct Response<'b> {
    #[serde(borrow)]
    pub id: Option<Verbatim<'b>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    pub method: Option<Cow<'b, str>>,
    #[serde(borrow)]
    pub params: Option<Verbatim<'b>>,
    #[serde(borrow)]
    pub result: Option<Verbatim<'b>>,
    #[serde(borrow)]
    pub error: Option<Verbatim<'b>>,
}

/// The caller's id in a body that was refused, if it can be made out; it goes back with the error.
pub fn id_of(body: &[u8]) -> Option<Verbatim<'_>> {
    #[derive(Deserialize)]
    struct Id<'b> {
        #[serde(borrow)]
        id: Option<Verbatim<'b>>,
    }
    let id = serde_json::from_slice::<Id<'_>>(body).ok()?.id?;
    matches!(id.get().as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9')).then_some(id)
}

/// What a server answered to a request of ours.
#[derive(Debug)]
pub enum Answer<'b> {
    Result(Members<'b>),
    Error(Verbatim<'b>),
}

impl<'b> Answer<'b> {
    /// Reads a response in one pass; `None` if it is not the answer to the request with this id. An error may come
    /// without an id.
    pub fn read(body: &'b [u8], id: u64) -> Option<Self> {
        #[derive(Deserialize)]
        struct Written<'b> {
            #[serde(borrow)]
            id: Option<Verbatim<'b>>,
            #[serde(borrow)]
            result: Option<Members<'b>>,
            #[serde(borrow)]
            error: Option<Verbatim<'b>>,
        }
        let written: Written<'b> = serde_json::from_slice(body).ok()?;
        let ours = written.id.is_some_and(|raw| raw.get().parse() == Ok(id));
        match (written.result, written.error) {
            (Some(result), None) if ours => Some(Self::Result(result)),
            (None, Some(error)) if ours || written.id.is_none() => Some(Self::Error(error)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_names_its_tool() {
        let body = br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a\u0062","arguments":{"name":"not me"}}}"#;
        let payload = Payload::read(body).unwrap();
        let message = payload.one().unwrap();
        assert_eq!(message.id.unwrap().get(), "7");
        assert_eq!(message.call().unwrap().name.as_deref(), Some("ab"));
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{},"params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":2,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
            "[]",
            "[[]]",
            r#"["2.0",1,"ping"]"#,
            r#"[["2.0",1,"ping"]]"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["echo"]}"#,
            "\"text\"",
            "",
        ] {
            assert!(Payload::read(body.as_bytes()).is_err(), "{body}");
        }
        let deep = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"params\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        assert!(Payload::read(deep.as_bytes()).is_err());
    }
}
