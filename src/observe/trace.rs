//! Who a request is: `X-Request-ID` and the W3C trace context. Both are fixed before anything can be refused.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue};

/// Longest request id taken from a caller.
const MAX_ID: usize = 128;

/// The request's id: the caller's if it is sane, else ours.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    let callers = headers.get("x-request-id").filter(|value| is_sane(value.as_bytes()));
    callers.cloned().unwrap_or_else(|| text(&uuid::Uuid::new_v4().simple().encode_lower(&mut uuid::Uuid::encode_buffer())[..]))
}

fn is_sane(id: &[u8]) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
}

/// The trace context to send upstream: the caller's trace with a span of ours, or a new, unsampled trace.
/// (W3C Trace Context, level 1.)
pub fn traceparent(headers: &HeaderMap) -> HeaderValue {
    let mut values = headers.get_all("traceparent").iter();
    let callers = values.next().filter(|_| values.next().is_none()).and_then(|value| parse(value.as_bytes()));
    let (trace, flags) = match &callers {
        Some((trace, flags)) => (Cow::Borrowed(*trace), *flags),
        None => (Cow::Owned(format!("{:032x}", uuid::Uuid::new_v4().as_u128())), "00"),
    };
    let span = uuid::Uuid::new_v4().as_u64_pair().0;
    text(&format!("00-{trace}-{span:016x}-{flags}"))
}

/// Trace id and flags of a valid `traceparent`.
fn parse(value: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    // Version ff is forbidden; version 00 has exactly four parts, later ones may have more.
    let shaped = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    let valid = shaped && hex(trace, 32) && !zero(trace) && hex(span, 16) && !zero(span) && hex(flags, 2);
    valid.then_some((trace, flags))
}

fn text(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("hexadecimal digits and dashes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn a_sane_id_is_kept_and_any_other_replaced() {
        assert_eq!(request_id(&with("x-request-id", "abc-1.2_3")), "abc-1.2_3");
        for odd in ["", "a b", "a\u{7f}", "x/y", &"a".repeat(129)] {
            let ours = HeaderValue::from_bytes(odd.as_bytes())
                .map(|value| request_id(&HeaderMap::from_iter([(http::HeaderName::from_static("x-request-id"), value)])));
            assert!(ours.is_err() || ours.is_ok_and(|ours| ours.len() == 32), "{odd}");
        }
    }

    #[test]
    fn a_trace_is_continued_or_begun() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let ours = traceparent(&with("traceparent", parent));
        let ours = ours.to_str().unwrap();
        assert!(ours.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && ours.ends_with("-01") && ours != parent);
        for bad in [
            "",
            "00-0-0-0",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        ] {
            assert_eq!(traceparent(&with("traceparent", bad)).len(), parent.len(), "{bad}");
        }
    }
}
