//! How a browser shows the admin token: once, in a form. From then on it holds a cookie that says until when, sealed as
//! session ids are and bound to the token, so that another token ends it; no script can read it and no other site send it.

use http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq as _;

use crate::config::Secret;
use crate::digest::{hex, sha256};
use crate::mcp::session::{Sealer, Session};

/// Its name.
const COOKIE: &str = "mcp_gateway_admin";
/// How long it is good, in seconds.
const AGE: i64 = 2 * 3600;
/// What it is sealed for: no MCP server can be called so.
const REALM: &str = "/admin/";

/// Whether a text is the token. Digests have one length, so that not even the token's own length can be timed.
pub fn is_token(given: &str, token: &Secret) -> bool {
    sha256(given.as_bytes()).ct_eq(&sha256(token.expose().as_bytes())).into()
}

/// The cookie of somebody who showed the token. `secure`: it is to travel over TLS only.
pub fn cookie(sealer: &Sealer, token: &Secret, secure: bool) -> Option<HeaderValue> {
    sealed(sealer, token, now() + AGE, secure)
}

fn sealed(sealer: &Sealer, token: &Secret, until: i64, secure: bool) -> Option<HeaderValue> {
    let session = Session { backend: "admin".to_owned(), address: until.to_string(), id: uuid::Uuid::new_v4().to_string() };
    let value = sealer.seal(REALM, &bound_to(token), &session)?;
    written(&value, AGE, secure)
}

/// A cookie that ends the other.
pub fn farewell() -> Option<HeaderValue> {
    written("", 0, false)
}

/// Below `/admin`, so that it does not travel to the public listener: browsers do not tell ports apart.
fn written(value: &str, age: i64, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{COOKIE}={value}; Path=/admin; Max-Age={age}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::from_str(&text).ok()
}

/// Whether a request comes from somebody who logged in.
pub fn is_in(sealer: &Sealer, token: &Secret, headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut cookies = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let bound = bound_to(token);
    cookies.any(|(name, value)| {
        let session = || sealer.open(REALM, &bound, value);
        name == COOKIE && session().is_some_and(|session| session.address.parse::<i64>().is_ok_and(|until| now() < until))
    })
}

fn bound_to(token: &Secret) -> String {
    hex(&sha256(format!("admin token\n{}", token.expose()).as_bytes()))
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_good_for_its_token_its_key_and_its_time() {
        let (sealer, token) = (Sealer::new(b"0123456789abcdef"), Secret::new("the-token"));
        let sent = |set: &HeaderValue| {
            let pair = set.to_str().unwrap().split(';').next().unwrap().to_owned();
            HeaderMap::from_iter([(header::COOKIE, format!("a=b; {pair}").parse().unwrap())])
        };
        let given = cookie(&sealer, &token, true).unwrap();
        let text = given.to_str().unwrap();
        assert!(["; Path=/admin;", "; HttpOnly", "; SameSite=Strict", "; Secure"].iter().all(|part| text.contains(part)), "{text}");
        assert!(!text.contains("the-token"));
        assert!(is_in(&sealer, &token, &sent(&given)));
        assert!(!is_in(&sealer, &Secret::new("another"), &sent(&given)));
        assert!(!is_in(&Sealer::new(b"another secret!!"), &token, &sent(&given)));
        assert!(!is_in(&sealer, &token, &sent(&sealed(&sealer, &token, now() - 1, false).unwrap())));
        let session = Session { backend: "admin".into(), address: (now() + 60).to_string(), id: "x".into() };
        let other = sealer.seal("files", &bound_to(&token), &session).unwrap();
        assert!(!is_in(&sealer, &token, &sent(&format!("{COOKIE}={other}").parse().unwrap())), "a session of a server is none of ours");
        assert!(!is_in(&sealer, &token, &HeaderMap::new()) && is_token("the-token", &token) && !is_token("the-toke", &token));
    }
}
