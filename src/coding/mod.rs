//! Content codings (RFC 9110 §8.4.1): `accept` reads which of them a caller takes, `encoder` puts bytes into one. No socket
//! and no header map: what may be coded at all is decided where answers are written (`proxy/coded`).

pub mod accept;
pub mod encoder;

use serde::{Serialize, Serializer};

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// As `Content-Encoding` and the configuration call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }
}

impl Serialize for Coding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How much time is given for how few bytes; what that is in each coding's own numbers is `encoder`'s to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Fast,
    Default,
    Best,
}
