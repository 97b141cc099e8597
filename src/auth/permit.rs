//! What the recognised may do: roles, each the sum of its rules, down to the single tool, prompt and resource. One
//! judgement for calls and for lists, so that a list shows exactly what a call would be allowed.

use std::collections::{BTreeMap, HashMap};

use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::call::{Call, Kind};
use crate::condition::{Condition, Question};
use crate::config::identity::{self, Roles};
use crate::principal::{Principal, Way};
use crate::verbatim::Verbatim;

/// Layers of percent-encoding looked through.
const UNFOLDED: usize = 3;

/// The compiled roles. Without any, whoever was let in may do everything.
#[derive(Default)]
pub struct Permits {
    roles: HashMap<String, Vec<Rule>>,
    /// Roles that a scope brings.
    scopes: BTreeMap<String, Vec<String>>,
}

/// Why something is not permitted.
#[derive(Debug, PartialEq, Eq)]
pub enum Denial {
    /// No role permits it.
    Role,
    /// A token with these scopes would be permitted.
    Scope(Vec<String>),
    /// The token was issued for other servers.
    Audience,
}

struct Rule {
    servers: GlobSet,
    methods: GlobSet,
    /// Whether it names tools, prompts or resources, and so permits nothing else.
    names_kinds: bool,
    tools: Option<GlobSet>,
    prompts: Option<GlobSet>,
    resources: Option<GlobSet>,
    when: Option<Condition>,
}

/// What a principal sees of a server.
pub enum View<'p> {
    /// Everything.
    Whole,
    /// What `keeps` says.
    Part(Part<'p>),
}

/// A restricted view.
#[derive(Clone, Copy)]
pub struct Part<'p> {
    permits: &'p Permits,
    principal: &'p Principal,
    server: &'p str,
}

impl Part<'_> {
    /// Whether the caller may use the tool, prompt or resource.
    pub fn keeps(&self, kind: Kind, name: &str) -> bool {
        let asked = Asked { server: self.server, method: use_of(kind), kind, name: Some(name), arguments: Arguments::Unknown };
        self.permits.allows(self.principal, &asked)
    }
}

/// How things of a kind are used, which is what a list promises.
fn use_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Tool => "tools/call",
        Kind::Prompt => "prompts/get",
        Kind::Resource => "resources/read",
        Kind::Protocol | Kind::Task | Kind::Unknown => "",
    }
}

/// One question to the rules.
struct Asked<'a> {
    server: &'a str,
    method: &'a str,
    kind: Kind,
    name: Option<&'a str>,
    arguments: Arguments<'a>,
}

enum Arguments<'a> {
    /// A list: whether a condition on arguments will hold cannot be said yet.
    Unknown,
    Given(Option<Verbatim<'a>>),
}

impl Permits {
    pub fn new(roles: &Roles, auth: Option<&identity::Auth>) -> Self {
        let compiled = roles.iter().map(|(name, rules)| (name.clone(), rules.iter().map(Rule::new).collect()));
        Self { roles: compiled.collect(), scopes: auth.map(|auth| auth.scopes.clone()).unwrap_or_default() }
    }

    /// Whether a principal has any business with a server.
    ///
    /// # Errors
    /// Why not.
    pub fn enter(&self, principal: &Principal, server: &str) -> Result<(), Denial> {
        let asked = Asked { server, method: "", kind: Kind::Protocol, name: None, arguments: Arguments::Given(None) };
        self.decide(principal, &asked)
    }

    /// Whether a principal may make a call.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, principal: &Principal, server: &str, call: &Call<'_>) -> Result<(), Denial> {
        if self.roles.is_empty() {
            return if principal.is_for(server) { Ok(()) } else { Err(Denial::Audience) };
        }
        if call.is_named && call.name.is_none() {
            return Err(Denial::Role);
        }
        let name = call.name.as_deref();
        let asked = Asked { server, method: &call.method, kind: call.kind, name, arguments: Arguments::Given(call.arguments) };
        self.decide(principal, &asked)?;
        call.also.iter().try_for_each(|uri| {
            let asked = Asked {
                method: "resources/subscribe",
                kind: Kind::Resource,
                name: Some(uri),
                ..Asked { arguments: Arguments::Given(None), ..asked }
            };
            self.decide(principal, &asked)
        })
    }

    /// What a principal sees of a server's lists.
    pub fn view<'p>(&'p self, principal: &'p Principal, server: &'p str) -> View<'p> {
        let whole = self.roles.is_empty() || self.rules(principal).any(|rule| rule.is_whole(server));
        if whole { View::Whole } else { View::Part(Part { permits: self, principal, server }) }
    }

    /// The scopes there are.
    pub fn scopes(&self) -> impl Iterator<Item = &String> {
        self.scopes.keys()
    }

    fn decide(&self, principal: &Principal, asked: &Asked<'_>) -> Result<(), Denial> {
        if !principal.is_for(asked.server) {
            return Err(Denial::Audience);
        }
        if self.allows(principal, asked) {
            return Ok(());
        }
        let helpful = self.scopes.iter().filter(|(_, roles)| roles.iter().any(|role| self.role_allows(role, principal, asked)));
        let missing: Vec<String> = helpful.map(|(scope, _)| scope.clone()).collect();
        if missing.is_empty() || !matches!(principal.way, Way::Jwt | Way::OAuth2) {
            return Err(Denial::Role);
        }
        // A client asks for what it is told, so it is told what it has as well, or it would lose that.
        let held = principal.identity.scopes.iter().filter(|scope| self.scopes.contains_key(*scope)).cloned();
        Err(Denial::Scope(held.chain(missing.into_iter().take(1)).collect()))
    }

    fn allows(&self, principal: &Principal, asked: &Asked<'_>) -> bool {
        self.roles.is_empty() || self.rules(principal).any(|rule| rule.allows(principal, asked))
    }

    fn role_allows(&self, role: &str, principal: &Principal, asked: &Asked<'_>) -> bool {
        self.roles.get(role).is_some_and(|rules| rules.iter().any(|rule| rule.allows(principal, asked)))
    }

    /// The rules of a principal: those of its roles and of the roles its scopes bring.
    fn rules<'p>(&'p self, principal: &'p Principal) -> impl Iterator<Item = &'p Rule> {
        let identity = &principal.identity;
        let brought = identity.scopes.iter().filter_map(|scope| self.scopes.get(scope)).flatten();
        identity.roles.iter().chain(brought).filter_map(|role| self.roles.get(role)).flatten()
    }
}

impl Rule {
    fn new(rule: &identity::Rule) -> Self {
        let kinds = [&rule.tools, &rule.prompts, &rule.resources];
        Self {
            servers: globs(&rule.servers),
            methods: globs(&rule.methods),
            names_kinds: kinds.iter().any(|kind| kind.is_some()),
            tools: rule.tools.as_deref().map(globs),
            prompts: rule.prompts.as_deref().map(globs),
            resources: rule.resources.as_deref().map(globs),
            // A condition that cannot be compiled never holds; checking the configuration ruled it out.
            when: rule.when.as_deref().map(|text| Condition::new(text).or_else(|| Condition::new("false")).expect("CEL")),
        }
    }

    fn allows(&self, principal: &Principal, asked: &Asked<'_>) -> bool {
        self.servers.is_match(asked.server) && self.covers(asked) && self.holds(principal, asked)
    }

    fn covers(&self, asked: &Asked<'_>) -> bool {
        let kind = match asked.kind {
            // Whoever may use anything of a server may shake hands with it.
            Kind::Protocol => return true,
            Kind::Tool | Kind::Task => &self.tools,
            Kind::Prompt => &self.prompts,
            Kind::Resource => &self.resources,
            Kind::Unknown => &None,
        };
        let named = match (kind, asked.name) {
            (None, _) => !self.names_kinds,
            // A task's id says nothing of the tool it came from; a list is filtered item by item.
            (Some(_), _) if asked.kind == Kind::Task => true,
            (Some(_), None) => true,
            // `*` crosses slashes, so a path that climbs would be somewhere else than where it seems to be.
            (Some(_), Some(name)) if asked.kind == Kind::Resource && climbs(name) => false,
            (Some(globs), Some(name)) => globs.is_match(name),
        };
        named && self.methods.is_match(asked.method)
    }

    fn holds(&self, principal: &Principal, asked: &Asked<'_>) -> bool {
        let Some(when) = &self.when else { return true };
        // The protocol itself, or a list: what the condition is about comes later, and is judged then. What it says of
        // caller and server alone is known already.
        let is_early = asked.kind == Kind::Protocol || (asked.name.is_none() && asked.kind != Kind::Unknown);
        let arguments = match asked.arguments {
            _ if is_early && when.needs_call => return true,
            Arguments::Unknown if when.needs_arguments => return true,
            Arguments::Unknown => None,
            Arguments::Given(arguments) => arguments,
        };
        when.holds(&Question { principal, server: asked.server, method: asked.method, name: asked.name, arguments, request: None })
    }

    /// Whether it permits everything of a server, so that nothing needs to be filtered.
    fn is_whole(&self, server: &str) -> bool {
        let every = ["tools/call", "prompts/get", "resources/read"].iter().all(|method| self.methods.is_match(method));
        self.servers.is_match(server) && !self.names_kinds && self.when.is_none() && every
    }
}

/// Whether a URI may lead out of where it seems to be: by dot segments (RFC 3986 §3.3), plain or percent-encoded however
/// often, before or behind what some servers take for the end of the path, or by characters that readers leave out.
fn climbs(uri: &str) -> bool {
    let mut plain = uri.to_owned();
    for _ in 0..UNFOLDED {
        for (encoded, decoded) in [("%25", "%"), ("%2e", "."), ("%2E", "."), ("%2f", "/"), ("%2F", "/"), ("%5c", "/"), ("%5C", "/")] {
            plain = plain.replace(encoded, decoded);
        }
    }
    let hidden = |text: &str| text.chars().any(char::is_control) || ["%0", "%1", "%7f", "%7F"].iter().any(|code| text.contains(code));
    hidden(&plain) || plain.split(['/', '\\', '?', '#']).any(|segment| matches!(segment.trim(), "." | ".."))
}

fn globs<S: AsRef<str>>(texts: &[S]) -> GlobSet {
    let mut builder = GlobSetBuilder::new();
    for glob in texts.iter().filter_map(|text| Glob::new(text.as_ref()).ok()) {
        builder.add(glob);
    }
    // One that cannot be built matches nothing.
    builder.build().unwrap_or_else(|_| GlobSet::empty())
}

#[cfg(test)]
mod tests {
    use super::climbs;

    #[test]
    fn no_writing_of_a_parent_folder_is_overlooked() {
        for uri in [
            "file:///srv/../etc",
            "file:///srv/.\t./etc",
            "file:///srv/x?/../../etc",
            "file:///srv/x#/../etc",
            "file:///srv/..%5c..%5cetc",
            "file:///srv/%2e%2E/etc",
            "file:///srv/%252e%252e/etc",
            "file:///srv/.%0a./etc",
            "file:///srv/..",
            "file:///srv/..\\etc",
        ] {
            assert!(climbs(uri), "{uri}");
        }
        for uri in ["file:///srv/a..b/c.txt", "note://shared", "file:///srv/...", "db://x/y?z=1.2#f", "file:///srv/%20a"] {
            assert!(!climbs(uri), "{uri}");
        }
    }
}
