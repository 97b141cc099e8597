//! What is not to be admitted, fourth part: payloads that were truly signed by the right key, and say too little, the
//! wrong thing, or two things.

use serde_json::{Value, json};

use super::forged::{Case, World, bearer};
use super::token::{from_now, segments};

/// Times past, to come, and none at all. A time that is no number must not count as one that is absent (CVE-2026-25537,
/// in the library we use).
pub fn times(world: &World) -> Vec<Case> {
    // Raw texts: some of these no JSON library holds. The greatest of all integers is -1 to whoever takes it for a signed one.
    let texts = [
        ("exp", r#"0 -1 1e400 -1e400 99999999999999999999 null true [] {} "" "4102444800" NaN +4102444800"#),
        ("nbf", r#"4102444800 18446744073709551615 1e400 99999999999999999999 true [] {} "" "0""#),
        ("iat", r#"1e400 true [] {} "" "0""#),
    ];
    let mut cases = Vec::new();
    for (claim, texts) in texts {
        for text in texts.split(' ') {
            let token = world.es().without(claim).claim_last(&format!("\"{claim}\":{text}"));
            cases.push(bearer(format!("{claim} {text}"), token.compact()));
        }
    }
    let soon = from_now(300);
    let good = format!("\"exp\":{soon}");
    let past = format!("\"exp\":{}", from_now(-600));
    let es = || world.es();
    cases.extend([
        bearer("no exp", es().without("exp").compact()),
        bearer("expired", es().claim("exp", from_now(-600)).compact()),
        bearer("expired just beyond the leeway", es().claim("exp", from_now(-62)).compact()),
        bearer("expired, as a fraction", es().without("exp").claim_last(&format!("\"exp\":{}.5", from_now(-600))).compact()),
        bearer("not yet valid", es().claim("nbf", from_now(600)).compact()),
        bearer("not yet valid, as a fraction", es().without("nbf").claim_last(&format!("\"nbf\":{}.5", from_now(600))).compact()),
        bearer("exp as text", es().claim("exp", soon.to_string()).compact()),
        bearer("exp in an array", es().claim("exp", json!([soon])).compact()),
        // The names of claims are case-sensitive.
        bearer("EXP instead of exp", es().without("exp").claim("EXP", soon).compact()),
        bearer("exp twice, the first past", es().without("exp").claim_first(&past).claim_last(&good).compact()),
        bearer("exp twice, the last past", es().without("exp").claim_first(&good).claim_last(&past).compact()),
        bearer("exp twice, the same", es().without("exp").claim_first(&good).claim_last(&good).compact()),
    ]);
    cases
}

/// Who says it, of whom, to whom.
pub fn parties(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    let issuers: &[Value] = &[
        json!("https://idp.example/"),
        json!("https://idp.example.evil.example"),
        json!("https://evil.example"),
        json!("https://IDP.example"),
        json!("http://idp.example"),
        json!(" https://idp.example"),
        // CVE-2024-53861: a part of the right name was found in it.
        json!("https://idp"),
        json!("idp.example"),
        json!(""),
        // CVE-2025-30144: an array with the right name in it was taken for it.
        json!(["https://evil.example", "https://idp.example"]),
        json!(["https://idp.example"]),
        json!({ "https://idp.example": true }),
        json!(null),
        json!(0),
    ];
    let audiences: &[Value] = &[
        json!("another"),
        json!("Gateway"),
        json!("gateway2"),
        json!("gate"),
        json!("another gateway"),
        json!(""),
        // CVE-2020-26160: an empty array was taken for no restriction.
        json!([]),
        json!(["another"]),
        json!([""]),
        json!([1, null, true]),
        json!([["gateway"]]),
        json!({ "gateway": true }),
        json!(null),
        json!(0),
        json!(true),
    ];
    let subjects: &[Value] = &[json!(""), json!(0), json!(null), json!(true), json!(["alice"]), json!({ "id": "alice" })];
    for (claim, values) in [("iss", issuers), ("aud", audiences), ("sub", subjects)] {
        cases.push(bearer(format!("no {claim}"), world.es().without(claim).compact()));
        cases.extend(values.iter().map(|value| bearer(format!("{claim} {value}"), world.es().claim(claim, value.clone()).compact())));
    }
    // What is mapped to a tenant or tier must not be overlooked for being of another type: no tenant may be more than one.
    for (claim, value) in [("org", json!(5)), ("org", json!(["acme"])), ("org", json!({ "id": "acme" })), ("plan", json!(true))] {
        cases.push(bearer(format!("{claim} {value}"), world.es().claim(claim, value).compact()));
    }
    let twice = [
        ("iss", r#""iss":"https://evil.example""#),
        ("iss, once with an escape", r#""\u0069ss":"https://evil.example""#),
        ("iss, of another issuer we know", r#""iss":"https://two.example""#),
        ("iss, the same", r#""iss":"https://idp.example""#),
        ("aud", r#""aud":"another""#),
        ("sub", r#""sub":"admin""#),
        ("scope", r#""scope":"admin""#),
        ("org", r#""org":"another""#),
        ("a claim nobody reads", r#""iat":1"#),
    ];
    for (name, member) in twice {
        cases.push(bearer(format!("twice {name}, first"), world.es().claim_first(member).compact()));
        cases.push(bearer(format!("twice {name}, last"), world.es().claim_last(member).compact()));
    }
    cases
}

/// Payloads that are no claims.
pub fn payloads(world: &World) -> Vec<Case> {
    let es = world.es();
    let claims = es.payload();
    let [_, payload, _] = segments(&world.admitted);
    let not_utf8 = [claims.trim_end_matches('}').as_bytes(), b",\"x\":\"\xff\"}"].concat();
    let payloads: Vec<(&str, Vec<u8>)> = vec![
        ("an array", format!("[{claims}]").into()),
        ("a string", json!(claims).to_string().into()),
        ("a number", "1".into()),
        ("null", "null".into()),
        ("an empty object", "{}".into()),
        ("no JSON", "iss=https://idp.example&sub=alice".into()),
        ("cut short", claims.trim_end_matches('}').into()),
        ("followed by another", format!("{claims}{claims}").into()),
        ("with a comma too many", format!("{},}}", claims.trim_end_matches('}')).into()),
        ("with a comment", format!("/**/{claims}").into()),
        ("in single quotes", claims.replace('"', "'").into()),
        ("after a byte order mark", format!("\u{feff}{claims}").into()),
        ("in UTF-16", claims.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("not UTF-8", not_utf8),
        ("encoded twice", payload.into()),
    ];
    payloads.into_iter().map(|(name, payload)| bearer(format!("a payload {name}"), es.sealed(es.header(), payload))).collect()
}
