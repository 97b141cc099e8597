//! What a stranger shows is worth what was given out and nothing else. No text opens a session but one that was sealed for
//! it, and that one for its own server and subject only. A credential is found in a request only as what stands in the one
//! header there is for it.
//!
//! The input is lines. Each is taken for a session id; the first three for the backend, address and id of a session; all of
//! them for the values of `Authorization`.

#![no_main]

use std::sync::LazyLock;

use fuzz::credential;
use fuzz::mcp::session::{Sealer, Session};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

static SEALER: LazyLock<Sealer> = LazyLock::new(|| Sealer::new(b"0123456789abcdef"));

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    no_text_opens(&text);
    what_was_sealed_opens(&text);
    what_is_found_stands_there(input);
});

fn no_text_opens(text: &str) {
    for token in text.lines().chain([text]) {
        assert_eq!(SEALER.open("files", "ann", token), None);
    }
}

fn what_was_sealed_opens(text: &str) {
    let mut parts = text.splitn(4, '\n').map(str::to_owned);
    let [Some(backend), Some(address), Some(id)] = [parts.next(), parts.next(), parts.next()] else { return };
    let session = Session { backend, address, id };
    let Some(token) = SEALER.seal("files", "ann", &session) else { return };
    assert_eq!(SEALER.open("files", "ann", &token), Some(session));
    assert_eq!(SEALER.open("other", "ann", &token), None);
    assert_eq!(SEALER.open("files", "bob", &token), None);
    // The rest of the input says where it is spoilt.
    let further = parts.next().unwrap_or_default();
    let at = further.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % token.len();
    let other = if token[at..].starts_with('A') { "B" } else { "A" };
    for spoilt in [token[..at].to_owned(), format!("{token}{further}="), token[..at].to_owned() + other + &token[at + 1..]] {
        assert_eq!(SEALER.open("files", "ann", &spoilt), None, "{spoilt} for {token}");
    }
}

fn what_is_found_stands_there(input: &[u8]) {
    let key = HeaderName::from_static("x-api-key");
    let values: Vec<HeaderValue> = input.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    for (name, scheme) in [(AUTHORIZATION, &b"bearer "[..]), (key.clone(), b"")] {
        let headers: HeaderMap = values.iter().map(|value| (name.clone(), value.clone())).collect();
        let Ok(found) = credential::find(&headers, Some(&key)) else { continue };
        match (&values[..], found.bearer.xor(found.key)) {
            ([], None) => {}
            ([value], Some(token)) if token.bytes().all(|byte| byte.is_ascii_graphic()) && !token.is_empty() => {
                let before = value.as_bytes().strip_suffix(token.as_bytes()).expect("it ends the value");
                let (before, spaces) = before.split_at(scheme.len());
                assert!(before.eq_ignore_ascii_case(scheme) && spaces.trim_ascii().is_empty(), "{found:?} in {value:?}");
            }
            _ => panic!("{found:?} in {values:?}"),
        }
    }
}
