//! What is not to be admitted, second part: texts that are no compact token, and ways to bring one that are none.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE};

use super::forged::{Case, World, bearer};
use super::token::{b64, segments};

/// How long a token may be.
pub const LIMIT: usize = 16 * 1024;

pub fn segments_and_text(world: &World) -> Vec<Case> {
    let token = &world.admitted;
    let [header, payload, signature] = segments(token);
    let (start, end) = payload.split_at(payload.len() / 2);
    let general = format!(r#"{{"payload":"{payload}","signatures":[{{"protected":"{header}","signature":"{signature}"}}]}}"#);
    let flattened = format!(r#"{{"payload":"{payload}","protected":"{header}","signature":"{signature}"}}"#);
    let mut cases = vec![
        bearer("nothing but a word", "token"),
        bearer("one dot", "."),
        bearer("two dots only", ".."),
        // CVE-2025-30204: a parser that splits at every dot can be made to work for nothing.
        bearer("ten thousand dots", ".".repeat(10_000)),
        bearer("two segments", format!("{header}.{payload}")),
        bearer("a dot at the end", format!("{token}.")),
        bearer("a dot in front", format!(".{token}")),
        bearer("four segments", format!("{token}.{signature}")),
        bearer("empty header", format!(".{payload}.{signature}")),
        // A detached payload (RFC 7515 appendix F).
        bearer("empty payload", format!("{header}..{signature}")),
        bearer("empty payload, truly signed", world.es().sealed(world.es().header(), "")),
        bearer("empty header, truly signed", world.es().sealed("", world.es().payload())),
        bearer("JSON serialisation", general),
        bearer("flattened JSON serialisation", flattened),
        bearer("a space in the payload", format!("{header}.{start} {end}.{signature}")),
        bearer("a space in the payload, truly signed", world.es().sign_segments(header, &format!("{start} {end}"))),
        bearer("a tab in the payload, truly signed", world.es().sign_segments(header, &format!("{start}\t{end}"))),
        bearer("a space before the signature", format!("{header}.{payload}. {signature}")),
        // CVE-2022-25898: characters outside the alphabet were skipped.
        bearer("a star in the signature", format!("{header}.{payload}.*{signature}")),
        bearer("a star in the payload, truly signed", world.es().sign_segments(header, &format!("{start}*{end}"))),
        bearer("a letter beyond ASCII", format!("{token}é")),
        bearer("in quotes", format!("\"{token}\"")),
        bearer("a percent-encoded dot", token.replacen('.', "%2e", 1)),
        bearer("larger than 16 KiB", over(world)),
        bearer("much larger than 16 KiB", world.es().stretched(2 * LIMIT, 0)),
    ];
    cases.extend(encrypted(world));
    cases.extend(encodings(world));
    cases
}

/// Longer than allowed by as little as base64 lets us.
fn over(world: &World) -> String {
    let over = (0..9).map(|beyond| world.es().stretched(LIMIT, beyond)).find(|token| token.len() > LIMIT).expect("some bytes later");
    assert!(over.len() <= LIMIT + 2, "{} is barely too long", over.len());
    over
}

/// Five segments, as if encrypted to us: anybody can encrypt to a public key (CVE-2023-51774).
fn encrypted(world: &World) -> Vec<Case> {
    let inner = b64(&world.admitted);
    let direct = b64(r#"{"alg":"dir","enc":"A256GCM","cty":"JWT"}"#);
    let wrapped = b64(r#"{"alg":"RSA-OAEP","enc":"A256GCM","kid":"rsa-1","cty":"JWT"}"#);
    let (key, iv, tag) = (b64([7; 256]), b64([7; 12]), b64([7; 16]));
    vec![
        bearer("five segments, direct encryption", format!("{direct}..{iv}.{inner}.{tag}")),
        bearer("five segments, encrypted key", format!("{wrapped}.{key}.{iv}.{inner}.{tag}")),
    ]
}

/// Two texts of one token are one too many for whoever keeps a list of withdrawn ones.
fn encodings(world: &World) -> Vec<Case> {
    let [header, payload, signature] = segments(&world.admitted);
    // As many bytes as leave something to pad.
    let mut padded = (0..3).map(|n| URL_SAFE.encode(world.es().claim("note", "x".repeat(n)).payload()));
    let padded = padded.find(|text| text.ends_with('=')).expect("two of three");
    let standard = STANDARD_NO_PAD.encode(world.es().claim("note", "?>?>?>?>?>?>").payload());
    assert!(standard.contains(['+', '/']), "{standard}");
    let telling = std::iter::repeat_with(|| world.es().compact()).find(|token| segments(token)[2].contains(['-', '_'])).expect("soon");
    let [told_header, told_payload, told] = segments(&telling);
    let (kept, last) = signature.split_at(signature.len() - 1);
    // 64 bytes leave four bits of the last character unused; this sets one of them.
    let unused = char::from(last.as_bytes()[0] + 1);
    vec![
        bearer("a padded payload, truly signed", world.es().sign_segments(header, &padded)),
        bearer("a padded signature", format!("{header}.{payload}.{signature}==")),
        bearer("a payload of the standard alphabet, truly signed", world.es().sign_segments(header, &standard)),
        bearer(
            "a signature of the standard alphabet",
            format!("{told_header}.{told_payload}.{}", told.replace('-', "+").replace('_', "/")),
        ),
        bearer("unused bits of the signature set", format!("{header}.{payload}.{kept}{unused}")),
    ]
}

/// The token is good; what carries it is not `Authorization: Bearer`, once.
pub fn carriers(world: &World) -> Vec<Case> {
    let token = &world.admitted;
    let forged = world.es().by(&world.thief).compact();
    let (good, bad) = (format!("Bearer {token}"), format!("Bearer {forged}"));
    let case = |name: &str, headers: &[&str]| Case { name: name.into(), headers: headers.iter().map(ToString::to_string).collect() };
    vec![
        case("no Authorization", &[]),
        case("an empty Authorization", &[""]),
        case("Bearer without a token", &["Bearer"]),
        case("Bearer and a space", &["Bearer "]),
        case("no space after Bearer", &[&format!("Bearer{token}")]),
        case("a colon after Bearer", &[&format!("Bearer: {token}")]),
        case("no scheme", &[token]),
        case("scheme Token", &[&format!("Token {token}")]),
        case("scheme JWT", &[&format!("JWT {token}")]),
        case("scheme DPoP", &[&format!("DPoP {token}")]),
        case("scheme Basic with a password", &["Basic YWxpY2U6c2VjcmV0"]),
        case("scheme Basic with the token", &[&format!("Basic {token}")]),
        case("two tokens", &[&format!("Bearer {token} {token}")]),
        case("two tokens, one forged", &[&format!("Bearer {token} {forged}")]),
        case("two tokens in a list", &[&format!("Bearer {token},{token}")]),
        // What a proxy makes of two headers.
        case("two credentials in a list", &[&format!("{good}, {good}")]),
        case("Basic and Bearer in a list", &[&format!("Basic YWxpY2U6c2VjcmV0, {good}")]),
        case("two headers, the same", &[&good, &good]),
        case("two headers, the first forged", &[&bad, &good]),
        case("two headers, the second forged", &[&good, &bad]),
        case("two headers, Basic first", &["Basic YWxpY2U6c2VjcmV0", &good]),
        case("two headers, Basic second", &[&good, "Basic YWxpY2U6c2VjcmV0"]),
        case("two headers, the first empty", &["", &good]),
    ]
}
