//! JSON in the one form that all writings of the same value share: members by name, numbers by value, texts with the same
//! escapes, no white space. Two texts that read alike here are the same question, so what cannot be read for certain has
//! no such form.

use smallvec::SmallVec;

use super::members::{Member, Members};
use super::plain;
use crate::verbatim::Verbatim;

/// Nesting that is followed.
const DEEPEST: usize = 64;
/// Digits of the longest whole number that is written in full.
const IN_FULL: usize = plain::DIGITS;

/// Appends the canonical form of a value to `out`; `None` if it has none.
pub fn value(raw: Verbatim<'_>, out: &mut String) -> Option<()> {
    outermost(raw, out, DEEPEST)
}

/// Appends an object of the members that `keeps` says.
pub fn object(members: &Members<'_>, keeps: &dyn Fn(&str) -> bool, out: &mut String) -> Option<()> {
    written(members, keeps, out, DEEPEST, outermost)
}

/// Writes what follows, of so much nesting.
type Write = fn(Verbatim<'_>, &mut String, usize) -> Option<()>;

/// A value that may be written so already. Not asked of what is within it, or a deep one would be read as often as it is
/// deep.
fn outermost(raw: Verbatim<'_>, out: &mut String, depth: usize) -> Option<()> {
    let is_asked = || matches!(raw.get().as_bytes().first(), Some(b'{' | b'[')) && plain::is_canonical(raw.get());
    if !raw.is_canonical() && !is_asked() {
        return nested(raw, out, depth);
    }
    out.push_str(raw.get());
    Some(())
}

fn nested(raw: Verbatim<'_>, out: &mut String, depth: usize) -> Option<()> {
    let (text, depth) = (raw.get(), depth.checked_sub(1)?);
    match text.as_bytes().first()? {
        b'{' => written(&serde_json::from_str(text).ok()?, &|_| true, out, depth, nested)?,
        b'[' => {
            let items: Vec<Verbatim<'_>> = serde_json::from_str(text).ok()?;
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                separate(at, out);
                nested(*item, out, depth)?;
            }
            out.push(']');
        }
        // Without escapes it is written as it would be anew.
        b'"' if !text.contains('\\') => out.push_str(text),
        b'"' => quoted(&serde_json::from_str::<String>(text).ok()?, out)?,
        // So is a whole number that is not long.
        b'0'..=b'9' if text.len() <= IN_FULL && text.bytes().all(|b| b.is_ascii_digit()) => out.push_str(text),
        b'-' | b'0'..=b'9' => number(text, out)?,
        _ => out.push_str(text),
    }
    Some(())
}

fn written(members: &Members<'_>, keeps: &dyn Fn(&str) -> bool, out: &mut String, depth: usize, write: Write) -> Option<()> {
    let mut kept: SmallVec<[&Member<'_>; 8]> = members.0.iter().filter(|(name, _)| keeps(name)).collect();
    kept.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    out.push('{');
    for (at, (name, raw)) in kept.into_iter().enumerate() {
        separate(at, out);
        quoted(name, out)?;
        out.push(':');
        write(*raw, out, depth)?;
    }
    out.push('}');
    Some(())
}

fn separate(at: usize, out: &mut String) {
    if at > 0 {
        out.push(',');
    }
}

fn quoted(text: &str, out: &mut String) -> Option<()> {
    if plain::ending(text.as_bytes(), 0).is_some() {
        out.push_str(&serde_json::to_string(text).ok()?);
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
    Some(())
}

/// A number as its digits without zeros at either end, and a power of ten, which for whole numbers that are not long is
/// written in full: exact, whatever its size. A negative zero stays one.
fn number(text: &str, out: &mut String) -> Option<()> {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let exponent: i64 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    let trimmed = digits.trim_end_matches('0');
    let dropped = i64::try_from(digits.len() - trimmed.len()).ok()?;
    let power = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(dropped)?;
    let digits = trimmed.trim_start_matches('0');
    out.push_str(sign);
    out.push_str(if digits.is_empty() { "0" } else { digits });
    let zeros = usize::try_from(power).ok().filter(|zeros| zeros.saturating_add(digits.len()) <= IN_FULL);
    if let Some(zeros) = zeros.filter(|_| !digits.is_empty()) {
        out.extend(std::iter::repeat_n('0', zeros));
    } else if power != 0 && !digits.is_empty() {
        out.push('e');
        out.push_str(itoa::Buffer::new().format(power));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(text: &str) -> Option<String> {
        let mut out = String::new();
        value(serde_json::from_str(text).ok()?, &mut out).map(|()| out)
    }

    #[test]
    fn writings_of_one_value_share_a_form() {
        for (a, b) in [
            (r#"{"b":1,"a":[1.0,2e0]}"#, r#"{ "\u0061" : [10e-1, 2], "b": 1.000 }"#),
            ("100", "1e2"),
            ("-100", "-1.0e2"),
            ("100000000000000", "1e14"),
            ("1000000000000000", "1e15"),
            (r#"{"a":[{"b":10}],"c":"x"}"#, r#"{"c":"x","a":[{"b":1e1}]}"#),
            ("0.5", "5E-1"),
            ("0.0", "0"),
            (r#""\u00e9\/""#, "\"é/\""),
            ("123456789012345678901234567890", "1.2345678901234567890123456789e29"),
        ] {
            assert_eq!(form(a), form(b), "{a} {b}");
            assert!(form(a).is_some());
        }
    }

    #[test]
    fn other_values_have_other_forms() {
        let all = [
            "0",
            "-0",
            "1",
            "-1",
            "10",
            "0.1",
            "\"1\"",
            "[1]",
            "[1,1]",
            "{\"a\":1}",
            "{\"a\":\"1\"}",
            "{\"a\":null}",
            "{}",
            "null",
            "true",
            "\"\"",
            "12345678901234567890",
            "12345678901234567891",
            "1e400",
            "1e401",
        ];
        for (at, a) in all.iter().enumerate() {
            for b in &all[at + 1..] {
                assert_ne!(form(a), form(b), "{a} {b}");
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_has_none() {
        for text in [r#"{"a":1,"a":2}"#, r#"{"a":{"b":1,"\u0062":2}}"#, r#""\ud800""#, "1e99999999999999999999"] {
            assert_eq!(form(text), None, "{text}");
        }
        assert_eq!(form(&format!("{}{}", "[".repeat(100), "]".repeat(100))), None);
    }

    proptest! {
        #[test]
        fn a_form_is_its_own(number in any::<f64>(), text in ".*", whole in any::<i64>()) {
            prop_assume!(number.is_finite());
            let json = serde_json::json!({ "z": number, "a": [text, whole, null, true] }).to_string();
            let once = form(&json).unwrap();
            prop_assert_eq!(form(&once).unwrap(), once);
        }
    }
}
