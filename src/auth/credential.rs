//! Finding the credential a request carries, without judging it. What is ambiguous is refused: two `Authorization`
//! headers, two keys, anything that one reader could take for another thing than the next.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

/// The longest credential looked at.
pub const MAX: usize = 16 << 10;

/// What a request presents.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Presented<'h> {
    /// The token of `Authorization: Bearer`.
    pub bearer: Option<&'h str>,
    /// The value of the API key header.
    pub key: Option<&'h str>,
}

impl std::fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |given: Option<&str>| given.map(|_| "***");
        f.debug_struct("Presented").field("bearer", &shown(self.bearer)).field("key", &shown(self.key)).finish()
    }
}

/// Finds the credentials in `headers`.
///
/// # Errors
/// Why they cannot be read, for the client.
pub fn find<'h>(headers: &'h HeaderMap, key_header: Option<&HeaderName>) -> Result<Presented<'h>, &'static str> {
    let bearer = single(headers, &AUTHORIZATION).map_err(|()| "one Authorization header, please")?.map(bearer).transpose()?;
    let key = key_header.map(|name| single(headers, name).map_err(|()| "one API key header, please")).transpose()?.flatten();
    Ok(Presented { bearer, key: key.map(visible).transpose()? })
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h [u8]>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first.map(http::HeaderValue::as_bytes)),
        _ => Err(()),
    }
}

/// `Bearer`, in any case, one or more spaces, a token (RFC 6750 §2.1).
fn bearer(value: &[u8]) -> Result<&str, &'static str> {
    let (scheme, token) = value.split_at_checked(7).ok_or("Authorization must be: Bearer <token>")?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err("Authorization must be: Bearer <token>");
    }
    let start = token.iter().position(|byte| *byte != b' ').unwrap_or(token.len());
    visible(&token[start..])
}

fn visible(value: &[u8]) -> Result<&str, &'static str> {
    if value.len() > MAX {
        return Err("the credential is too long");
    }
    let fits = !value.is_empty() && value.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(value).ok().filter(|_| fits).ok_or("the credential is empty or holds other than visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn one_credential_of_each_kind_is_found() {
        let key = HeaderName::from_static("x-api-key");
        let found = headers(&[("authorization", "bEaReR   abc.def"), ("x-api-key", "k")]);
        assert_eq!(find(&found, Some(&key)), Ok(Presented { bearer: Some("abc.def"), key: Some("k") }));
        assert_eq!(find(&found, None), Ok(Presented { bearer: Some("abc.def"), key: None }));
        assert_eq!(find(&HeaderMap::new(), Some(&key)), Ok(Presented::default()));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read() {
        let key = HeaderName::from_static("x-api-key");
        let long = format!("Bearer {}", "a".repeat(MAX + 1));
        for list in [
            &[("authorization", "Bearer a"), ("authorization", "Bearer a")][..],
            &[("x-api-key", "a"), ("x-api-key", "b")],
            &[("x-api-key", "")],
            &[("authorization", "Bearer a b")],
            &[("authorization", "Bearer a, Bearer b")],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Basic YTpi")],
            &[("authorization", "Token a")],
            &[("authorization", "Bearer a\tb")],
            &[("authorization", &long)],
        ] {
            assert!(find(&headers(list), Some(&key)).is_err(), "{list:?}");
        }
    }
}
