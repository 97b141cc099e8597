//! JSON that is passed on without being understood, in the bytes it came in.

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;

/// A value as the bytes it was written in: JSON for certain. A type of our own, because serde's can be made by serde only, which
/// reads the value again for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verbatim<'b>(&'b str);

impl<'b> Verbatim<'b> {
    /// What was read as JSON before, and found to be a value.
    pub const fn found(text: &'b str) -> Self {
        Self(text)
    }

    pub const fn get(self) -> &'b str {
        self.0
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Verbatim<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'b RawValue>::deserialize(deserializer).map(|value| Self(value.get()))
    }
}

impl Serialize for Verbatim<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(self.0).map_err(S::Error::custom)?.serialize(serializer)
    }
}
