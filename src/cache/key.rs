//! What tells one question from another: everything that may make its answer differ, written out in full. An entry is
//! found by this text itself, never by a digest that two texts could share.

use std::hash::{BuildHasher as _, Hash, Hasher};
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use super::Bypass;
use crate::config::Among;
use crate::digest::{hex, sha256};
use crate::mcp::members::Members;
use crate::mcp::method::Method;
use crate::mcp::{canonical, headers};
use crate::principal::Principal;

/// Bytes of the longest params that are part of a key.
const MAX_PARAMS: usize = 16 << 10;
/// Bytes of the longest keys, where names and headers are not long as well.
pub(super) const LONGEST: usize = MAX_PARAMS + (1 << 10);
/// Members of `params` that continue an exchange, or begin a task: such an answer is one caller's, once.
const CONTINUES: &[&str] = &["inputResponses", "requestState", "task"];
/// Members of `_meta` that no answer depends on. The client's capabilities are none of them.
const IDLE_META: &[&str] =
    &["progressToken", "traceparent", "tracestate", "baggage", "io.modelcontextprotocol/clientInfo", "io.modelcontextprotocol/logLevel"];
/// Members of `_meta` that the REST lane writes itself.
const PROTOCOL_META: &str = "io.modelcontextprotocol/";

/// A question in full. It holds what callers sent, so it is neither logged nor shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Of the text, by a seed of this process; first, because two that differ differ here.
    hash: u64,
    text: String,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Key {
    fn new(text: String) -> Self {
        static SEED: LazyLock<foldhash::quality::RandomState> = LazyLock::new(foldhash::quality::RandomState::default);
        Self { hash: SEED.hash_one(text.as_str()), text }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What its text takes.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Which of so many parts it belongs to.
    pub fn part_of(&self, parts: usize) -> usize {
        usize::try_from(self.hash % parts as u64).unwrap_or_default()
    }

    /// The same question where only one caller is answered so.
    #[must_use]
    pub fn of_caller(&self, principal: &Principal) -> Self {
        let mut text = String::with_capacity(self.text.len() + principal.binding().len() + 8);
        // Before all else, where a question of everybody has the rules it was kept under.
        part(&mut text, principal.binding());
        text.push_str(&self.text);
        Self::new(text)
    }
}

/// In which shape a server is asked, as far as its answer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By us, for a REST caller: all pages of a list as one.
    Whole,
    /// By us, for a REST caller.
    One,
    /// In the client's own words, under the revision that its headers claim.
    Native,
}

/// A question and who asks it.
pub struct Asked<'a, 'h> {
    pub form: Form,
    pub server: &'a str,
    pub method: &'static Method,
    /// The tool, prompt or resource.
    pub name: Option<&'a str>,
    pub params: &'a Members<'a>,
    /// Their `_meta`, where it was read before.
    pub meta: Option<&'a Members<'a>>,
    pub principal: &'a Principal,
    /// Whether a backend may be asked with a token of the caller's own.
    pub on_behalf: bool,
    /// The backends it may go to.
    pub among: Option<&'a Among>,
    /// Headers that the operator's rules add to what is sent.
    pub added: &'a [(HeaderName, HeaderValue)],
    /// The caller's headers.
    pub headers: &'h HeaderMap,
}

/// Writes the key that all callers of a tenant share.
///
/// # Errors
/// Why the question is not one that is kept.
pub fn shared(asked: &Asked<'_, '_>, generation: &str) -> Result<Key, Bypass> {
    if CONTINUES.iter().any(|name| asked.params.get(name).is_some()) {
        return Err(Bypass::Continued);
    }
    let size: usize = asked.params.0.iter().map(|(name, raw)| name.len() + raw.get().len()).sum();
    if size > MAX_PARAMS {
        return Err(Bypass::Size);
    }
    let mut text = String::with_capacity(size + 256);
    line(&mut text, generation);
    line(&mut text, asked.server);
    line(&mut text, asked.method.mcp);
    match asked.form {
        Form::Whole => line(&mut text, "whole"),
        Form::One => line(&mut text, "one"),
        Form::Native => {
            told(&mut text, asked.headers);
            // Behind however many there were: none has this name.
            line(&mut text, "native");
        }
    }
    match &asked.principal.identity.tenant {
        Some(tenant) => part(&mut text, tenant),
        None => text.push('-'),
    }
    match asked.among {
        Some(among) => part(&mut text, &format!("{among:?}")),
        None => text.push('-'),
    }
    match asked.added {
        [] => text.push('-'),
        lines => line(&mut text, &added(lines)),
    }
    // Last, so that nothing needs to know how long they are.
    params(&mut text, asked).ok_or(Bypass::Unreadable)?;
    Ok(Key::new(text))
}

/// A text in which no line ends, so that no two questions read alike.
fn line(out: &mut String, text: &str) {
    debug_assert!(!text.contains('\n'));
    out.push_str(text);
    out.push('\n');
}

/// A text that may hold anything, and so says before how long it is.
fn part(out: &mut String, text: &str) {
    out.push_str(itoa::Buffer::new().format(text.len()));
    out.push(':');
    out.push_str(text);
}

fn params(text: &mut String, asked: &Asked<'_, '_>) -> Option<()> {
    canonical::object(asked.params, &|name| name != "_meta", text)?;
    let read;
    let meta = match (asked.meta, asked.params.get("_meta")) {
        (None, Some(written)) => {
            read = serde_json::from_str(written.get()).ok()?;
            Some(&read)
        }
        (meta, _) => meta,
    };
    if let Some(meta) = meta {
        let is_native = asked.form == Form::Native;
        let counts = |name: &str| !IDLE_META.contains(&name) && (is_native || !name.starts_with(PROTOCOL_META));
        let at = text.len();
        canonical::object(meta, &counts, text)?;
        // Nothing that counts is as good as none.
        if &text[at..] == "{}" {
            text.truncate(at);
        }
    }
    Some(())
}

/// The headers that a native request takes to its server, less what is the session's, or tells of the connection only.
fn told(out: &mut String, headers: &HeaderMap) {
    let mut told: SmallVec<[_; 8]> = headers
        .iter()
        .filter(|(name, value)| {
            // Any language is what is asked for where none is named.
            let is_language = *name == header::ACCEPT_LANGUAGE && value.as_bytes() != b"*";
            is_language || (name.as_str().starts_with("mcp-") && *name != headers::SESSION)
        })
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    told.sort_unstable();
    // Neither a name nor a value of a header has an end of line in it (RFC 9110 §5.5).
    for (name, value) in told {
        out.push_str(name);
        if let Ok(text) = std::str::from_utf8(value) {
            out.push(':');
            line(out, text);
        } else {
            // No name goes on so.
            out.push(';');
            line(out, &hex(value));
        }
    }
}

/// A digest, because the operator may give credentials this way.
fn added(headers: &[(HeaderName, HeaderValue)]) -> String {
    let mut lines: Vec<Vec<u8>> =
        headers.iter().map(|(name, value)| [name.as_str().as_bytes(), b"\0", value.as_bytes()].concat()).collect();
    lines.sort_unstable();
    hex(&sha256(&lines.join(&b'\n')))
}

#[cfg(test)]
pub(super) fn test_key(text: &str) -> Key {
    Key::new(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::method;
    use crate::principal::{Identity, Way};

    fn key(form: Form, params: &str, tenant: Option<&str>) -> Result<Key, Bypass> {
        key_with(&HeaderMap::new(), form, params, tenant)
    }

    fn key_with(headers: &HeaderMap, form: Form, params: &str, tenant: Option<&str>) -> Result<Key, Bypass> {
        let identity = Identity { tenant: tenant.map(str::to_owned), subject: "ann".into(), ..Identity::default() };
        let principal = Principal::new(Way::ApiKey, identity);
        let params: Members<'_> = serde_json::from_str(params).unwrap();
        let asked = Asked {
            form,
            server: "files",
            method: method::find("tools/call").unwrap(),
            name: Some("read"),
            params: &params,
            meta: None,
            principal: &principal,
            on_behalf: false,
            among: None,
            added: &[],
            headers,
        };
        shared(&asked, "g")
    }

    fn native(lines: &[(&'static str, &[u8])]) -> Key {
        let line = |(name, value): &(&'static str, &[u8])| (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        key_with(&lines.iter().map(line).collect(), Form::Native, "{}", None).ok().unwrap()
    }

    #[test]
    fn one_question_has_one_key() {
        let of = |params| key(Form::One, params, Some("acme")).ok();
        let plain = of(r#"{"name":"read","arguments":{"a":1,"b":[2]}}"#);
        assert!(plain.is_some());
        for same in [
            r#"{"arguments":{"b":[2.0],"a":10e-1},"name":"re\u0061d"}"#,
            r#"{"name":"read","arguments":{"a":1,"b":[2]},"_meta":{"progressToken":7,"traceparent":"x","io.modelcontextprotocol/clientInfo":{}}}"#,
        ] {
            assert!(of(same) == plain, "{same}");
        }
        for other in [
            r#"{"name":"read","arguments":{"a":1,"b":[3]}}"#,
            r#"{"name":"read","arguments":{"a":"1","b":[2]}}"#,
            r#"{"name":"read","arguments":{"a":1,"b":[2]},"cursor":""}"#,
            r#"{"name":"read","arguments":{"a":1,"b":[2]},"_meta":{"com.example/region":"eu"}}"#,
        ] {
            assert!(of(other) != plain, "{other}");
        }
    }

    #[test]
    fn tenants_forms_and_callers_are_apart() {
        let keys: Vec<Key> = [
            key(Form::One, "{}", None),
            key(Form::One, "{}", Some("")),
            key(Form::One, "{}", Some("a")),
            key(Form::Whole, "{}", Some("a")),
            key(Form::Native, "{}", Some("a")),
        ]
        .into_iter()
        .map(|key| key.ok().unwrap())
        .collect();
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[at + 1..].contains(key), "{at}");
        }
        let caller =
            |subject: &str| keys[2].of_caller(&Principal::new(Way::ApiKey, Identity { subject: subject.into(), ..Identity::default() }));
        assert!(caller("ann") != caller("bob") && caller("ann") == caller("ann"));
    }

    #[test]
    fn what_headers_ask_for_is_part_of_a_native_question() {
        let (version, method) = (("mcp-protocol-version", &b"2026-07-28"[..]), ("mcp-method", &b"tools/call"[..]));
        let language = |words: &'static [u8]| ("accept-language", words);
        let apart: &[&[_]] = &[
            &[],
            &[version],
            &[("mcp-protocol-version", b"2025-11-25")],
            &[version, method],
            &[("mcp-param-a", b"ff")],
            &[("mcp-param-a", b"\xff")],
            &[("mcp-param-a", b"")],
            &[language(b"de")],
            &[language(b"de"), language(b"en")],
            &[language(b"de, en")],
        ];
        for (at, one) in apart.iter().enumerate() {
            for other in &apart[at + 1..] {
                assert!(native(one) != native(other), "{one:?} {other:?}");
            }
        }
        for (one, same) in [
            (&[version, method][..], &[method, version][..]),
            (&[version], &[version, ("mcp-session-id", b"x"), ("user-agent", b"y"), language(b"*")]),
        ] {
            assert!(native(one) == native(same), "{one:?} {same:?}");
        }
    }

    #[test]
    fn what_continues_an_exchange_is_no_question_of_its_own() {
        for params in [r#"{"inputResponses":{}}"#, r#"{"requestState":"x"}"#, r#"{"task":{}}"#] {
            assert_eq!(key(Form::One, params, None).err(), Some(Bypass::Continued), "{params}");
        }
        assert_eq!(key(Form::One, r#"{"a":{"b":1,"b":2}}"#, None).err(), Some(Bypass::Unreadable));
        assert_eq!(key(Form::One, &format!(r#"{{"a":"{}"}}"#, "x".repeat(20_000)), None).err(), Some(Bypass::Size));
    }
}
