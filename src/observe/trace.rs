//! Who a request is: `X-Request-ID` and the W3C trace context. Both are fixed before anything can be refused.

use http::{HeaderMap, HeaderName, HeaderValue};

pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Longest request id taken from a caller.
const MAX_ID: usize = 128;
/// The flag that says that a trace is recorded.
const SAMPLED: u8 = 1;

/// The request's id: the caller's if it is sane, else ours.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    let callers = headers.get(&REQUEST_ID).filter(|value| is_sane(value.as_bytes()));
    callers.cloned().unwrap_or_else(|| text(&uuid::Uuid::new_v4().simple().encode_lower(&mut uuid::Uuid::encode_buffer())[..]))
}

fn is_sane(id: &[u8]) -> bool {
    (1..=MAX_ID).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
}

/// The trace that a request belongs to, and our span in it (W3C Trace Context, level 1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Context {
    pub trace: u128,
    pub span: u64,
    /// The caller's span.
    pub parent: Option<u64>,
    flags: u8,
}

impl Context {
    /// Continues the caller's trace, or begins one that is sampled if `chance` says so.
    pub fn of(headers: &HeaderMap, chance: impl FnOnce() -> bool) -> Self {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        let callers = values.next().filter(|_| values.next().is_none()).and_then(|value| Self::within(value.as_bytes()));
        callers.unwrap_or_else(|| Self { trace: uuid::Uuid::new_v4().as_u128(), span: span_id(), parent: None, flags: u8::from(chance()) })
    }

    /// A span of ours within the trace that a `traceparent` names.
    pub fn within(traceparent: &[u8]) -> Option<Self> {
        let (trace, parent, flags) = parse(traceparent)?;
        let trace = u128::from_str_radix(trace, 16).ok()?;
        let (parent, flags) = (u64::from_str_radix(parent, 16).ok()?, u8::from_str_radix(flags, 16).ok()?);
        Some(Self { trace, span: span_id(), parent: Some(parent), flags })
    }

    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Whether it is drawn where a share of all traces is: the same at every gateway of this `lot`, which callers do not know,
    /// or they would name traces that nobody draws.
    pub fn is_among(self, share: f64, lot: u64) -> bool {
        // The ids of others need not be random: mixed as in SplitMix64, neighbours are drawn apart.
        #[expect(clippy::cast_possible_truncation, reason = "both halves count")]
        let mut mixed = (self.trace >> 64) as u64 ^ self.trace as u64 ^ lot;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        #[expect(clippy::cast_precision_loss, reason = "53 bits are what fits")]
        let drawn = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        drawn < share
    }

    /// The header of a request whose parent is this span.
    pub fn traceparent(self) -> Traceparent {
        // By hand: it is written for every attempt, and formatting takes several times as long.
        let mut written = *b"00-00000000000000000000000000000000-0000000000000000-00";
        digits(&mut written[3..35], self.trace);
        digits(&mut written[36..52], self.span.into());
        digits(&mut written[53..], self.flags.into());
        Traceparent(written)
    }
}

/// The value of a `traceparent` header. It is made for every attempt, so it is no allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent([u8; 55]);

impl Traceparent {
    /// Digits and dashes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Writes the low hexadecimal digits of a number, as many as there is room for.
fn digits(room: &mut [u8], mut number: u128) {
    for digit in room.iter_mut().rev() {
        *digit = b"0123456789abcdef"[usize::from(number.to_le_bytes()[0] & 15)];
        number >>= 4;
    }
}

/// A span id, which is never zero.
pub fn span_id() -> u64 {
    fastrand::u64(1..)
}

/// Trace id, span id and flags of a valid `traceparent`.
fn parse(value: &[u8]) -> Option<(&str, &str, &str)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    // Version ff is forbidden; version 00 has exactly four parts, later ones may have more.
    let shaped = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    let valid = shaped && hex(trace, 32) && !zero(trace) && hex(span, 16) && !zero(span) && hex(flags, 2);
    valid.then_some((trace, span, flags))
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
    fn a_share_of_traces_is_drawn_and_always_the_same_ones() {
        let of = |trace| Context { trace, ..Context::default() };
        let among = |trace, share| of(trace).is_among(share, 7);
        let drawn = |share| (1..=10_000_u128).filter(|trace| among(*trace, share)).count();
        assert_eq!((drawn(0.0), drawn(1.0)), (0, 10_000));
        assert!((900..1_100).contains(&drawn(0.1)), "{}", drawn(0.1));
        assert!((1..=10_000).all(|trace| !among(trace, 0.1) || among(trace, 0.2)), "a larger share holds the smaller");
        assert!((1..=100).any(|trace| among(trace, 0.5) != of(trace).is_among(0.5, 8)), "another lot, other traces");
    }

    #[test]
    fn a_trace_is_continued_or_begun() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let ours = Context::of(&with("traceparent", parent), || false);
        assert!(ours.is_sampled() && ours.parent == Some(0xb7ad_6b71_6920_3331));
        let told = ours.traceparent();
        let told = told.as_str();
        assert!(told.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && told.ends_with("-01") && told != parent);
        for bad in [
            "",
            "00-0-0-0",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            let begun = Context::of(&with("traceparent", bad), || true);
            assert!(begun.parent.is_none() && begun.is_sampled() && begun.traceparent().as_str().len() == parent.len(), "{bad}");
        }
    }
}
