//! Written `roles:` → the checked model, and whether everybody's roles are there.

use super::identity::{Auth, Roles, Rule};
use super::reader::Section;
use crate::condition;

/// Reads `roles:`.
pub fn roles(root: &Section<'_>) -> Roles {
    let section = root.section("roles");
    let roles = section.named_sections();
    roles.into_iter().map(|(name, rules)| (name, rules.iter().map(rule).collect())).collect()
}

fn rule(section: &Section<'_>) -> Rule {
    let globs = |key| {
        let list = section.strings(key);
        for text in &list {
            if let Err(message) = glob(text) {
                section.problem(key, message);
            }
        }
        section.has(key).then_some(list)
    };
    let rule = Rule {
        servers: globs("servers").unwrap_or_else(|| vec!["*".to_owned()]),
        methods: methods(section).unwrap_or_else(|| vec!["*".to_owned()]),
        tools: globs("tools"),
        prompts: globs("prompts"),
        resources: globs("resources"),
        when: section.parse("when", condition),
    };
    section.finish();
    rule
}

fn methods(section: &Section<'_>) -> Option<Vec<String>> {
    let read = |text: &String| method(text).map_err(|message| section.problem("methods", message)).ok();
    let list = section.strings("methods");
    section.has("methods").then(|| list.iter().filter_map(read).collect())
}

/// A glob over methods, in MCP's words or those of the REST form.
pub(super) fn method(text: &str) -> Result<String, String> {
    crate::mcp::method::find_rest(text).map_or_else(|| glob(text), |method| Ok(method.mcp.to_owned()))
}

pub(super) fn glob(text: &str) -> Result<String, String> {
    globset::Glob::new(text).map(|_| text.to_owned()).map_err(|e| e.to_string())
}

fn condition(text: &str) -> Result<String, String> {
    condition::check(text, condition::OF_CALLS).map(|()| text.to_owned())
}

/// Roles that somebody is given and nobody defined: a misspelt one would only be noticed by who is refused for it.
pub fn check_roles(root: &Section<'_>, auth: Option<&Auth>, roles: &Roles) {
    let Some(auth) = auth.filter(|_| !roles.is_empty()) else { return };
    let keys = auth.api_keys.iter().flat_map(|keys| &keys.keys).map(|key| ("auth.api_keys.keys", &key.standing.roles));
    let certificates = auth.certificates.iter().map(|certificate| ("auth.certificates", &certificate.standing.roles));
    let scopes = auth.scopes.values().map(|roles| ("auth.scopes", roles));
    for (place, given) in keys.chain(certificates).chain(scopes).chain([("auth.anonymous.roles", &auth.anonymous.roles)]) {
        for role in given.iter().filter(|role| !roles.contains_key(*role)) {
            root.problem(place, format!("there is no role `{role}` below roles"));
        }
    }
}
