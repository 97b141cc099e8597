//! The `Mcp-*` request headers of revision 2026-07-28: what they must say about a body, and how a value that does not
//! fit into a header is written (`=?base64?…?=`).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};

use super::members::Members;
use super::method::{self, Named};
use crate::call::{Call, Era};
use crate::reject::{Code, Reject, Verdict};
use crate::verbatim::Verbatim;

// Names, not texts: a text is read anew each time that a header is looked for by it.
pub static VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub static METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub static NAME: HeaderName = HeaderName::from_static("mcp-name");
pub static SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const PARAM_PREFIX: &str = "Mcp-Param-";

/// Levels of a schema that are looked at for annotated properties.
const DEEPEST: usize = 16;

/// The revision the headers claim.
pub fn version(headers: &HeaderMap) -> Option<&str> {
    bare(headers.get(&VERSION)?.as_bytes())
}

/// Refuses a revision that is told twice: which one counts is for no two readers the same.
///
/// # Errors
/// `invalid_request`.
pub fn tells_one_version(headers: &HeaderMap) -> Verdict<()> {
    let mut told = headers.get_all(&VERSION).iter();
    let single = told.next().is_none_or(|value| !value.as_bytes().contains(&b',')) && told.next().is_none();
    if single { Ok(()) } else { Err(Reject::new(Code::InvalidRequest, "one MCP-Protocol-Version, please")) }
}

/// The era of a request: modern if its header or its body claims it, so that neither can talk it out of being judged.
pub fn era(headers: &HeaderMap, body_version: Option<&str>) -> Era {
    let told = headers.get_all(&VERSION).iter().filter_map(|value| bare(value.as_bytes()));
    let modern = told.chain(body_version).any(|version| super::era_of(version) == Era::Modern);
    if modern { Era::Modern } else { Era::Legacy }
}

/// Refuses a modern request whose headers tell another story than its body. Legacy requests are judged by the body alone,
/// since no legacy server looks at these headers.
///
/// # Errors
/// `header_mismatch` naming the header.
pub fn agree(headers: &HeaderMap, call: &Call<'_>) -> Verdict<()> {
    expect(headers, &METHOD, &call.method)?;
    match &call.name {
        Some(name) if method::find(&call.method).is_none_or(|row| row.named != Named::Reference) => expect(headers, &NAME, name),
        _ => Ok(()),
    }
}

fn expect(headers: &HeaderMap, header: &'static HeaderName, body: &str) -> Verdict<()> {
    let mut values = headers.get_all(header).iter();
    // A missing header is the backend's to refuse: it alone knows which methods need which header.
    let Some(value) = values.next() else { return Ok(()) };
    let same = values.next().is_none() && decode(value.as_bytes()).is_some_and(|text| text == body);
    if same { Ok(()) } else { Err(Reject::new(Code::HeaderMismatch, format!("header {header} does not match the request body"))) }
}

/// A value without the white space HTTP allows around it; HTTP/2 hands it on.
fn bare(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().map(|text| text.trim_matches([' ', '\t']))
}

/// The text a header value stands for; `None` if it is not valid.
pub fn decode(value: &[u8]) -> Option<Cow<'_, str>> {
    let text = bare(value)?;
    let Some(encoded) = text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Some(Cow::Borrowed(text));
    };
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned)
}

/// Writes `text` as a header value, encoded where a header could not carry it as it is.
pub fn encode(text: &str) -> Cow<'_, str> {
    let plain = text.bytes().all(|b| matches!(b, 0x20..=0x7e)) && text.trim() == text && !text.starts_with("=?base64?");
    if plain { Cow::Borrowed(text) } else { Cow::Owned(format!("=?base64?{}?=", STANDARD.encode(text))) }
}

/// A tool argument that must also travel as a header (`x-mcp-header` in the tool's input schema).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Path of property names from the root of the arguments.
    pub property: Vec<String>,
    /// The header, `Mcp-Param-…`.
    pub header: String,
}

/// The annotated properties of an input schema. What is not an object (a schema may be `true`) has none.
pub fn params(schema: Verbatim<'_>) -> Vec<Param> {
    let mut found = Vec::new();
    collect(schema, &mut Vec::new(), &mut found);
    found
}

fn collect(schema: Verbatim<'_>, path: &mut Vec<String>, found: &mut Vec<Param>) {
    let Ok(schema) = serde_json::from_str::<Members<'_>>(schema.get()) else { return };
    if let Some(suffix) = schema.text("x-mcp-header").filter(|text| !path.is_empty() && is_token(text)) {
        found.push(Param { property: path.clone(), header: format!("{PARAM_PREFIX}{suffix}") });
    }
    let properties = schema.get("properties").and_then(|raw| serde_json::from_str::<Members<'_>>(raw.get()).ok());
    // How deep it goes is the server's choice; the depth of our stack is not.
    let properties = properties.filter(|_| path.len() < DEEPEST);
    for (name, property) in properties.into_iter().flat_map(|properties| properties.0) {
        path.push(name.into_owned());
        collect(property, path, found);
        path.pop();
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// The header values `arguments` call for.
pub fn values(params: &[Param], arguments: Verbatim<'_>) -> Vec<(String, String)> {
    params.iter().filter_map(|param| Some((param.header.clone(), lookup(arguments, &param.property)?))).collect()
}

fn lookup(arguments: Verbatim<'_>, path: &[String]) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let object: Members<'_> = serde_json::from_str(arguments.get()).ok()?;
    let value = object.get(first)?;
    if rest.is_empty() { primitive(value) } else { lookup(value, rest) }
}

fn primitive(value: Verbatim<'_>) -> Option<String> {
    match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(value.get()).ok().map(|text| encode(&text).into_owned()),
        b'{' | b'[' | b'n' => None,
        _ => Some(value.get().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_encoding() {
        for text in ["plain", " padded", "ümlaut", "line\nbreak", "=?base64?x?=", ""] {
            assert_eq!(decode(encode(text).as_bytes()).unwrap(), text);
        }
        assert!(decode(b"=?base64?***?=").is_none());
    }

    #[test]
    fn a_header_must_tell_what_the_body_does() {
        let name = Some("a".into());
        let kind = crate::call::Kind::Tool;
        let call = Call { method: "tools/call".into(), name, kind, is_named: true, arguments: None, also: Vec::new() };
        let mut headers = HeaderMap::new();
        assert!(agree(&headers, &call).is_ok());
        headers.insert(&METHOD, "tools/call".parse().unwrap());
        headers.insert(&NAME, "=?base64?YQ==?=".parse().unwrap());
        assert!(agree(&headers, &call).is_ok());
        headers.append(&NAME, "b".parse().unwrap());
        assert_eq!(agree(&headers, &call).unwrap_err().code, Code::HeaderMismatch);
    }

    #[test]
    fn a_deep_schema_is_looked_into_so_far_and_no_further() {
        let deep = format!("{}{{}}{}", r#"{"properties":{"a":"#.repeat(20_000), "}}".repeat(20_000));
        assert!(params(Verbatim::found(&deep)).is_empty());
    }

    #[test]
    fn annotated_arguments_become_headers() {
        let schema = r#"{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},
            "deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}},"evil":{"x-mcp-header":"a\r\nb"},"any":true}}"#;
        let params = params(Verbatim::found(schema));
        let arguments = Verbatim::found(r#"{"region":"Zürich","deep":{"n":4}}"#);
        let mut values = values(&params, arguments);
        values.sort();
        assert_eq!(values, [("Mcp-Param-N".into(), "4".into()), ("Mcp-Param-Region".into(), "=?base64?WsO8cmljaA==?=".into())]);
    }
}
