//! What operators change of requests and answers on their way: params before anything is judged, results before they
//! reach the caller, headers in both directions. Rules are found by server once for each configuration, so that whoever
//! no rule is about pays for a lookup and keeps every byte.

mod listing;
mod request;
mod response;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};
use serde_json::value::RawValue;

pub use self::request::{Rewritten, rewrite};
pub use self::response::{Shapes, plain};
use crate::call::{self, Call};
use crate::config::transform::{self, Transform};
use crate::mcp::edit::{Change, Edit};
use crate::pattern::Pattern;

/// The compiled rules.
#[derive(Default)]
pub struct Transforms {
    rules: Vec<Arc<Rule>>,
    /// The rules by server, as far as servers were asked for.
    by_server: ArcSwap<HashMap<Box<str>, Known>>,
}

/// The rules that may be about one server; `None` if there are none.
type Known = Option<Arc<[Arc<Rule>]>>;

/// One compiled rule.
pub struct Rule {
    of: Of,
    /// Changes of the whole message, so below `params`.
    params: Vec<Edit>,
    upstream: Headers,
    downstream: Headers,
    /// Changes of the result.
    fields: Vec<Edit>,
    wrap: Option<String>,
    max_output: Option<usize>,
}

/// What a rule is about.
struct Of {
    route: Pattern,
    server: Pattern,
    tool: Pattern,
    method: Pattern,
    version: Pattern,
}

/// Headers to be changed.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

/// What a caller asked, as far as rules look at it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub route: Option<&'a str>,
    /// The API version of a REST call.
    pub version: Option<&'a str>,
    /// None for a stream and the end of a session.
    pub call: Option<&'a Call<'a>>,
}

/// What is changed of one request and its answer: the rules that match it.
#[derive(Clone, Default)]
pub struct Shape {
    rules: Vec<Arc<Rule>>,
    of: Kind,
    /// Every rule of the server, where the answer may be that of a call made before, which a task does not tell.
    before: Vec<Arc<Rule>>,
    /// The rules that may change what the tools of this list answer, so that their output schemas hold no longer.
    listed: Vec<Arc<Rule>>,
}

/// What a message is, as far as rules apply to it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    /// A tool call, whose output may be cut.
    Tool,
    /// Something else that takes arguments.
    Prompt,
    /// A request or notification that takes none: what rules say of arguments is said where they are, and not added.
    Other,
    /// Nothing that is asked, so nothing with params: a stream, or an answer to the server.
    #[default]
    Nothing,
}

impl Transforms {
    pub fn new(transforms: &[Transform]) -> Self {
        Self { rules: transforms.iter().map(|transform| Arc::new(Rule::new(transform))).collect(), by_server: ArcSwap::default() }
    }

    /// The rules that may be about requests to a server under an API version; `None` if there are none. Rules of another
    /// version come along where they change results, which lists of tools must tell of. Servers are those of the directory,
    /// so what is remembered of them is bounded.
    pub fn of(&self, server: &str, version: Option<&str>) -> Known {
        if self.rules.is_empty() {
            return None;
        }
        let known = self.by_server.load().get(server).cloned();
        let rules = known.unwrap_or_else(|| self.learn(server))?;
        rules.iter().any(|rule| rule.of.may_concern(version) || rule.reshapes()).then_some(rules)
    }

    fn learn(&self, server: &str) -> Known {
        let about = |rule: &&Arc<Rule>| rule.of.server.fits(Some(server));
        let rules: Vec<Arc<Rule>> = self.rules.iter().filter(about).cloned().collect();
        let known: Known = (!rules.is_empty()).then(|| rules.into());
        self.by_server.rcu(|old| {
            let mut new = HashMap::clone(old);
            new.insert(server.into(), known.clone());
            new
        });
        known
    }
}

impl Rule {
    fn new(transform: &Transform) -> Self {
        let below = |name: &str, edit: &transform::Edit| {
            let path = std::iter::once(name.to_owned()).chain(edit.path.iter().cloned()).collect();
            Edit { path, change: change(&edit.change) }
        };
        Self {
            of: Of::new(&transform.of),
            params: transform.request.edits.iter().map(|edit| below("params", edit)).collect(),
            upstream: Headers::new(&transform.request),
            downstream: Headers::new(&transform.response),
            fields: transform.response.edits.iter().map(|edit| Edit { path: edit.path.clone(), change: change(&edit.change) }).collect(),
            wrap: transform.wrap.clone(),
            max_output: transform.max_output,
        }
    }
}

fn change(written: &transform::Change) -> Change {
    let json = |text: &crate::config::Secret| {
        // The configuration was checked, so it is JSON.
        RawValue::from_string(text.expose().to_owned()).unwrap_or_else(|_| RawValue::NULL.to_owned())
    };
    match written {
        transform::Change::Remove => Change::Remove,
        transform::Change::Rename(to) => Change::Rename(to.clone()),
        transform::Change::Default(value) => Change::Default(json(value)),
        transform::Change::Set(value) => Change::Set(json(value)),
    }
}

impl Of {
    fn new(of: &transform::Match) -> Self {
        Self {
            route: Pattern::new(of.route.as_deref()),
            server: Pattern::new(of.server.as_deref()),
            tool: Pattern::new(of.tool.as_deref()),
            method: Pattern::new(of.method.as_deref()),
            version: Pattern::new(of.version.as_deref()),
        }
    }

    fn may_concern(&self, version: Option<&str>) -> bool {
        self.version.fits(version)
    }

    fn fits(&self, asked: &Asked<'_>) -> bool {
        let method = asked.call.map(|call| &*call.method);
        let tool = asked.call.filter(|call| call.method == "tools/call").and_then(|call| call.name.as_deref());
        self.version.fits(asked.version) && self.route.fits(asked.route) && self.method.fits(method) && self.tool.fits(tool)
    }
}

impl Headers {
    fn new(changes: &transform::Changes) -> Self {
        let set = changes.set.iter().filter_map(|header| {
            let mut value = HeaderValue::from_str(header.value.expose()).ok()?;
            // It may be a credential of the operator's.
            value.set_sensitive(true);
            Some((header.name.clone(), value))
        });
        Self { set: set.collect(), remove: changes.remove.clone() }
    }

    /// Whether a header that is there goes, or gives way to another.
    pub fn replaces(&self, name: &HeaderName) -> bool {
        self.remove.contains(name) || self.set.iter().any(|(set, _)| set == name)
    }

    fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// Adds changes that are made after these.
    pub fn then(&mut self, later: &Self) {
        self.set.retain(|(name, _)| !later.replaces(name));
        self.remove.extend(later.remove.iter().cloned());
        self.set.extend(later.set.iter().cloned());
    }
}

impl Shape {
    /// The rules among `rules` that match what was asked.
    pub fn of(rules: &[Arc<Rule>], asked: &Asked<'_>) -> Self {
        let of = asked.call.map_or(Kind::Nothing, |call| match &*call.method {
            "tools/call" => Kind::Tool,
            "prompts/get" => Kind::Prompt,
            _ => Kind::Other,
        });
        let is_task = asked.call.is_some_and(|call| call.kind == call::Kind::Task);
        let before = rules.iter().filter(|rule| is_task && rule.of.may_concern(asked.version)).cloned().collect();
        let lists = asked.call.is_some_and(|call| call.method == "tools/list");
        let listed = listing::reshaping(rules).filter(|_| lists).cloned().collect();
        Self { rules: rules.iter().filter(|rule| rule.of.fits(asked)).cloned().collect(), of, before, listed }
    }

    /// Whether params are to be changed.
    pub fn edits(&self) -> bool {
        self.of != Kind::Nothing && self.rules.iter().any(|rule| !rule.params.is_empty())
    }

    /// The headers changed on the way to the server.
    pub fn upstream(&self) -> Headers {
        self.gathered(|rule| &rule.upstream)
    }

    /// The headers changed on the way to the caller.
    pub fn downstream(&self) -> Headers {
        self.gathered(|rule| &rule.downstream)
    }

    fn gathered(&self, side: impl Fn(&Rule) -> &Headers) -> Headers {
        let mut all = Headers::default();
        self.rules.iter().map(|rule| side(rule)).filter(|headers| !headers.is_empty()).for_each(|headers| all.then(headers));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn rules(yaml: &str) -> Transforms {
        let text = format!("backends: [{{ name: a, url: 'http://a' }}]\ntransform:\n{yaml}");
        Transforms::new(&crate::config::parse("", &text, &|_| None).unwrap().transforms)
    }

    #[test]
    fn a_rule_is_about_what_it_matches_and_nothing_else() {
        let transforms = rules(
            "- { match: { server: 'file*', tool: 'read_*' }, response: { max_output: 5 } }\n\
             - { match: { server: files, method: tools/list, version: v2 }, response: { max_output: 6 } }\n",
        );
        assert!(transforms.of("database", Some("v1")).is_none() && transforms.of("database", None).is_none());
        let rules = transforms.of("files", None).unwrap();
        let matched = |method: &str, name: Option<&str>, version| {
            let name = name.map(|name| name.to_owned().into());
            let call =
                Call { method: method.to_owned().into(), name, kind: call::Kind::Tool, is_named: true, arguments: None, also: Vec::new() };
            Shape::of(&rules, &Asked { route: None, version, call: Some(&call) })
                .rules
                .iter()
                .map(|rule| rule.max_output)
                .collect::<Vec<_>>()
        };
        assert_eq!(matched("tools/call", Some("read_file"), None), [Some(5)]);
        assert_eq!(matched("prompts/get", Some("read_file"), None), []);
        assert_eq!((matched("tools/list", None, Some("v2")), matched("tools/list", None, Some("v1"))), (vec![Some(6)], vec![]));
    }

    #[test]
    fn later_headers_win() {
        let transforms = rules(
            "- { request: { headers: { set: { x-a: '1', x-b: '1' } } } }\n- { request: { headers: { set: { x-a: '2' }, remove: [x-b] } } }\n",
        );
        let rules = transforms.of("files", None).unwrap();
        let headers = Shape::of(&rules, &Asked { route: None, version: None, call: None }).upstream();
        let set: Vec<_> = headers.set.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(set, [("x-a", "2")]);
        assert!(headers.replaces(&HeaderName::from_static("x-b")) && !headers.replaces(&HeaderName::from_static("x-c")));
    }
}
