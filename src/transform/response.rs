//! Results with their fields changed and their output cut.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Kind, Rule, Shape, listing};
use crate::mcp::edit::{Care, Change, Edit, Fault, Part};
use crate::mcp::rewrite::Unreadable;
use crate::mcp::{cut, mirror, strict};
use crate::verbatim::Verbatim;

/// Members of a result that concern the protocol; they stay where it wants them when a result is wrapped.
const BOOKKEEPING: &[&str] = &["_meta", "isError", "resultType", "nextCursor", "ttlMs", "cacheScope"];

/// How much is known of what a result answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answers {
    Call,
    Other,
    /// A stream that was taken up again replays what was asked elsewhere, and a task does not tell of which call it is, so
    /// nobody knows. What may be in any answer is removed and cut from all of them; what is only called otherwise stays.
    Unknown,
}

impl Shape {
    /// Changes a result; `None` if it stays as it is.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn result(&self, written: &str) -> Result<Option<String>, Unreadable> {
        let stripped = listing::without_schemas(&self.listed, written)?;
        let text = stripped.as_deref().unwrap_or(written);
        let changed = reshape(&self.rules, text, if self.of == Kind::Tool { Answers::Call } else { Answers::Other })?.or(stripped);
        let cleared = clear(&self.before, changed.as_deref().unwrap_or(written))?;
        Ok(cleared.or(changed))
    }

    /// Whether results are changed at all.
    pub fn reshapes(&self) -> bool {
        self.rules.iter().chain(&self.before).chain(&self.listed).any(|rule| rule.reshapes())
    }

    /// Whether results are put below another name.
    pub fn wraps(&self) -> bool {
        self.rules.iter().any(|rule| rule.wrap.is_some())
    }
}

/// What is changed of the answers to one native request.
#[derive(Clone)]
pub enum Shapes {
    One(Shape),
    /// A batch, by the ids of its requests.
    Batch(Vec<(Option<String>, Shape)>),
    /// A stream that may replay anything; every rule of the server, and those that lists of tools tell of.
    Replay {
        rules: Vec<Arc<Rule>>,
        listed: Vec<Arc<Rule>>,
    },
}

impl Shapes {
    /// For a native stream that may replay anything, so under no API version.
    pub fn replay(rules: &[Arc<Rule>]) -> Self {
        let listed = listing::reshaping(rules).cloned().collect();
        Self::Replay { rules: rules.iter().filter(|rule| rule.of.may_concern(None)).cloned().collect(), listed }
    }

    /// Changes the result that answers the request of this id.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn result(&self, id: Option<Verbatim<'_>>, written: &str) -> Result<Option<String>, Unreadable> {
        match self {
            Self::One(shape) => shape.result(written),
            Self::Replay { rules, listed } => unknown(rules, listed, written),
            Self::Batch(shapes) => {
                let id = id.map(plain);
                if let Some((_, shape)) = shapes.iter().find(|(asked, _)| *asked == id) {
                    return shape.result(written);
                }
                let all = |of: fn(&Shape) -> &Vec<Arc<Rule>>| shapes.iter().flat_map(|(_, shape)| of(shape).iter().cloned()).collect();
                let (rules, listed): (Vec<_>, Vec<_>) = (all(|shape| &shape.rules), all(|shape| &shape.listed));
                unknown(&rules, &listed, written)
            }
        }
    }

    /// Whether anything is changed at all.
    pub fn reshapes(&self) -> bool {
        match self {
            Self::One(shape) => shape.reshapes(),
            Self::Batch(shapes) => shapes.iter().any(|(_, shape)| shape.reshapes()),
            Self::Replay { rules, listed } => rules.iter().chain(listed).any(|rule| rule.reshapes()),
        }
    }
}

/// An id as it compares: servers may write the same text with other escapes.
pub fn plain(id: Verbatim<'_>) -> String {
    serde_json::from_str::<String>(id.get()).map_or_else(|_| id.get().to_owned(), |text| format!("\"{text}"))
}

/// What may be seen of a result when nobody knows what it answers.
fn unknown(rules: &[Arc<Rule>], listed: &[Arc<Rule>], written: &str) -> Result<Option<String>, Unreadable> {
    let stripped = listing::without_schemas(listed, written)?;
    Ok(clear(rules, stripped.as_deref().unwrap_or(written))?.or(stripped))
}

/// Takes from a result what any of the rules would take from the answer it may be, or hold: a finished task has the result
/// of its call within.
fn clear(rules: &[Arc<Rule>], written: &str) -> Result<Option<String>, Unreadable> {
    if rules.is_empty() {
        return Ok(None);
    }
    let outer = reshape(rules, written, Answers::Unknown)?;
    let mut part = Part::text(outer.as_deref().unwrap_or(written));
    let task = part.open().map_err(|_| Unreadable)?;
    if matches!(task, Part::Object(members) if members.iter().any(|(name, _)| strict::is_another_writing(name, "result"))) {
        return Err(Unreadable);
    }
    let inner = task.member("result");
    let Some(Part::Text(text)) = inner.filter(|inner| matches!(inner, Part::Text(text) if text.starts_with('{'))) else {
        return Ok(outer);
    };
    let Some(cleared) = reshape(rules, text, Answers::Unknown)? else { return Ok(outer) };
    *text = Cow::Owned(cleared);
    Ok(Some(part.written()))
}

fn reshape(rules: &[Arc<Rule>], written: &str, answers: Answers) -> Result<Option<String>, Unreadable> {
    let mut changed: Option<String> = None;
    for rule in rules.iter().filter(|rule| rule.reshapes()) {
        let text = changed.as_deref().unwrap_or(written);
        if let Some(new) = rule.result(text, answers).map_err(|_| Unreadable)? {
            changed = Some(new);
        }
    }
    Ok(changed)
}

impl Rule {
    /// Whether it changes results.
    pub(super) fn reshapes(&self) -> bool {
        !self.fields.is_empty() || self.wrap.is_some() || self.max_output.is_some()
    }

    fn result(&self, written: &str, answers: Answers) -> Result<Option<String>, Fault> {
        let knows = answers != Answers::Unknown;
        let fields = self.fields.iter().filter(|edit| knows || matches!(edit.change, Change::Remove));
        let mut text = edited(written, fields)?;
        if let Some(limit) = self.max_output {
            let current = text.as_deref().unwrap_or(written);
            let is_output = answers == Answers::Call || (!knows && has_content(current)?);
            text = if is_output { cut::output(current, limit)?.or(text) } else { text };
        }
        match self.wrap.as_deref().filter(|_| knows) {
            Some(name) => wrapped(text.as_deref().unwrap_or(written), name).map(Some),
            None => Ok(text),
        }
    }
}

fn edited<'e>(written: &str, edits: impl Iterator<Item = &'e Edit> + Clone) -> Result<Option<String>, Fault> {
    if edits.clone().next().is_none() {
        return Ok(None);
    }
    let mut part = Part::text(written);
    mirror::follow(&mut part, edits.clone())?;
    for edit in edits {
        part.apply(edit, Care::Answer)?;
    }
    Ok(Some(part.written()))
}

fn has_content(result: &str) -> Result<bool, Fault> {
    Ok(Part::text(result).open()?.member("content").is_some())
}

fn wrapped(result: &str, name: &str) -> Result<String, Fault> {
    let mut part = Part::text(result);
    let Part::Object(members) = part.open()? else { return Err(Fault::Unreadable) };
    let (mut outside, inside): (Vec<_>, Vec<_>) =
        std::mem::take(members).into_iter().partition(|(name, _)| BOOKKEEPING.contains(&name.as_ref()));
    outside.retain(|(key, _)| key != name);
    outside.insert(0, (Cow::Borrowed(name), Part::Object(inside)));
    Ok(Part::Object(outside).written())
}

#[cfg(test)]
mod tests {
    use super::super::Asked;
    use super::super::tests::rules;
    use super::*;
    use crate::call::{self, Call};

    #[test]
    fn a_result_is_changed_rule_by_rule() {
        let transforms = rules(
            "- { response: { fields: { rename: { structuredContent: data }, remove: [content.annotations] }, max_output: 4 } }\n\
             - { response: { fields: { wrap: answer } } }\n",
        );
        let rules = transforms.of("files", None).unwrap();
        let call =
            Call { method: "tools/call".into(), name: None, kind: call::Kind::Tool, is_named: true, arguments: None, also: Vec::new() };
        let shape = Shape::of(&rules, &Asked { route: None, version: None, call: Some(&call) });
        let result = shape.result(r#"{"content":[{"type":"text","text":"ab","annotations":{}}],"structuredContent":1,"isError":false}"#);
        let expected = r#"{"answer":{"content":[{"type":"text","text":"ab"}],"data":1},"isError":false}"#;
        assert_eq!(result, Ok(Some(expected.to_owned())));
        let list = Shape::of(&rules[..1], &Asked { route: None, version: None, call: None });
        assert_eq!(list.result(r#"{"tools":[{"name":"a-long-one"}]}"#), Ok(Some(r#"{"tools":[{"name":"a-long-one"}]}"#.to_owned())));
        let replay = Shapes::replay(&rules);
        let replayed = replay.result(None, r#"{"content":[{"type":"text","text":"abcdef","annotations":{}}],"structuredContent":1}"#);
        assert!(
            replayed
                .as_ref()
                .is_ok_and(|text| text.as_ref().is_some_and(|text| text.starts_with(r#"{"content":[{"type":"text","text":"abcd… ["#)))
        );
    }

    #[test]
    fn a_task_shows_nothing_that_its_call_would_not() {
        let transforms =
            rules("- { match: { tool: a }, response: { fields: { remove: [structuredContent.secret], rename: { x: y } } } }\n");
        let rules = transforms.of("files", None).unwrap();
        let call =
            Call { method: "tasks/get".into(), name: None, kind: call::Kind::Task, is_named: true, arguments: None, also: Vec::new() };
        let shape = Shape::of(&rules, &Asked { route: None, version: None, call: Some(&call) });
        let result = r#"{"structuredContent":{"secret":1},"result":{"structuredContent":{"secret":1.0,"kept":1.0},"x":1}}"#;
        let cleared = r#"{"structuredContent":{},"result":{"structuredContent":{"kept":1.0},"x":1}}"#;
        assert_eq!((shape.reshapes(), shape.result(result)), (true, Ok(Some(cleared.to_owned()))));
        assert_eq!(shape.result(&result.replace("result", "Result")), Err(Unreadable), "a reader that ignores case would find it");
    }

    #[test]
    fn the_answers_of_a_batch_are_told_apart_by_their_ids() {
        let transforms = rules(
            "- { match: { tool: a }, response: { fields: { remove: [x] } } }\n- { match: { tool: b }, response: { fields: { remove: [y] } } }\n",
        );
        let rules = transforms.of("files", None).unwrap();
        let shape = |name: &'static str| {
            let call = Call {
                method: "tools/call".into(),
                name: Some(name.into()),
                kind: call::Kind::Tool,
                is_named: true,
                arguments: None,
                also: Vec::new(),
            };
            Shape::of(&rules, &Asked { route: None, version: None, call: Some(&call) })
        };
        let shapes =
            Shapes::Batch(vec![(Some(plain(Verbatim::found("\"\\u0061\""))), shape("a")), (Some(plain(Verbatim::found("2"))), shape("b"))]);
        let result = |asked: &str| shapes.result(Some(Verbatim::found(asked)), r#"{"x":1,"y":2}"#).unwrap().unwrap();
        assert_eq!((result("\"a\"").as_str(), result("2").as_str(), result("3").as_str()), (r#"{"y":2}"#, r#"{"x":1}"#, "{}"));
    }
}
