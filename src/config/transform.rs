//! Written `transform:` → the checked model: what is changed of requests and answers, and of which. Values may be
//! secrets, so they are never shown.

use http::{HeaderName, HeaderValue};
use serde::{Serialize, Serializer};
use serde_yaml::Value;

use super::reader::Section;
use super::{Secret, roles};

/// One rule; all that match are applied, in order.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Transform {
    pub of: Match,
    pub request: Changes,
    pub response: Changes,
    /// Puts the result below this name.
    pub wrap: Option<String>,
    /// Bytes of a tool's output that reach the caller.
    pub max_output: Option<usize>,
}

/// What a rule is for: globs over what the caller asked; an absent one matches everything.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Match {
    pub route: Option<String>,
    pub server: Option<String>,
    /// The tool of a tool call.
    pub tool: Option<String>,
    pub method: Option<String>,
    /// The API version of a REST call.
    pub version: Option<String>,
}

/// What is changed of one direction.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Changes {
    /// In the order they are made: remove, rename, default, set.
    pub edits: Vec<Edit>,
    pub set: Vec<Header>,
    #[serde(serialize_with = "names")]
    pub remove: Vec<HeaderName>,
}

/// A change of the member at a path.
#[derive(Debug, Clone, Serialize)]
pub struct Edit {
    pub path: Vec<String>,
    pub change: Change,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Remove,
    Rename(String),
    /// A JSON text.
    Default(Secret),
    /// A JSON text.
    Set(Secret),
}

/// A header and its value.
#[derive(Debug, Clone, Serialize)]
pub struct Header {
    #[serde(serialize_with = "name")]
    pub name: HeaderName,
    pub value: Secret,
}

fn name<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

fn names<S: Serializer>(names: &[HeaderName], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(HeaderName::as_str))
}

/// Whether a header of this name may be changed: not what frames a message or belongs to one connection, not what MCP,
/// tracing and credentials are carried in, not what the answer's form is negotiated by.
pub fn may_change(name: &HeaderName) -> bool {
    let name = name.as_str();
    let reserved = [
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "expect",
        "authorization",
        "accept",
        "accept-encoding",
        "last-event-id",
        "x-request-id",
        "traceparent",
        "www-authenticate",
        "set-cookie",
        "cookie",
        "origin",
    ];
    !reserved.contains(&name) && !["proxy-", "mcp-", "content-", "access-control-"].iter().any(|prefix| name.starts_with(prefix))
}

/// Reads `transform:`.
pub(super) fn transforms(root: &Section<'_>) -> Vec<Transform> {
    let read = |section: &Section<'_>| {
        let written = section.section("match");
        let glob = |key| written.parse(key, roles::glob);
        let of = Match {
            route: glob("route"),
            server: glob("server"),
            tool: glob("tool"),
            method: written.parse("method", roles::method),
            version: glob("version"),
        };
        written.finish();
        transform(section, of)
    };
    root.sections("transform").iter().map(read).collect()
}

/// Reads the `transform:` of a route.
pub(super) fn of_route(section: &Section<'_>, route: &str) -> Vec<Transform> {
    implied(section, Match { route: Some(globset::escape(route)), ..Match::default() })
}

/// Reads the `transform:` of a version.
pub(super) fn of_version(section: &Section<'_>, version: &str) -> Vec<Transform> {
    implied(section, Match { version: Some(globset::escape(version)), ..Match::default() })
}

fn implied(section: &Section<'_>, of: Match) -> Vec<Transform> {
    section.sections("transform").iter().map(|written| transform(written, of.clone())).collect()
}

fn transform(section: &Section<'_>, of: Match) -> Transform {
    let (request, response) = (section.section("request"), section.section("response"));
    let (params, fields) = (request.section("params"), response.section("fields"));
    let transform = Transform {
        request: Changes { edits: edits(&params, true), ..headers(&request.section("headers"), false) },
        wrap: fields.string("wrap"),
        response: Changes { edits: edits(&fields, false), ..headers(&response.section("headers"), true) },
        max_output: response.size("max_output"),
        of,
    };
    [&params, &fields, &request, &response, section].into_iter().for_each(Section::finish);
    if !section.has("request") && !section.has("response") {
        section.problem_here("changes nothing; give request or response");
    }
    transform
}

fn edits(section: &Section<'_>, adds: bool) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut add = |section: &Section<'_>, written: &str, change| match path(written) {
        Ok(path) => edits.push(Edit { path, change }),
        Err(message) => section.problem(written, message),
    };
    for written in section.strings("remove") {
        add(section, &written, Change::Remove);
    }
    let renamed = section.section("rename");
    for (written, value) in renamed.named_values() {
        match value.as_str().filter(|to| !to.is_empty()) {
            Some(to) => add(&renamed, &written, Change::Rename(to.to_owned())),
            None => renamed.problem(&written, "expected the new name, as text"),
        }
    }
    for key in ["default", "set"].into_iter().filter(|_| adds) {
        let section = section.section(key);
        let change = if key == "set" { Change::Set } else { Change::Default };
        for (written, value) in section.named_values() {
            match json(value) {
                Ok(text) => add(&section, &written, change(Secret::new(text))),
                Err(message) => section.problem(&written, message),
            }
        }
    }
    edits
}

/// A dotted path.
fn path(text: &str) -> Result<Vec<String>, String> {
    let path: Vec<String> = text.split('.').map(str::to_owned).collect();
    let fits = path.len() <= 16 && path.iter().all(|name| !name.is_empty() && !name.contains('\0'));
    if fits { Ok(path) } else { Err(format!("`{text}` is not a path, such as arguments.limit")) }
}

/// The JSON text of a YAML value.
pub(super) fn json(value: &Value) -> Result<String, String> {
    match value {
        Value::Tagged(_) => Err("a tagged value is not known in JSON".to_owned()),
        Value::Number(number) if number.as_f64().is_some_and(|n| !n.is_finite()) => Err(format!("`{number}` is not known in JSON")),
        _ => serde_json::to_string(value).map_err(|e| format!("not known in JSON: {e}")),
    }
}

fn headers(section: &Section<'_>, is_response: bool) -> Changes {
    let parse = |section: &Section<'_>, key: &str, written: &str| {
        let name = written.parse::<HeaderName>();
        match name {
            Ok(name) if may_change(&name) => Some(name),
            Ok(_) => {
                section.problem(key, format!("`{written}` is not for a transformation to change"));
                None
            }
            Err(_) => {
                section.problem(key, format!("`{written}` is not a header name"));
                None
            }
        }
    };
    let written = section.section("set");
    let set = written.named_texts().into_iter().filter_map(|(key, value)| {
        let name = parse(&written, &key, &key)?;
        if HeaderValue::from_str(&value).is_err() {
            written.problem(&key, "is not a header value");
            return None;
        }
        // Ours goes out with every REST call, and two of them would be one too many.
        if !is_response && name == http::header::USER_AGENT {
            written.problem(&key, format!("`{key}` is not for a transformation to set"));
            return None;
        }
        Some(Header { name, value: Secret::new(value) })
    });
    let set = set.collect();
    let remove = section.strings("remove").iter().filter_map(|written| parse(section, "remove", written)).collect();
    section.finish();
    Changes { edits: Vec::new(), set, remove }
}
