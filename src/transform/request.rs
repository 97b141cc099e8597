//! Requests with their params changed. It happens before they are judged, so that what is judged is what is executed,
//! and what comes of it is checked as strictly as what a caller writes.

use std::sync::LazyLock;

use bytes::Bytes;

use super::{Kind, Shape};
use crate::mcp::edit::{Care, Change, Edit, Fault, Part};
use crate::mcp::strict;
use crate::reject::{Code, Reject, Verdict};

/// The REST form's own word for the name of a tool; paths are those of MCP.
static TOOL_NAME: LazyLock<Edit> =
    LazyLock::new(|| Edit { path: vec!["params".to_owned(), "tool_name".to_owned()], change: Change::Rename("name".to_owned()) });

/// A body with the params of its messages changed.
pub struct Rewritten {
    pub body: Bytes,
    /// The messages that could not be changed as they must be; they are not to be sent.
    pub faults: Vec<(usize, Reject)>,
}

/// Changes the messages of a body, each by its own shape. `None` if nothing is to be changed.
///
/// # Errors
/// What about the outcome is no request any more.
pub fn rewrite<'s>(body: &[u8], shapes: impl Iterator<Item = &'s Shape> + Clone, is_rest: bool) -> Verdict<Option<Rewritten>> {
    if !shapes.clone().any(Shape::edits) {
        return Ok(None);
    }
    let text = std::str::from_utf8(body).map_err(|e| Reject::new(Code::ParseError, "the body is not UTF-8").because(e))?;
    let mut whole = Part::text(text);
    let mut faults = Vec::new();
    match whole.open().map_err(refuse)? {
        Part::List(messages) => {
            for (at, (message, shape)) in messages.iter_mut().zip(shapes).enumerate() {
                faults.extend(edit(message, shape, is_rest).err().map(|fault| (at, refuse(fault))));
            }
        }
        message => {
            for shape in shapes.take(1) {
                edit(message, shape, is_rest).map_err(refuse)?;
            }
        }
    }
    let body = Bytes::from(whole.written());
    strict::check(&body)?;
    Ok(Some(Rewritten { body, faults }))
}

fn edit<'p, 's: 'p>(message: &mut Part<'p>, shape: &'s Shape, is_rest: bool) -> Result<(), Fault> {
    if !shape.edits() {
        return Ok(());
    }
    if is_rest && shape.of == Kind::Tool {
        message.apply(&TOOL_NAME, Care::Request)?;
    }
    let takes_arguments = shape.of != Kind::Other || has_arguments(message)?;
    let edits = shape.rules.iter().flat_map(|rule| &rule.params);
    let mut edits = edits.filter(|edit| takes_arguments || edit.path.get(1).is_none_or(|name| name != "arguments"));
    edits.try_for_each(|edit| message.apply(edit, Care::Request))
}

fn has_arguments(message: &mut Part<'_>) -> Result<bool, Fault> {
    let Some(params) = message.open()?.member("params") else { return Ok(false) };
    Ok(params.open()?.member("arguments").is_some())
}

fn refuse(fault: Fault) -> Reject {
    Reject::new(Code::InvalidParams, format!("the request cannot be transformed as it must be: {fault}"))
}

#[cfg(test)]
mod tests {
    use super::super::Asked;
    use super::super::tests::rules;
    use super::*;
    use crate::mcp::message::{Message, Payload};

    fn sent(yaml: &str, body: &str) -> String {
        let transforms = rules(yaml);
        let rules = transforms.of("files", None).unwrap();
        let payload = Payload::read(body.as_bytes()).unwrap();
        let call = payload.one().and_then(Message::call);
        let shape = Shape::of(&rules, &Asked { route: None, version: None, call: call.as_ref() });
        let rewritten = rewrite(body.as_bytes(), std::iter::once(&shape), false).unwrap();
        rewritten.map_or_else(|| body.to_owned(), |rewritten| String::from_utf8(rewritten.body.to_vec()).unwrap())
    }

    #[test]
    fn arguments_are_added_where_they_are_taken_and_an_answer_to_the_server_is_nobodys() {
        let every = "- { request: { params: { set: { arguments.a: 1, note: x } } } }\n";
        let message = |rest: &str| format!(r#"{{"jsonrpc":"2.0","id":1,{rest}}}"#);
        for (body, expected) in [
            (
                r#""method":"prompts/get","params":{"name":"p"}"#,
                r#""method":"prompts/get","params":{"name":"p","arguments":{"a":1},"note":"x"}"#,
            ),
            (r#""method":"ping""#, r#""method":"ping","params":{"note":"x"}"#),
            (r#""method":"own","params":{"arguments":{}}"#, r#""method":"own","params":{"arguments":{"a":1},"note":"x"}"#),
            (r#""result":{}"#, r#""result":{}"#),
        ] {
            assert_eq!(sent(every, &message(body)), message(expected));
        }
    }
}
