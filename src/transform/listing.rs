//! Lists of tools without the output schemas that results no longer keep to. Clients check `structuredContent` against the
//! schema they were told, and when it does not fit the call fails for them, though the tool was executed: so where a rule
//! may change a tool's results, nothing is promised of them.

use std::sync::Arc;

use super::Rule;
use crate::mcp::edit::{Fault, Part};
use crate::mcp::members::Members;
use crate::mcp::rewrite::Unreadable;
use crate::mcp::strict;

/// How the results of tools come: of a call, or of the task a call became.
const RESULTS: &[&str] = &["tools/call", "tasks/get", "tasks/result"];
const LIST: &str = "tools";
const SCHEMA: &str = "outputSchema";

/// The rules among those of a server that may change results of its tools. By which route or API version a call will come
/// is not known when tools are listed, so those that ask for one are among them.
pub fn reshaping(rules: &[Arc<Rule>]) -> impl Iterator<Item = &Arc<Rule>> {
    let of_results = |rule: &Rule| RESULTS.iter().any(|method| rule.of.method.fits(Some(method)));
    rules.iter().filter(move |rule| rule.reshapes() && of_results(rule))
}

/// A result less the output schemas of the tools that `rules` may be about; `None` if it lists no such tool.
///
/// # Errors
/// [`Unreadable`].
pub fn without_schemas(rules: &[Arc<Rule>], written: &str) -> Result<Option<String>, Unreadable> {
    if rules.is_empty() {
        return Ok(None);
    }
    strip(rules, written).map_err(|_| Unreadable)
}

fn strip(rules: &[Arc<Rule>], written: &str) -> Result<Option<String>, Fault> {
    let mut result = Part::text(written);
    let Part::Object(members) = result.open()? else { return Ok(None) };
    if members.iter().any(|(name, _)| strict::is_another_writing(name, LIST)) {
        return Err(Fault::Twofold(LIST.to_owned()));
    }
    let Some(Part::List(tools)) = result.member(LIST).map(Part::open).transpose()? else { return Ok(None) };
    let mut stripped = false;
    for tool in tools {
        stripped |= strip_tool(rules, tool)?;
    }
    Ok(stripped.then(|| result.written()))
}

fn strip_tool(rules: &[Arc<Rule>], tool: &mut Part<'_>) -> Result<bool, Fault> {
    // Readers that ignore case take any writing of it for the schema.
    let is_schema = |name: &str| name == SCHEMA || strict::is_another_writing(name, SCHEMA);
    let Part::Text(text) = tool else { return Ok(false) };
    if !text.starts_with('{') {
        return Ok(false);
    }
    let members: Members<'_> = serde_json::from_str(text).map_err(|_| Fault::Unreadable)?;
    let name = members.text("name");
    let concerns = |rule: &Rule| rule.of.tool.fits(name.as_deref());
    if !members.0.iter().any(|(name, _)| is_schema(name)) || !rules.iter().any(|rule| concerns(rule)) {
        return Ok(false);
    }
    if let Part::Object(members) = tool.open()? {
        members.retain(|(name, _)| !is_schema(name));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::super::tests::rules;
    use super::*;

    #[test]
    fn only_tools_whose_results_may_change_lose_their_schema() {
        let transforms = rules(
            "- { match: { tool: 'a*', version: v9, route: r }, response: { max_output: 5 } }\n\
             - { match: { tool: b, method: tools/list }, response: { fields: { remove: [x] } } }\n\
             - { match: { tool: c }, response: { headers: { remove: [x-a] } }, request: { params: { remove: [x] } } }\n",
        );
        let rules: Vec<_> = reshaping(&transforms.of("files", None).unwrap()).cloned().collect();
        let list = r#"{"tools": [{"name":"\u0061b", "outputSchema":{"a": 1},"x": 1.0e0},{"name":"a","OutputSchema":{}}, {"name": "b","outputSchema": {}},{"name":"c","outputSchema":{}},{"outputSchema":{}}],"nextCursor":"2"}"#;
        let stripped = r#"{"tools":[{"name":"\u0061b","x":1.0e0},{"name":"a"},{"name": "b","outputSchema": {}},{"name":"c","outputSchema":{}},{"outputSchema":{}}],"nextCursor":"2"}"#;
        assert_eq!(without_schemas(&rules, list), Ok(Some(stripped.to_owned())));
        for kept in
            [r#"{"tools": [{"name":"b","outputSchema":{}}, {"name":"a"}]}"#, r#"{"tools":{}}"#, "7", r#"{"x":[{"outputSchema":1}]}"#]
        {
            assert_eq!(without_schemas(&rules, kept), Ok(None), "{kept}");
        }
        for unclear in [r#"{"Tools":[{"name":"a","outputSchema":{}}]}"#, r#"{"tools":[{"name":"a","name":"b","outputSchema":{}}]}"#] {
            assert_eq!(without_schemas(&rules, unclear), Err(Unreadable), "{unclear}");
        }
    }
}
