//! Names below `params`: parsers differ there as they do above, and rules look there too.

use serde_json::json;

use super::backend::{Lane, Permitted, is_harmless};
use super::corpus::{Case, envelope};
use super::readers::Execution;

/// A role whose rules look deeper than the name of a tool.
pub fn caller() -> Permitted {
    let rules = json!([
        { "tools": ["read_deep"], "when": "arguments.target.path.startsWith('/pub/')" },
        { "tools": ["gentle"], "when": "!has(arguments.force)" },
        { "prompts": ["review"], "resources": ["file:///pub/*"] },
    ]);
    Permitted { rules, permits }
}

fn permits(execution: &Execution) -> bool {
    let tool = execution.name.as_deref().filter(|_| execution.method == "tools/call");
    let deep = tool == Some("read_deep") && execution.target.as_ref().is_some_and(|path| path.starts_with("/pub/"));
    let gentle = tool == Some("gentle") && !execution.force;
    let touches = execution.touches.iter().all(|touched| touched == "review" || touched.starts_with("file:///pub/"));
    let about = ["completion/complete", "subscriptions/listen", "resources/subscribe"].contains(&execution.method.as_str());
    is_harmless(execution) || deep || gentle || (about && touches)
}

const NATIVE: &[Lane] = &[Lane::Legacy, Lane::Modern];
const BOTH: &[Lane] = &[Lane::Rest, Lane::Legacy, Lane::Modern];

/// The bodies: the honest ones first, each with what can be made of it.
pub fn all() -> Vec<Case> {
    let mut cases = tools();
    cases.extend(completions());
    cases.extend(subscriptions());
    cases
}

fn case(name: &str, honest: bool, lanes: &'static [Lane], method: &str, params: &str) -> Case {
    let body = envelope(&format!(r#""method":"{method}","params":{{{params}}}"#));
    Case { lanes, honest, ..Case::evil(name, body) }
}

/// Names with a NUL, which end there for parsers that keep them as C does.
pub fn cut() -> Vec<Case> {
    let call = |name: &str, honest, tool: &str, arguments: &str| {
        case(name, honest, BOTH, "tools/call", &format!(r#""name":"{tool}","arguments":{{{arguments}}}"#))
    };
    let listening = r#""notifications":{"resourceSubscriptions\u0000":["file:///etc/a"]}"#;
    vec![
        call("a path within an argument", true, "read_deep", r#""target":{"path":"/pub/a"}"#),
        call("the path twice", false, "read_deep", r#""target":{"path":"/pub/a","path\u0000":"/etc/a"}"#),
        call("with force", false, "gentle", r#""force\u0000":true"#),
        case("a list of resources", false, NATIVE, "subscriptions/listen", listening),
    ]
}

fn tools() -> Vec<Case> {
    let deep = |name: &str, honest, arguments: &str| {
        case(name, honest, BOTH, "tools/call", &format!(r#""name":"read_deep","arguments":{{{arguments}}}"#))
    };
    let gentle = |name: &str, honest, arguments: &str| {
        case(name, honest, BOTH, "tools/call", &format!(r#""name":"gentle","arguments":{{{arguments}}}"#))
    };
    vec![
        deep("a path within an argument", true, r#""target":{"path":"/pub/a"}"#),
        deep("another path within an argument", false, r#""target":{"path":"/etc/a"}"#),
        deep("the same path twice", false, r#""target":{"path":"/pub/a","path":"/etc/a"}"#),
        deep("the path again in another case", false, r#""target":{"path":"/pub/a","Path":"/etc/a"}"#),
        deep("the path before in another case", false, r#""target":{"PATH":"/etc/a","path":"/pub/a"}"#),
        deep("the target again in another case", false, r#""target":{"path":"/pub/a"},"Target":{"path":"/etc/a"}"#),
        gentle("without force", true, r#""path":"x""#),
        gentle("with force", false, r#""force":true"#),
        gentle("with force in another case", false, r#""Force":true"#),
    ]
}

fn completions() -> Vec<Case> {
    let complete = |name: &str, honest, reference: &str| {
        let params = format!(r#""argument":{{"name":"a","value":"b"}},"ref":{reference}"#);
        case(name, honest, BOTH, "completion/complete", &params)
    };
    vec![
        complete("completing a prompt", true, r#"{"type":"ref/prompt","name":"review"}"#),
        complete("completing a resource", true, r#"{"type":"ref/resource","uri":"file:///pub/a"}"#),
        complete("completing another prompt", false, r#"{"type":"ref/prompt","name":"deploy"}"#),
        complete("a prompt and a resource at once", false, r#"{"type":"ref/resource","name":"review","uri":"file:///etc/a"}"#),
        complete("a reference with a name twice", false, r#"{"type":"ref/prompt","name":"review","name":"deploy"}"#),
        complete("a reference with Name", false, r#"{"type":"ref/prompt","name":"review","Name":"deploy"}"#),
        complete("a reference with NAME first", false, r#"{"NAME":"deploy","type":"ref/prompt","name":"review"}"#),
        complete("a reference with URI", false, r#"{"type":"ref/resource","uri":"file:///pub/a","URI":"file:///etc/a"}"#),
        complete("a prompt with Uri", false, r#"{"type":"ref/resource","name":"review","Uri":"file:///etc/a"}"#),
        complete("a reference by position", false, r#"["ref/prompt","deploy"]"#),
        complete("a reference as text", false, r#""deploy""#),
    ]
}

fn subscriptions() -> Vec<Case> {
    let listen = |name: &str, honest, notifications: &str| {
        case(name, honest, NATIVE, "subscriptions/listen", &format!(r#""notifications":{notifications}"#))
    };
    let (ours, theirs) = (r#""file:///pub/a""#, r#""file:///etc/a""#);
    vec![
        listen("listening to nothing", true, "{}"),
        listen("listening to a resource", true, &format!(r#"{{"resourceSubscriptions":[{ours}]}}"#)),
        listen("listening to another resource", false, &format!(r#"{{"resourceSubscriptions":[{ours},{theirs}]}}"#)),
        listen("one that is no text", false, &format!(r#"{{"resourceSubscriptions":[{theirs},5]}}"#)),
        listen("one that is null", false, &format!(r#"{{"resourceSubscriptions":[null,{theirs}]}}"#)),
        listen("one that is an object", false, &format!(r#"{{"resourceSubscriptions":[{{}},{theirs}]}}"#)),
        listen("the list twice", false, &format!(r#"{{"resourceSubscriptions":[{ours}],"resourceSubscriptions":[{theirs}]}}"#)),
        listen("the list again in another case", false, &format!(r#"{{"resourceSubscriptions":[],"ResourceSubscriptions":[{theirs}]}}"#)),
        listen("the list in another case", false, &format!(r#"{{"resourcesubscriptions":[{theirs}]}}"#)),
        listen("the list with a long s", false, &format!(r#"{{"re\u017fourceSubscriptions":[{theirs}]}}"#)),
        listen("by position", false, &format!("[[{theirs}]]")),
    ]
}
