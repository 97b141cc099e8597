//! SHA-256, as the name of what is too secret or too long to be a key itself.

use std::fmt::Write as _;

/// The digest of a text.
pub fn sha256(text: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, text).as_ref());
    digest
}

/// A number that tells of a text no more than that it is the same.
pub fn number(text: &[u8]) -> u64 {
    sha256(text).iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Bytes as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
