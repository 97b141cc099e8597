//! One reading of a body for everyone. JSON leaves open what a repeated name, a name in another case or half a surrogate
//! pair means, and parsers differ; a backend that reads it otherwise than we do would execute what was never judged. So
//! a body that could be read in two ways is refused as a whole, before anything in it is believed.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::message::explain;
use super::plain::{self, Plain};
use crate::reject::{Code, Reject, Verdict, clip};

/// How deep a body may nest. Backends have limits of their own, some of which end the process.
const DEPTH: usize = 64;
/// Up to how many names a scan is cheaper than a set.
const FEW: usize = 16;

/// Where in a body we are, as far as names there are ours to judge. Parsers that ignore case (Go's) take any writing of
/// a name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The whole, a message or a batch of them.
    Body,
    Envelope,
    Params,
    Reference,
    Notifications,
    Meta,
    /// Values: the names in them are the server's own, except that they must not repeat.
    Free,
}

/// The names we judge by, as a list and as a question that needs none.
macro_rules! judged {
    ($($place:ident: $($name:literal),+;)+) => {
        impl Place {
            const fn judged(self) -> &'static [&'static str] {
                match self {
                    $(Self::$place => &[$($name),+],)+
                    Self::Body | Self::Free => &[],
                }
            }

            /// Whether this is one of them, to the letter.
            fn knows(self, name: &str) -> bool {
                match self {
                    $(Self::$place => matches!(name, $($name)|+),)+
                    Self::Body | Self::Free => false,
                }
            }
        }
    };
}

judged! {
    Envelope: "jsonrpc", "id", "method", "params", "result", "error";
    Params: "name", "uri", "taskId", "arguments", "ref", "notifications", "_meta", "tool_name", "cursor";
    Reference: "type", "name", "uri";
    Notifications: "resourceSubscriptions";
    Meta: "io.modelcontextprotocol/protocolVersion";
}

impl Place {
    /// The place that the members of an object here are in.
    pub(super) fn inside(self) -> Self {
        if self == Self::Body { Self::Envelope } else { self }
    }

    /// Where the member of this name leads.
    pub(super) fn into(self, name: &str) -> Self {
        match (self, name) {
            (Self::Envelope, "params") => Self::Params,
            (Self::Params, "ref") => Self::Reference,
            (Self::Params, "notifications") => Self::Notifications,
            (Self::Params, "_meta") => Self::Meta,
            _ => Self::Free,
        }
    }

    /// Whether a name could be taken for one of ours that it is not.
    pub(super) fn is_another_writing(self, name: &str) -> bool {
        !self.knows(name) && is_another_of(name, self.judged())
    }
}

/// A body that reads the same for everyone.
#[derive(Debug)]
pub struct Checked<'b> {
    pub body: &'b [u8],
    /// What is in it, where that was seen on the way.
    pub(super) plain: Option<Box<Plain<'b>>>,
}

/// Checks that a body reads the same for everyone.
///
/// # Errors
/// `parse_error` for what is not JSON in UTF-8, `invalid_request` for what is ambiguous.
pub fn check(body: &[u8]) -> Verdict<Checked<'_>> {
    let text = std::str::from_utf8(body).map_err(|e| Reject::new(Code::ParseError, "the body is not UTF-8").because(e))?;
    let plain = plain::read(text).map(Box::new);
    if plain.is_none() {
        with_care(text)?;
    }
    Ok(Checked { body, plain })
}

pub(super) fn with_care(text: &str) -> Verdict<()> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut names = Names::default();
    let read = Any { depth: 0, place: Place::Body, names: &mut names }.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    read.map_err(|e| explain(&e))
}

/// Whether a reader that ignores case takes a name for another one.
pub fn is_another_writing(name: &str, other: &str) -> bool {
    if name.is_ascii() && other.is_ascii() {
        return name.eq_ignore_ascii_case(other) && name != other;
    }
    name != other && name.chars().map(fold).eq(other.chars().map(fold))
}

/// Whether a reader that ignores case takes a name for one of these that it is not.
pub fn is_another_of(name: &str, known: &[&str]) -> bool {
    // Without a letter that folds from afar only names of the same length and beginning can be meant.
    let is_ascii = name.is_ascii();
    let first = |name: &str| name.bytes().next().map(|byte| byte.to_ascii_lowercase());
    let mut alike = known.iter().filter(|known| !is_ascii || (known.len() == name.len() && first(known) == first(name)));
    alike.clone().all(|known| *known != name) && alike.any(|known| is_another_writing(name, known))
}

/// A name as a reader that ignores case sees it.
pub fn folded(name: &str) -> String {
    name.chars().map(fold).collect()
}

/// Unicode's simple folding, as far as it reaches ASCII.
fn fold(c: char) -> char {
    match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}

/// Any value.
struct Any<'n, 'de> {
    depth: usize,
    place: Place,
    /// The names of the objects that are open.
    names: &'n mut Names<'de>,
}

impl Any<'_, '_> {
    fn deeper<E: Error>(&self) -> Result<usize, E> {
        if self.depth >= DEPTH {
            return Err(E::custom(format_args!("nested deeper than {DEPTH}")));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Any<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        // The messages of a batch; any other list holds values.
        let place = if self.depth == 0 { self.place } else { Place::Free };
        while items.next_element_seed(Any { depth, place, names: self.names })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let depth = self.deeper()?;
        let place = self.place.inside();
        let mut object = self.names.open();
        while let Some(Name(name)) = members.next_key::<Name<'de>>()? {
            if place.is_another_writing(&name) {
                return Err(A::Error::custom(format_args!("`{}` can be taken for a member of another case", clip(&name))));
            }
            // Written as it is it would not be JSON.
            if matches!(&name, Cow::Owned(name) if name.contains('\0')) {
                return Err(A::Error::custom("a name with a NUL, which some readers take for its end"));
            }
            let place = place.into(&name);
            if !self.names.add(&mut object, name) {
                return Err(A::Error::custom("duplicate field"));
            }
            members.next_value_seed(Any { depth, place, names: self.names })?;
        }
        self.names.close(&object);
        Ok(())
    }
}

/// The names of the objects that are open, the innermost last: one list for all, because an allocation for each object
/// would cost more than the comparisons.
#[derive(Default)]
struct Names<'b>(Vec<Cow<'b, str>>);

/// The names of one of them.
struct Object<'b> {
    /// Where they begin.
    from: usize,
    /// Beyond a few; a large object would take time by its square.
    many: HashSet<Cow<'b, str>>,
}

impl<'b> Names<'b> {
    fn open(&self) -> Object<'b> {
        Object { from: self.0.len(), many: HashSet::new() }
    }

    /// `false` if it is there already.
    fn add(&mut self, object: &mut Object<'b>, name: Cow<'b, str>) -> bool {
        let few = self.0.get(object.from..).unwrap_or_default();
        if few.len() < FEW {
            let fresh = !few.contains(&name);
            self.0.push(name);
            return fresh;
        }
        if object.many.is_empty() {
            object.many.extend(few.iter().cloned());
        }
        object.many.insert(name)
    }

    fn close(&mut self, object: &Object<'b>) {
        self.0.truncate(object.from);
    }
}

struct Name<'b>(Cow<'b, str>);

impl<'de: 'b, 'b> serde::Deserialize<'de> for Name<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Text).map(Name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_bodies_pass() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"Name":1,"x":{"Method":"y"}},"_meta":{}}}"#,
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"b"}]"#,
            r#"{"method":"call_tool","params":{"tool_name":"a","taskId":"b"}}"#,
            r#"{"method":"x","params":{"_meta":{"Name":1},"ref":{"type":"a"},"notifications":{"a":{"TYPE":1}}}}"#,
            r#"{"a":"\ud83d\ude00","b":[1,-2.5e3,null,true]}"#,
            "7",
        ] {
            assert!(check(body.as_bytes()).is_ok(), "{body}: {:?}", check(body.as_bytes()));
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(check(deep(DEPTH).as_bytes()).is_ok());
        let many: Vec<String> = (0..40).map(|i| format!("\"m{i}\":1")).collect();
        for body in [
            r#"{"a":1,"a":2}"#.to_owned(),
            r#"{"params":{"arguments":{"x":{"a":1,"\u0061":2}}}}"#.to_owned(),
            r#"{"method":"ping","Method":"tools/call"}"#.to_owned(),
            r#"{"METHOD":"ping"}"#.to_owned(),
            r#"{"method":"tools/call","params":{"Name":"a"}}"#.to_owned(),
            r#"{"method":"tools/call","param\u017f":{}}"#.to_owned(),
            r#"{"method":"x","params":{"tas\u212aId":"a"}}"#.to_owned(),
            r#"{"method":"x","params":{"taskid":"a"}}"#.to_owned(),
            r#"[{"method":"ping","Params":{}}]"#.to_owned(),
            r#"{"method":"x","params":{"ref":{"type":"ref/prompt","name":"a","NAME":"b"}}}"#.to_owned(),
            r#"{"method":"x","params":{"notifications":{"resourcesubscriptions":["a"]}}}"#.to_owned(),
            r#"{"method":"x","params":{"_meta":{"io.modelcontextprotocol/ProtocolVersion":"a"}}}"#.to_owned(),
            r#"{"method":"x","params":{"arguments":{"a\u0000":1}}}"#.to_owned(),
            r#"[{"method":"tools/call","params":{"NAME":"x"}}]"#.to_owned(),
            r#"{"a":"\ud800"}"#.to_owned(),
            r#"{"a":1e999}"#.to_owned(),
            r#"{"a":1}{"b":2}"#.to_owned(),
            r#"{"a":01}"#.to_owned(),
            "\u{feff}{}".to_owned(),
            format!("{{{},\"m7\":2}}", many.join(",")),
            deep(DEPTH + 1),
        ] {
            assert!(check(body.as_bytes()).is_err(), "{body}");
        }
        assert!(check(b"{\"a\":\"\xff\"}").is_err());
    }
}
