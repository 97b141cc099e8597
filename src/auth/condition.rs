//! Conditions of permissions in CEL (Common Expression Language). They speak of `principal`, `server`, `method`, `name`
//! and `arguments`; what cannot be evaluated is not permitted.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, Program, Value};
use serde_json::value::RawValue;

use crate::mcp::strict;
use crate::principal::Principal;

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A compiled condition.
pub struct Condition {
    program: Program,
    /// Whether it looks at the arguments, which a list has not.
    pub needs_arguments: bool,
    /// Whether it looks at the call at all, and not at caller and server alone.
    pub needs_call: bool,
    /// The words of its text, as they are and folded: the names of arguments it may look at are among them.
    words: HashSet<String>,
    folded: HashSet<String>,
}

/// What a condition is asked about.
#[derive(Clone, Copy)]
pub struct Question<'q> {
    pub principal: &'q Principal,
    pub server: &'q str,
    pub method: &'q str,
    pub name: Option<&'q str>,
    pub arguments: Option<&'q RawValue>,
}

impl Condition {
    /// `None` if it is not CEL, which checking the configuration ruled out.
    pub fn new(text: &str) -> Option<Self> {
        let program = ENV.compile(text).ok()?;
        let references = program.references();
        let needs_arguments = references.has_variable("arguments");
        let needs_call = needs_arguments || references.has_variable("name") || references.has_variable("method");
        let words: HashSet<String> = text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned).collect();
        let folded = words.iter().map(|word| strict::folded(word)).collect();
        Some(Self { program, needs_arguments, needs_call, words, folded })
    }

    /// Whether it holds.
    pub fn holds(&self, question: Question<'_>) -> bool {
        // An interpreter is much code that meets what clients send; should it ever panic, that is no permission.
        let evaluated = std::panic::catch_unwind(AssertUnwindSafe(|| self.evaluate(question)));
        matches!(evaluated, Ok(Some(Value::Bool(true))))
    }

    fn evaluate(&self, question: Question<'_>) -> Option<Value> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.add_variable_from_value("principal", principal(question.principal));
        context.add_variable_from_value("server", question.server);
        context.add_variable_from_value("method", question.method);
        context.add_variable_from_value("name", question.name.unwrap_or_default());
        if self.needs_arguments {
            context.add_variable_from_value("arguments", self.arguments(question.arguments)?);
        }
        self.program.execute(&context).ok()
    }

    /// The arguments as a map; empty where there are none, nothing where a backend could read them in another way than
    /// we do (a reader that ignores case would take `Path` for the `path` that was judged).
    fn arguments(&self, written: Option<&RawValue>) -> Option<Value> {
        let Some(written) = written else { return Some(Value::from(HashMap::<String, Value>::new())) };
        let tree: serde_json::Value = serde_json::from_str(written.get()).ok()?;
        (tree.is_object() && self.is_plain(&tree)).then(|| cel::to_value(tree).ok()).flatten()
    }

    /// Whether no name in it, at any depth, is another writing of its neighbour or of a word of the condition.
    fn is_plain(&self, tree: &serde_json::Value) -> bool {
        match tree {
            serde_json::Value::Object(members) => {
                let mut seen = HashSet::new();
                members.iter().all(|(name, value)| {
                    let folded = strict::folded(name);
                    let known = self.words.contains(name) || !self.folded.contains(&folded);
                    known && seen.insert(folded) && self.is_plain(value)
                })
            }
            serde_json::Value::Array(items) => items.iter().all(|item| self.is_plain(item)),
            _ => true,
        }
    }
}

fn principal(principal: &Principal) -> Value {
    let identity = &principal.identity;
    let text = |text: Option<&str>| Value::from(text.unwrap_or_default());
    let list = |items: &[String]| Value::from(items.iter().map(|item| Value::from(item.as_str())).collect::<Vec<_>>());
    let members = [
        ("subject", text(Some(&identity.subject))),
        ("issuer", text(Some(&identity.issuer))),
        ("client", text(identity.client.as_deref())),
        ("tenant", text(identity.tenant.as_deref())),
        ("tier", text(identity.tier.as_deref())),
        ("way", text(Some(principal.way.name()))),
        ("roles", list(&identity.roles)),
        ("scopes", list(&identity.scopes)),
    ];
    Value::from(members.into_iter().collect::<HashMap<&str, Value>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::principal::{Identity, Way};

    fn holds(text: &str, arguments: &str) -> bool {
        let identity = Identity { subject: "ann".into(), tenant: Some("acme".into()), roles: vec!["reader".into()], ..Identity::default() };
        let principal = Principal::new(Way::Jwt, identity);
        let arguments = RawValue::from_string(arguments.into()).unwrap();
        let question =
            Question { principal: &principal, server: "files", method: "tools/call", name: Some("read"), arguments: Some(&arguments) };
        Condition::new(text).unwrap().holds(question)
    }

    #[test]
    fn conditions_see_the_caller_and_the_call() {
        assert!(holds("principal.tenant == 'acme' && 'reader' in principal.roles && name == 'read' && server == 'files'", "{}"));
        assert!(holds("arguments.path.startsWith('/pub/') && size(arguments) == 1", r#"{"path":"/pub/a"}"#));
        assert!(!holds("arguments.path.startsWith('/pub/')", r#"{"path":"/etc/a"}"#));
        let all = "arguments.paths.all(p, p.startsWith('/srv/'))";
        assert!(holds(all, r#"{"paths":["/srv/a","/srv/b"]}"#) && !holds(all, r#"{"paths":["/srv/a","/etc"]}"#));
        assert!(holds("arguments['filePath'] == 'a'", r#"{"filePath":"a","Other":{"deep":[{"X":1}]}}"#));
    }

    #[test]
    fn what_cannot_be_evaluated_is_not_permitted() {
        for (text, arguments) in [
            ("arguments.path == 'a'", "{}"),
            ("arguments.path == 'a'", "[]"),
            ("arguments.path", r#"{"path":"a"}"#),
            ("1 / 0 == 1", "{}"),
            ("arguments.n > 5", r#"{"n":"six"}"#),
            ("arguments.path == 'a'", r#"{"path":"a","Path":"b"}"#),
            ("!has(arguments.force)", r#"{"Force":true}"#),
            ("arguments.target.path == 'a'", r#"{"target":{"path":"a","PATH":"b"}}"#),
            ("arguments.task == 'a'", "{\"task\":\"a\",\"tas\u{212a}\":\"b\"}"),
        ] {
            assert!(!holds(text, arguments), "{text} {arguments}");
        }
    }
}
