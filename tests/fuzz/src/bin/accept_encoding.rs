//! What a caller is sent is something it asked for: a coding is chosen only where it, or `*`, is named with a weight, and
//! plain bytes count as refused only where they, or `*`, are named with none. Several fields are one list, and what
//! nobody knows in it changes nothing.
//!
//! The input is the value of `Accept-Encoding`; each line is a field.

#![no_main]

use fuzz::coding::Coding;
use fuzz::coding::accept::Accepted;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let read = |separator: u8| Accepted::read(input.split(|byte| *byte == separator));
    let accepted = read(b'\n');
    let whole: Vec<u8> = input.iter().map(|byte| if *byte == b'\n' { b',' } else { *byte }).collect();
    assert_eq!(accepted, Accepted::read([whole.as_slice()].into_iter()), "several fields are one list");
    assert_eq!(accepted, Accepted::read(input.split(|byte| *byte == b'\n').chain([&b"exotic;q=0.7, ,;"[..]])));
    let text = String::from_utf8_lossy(input).to_ascii_lowercase();
    for offered in [&Coding::ALL[..], &[Coding::Gzip, Coding::Zstd], &[Coding::Brotli], &[]] {
        let Some(chosen) = accepted.choose(offered) else { continue };
        assert!(offered.contains(&chosen));
        assert!(text.contains(chosen.name()) || text.contains('*'), "{chosen:?} was not asked for");
    }
    if accepted.refuses_identity() {
        assert!(text.contains("identity") || text.contains('*'), "nobody refused plain bytes");
        assert!(text.contains("q="), "without a weight nothing is refused");
    }
});
