//! JSON texts taken apart only as far as something in them is changed: whatever is not on the way to a change keeps the
//! bytes it was written in, numbers and escapes included. Transformations of requests and answers are made of this.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::members::Members;
use super::strict;
use crate::reject::clip;
use crate::verbatim::Verbatim;

/// How many lists a path leads through at most.
const DEPTH: usize = 64;

/// A value: as it was written, or opened one level.
#[derive(Debug)]
pub enum Part<'t> {
    Text(Cow<'t, str>),
    Object(Vec<(Cow<'t, str>, Part<'t>)>),
    List(Vec<Part<'t>>),
}

/// What is done to the member at the end of a path.
#[derive(Debug, Clone)]
pub enum Change {
    Remove,
    /// Calls it this, in the same place.
    Rename(String),
    /// Adds it where it is not there.
    Default(Box<RawValue>),
    Set(Box<RawValue>),
}

/// One change. Paths lead through the elements of lists.
#[derive(Debug, Clone)]
pub struct Edit {
    pub path: Vec<String>,
    pub change: Change,
}

/// Whether a text may be read by more than one reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Care {
    /// A request: what a reader that ignores case would take for the changed member is refused, since what is judged
    /// must be what is executed.
    Request,
    /// An answer: it is changed as it is written.
    Answer,
}

/// Why a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Not JSON, or a repeated name.
    Unreadable,
    /// What should hold the member is no object.
    NoObject(String),
    /// Two members that some readers take for one.
    Twofold(String),
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable => f.write_str("it cannot be read"),
            Self::NoObject(name) => write!(f, "`{}` is not an object", clip(name)),
            Self::Twofold(name) => write!(f, "`{}` is there twice, or in another case", clip(name)),
        }
    }
}

impl<'t> Part<'t> {
    pub fn text(text: &'t str) -> Self {
        Self::Text(Cow::Borrowed(text.trim()))
    }

    /// Opens an object or a list; anything else stays text.
    ///
    /// # Errors
    /// [`Fault::Unreadable`].
    pub fn open(&mut self) -> Result<&mut Self, Fault> {
        let Self::Text(text) = self else { return Ok(self) };
        let opened = match (text.as_bytes().first(), &*text) {
            (Some(b'{'), Cow::Borrowed(text)) => object(text)?,
            (Some(b'['), Cow::Borrowed(text)) => list(text)?,
            (Some(b'{'), Cow::Owned(text)) => object(text)?.into_owned(),
            (Some(b'['), Cow::Owned(text)) => list(text)?.into_owned(),
            _ => return Ok(self),
        };
        *self = opened;
        Ok(self)
    }

    fn into_owned<'o>(self) -> Part<'o> {
        match self {
            Self::Text(text) => Part::Text(Cow::Owned(text.into_owned())),
            Self::Object(members) => {
                Part::Object(members.into_iter().map(|(name, part)| (Cow::Owned(name.into_owned()), part.into_owned())).collect())
            }
            Self::List(items) => Part::List(items.into_iter().map(Part::into_owned).collect()),
        }
    }

    /// Makes one change.
    ///
    /// # Errors
    /// Why it cannot be made. What is not there is not removed or renamed, which is no fault.
    pub fn apply(&mut self, edit: &'t Edit, care: Care) -> Result<(), Fault> {
        self.change(&edit.path, &edit.change, care)
    }

    /// Whether a path leads to anything.
    ///
    /// # Errors
    /// [`Fault::Unreadable`].
    pub fn holds(&mut self, path: &[String]) -> Result<bool, Fault> {
        self.holds_below(path, 0)
    }

    fn holds_below(&mut self, path: &[String], depth: usize) -> Result<bool, Fault> {
        let Some((name, rest)) = path.split_first() else { return Ok(true) };
        match self.open()? {
            Self::List(items) => {
                let deeper = deeper(depth)?;
                // Every one is looked at, so that none stays that could be read in two ways.
                items.iter_mut().try_fold(false, |found, item| Ok(item.holds_below(path, deeper)? || found))
            }
            part => part.member(name).map_or(Ok(false), |part| part.holds_below(rest, depth)),
        }
    }

    /// Makes the change at a path, as [`Part::apply`] does.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn change(&mut self, path: &'t [String], change: &'t Change, care: Care) -> Result<(), Fault> {
        self.change_below(path, change, care, 0)
    }

    fn change_below(&mut self, path: &'t [String], change: &'t Change, care: Care, depth: usize) -> Result<(), Fault> {
        let Some((name, rest)) = path.split_first() else { return Ok(()) };
        let adds = matches!(change, Change::Default(_) | Change::Set(_));
        match self.open()? {
            Self::Object(members) if rest.is_empty() => here(members, name, change, care),
            Self::Object(members) => match find(members, name, care)? {
                Some(at) => members[at].1.change_below(rest, change, care, depth),
                None if adds => {
                    let mut made = Self::Object(Vec::new());
                    made.change_below(rest, change, care, depth)?;
                    members.push((Cow::Borrowed(name), made));
                    Ok(())
                }
                None => Ok(()),
            },
            Self::List(items) if !adds => {
                let deeper = deeper(depth)?;
                items.iter_mut().try_for_each(|item| item.change_below(path, change, care, deeper))
            }
            Self::Text(text) if adds && text == "null" => {
                *self = Self::Object(Vec::new());
                self.change_below(path, change, care, depth)
            }
            _ if adds => Err(Fault::NoObject(format!("what should hold {name}"))),
            _ => Ok(()),
        }
    }

    /// The member of an object that was opened.
    pub fn member(&mut self, name: &str) -> Option<&mut Self> {
        let Self::Object(members) = self else { return None };
        members.iter_mut().find(|(key, _)| key == name).map(|(_, part)| part)
    }

    /// Writes it.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Text(text) => out.push_str(text),
            Self::Object(members) => {
                out.push('{');
                for (at, (name, part)) in members.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    // A text as a JSON text cannot fail.
                    out.push_str(&serde_json::to_string(name).unwrap_or_default());
                    out.push(':');
                    part.write(out);
                }
                out.push('}');
            }
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
        }
    }

    pub fn written(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// How long it was written.
    pub fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            _ => self.written().len(),
        }
    }
}

/// One list further down. Paths are short, but lists in lists are followed as deep as who answers writes them.
fn deeper(depth: usize) -> Result<usize, Fault> {
    if depth < DEPTH { Ok(depth + 1) } else { Err(Fault::Unreadable) }
}

fn object(text: &str) -> Result<Part<'_>, Fault> {
    let members: Members<'_> = serde_json::from_str(text).map_err(|_| Fault::Unreadable)?;
    Ok(Part::Object(members.0.into_iter().map(|(name, value)| (name, Part::text(value.get()))).collect()))
}

fn list(text: &str) -> Result<Part<'_>, Fault> {
    let items: Vec<Verbatim<'_>> = serde_json::from_str(text).map_err(|_| Fault::Unreadable)?;
    Ok(Part::List(items.into_iter().map(|item| Part::text(item.get())).collect()))
}

/// Where the member of this name is.
fn find(members: &[(Cow<'_, str>, Part<'_>)], name: &str, care: Care) -> Result<Option<usize>, Fault> {
    if care == Care::Request && members.iter().any(|(key, _)| strict::is_another_writing(key, name)) {
        return Err(Fault::Twofold(name.to_owned()));
    }
    Ok(members.iter().position(|(key, _)| key == name))
}

fn here<'t>(members: &mut Vec<(Cow<'t, str>, Part<'t>)>, name: &'t str, change: &'t Change, care: Care) -> Result<(), Fault> {
    let at = find(members, name, care)?;
    match (change, at) {
        (Change::Remove, Some(at)) => drop(members.remove(at)),
        (Change::Rename(to), Some(at)) => {
            match find(members, to, care)? {
                Some(taken) if taken == at => {}
                Some(_) if care == Care::Request => return Err(Fault::Twofold(to.clone())),
                Some(taken) => drop(members.remove(taken)),
                None => {}
            }
            // The place may have moved by one.
            if let Some((key, _)) = members.iter_mut().find(|(key, _)| key == name) {
                *key = Cow::Borrowed(to);
            }
        }
        (Change::Set(value), Some(at)) => members[at].1 = Part::text(value.get()),
        (Change::Set(value) | Change::Default(value), None) => members.push((Cow::Borrowed(name), Part::text(value.get()))),
        (Change::Remove | Change::Rename(_), None) | (Change::Default(_), Some(_)) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edit(path: &str, change: Change) -> Edit {
        Edit { path: path.split('.').map(str::to_owned).collect(), change }
    }

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.into()).unwrap()
    }

    fn edited(text: &str, edits: &[Edit], care: Care) -> Result<String, Fault> {
        let mut part = Part::text(text);
        edits.iter().try_for_each(|edit| part.apply(edit, care))?;
        Ok(part.written())
    }

    #[test]
    fn what_is_not_changed_keeps_its_bytes() {
        let text = r#"{"a": {"n" : 1.50e0, "s":"\u00e9"},"b":[ 1 ,{"x":1}],"c":null}"#;
        let edits = [
            edit("a.new.deep", Change::Set(raw("[1.0]"))),
            edit("a.n", Change::Default(raw("2"))),
            edit("c.d", Change::Default(raw("\"e\""))),
            edit("gone.x", Change::Remove),
        ];
        let expected = r#"{"a":{"n":1.50e0,"s":"\u00e9","new":{"deep":[1.0]}},"b":[ 1 ,{"x":1}],"c":{"d":"e"}}"#;
        assert_eq!(edited(text, &edits, Care::Request).as_deref(), Ok(expected));
        let edits = [edit("b.x", Change::Rename("y".into())), edit("a.s", Change::Remove)];
        assert_eq!(edited(text, &edits, Care::Answer).as_deref(), Ok(r#"{"a":{"n":1.50e0},"b":[1,{"y":1}],"c":null}"#));
    }

    #[test]
    fn what_others_could_read_otherwise_is_not_changed() {
        for (text, edit) in [
            (r#"{"a":{"Path":1}}"#, edit("a.path", Change::Set(raw("2")))),
            (r#"{"A":{}}"#, edit("a.path", Change::Set(raw("2")))),
            (r#"{"a":1,"b":2}"#, edit("a", Change::Rename("b".into()))),
            (r#"{"a":1,"B":2}"#, edit("a", Change::Rename("b".into()))),
            (r#"{"a":1,"\u0061":2}"#, edit("b", Change::Remove)),
            (r#"{"a":[]}"#, edit("a.b", Change::Set(raw("2")))),
            (r#"{"a":"x"}"#, edit("a.b", Change::Default(raw("2")))),
        ] {
            assert!(edited(text, &[edit], Care::Request).is_err(), "{text}");
        }
        assert_eq!(edited(r#"{"a":1,"b":2}"#, &[edit("b", Change::Rename("a".into()))], Care::Answer).as_deref(), Ok(r#"{"a":2}"#));
    }

    #[test]
    fn lists_in_lists_are_followed_so_far_and_no_further() {
        let nested = |n: usize| format!(r#"{{"a":{}{{"x":1}}{}}}"#, "[".repeat(n), "]".repeat(n));
        assert_eq!(edited(&nested(DEPTH), &[edit("a.x", Change::Remove)], Care::Answer), Ok(nested(DEPTH).replace(r#""x":1"#, "")));
        assert_eq!(edited(&nested(100_000), &[edit("a.x", Change::Remove)], Care::Answer), Err(Fault::Unreadable));
        assert_eq!(Part::text(&nested(100_000)).holds(&["a".to_owned(), "x".to_owned()]), Err(Fault::Unreadable));
    }

    proptest! {
        #[test]
        fn a_change_and_its_reverse_leave_everything_as_it_was(names in proptest::collection::btree_set("[a-f]{1,3}", 1..6), value in "[ -~]{0,8}") {
            let value = serde_json::to_string(&value).unwrap();
            let members: Vec<String> = names.iter().map(|name| format!("\"{name}\":{{\"v\":{value}}}")).collect();
            let text = format!("{{{}}}", members.join(","));
            for name in &names {
                let there = [edit(&format!("{name}.v"), Change::Rename("w".into())), edit(&format!("{name}.w"), Change::Rename("v".into()))];
                prop_assert_eq!(edited(&text, &there, Care::Request).unwrap(), text.clone());
                let added = [edit(&format!("{name}.x.y"), Change::Set(raw("1"))), edit(&format!("{name}.x"), Change::Remove)];
                prop_assert_eq!(edited(&text, &added, Care::Request).unwrap(), text.clone());
            }
        }
    }
}
