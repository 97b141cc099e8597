//! JSON-RPC messages, read without copying. One pass finds what routing and policy need (id, method, the name acted on,
//! the revision claimed); the rest of the body is never interpreted. Duplicate members are refused, because a backend
//! that takes the other one would execute what was never judged.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::members::Members;
use super::method::{self, Named};
use crate::call::Call;
use crate::reject::{Code, Reject, Verdict};

/// Messages one batch may hold.
const MAX_BATCH: usize = 256;

/// One JSON-RPC message of any kind.
#[derive(Debug, Deserialize)]
pub struct Message<'b> {
    #[serde(borrow)]
    jsonrpc: Option<Cow<'b, str>>,
    /// As it was written. An explicit `null` is read as absent, which JSON-RPC treats alike for our purposes.
    #[serde(borrow)]
    pub id: Option<&'b RawValue>,
    #[serde(borrow)]
    pub method: Option<Cow<'b, str>>,
    #[serde(borrow)]
    pub params: Option<Params<'b>>,
    #[serde(borrow)]
    result: Option<&'b RawValue>,
    #[serde(borrow)]
    error: Option<&'b RawValue>,
}

/// The members of `params` that say what is acted on.
#[derive(Debug, Default, Deserialize)]
pub struct Params<'b> {
    #[serde(borrow)]
    name: Option<Cow<'b, str>>,
    #[serde(borrow)]
    uri: Option<Cow<'b, str>>,
    #[serde(borrow, rename = "taskId")]
    task_id: Option<Cow<'b, str>>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'b>>,
}

#[derive(Debug, Default, Deserialize)]
struct Meta<'b> {
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Option<Cow<'b, str>>,
}

impl<'b> Message<'b> {
    /// Whether an answer is expected.
    pub fn is_request(&self) -> bool {
        self.method.is_some() && self.id.is_some()
    }

    /// The revision the message claims for itself (MCP 2026-07-28).
    pub fn version(&self) -> Option<&str> {
        self.params.as_ref()?.meta.as_ref()?.version.as_deref()
    }

    /// What is asked; `None` for a response, which asks nothing.
    pub fn call(&self) -> Option<Call<'b>> {
        let method = self.method.clone()?;
        let name = self.params.as_ref().and_then(|params| params.acted_on(&method));
        Some(Call { method, name })
    }

    fn check(self) -> Verdict<Self> {
        if self.jsonrpc.as_deref() != Some("2.0") {
            return Err(Reject::new(Code::InvalidRequest, "`jsonrpc` must be \"2.0\""));
        }
        let kinds = [self.method.is_some(), self.result.is_some(), self.error.is_some()];
        if kinds.iter().filter(|present| **present).count() != 1 {
            return Err(Reject::new(Code::InvalidRequest, "a message has exactly one of `method`, `result` and `error`"));
        }
        Ok(self)
    }
}

impl<'b> Params<'b> {
    fn acted_on(&self, method: &str) -> Option<Cow<'b, str>> {
        match method::find(method)?.named {
            Named::Nothing => None,
            Named::Name => self.name.clone(),
            Named::Uri => self.uri.clone(),
            Named::TaskId => self.task_id.clone(),
        }
    }
}

/// What one native POST carries.
#[derive(Debug)]
pub enum Payload<'b> {
    One(Message<'b>),
    /// A JSON-RPC batch, which revision 2025-03-26 allows.
    Batch(Vec<Message<'b>>),
}

impl<'b> Payload<'b> {
    /// Reads a native body.
    ///
    /// # Errors
    /// `parse_error` for what is not JSON, `invalid_request` for JSON that is no message, `invalid_params` for `params`
    /// of a shape no MCP method has.
    pub fn read(body: &'b [u8]) -> Verdict<Self> {
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
            let messages: Vec<Message<'b>> = serde_json::from_slice(body).map_err(|e| explain(&e))?;
            if messages.is_empty() || messages.len() > MAX_BATCH {
                return Err(Reject::new(Code::InvalidRequest, format!("a batch has 1 to {MAX_BATCH} messages")));
            }
            return messages.into_iter().map(Message::check).collect::<Verdict<_>>().map(Payload::Batch);
        }
        let message: Message<'b> = serde_json::from_slice(body).map_err(|e| explain(&e))?;
        message.check().map(Payload::One)
    }

    /// The single message, if it is one.
    pub fn one(&self) -> Option<&Message<'b>> {
        match self {
            Self::One(message) => Some(message),
            Self::Batch(_) => None,
        }
    }
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
    pub id: Option<&'b RawValue>,
    #[serde(borrow)]
    pub method: Option<Cow<'b, str>>,
    #[serde(borrow)]
    pub params: Option<&'b RawValue>,
    #[serde(borrow)]
    pub result: Option<&'b RawValue>,
    #[serde(borrow)]
    pub error: Option<&'b RawValue>,
}

/// The caller's id in a body that was refused, if it can be made out; it goes back with the error.
pub fn id_of(body: &[u8]) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Id<'b> {
        #[serde(borrow)]
        id: Option<&'b RawValue>,
    }
    let id = serde_json::from_slice::<Id<'_>>(body).ok()?.id?;
    matches!(id.get().as_bytes().first(), Some(b'"' | b'-' | b'0'..=b'9')).then_some(id)
}

/// What a server answered to a request of ours.
#[derive(Debug)]
pub enum Answer<'b> {
    Result(Members<'b>),
    Error(&'b RawValue),
}

impl<'b> Answer<'b> {
    /// Reads a response in one pass; `None` if it is not the answer to the request with this id. An error may come
    /// without an id.
    pub fn read(body: &'b [u8], id: u64) -> Option<Self> {
        #[derive(Deserialize)]
        struct Written<'b> {
            #[serde(borrow)]
            id: Option<&'b RawValue>,
            #[serde(borrow)]
            result: Option<Members<'b>>,
            #[serde(borrow)]
            error: Option<&'b RawValue>,
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
        assert!(message.is_request());
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
            "\"text\"",
            "",
        ] {
            assert!(Payload::read(body.as_bytes()).is_err(), "{body}");
        }
        let deep = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"params\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        assert!(Payload::read(deep.as_bytes()).is_err());
    }
}
