//! Copying long texts. From about 2 KiB on glibc copies by `rep movsb`, which some processors execute 16 times slower than
//! other copies where the destination stands a few bytes further in its page than the source (measured on an AMD EPYC: 19 µs
//! instead of 1.2 µs for 64 KiB). A result that moves behind the short head of an envelope, from one large allocation to another,
//! stands just so every time.

use bytes::BufMut;

/// Bytes that are copied through registers everywhere.
const PIECE: usize = 1024;

/// Appends bytes that may be many.
pub fn append(out: &mut impl BufMut, bytes: &[u8]) {
    for piece in bytes.chunks(PIECE) {
        out.put_slice(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_copied() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 7] {
            let bytes: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            let mut out = b"head".to_vec();
            append(&mut out, &bytes);
            assert_eq!(out, [b"head".as_slice(), &bytes].concat());
        }
    }
}
