//! Requests with their params changed. It happens before they are judged, so that what is judged is what is executed,
//! and what comes of it is checked as strictly as what a caller writes.

use std::sync::LazyLock;

use bytes::Bytes;

use super::Shape;
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
    if is_rest && shape.is_call {
        message.apply(&TOOL_NAME, Care::Request)?;
    }
    shape.rules.iter().flat_map(|rule| &rule.params).try_for_each(|edit| message.apply(edit, Care::Request))
}

fn refuse(fault: Fault) -> Reject {
    Reject::new(Code::InvalidParams, format!("the request cannot be transformed as it must be: {fault}"))
}
