//! Written `routes:` and `versions:` → the checked model: which backends a request may go to, by rule or by API version.

use std::sync::Arc;

use serde::Serialize;
use serde_yaml::Value;
use url::Url;

use super::check::{label, positive};
use super::reader::Section;
use super::transform::{self, Transform};
use super::{Among, Backend, Timespan, instant};
use crate::condition;
use crate::mcp::rest::Form;

/// One routing rule; the first that matches decides.
#[derive(Debug, Clone, Serialize)]
pub struct Rule {
    /// Its name in the access log and in refusals.
    pub name: String,
    /// A CEL condition; absent, it always matches.
    pub when: Option<String>,
    /// Absent: every backend that serves the server.
    pub among: Option<Among>,
    /// Instead of the backend's own timeout.
    pub timeout: Option<Timespan>,
}

/// One version of the REST API.
#[derive(Debug, Clone, Serialize)]
pub struct Version {
    pub name: String,
    #[serde(serialize_with = "form_name")]
    pub form: Form,
    /// Since when it is deprecated, in Unix seconds (RFC 9745).
    pub deprecated: Option<i64>,
    /// When it will be gone, in Unix seconds (RFC 8594).
    pub sunset: Option<i64>,
    /// Where its successor is explained.
    pub docs: Option<Url>,
    pub among: Option<Among>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn form_name<S: serde::Serializer>(form: &Form, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match form {
        Form::V1 => "v1",
        Form::V2 => "v2",
    })
}

impl Version {
    /// A version nobody configured.
    fn built_in(name: &str, form: Form) -> Self {
        Self { name: name.to_owned(), form, deprecated: None, sunset: None, docs: None, among: None }
    }
}

/// Reads `routes:`; what they transform goes to `transforms`.
pub(super) fn routes(root: &Section<'_>, backends: &[Arc<Backend>], transforms: &mut Vec<Transform>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for (at, section) in root.sections("routes").iter().enumerate() {
        let name = section.parse("name", |text| label(text, "route name")).unwrap_or_else(|| format!("route-{}", at + 1));
        if rules.iter().any(|rule| rule.name == name) {
            section.problem("name", format!("`{name}` is already the name of another route"));
        }
        transforms.extend(transform::of_route(section, &name));
        rules.push(Rule {
            when: section.parse("when", |text| condition::check(text, condition::OF_REQUESTS).map(|()| text.to_owned())),
            among: among(root, section, backends),
            timeout: section.has("timeout").then(|| Timespan(positive(section, "timeout", 30))),
            name,
        });
        section.finish();
    }
    rules
}

/// Reads `versions:`, the built-in ones first; what they transform goes to `transforms`.
pub(super) fn versions(root: &Section<'_>, backends: &[Arc<Backend>], transforms: &mut Vec<Transform>) -> Vec<Version> {
    let mut versions = vec![Version::built_in("v1", Form::V1), Version::built_in("v2", Form::V2)];
    for (name, section) in root.section("versions").named_mappings() {
        // `/api/mcp/…` and `/api/servers` are paths already.
        if let Err(message) = label(&name, "version").and_then(|_| free(&name)) {
            section.problem_here(message);
        }
        let built_in = versions.iter().position(|version| version.name == name);
        let version = version(root, &section, &name, built_in.map(|at| versions[at].form), backends);
        transforms.extend(transform::of_version(&section, &name));
        section.finish();
        match built_in {
            Some(at) => versions[at] = version,
            None => versions.push(version),
        }
    }
    versions
}

fn free(name: &str) -> Result<(), String> {
    if matches!(name, "mcp" | "servers") { Err(format!("`{name}` is a path of its own below /api")) } else { Ok(()) }
}

fn version(root: &Section<'_>, section: &Section<'_>, name: &str, fixed: Option<Form>, backends: &[Arc<Backend>]) -> Version {
    let form = section.choice("form", &[("v1", Form::V1), ("v2", Form::V2)]);
    if let (Some(fixed), Some(form)) = (fixed, form)
        && fixed != form
    {
        section.problem("form", format!("the form of {name} is fixed; give a version of another name"));
    }
    let sunset = section.parse("sunset", instant);
    let deprecated = section.parse("deprecated", deprecated).flatten();
    if let (Some(sunset), Some(deprecated)) = (sunset, deprecated)
        && sunset < deprecated
    {
        // RFC 9745, section 4.
        section.problem("sunset", "is before `deprecated`");
    }
    Version {
        name: name.to_owned(),
        form: fixed.or(form).unwrap_or(Form::V1),
        deprecated,
        sunset,
        docs: section.parse("docs", link),
        among: among(root, section, backends),
    }
}

/// `true` says that it is deprecated, not since when; any time in the past says the same, and the epoch is the one that
/// all replicas and restarts agree on.
fn deprecated(text: &str) -> Result<Option<i64>, String> {
    match text {
        "true" => Ok(Some(0)),
        "false" => Ok(None),
        _ => instant(text).map(Some).map_err(|e| e.replace("is not", "is neither true, false nor")),
    }
}

/// A page to be linked to.
fn link(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.username().is_empty());
    url.filter(|url| url.password().is_none()).ok_or_else(|| "not an http:// or https:// URL to link to".to_owned())
}

/// `backends:` as names or `{ shard: … }`.
fn among(root: &Section<'_>, section: &Section<'_>, backends: &[Arc<Backend>]) -> Option<Among> {
    // What discovery will bring cannot be known here.
    let is_closed = !root.has("discovery");
    if !matches!(section.value("backends")?, Value::Mapping(_)) {
        let names = section.strings("backends");
        for name in names.iter().filter(|name| is_closed && backends.iter().all(|backend| backend.name != **name)) {
            section.problem("backends", format!("there is no backend `{name}` below backends"));
        }
        if names.is_empty() {
            section.problem("backends", "names no backend, so nothing could be sent");
        }
        return Some(Among::Names(names));
    }
    let written = section.section("backends");
    let shard = written.parse("shard", |text| label(text, "shard"));
    let is_known = |shard: &&String| backends.iter().any(|backend| backend.shard.as_ref() == Some(*shard));
    if let Some(shard) = shard.as_ref().filter(|shard| is_closed && !is_known(shard)) {
        written.problem("shard", format!("no backend has the shard `{shard}`"));
    }
    if !written.has("shard") {
        written.problem("shard", "missing; or give a list of names of backends");
    }
    written.finish();
    shard.map(Among::Shard)
}
