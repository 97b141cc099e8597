//! A JSON object taken apart one level deep, its values left as the bytes they were written in. This is how results and
//! params pass through the gateway without being understood, and without losing what a later revision adds.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::rewrite;
use crate::reject::clip;
use crate::verbatim::Verbatim;

/// Up to how many members a scan is cheaper than a set.
const FEW: usize = 16;

/// A name and its value as it was written.
pub type Member<'b> = (Cow<'b, str>, Verbatim<'b>);

/// A JSON object as its members in order, values untouched; a repeated name is an error.
#[derive(Debug, Clone, Default)]
pub struct Members<'b>(pub Vec<Member<'b>>);

impl<'b> Members<'b> {
    pub fn get(&self, name: &str) -> Option<Verbatim<'b>> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// The object as text.
    pub fn written(&self) -> String {
        let members = self.0.iter().map(|(name, value)| (name, value.get()));
        String::from_utf8(rewrite::object(members)).unwrap_or_default()
    }

    /// The value of a member that is text.
    pub fn text(&self, name: &str) -> Option<Cow<'b, str>> {
        text(self.get(name)?)
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Members<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<'b>(PhantomData<&'b ()>);
        impl<'de: 'b, 'b> Visitor<'de> for Collect<'b> {
            type Value = Members<'b>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::default();
                let mut seen = HashSet::new();
                while let Some((Text(name), value)) = map.next_entry::<Text<'b>, Verbatim<'b>>()? {
                    // Few members are compared in place; many are hashed, or a large object would take time by its square.
                    let repeated = if members.0.len() < FEW { members.get(&name).is_some() } else { seen.contains(&name) };
                    if repeated {
                        return Err(A::Error::custom(format_args!("duplicate field `{}`", clip(&name))));
                    }
                    members.0.push((name, value));
                    if members.0.len() == FEW {
                        seen.extend(members.0.iter().map(|(name, _)| name.clone()));
                    } else if members.0.len() > FEW {
                        seen.extend(members.0.last().map(|(name, _)| name.clone()));
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Collect(PhantomData))
    }
}

/// A text that is borrowed where it is written without escapes.
#[derive(Debug, Deserialize)]
pub struct Text<'b>(#[serde(borrow)] pub Cow<'b, str>);

/// The text that a value is; `None` if it is none.
pub fn text<'b>(value: Verbatim<'b>) -> Option<Cow<'b, str>> {
    match plain(value) {
        Some(text) => Some(Cow::Borrowed(text)),
        None => serde_json::from_str::<Text<'b>>(value.get()).ok().map(|text| text.0),
    }
}

/// What stands between its quotes, where nothing in it is escaped.
pub fn plain(value: Verbatim<'_>) -> Option<&str> {
    let text = value.get().strip_prefix('"')?.strip_suffix('"')?;
    (!text.contains('\\')).then_some(text)
}

/// Reads a text that may be missing. Serde borrows a `Cow` of its own accord only where it stands alone: within an `Option`
/// it would be copied.
///
/// # Errors
/// When it is no text.
pub fn borrowed<'de: 'b, 'b, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'b, str>>, D::Error> {
    Ok(Option::<Text<'b>>::deserialize(deserializer)?.map(|text| text.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_name_is_found_among_few_and_among_many() {
        for count in [1, FEW - 1, FEW, FEW + 1, 5000] {
            let members: Vec<String> = (0..count).map(|i| format!("\"m{i}\":{i}")).collect();
            let whole = format!("{{{}}}", members.join(","));
            assert_eq!(serde_json::from_str::<Members<'_>>(&whole).unwrap().0.len(), count);
            for again in [0, count / 2, count - 1] {
                let repeated = format!("{{{},\"\\u006d{again}\":1}}", members.join(","));
                assert!(serde_json::from_str::<Members<'_>>(&repeated).is_err(), "{count} {again}");
            }
        }
    }
}
