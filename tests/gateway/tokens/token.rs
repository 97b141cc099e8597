//! Tokens made by hand, text by text: what a library refuses to write is what has to be tried.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::key::Key;

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn unb64(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).expect("base64url")
}

/// This many seconds from now, as tokens count time.
pub fn from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("not that late") + seconds
}

/// A token in the making. It starts as an honest one; each method makes one thing of it different.
#[derive(Clone)]
pub struct Token<'k> {
    header: Object,
    claims: Object,
    key: &'k Key,
    alg: &'static str,
}

/// A JSON object with room before and after for members no tree could hold: duplicates, and numbers beyond every type.
#[derive(Clone, Default)]
struct Object {
    members: Map<String, Value>,
    first: Option<String>,
    last: Option<String>,
}

impl Object {
    fn text(&self) -> String {
        let members = serde_json::to_string(&self.members).expect("JSON");
        let members = (!self.members.is_empty()).then(|| members[1..members.len() - 1].to_owned());
        let all: Vec<String> = [self.first.clone(), members, self.last.clone()].into_iter().flatten().collect();
        format!("{{{}}}", all.join(","))
    }
}

impl<'k> Token<'k> {
    /// What this issuer would honestly write and sign.
    pub fn of(issuer: &str, key: &'k Key) -> Self {
        let claims = json!({
            "iss": issuer, "aud": "gateway", "sub": "alice", "exp": from_now(600), "iat": from_now(-5), "nbf": from_now(-5),
            "scope": "read write", "org": "acme", "roles": ["user"], "plan": "free",
        });
        let (mut header, mut payload) = (Object::default(), Object::default());
        if let Value::Object(members) = claims {
            payload.members = members;
        }
        header.members.insert("alg".into(), json!(key.alg));
        header.members.insert("typ".into(), json!("JWT"));
        if !key.kid.is_empty() {
            header.members.insert("kid".into(), json!(key.kid));
        }
        Self { header, claims: payload, key, alg: key.alg }
    }

    /// Sets a member of the header; `null` is a value, see [`Token::headless`].
    pub fn head(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.members.insert(name.into(), value.into());
        self
    }

    pub fn headless(mut self, name: &str) -> Self {
        self.header.members.remove(name);
        self
    }

    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.members.insert(name.into(), value.into());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.claims.members.remove(name);
        self
    }

    /// Another algorithm, in the header and in truth.
    pub fn alg(mut self, alg: &'static str) -> Self {
        self.alg = alg;
        self.head("alg", alg)
    }

    /// Signed by another key than the header says.
    pub fn by(mut self, key: &'k Key) -> Self {
        self.key = key;
        self
    }

    /// A member written before all others of the header, as it stands.
    pub fn head_first(mut self, member: &str) -> Self {
        self.header.first = Some(member.into());
        self
    }

    /// A member written after all others of the header, as it stands.
    pub fn head_last(mut self, member: &str) -> Self {
        self.header.last = Some(member.into());
        self
    }

    /// A member written before all other claims, as it stands.
    pub fn claim_first(mut self, member: &str) -> Self {
        self.claims.first = Some(member.into());
        self
    }

    /// A member written after all other claims, as it stands.
    pub fn claim_last(mut self, member: &str) -> Self {
        self.claims.last = Some(member.into());
        self
    }

    pub fn header(&self) -> String {
        self.header.text()
    }

    pub fn payload(&self) -> String {
        self.claims.text()
    }

    /// Signs any bytes the way this token is signed.
    pub fn sign(&self, message: &str) -> Vec<u8> {
        self.key.sign(self.alg, message.as_bytes())
    }

    /// The first two segments, which are what is signed.
    pub fn unsigned(&self) -> String {
        format!("{}.{}", b64(self.header()), b64(self.payload()))
    }

    pub fn compact(&self) -> String {
        self.sealed(self.header(), self.payload())
    }

    /// The compact form of any header and payload, truly signed.
    pub fn sealed(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        self.sign_segments(&b64(header), &b64(payload))
    }

    /// The compact form of two segments that need not be base64url, truly signed.
    pub fn sign_segments(&self, header: &str, payload: &str) -> String {
        let unsigned = format!("{header}.{payload}");
        format!("{unsigned}.{}", b64(self.sign(&unsigned)))
    }

    /// The first two segments with this for a signature.
    pub fn signed_with(&self, signature: impl AsRef<[u8]>) -> String {
        format!("{}.{}", self.unsigned(), b64(signature))
    }

    /// As long as a token can be made within `limit`, by a claim nobody reads, and then `beyond` bytes more of that claim.
    pub fn stretched(&self, limit: usize, beyond: usize) -> String {
        let empty = self.clone().claim("padding", "").compact().len();
        // Three bytes become four characters; one is left for rounding.
        let padding = (limit - empty) * 3 / 4 - 1 + beyond;
        self.clone().claim("padding", "x".repeat(padding)).compact()
    }
}

/// The three segments of a compact token.
pub fn segments(compact: &str) -> [&str; 3] {
    compact.split('.').collect::<Vec<_>>().try_into().expect("three segments")
}
