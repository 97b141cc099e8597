//! JSON that is passed on without being understood, in the bytes it came in.

use std::fmt;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;

/// A value as the bytes it was written in: JSON for certain. A type of our own, because serde's can be made by serde only, which
/// reads the value again for it.
#[derive(Clone, Copy)]
pub struct Verbatim<'b> {
    text: &'b str,
    is_canonical: bool,
}

impl<'b> Verbatim<'b> {
    /// What was read as JSON before, and found to be a value.
    pub const fn found(text: &'b str) -> Self {
        Self { text, is_canonical: false }
    }

    /// The same, where it is known to be written in the one form of its value (`mcp::canonical`), or not known.
    #[must_use]
    pub const fn canonical(self, is_canonical: bool) -> Self {
        Self { is_canonical, ..self }
    }

    /// Whether it is known to be written in that form.
    pub const fn is_canonical(self) -> bool {
        self.is_canonical
    }

    pub const fn get(self) -> &'b str {
        self.text
    }
}

impl fmt::Debug for Verbatim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl<'de: 'b, 'b> Deserialize<'de> for Verbatim<'b> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'b RawValue>::deserialize(deserializer).map(|value| Self::found(value.get()))
    }
}

impl Serialize for Verbatim<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(self.text).map_err(S::Error::custom)?.serialize(serializer)
    }
}
