//! A JSON object taken apart one level deep, its values left as the bytes they were written in. This is how results and
//! params pass through the gateway without being understood, and without losing what a later revision adds.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::reject::clip;

/// A JSON object as its members in order, values untouched; a repeated name is an error.
#[derive(Debug, Clone, Default)]
pub struct Members<'b>(pub Vec<(Cow<'b, str>, &'b RawValue)>);

impl<'b> Members<'b> {
    pub fn get(&self, name: &str) -> Option<&'b RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// The value of a member that is text.
    pub fn text(&self, name: &str) -> Option<Cow<'b, str>> {
        #[derive(Deserialize)]
        struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
        serde_json::from_str::<Text<'b>>(self.get(name)?.get()).ok().map(|text| text.0)
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
                while let Some((Name(name), value)) = map.next_entry::<Name<'b>, &'b RawValue>()? {
                    if members.get(&name).is_some() {
                        return Err(A::Error::custom(format_args!("duplicate field `{}`", clip(&name))));
                    }
                    members.0.push((name, value));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Collect(PhantomData))
    }
}

#[derive(Deserialize)]
struct Name<'b>(#[serde(borrow)] Cow<'b, str>);
