//! Which answers are kept, for whom and how long, as the operator has it.

use std::time::Duration;

use super::freshness::Wanted;
use crate::config::cache::{Cache, METHODS, Rule, Vary};
use crate::mcp::method::Method;
use crate::pattern::Pattern;

/// The compiled rules.
pub struct Rules {
    legacy: Duration,
    methods: Vec<Compiled>,
    tools: Vec<Compiled>,
}

struct Compiled {
    server: Pattern,
    what: Pattern,
    ttl: Option<Duration>,
    vary_by: Option<Vary>,
    tags: Vec<String>,
}

/// What is said of one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    pub wanted: Wanted,
    pub vary_by: Vary,
}

/// Whether answers of a method can be kept at all.
pub fn may_keep(method: &Method) -> bool {
    method.mcp == "tools/call" || METHODS.contains(&method.mcp)
}

impl Rules {
    pub fn new(conf: &Cache) -> Self {
        let compiled = |rules: &[Rule]| rules.iter().map(Compiled::new).collect();
        Self { legacy: conf.ttl.0, methods: compiled(&conf.methods), tools: compiled(&conf.tools) }
    }

    /// Every tag that a rule has.
    pub fn tags(&self) -> Vec<&str> {
        let mut tags: Vec<&str> = self.methods.iter().chain(&self.tools).flat_map(|rule| &rule.tags).map(String::as_str).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    /// Whether the rule about what is kept has a tag.
    pub fn is_tagged(&self, tag: &str, server: &str, method: &Method, name: Option<&str>) -> bool {
        self.rule(server, method, name).is_some_and(|rule| rule.tags.iter().any(|known| known == tag))
    }

    /// Whether a rule with a tag is about some answers of a method, of some server.
    pub fn may_be_tagged(&self, tag: &str, server: &str, method: &Method) -> bool {
        let is_call = method.mcp == "tools/call";
        let rules = if is_call { &self.tools } else { &self.methods };
        let about = |rule: &Compiled| rule.server.fits(Some(server)) && (is_call || rule.what.fits(Some(method.mcp)));
        rules.iter().any(|rule| rule.tags.iter().any(|known| known == tag) && about(rule))
    }

    fn rule(&self, server: &str, method: &Method, name: Option<&str>) -> Option<&Compiled> {
        let (rules, what) = if method.mcp == "tools/call" { (&self.tools, name?) } else { (&self.methods, method.mcp) };
        rules.iter().find(|rule| rule.server.fits(Some(server)) && rule.what.fits(Some(what)))
    }

    /// What is said of a question; `None` if its answer is none that is kept.
    pub fn of(&self, server: &str, method: &Method, name: Option<&str>) -> Option<Ruling> {
        let is_call = method.mcp == "tools/call";
        if !is_call && !METHODS.contains(&method.mcp) {
            return None;
        }
        let rule = self.rule(server, method, name);
        if rule.is_none() && (is_call || method.mcp == "prompts/get") {
            return None;
        }
        // A read may depend on what its reader's session has done before; a list hardly ever does.
        let alone = rule.is_none() && method.mcp == "resources/read";
        let wanted = Wanted { ruled: rule.and_then(|rule| rule.ttl), legacy: self.legacy, is_ruled: rule.is_some(), alone };
        Some(Ruling { wanted, vary_by: rule.and_then(|rule| rule.vary_by).unwrap_or(Vary::Tenant) })
    }
}

impl Compiled {
    fn new(rule: &Rule) -> Self {
        Self {
            server: Pattern::new(Some(&rule.server)),
            what: Pattern::new(Some(&rule.what)),
            ttl: rule.ttl.map(|ttl| ttl.0),
            vary_by: rule.vary_by,
            tags: rule.tags.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::method;

    #[test]
    fn only_what_is_listed_is_kept_beside_lists_and_reads() {
        let text = "backends: [{ name: a, url: 'http://a' }]\ncache:\n  enabled: true\n  ttl: 60\n  \
                    tools: [ { server: files, tool: 'read_*', ttl: 10s, vary_by: subject } ]\n  \
                    methods: [ { server: files, method: prompts/get, ttl: 5s }, { server: files, method: 'resources/*', ttl: 0 } ]\n";
        let conf = crate::config::parse("", text, &|_| None).unwrap().cache.unwrap();
        let rules = Rules::new(&conf);
        let of = |server: &str, method: &str, name: Option<&str>| rules.of(server, method::find(method).unwrap(), name);
        let call = of("files", "tools/call", Some("read_file")).unwrap();
        assert_eq!((call.wanted.ruled, call.vary_by), (Some(Duration::from_secs(10)), Vary::Subject));
        assert_eq!(of("files", "tools/call", Some("write_file")), None);
        assert_eq!(of("other", "tools/call", Some("read_file")), None);
        assert_eq!(of("other", "prompts/get", Some("p")), None);
        assert_eq!(of("files", "prompts/get", Some("p")).unwrap().wanted.ruled, Some(Duration::from_secs(5)));
        let list = of("other", "tools/list", None).unwrap();
        assert_eq!((list.wanted.ruled, list.wanted.legacy, list.vary_by), (None, Duration::from_secs(60), Vary::Tenant));
        assert!(of("other", "resources/read", Some("u")).unwrap().wanted.alone && !list.wanted.alone);
        assert_eq!(of("files", "resources/read", Some("u")).unwrap().wanted.ruled, Some(Duration::ZERO));
        for never in ["ping", "completion/complete", "tasks/get", "initialize", "subscriptions/listen"] {
            assert_eq!(of("files", never, Some("x")), None, "{never}");
        }
    }
}
