//! The messages of etcd's JSON gateway.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

/// Bytes, as base64.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Blob {
    /// The bytes as text, escaped where they are none, so that different bytes stay different.
    pub fn text(&self) -> String {
        std::str::from_utf8(&self.0).map_or_else(|_| self.0.escape_ascii().to_string(), str::to_owned)
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Self).map_err(|_| D::Error::custom("not base64"))
    }
}

/// A 64-bit number, as text or as a number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Int(pub i64);

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(i64),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self(number)),
            Written::Text(text) => text.parse().map(Self).map_err(|_| D::Error::custom("not a number")),
        }
    }
}

/// `POST /v3/kv/range`.
#[derive(Serialize, Default)]
pub struct Range {
    pub key: Blob,
    #[serde(rename = "range_end")]
    pub end: Blob,
    pub revision: i64,
    pub limit: u32,
    pub keys_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort_order: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort_target: Option<&'static str>,
}

impl Range {
    pub fn of(from: &[u8], end: &[u8]) -> Self {
        Self { key: Blob(from.to_vec()), end: Blob(end.to_vec()), ..Self::default() }
    }
}

/// The end of the keys that begin with `prefix`.
pub fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // No key is greater: to the end of all.
    vec![0]
}

#[derive(Deserialize)]
pub struct Ranged {
    pub header: Header,
    #[serde(default)]
    pub kvs: Vec<KeyValue>,
    #[serde(default)]
    pub more: bool,
    #[serde(default)]
    pub count: Int,
}

#[derive(Deserialize, Default)]
pub struct Header {
    #[serde(default)]
    pub revision: Int,
}

#[derive(Deserialize, Default)]
pub struct KeyValue {
    #[serde(default)]
    pub key: Blob,
    #[serde(default)]
    pub mod_revision: Int,
    #[serde(default)]
    pub value: Blob,
}

/// `POST /v3/watch`.
#[derive(Serialize)]
pub struct Watch {
    create_request: Create,
}

#[derive(Serialize)]
struct Create {
    key: Blob,
    range_end: Blob,
    start_revision: i64,
    progress_notify: bool,
}

impl Watch {
    pub fn from(key: &[u8], range_end: &[u8], start_revision: i64) -> Self {
        let (key, range_end) = (Blob(key.to_vec()), Blob(range_end.to_vec()));
        Self { create_request: Create { key, range_end, start_revision, progress_notify: true } }
    }
}

/// One line of a watch.
#[derive(Deserialize)]
pub struct Streamed {
    pub result: Option<Watched>,
    pub error: Option<Refusal>,
}

#[derive(Deserialize)]
pub struct Watched {
    #[serde(default)]
    pub header: Header,
    #[serde(default)]
    pub created: bool,
    #[serde(default)]
    pub canceled: bool,
    #[serde(default)]
    pub cancel_reason: String,
    #[serde(default)]
    pub compact_revision: Int,
    #[serde(default)]
    pub events: Vec<Event>,
}

#[derive(Deserialize)]
pub struct Event {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    #[serde(default)]
    pub kv: KeyValue,
}

/// `POST /v3/auth/authenticate`.
#[derive(Serialize)]
pub struct Authenticate<'a> {
    pub name: &'a str,
    pub password: &'a str,
}

#[derive(Deserialize)]
pub struct Authenticated {
    pub token: String,
}

/// Why etcd will not.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    #[serde(default)]
    message: String,
    #[serde(default)]
    code: i64,
}

/// gRPC's `UNAUTHENTICATED`.
const UNAUTHENTICATED: i64 = 16;

impl Refusal {
    /// Of an answer whose words could not be read.
    pub fn of(status: http::StatusCode) -> Self {
        Self { message: format!("answered {status}"), code: if status.as_u16() == 401 { UNAUTHENTICATED } else { 0 } }
    }

    /// Whether a new token would help: there was none, it expired, or users and roles changed since.
    pub fn wants_token(&self) -> bool {
        let told = ["invalid auth token", "user name is empty", "revision of auth store is old"];
        self.code == UNAUTHENTICATED || told.iter().any(|told| self.message.contains(told))
    }

    /// Whether this etcd has no users.
    pub fn wants_no_token(&self) -> bool {
        self.message.contains("authentication is not enabled")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_no_key_of_its_begins() {
        assert_eq!(end_of(b"/backends/"), b"/backends0");
        assert_eq!(end_of(b"a\xff"), b"b");
        assert_eq!(end_of(b"\xff"), b"\0");
    }

    #[test]
    fn numbers_are_text_or_numbers_and_what_is_zero_is_left_out() {
        let ranged: Ranged = serde_json::from_str(r#"{"header":{"revision":"5"},"count":2}"#).unwrap();
        assert_eq!((ranged.header.revision, ranged.count, ranged.kvs.len()), (Int(5), Int(2), 0));
    }
}
