//! `Accept-Encoding` (RFC 9110 §12.5.3): what a caller says it takes, and which of ours that makes best.

use super::Coding;

/// Whole; a weight counts thousandths.
const MOST: u16 = 1000;

/// What a caller takes. Of what is named twice the first weight counts. Where a weight cannot be read, a coding is not taken
/// and plain bytes are not refused: a typing mistake never brings what somebody may not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    codings: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    /// `*`: whatever is not named.
    others: Option<u16>,
}

impl Accepted {
    /// Reads the values of all the fields of that name.
    pub fn read<'v>(values: impl Iterator<Item = &'v [u8]>) -> Self {
        let mut accepted = Self::default();
        for element in values.flat_map(|value| value.split(|byte| *byte == b',')) {
            let (name, weight) = parsed(element);
            accepted.note(name, weight);
        }
        accepted
    }

    fn note(&mut self, name: &[u8], weight: Option<u16>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("identity") {
            self.identity = self.identity.or(weight);
        } else if name == b"*" {
            self.others = self.others.or(weight);
        } else {
            // `x-gzip` is the same (RFC 9110 §8.4.1.3).
            let named = |coding: &Coding| is(coding.name()) || (*coding == Coding::Gzip && is("x-gzip"));
            if let Some(coding) = Coding::ALL.into_iter().find(named) {
                self.codings[coding as usize].get_or_insert(weight.unwrap_or(0));
            }
        }
    }

    /// The best of `offered`, which come in our order of preference; `None` where it is best to send the bytes as they are.
    /// Who takes a coding gets it, unless it says to like the plain bytes better.
    pub fn choose(&self, offered: &[Coding]) -> Option<Coding> {
        let mut best = None;
        let mut most = 0;
        for coding in offered {
            let weight = self.codings[*coding as usize].or(self.others).unwrap_or(0);
            if weight > most {
                (best, most) = (Some(*coding), weight);
            }
        }
        best.filter(|_| self.identity.is_none_or(|identity| identity <= most))
    }

    /// Whether the bytes as they are would be refused: by name, or by `*` where they are not named.
    pub fn refuses_identity(&self) -> bool {
        self.identity.or(self.others) == Some(0)
    }
}

/// Name and weight of an element: `gzip`, `br;q=0.5`.
fn parsed(element: &[u8]) -> (&[u8], Option<u16>) {
    let Some(at) = element.iter().position(|byte| *byte == b';') else { return (trimmed(element), Some(MOST)) };
    let (name, rest) = element.split_at(at);
    let weight = match trimmed(&rest[1..]) {
        [b'q' | b'Q', b'=', value @ ..] => thousandths(value),
        _ => None,
    };
    (trimmed(name), weight)
}

/// A `qvalue`: 0 to 1 with up to three decimals.
fn thousandths(value: &[u8]) -> Option<u16> {
    let (whole, decimals) = match value {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut weight = u16::from(whole - b'0') * MOST;
    for (digit, unit) in decimals.iter().zip([100, 10, 1]) {
        weight += u16::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?) * unit;
    }
    (weight <= MOST).then_some(weight)
}

/// Without the optional white space of RFC 9110 §5.6.3.
fn trimmed(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepted(values: &[&str]) -> Accepted {
        Accepted::read(values.iter().map(|value| value.as_bytes()))
    }

    /// What comes of a list where all three are offered, zstd first: its name, and `!` where plain bytes are refused.
    fn chosen(values: &[&str]) -> String {
        let accepted = accepted(values);
        let name = accepted.choose(&Coding::ALL).map_or("", Coding::name);
        format!("{name}{}", if accepted.refuses_identity() { "!" } else { "" })
    }

    #[test]
    fn weights_decide_then_our_order() {
        for (list, expected) in [
            ("", ""),
            ("gzip", "gzip"),
            ("gzip, deflate", "gzip"),
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip;q=1.0, br;q=0.9, zstd;q=0.8", "gzip"),
            ("GZIP , BR;Q=0.5", "gzip"),
            ("x-gzip", "gzip"),
            ("br;q=0.001", "br"),
            ("br;q=0", ""),
            ("br;q=0.000, gzip;q=0.", ""),
            ("*", "zstd"),
            ("*;q=0.5, gzip", "gzip"),
            ("zstd;q=0, *", "br"),
            ("*;q=0", "!"),
            ("*;q=0, gzip", "gzip!"),
            ("*;q=0, identity", ""),
            ("identity", ""),
            ("identity;q=0", "!"),
            ("identity;q=0, br", "br!"),
            ("identity;q=0.5, gzip;q=0.4", ""),
            ("identity;q=0.5, gzip;q=0.5", "gzip"),
            ("deflate, compress", ""),
            ("gzip;q=1.001", ""),
            ("gzip;q=2", ""),
            ("gzip;q=0.1234", ""),
            ("gzip;q=.5", ""),
            ("gzip;q= 0.5", ""),
            ("gzip;q=", ""),
            ("gzip;", ""),
            ("gzip;level=9", ""),
            ("gzip;q=no, *", "zstd"),
            ("zstd;q=no, *", "br"),
            ("identity;q=no, br", "br"),
            ("*;q=no", ""),
            ("identity;q=no, identity;q=0", "!"),
            ("gzip;q=0, gzip", ""),
            (" ,, gzip ,", "gzip"),
            ("gzip\t;\tq=0.3 ,\tbr;q=0.2", "gzip"),
            ("gzipped, zstd2, b", ""),
        ] {
            assert_eq!(chosen(&[list]), expected, "{list:?}");
        }
    }

    #[test]
    fn several_fields_are_one_list_and_only_what_is_offered_is_chosen() {
        assert_eq!(chosen(&["gzip;q=0.2", "br"]), "br");
        assert_eq!(chosen(&[]), "");
        assert_eq!(accepted(&["zstd, gzip;q=0.1"]).choose(&[Coding::Gzip]), Some(Coding::Gzip));
        assert_eq!(accepted(&["gzip, br"]).choose(&[Coding::Gzip, Coding::Brotli]), Some(Coding::Gzip));
        assert_eq!(accepted(&["*"]).choose(&[]), None);
    }

    /// The same by plain words: every element as text with a number, looked up by name.
    fn reference(list: &str) -> (Option<&'static str>, bool) {
        let elements: Vec<(String, f64)> = list
            .split(',')
            .filter_map(|element| {
                let (name, rest) = element.split_once(';').map_or((element, None), |(name, rest)| (name, Some(rest)));
                let ows: &[char] = &[' ', '\t'];
                let weight = rest.map_or(Some(1.0), |rest| {
                    let value = rest.trim_matches(ows).to_ascii_lowercase().strip_prefix("q=")?.to_owned();
                    let fits = value.len() <= 5 && matches!(value.get(..2), None | Some("0." | "1."));
                    let number = value.parse::<f64>().ok().filter(|_| fits && value.starts_with(['0', '1']))?;
                    Some(number).filter(|number| (0.0..=1.0).contains(number))
                });
                let name = name.trim_matches(ows).to_ascii_lowercase().replace("x-gzip", "gzip");
                let weight = weight.or((name != "identity" && name != "*").then_some(0.0))?;
                Some((name, weight))
            })
            .collect();
        let told = |name: &str| elements.iter().find(|(told, _)| told == name).map(|(_, weight)| *weight);
        let weight = |name: &str| told(name).or(told("*")).unwrap_or(0.0);
        let most = ["zstd", "br", "gzip"].map(weight).into_iter().fold(0.0, f64::max);
        let best = ["zstd", "br", "gzip"].into_iter().find(|name| most > 0.0 && weight(name) >= most);
        (best.filter(|_| told("identity").is_none_or(|identity| identity <= most)), told("identity").or(told("*")) == Some(0.0))
    }

    fn ours(list: &str) -> (Option<&'static str>, bool) {
        let accepted = accepted(&[list]);
        (accepted.choose(&Coding::ALL).map(Coding::name), accepted.refuses_identity())
    }

    proptest! {
        #[test]
        fn lists_mean_what_plain_words_say(
            parts in prop::collection::vec(
                ("(gzip|x-gzip|br|zstd|identity|deflate|\\*|GZip| br )", "(|;q=0|;q=1|; q=0\\.[0-9]{1,3}|;Q=1\\.0{0,3}|;q=[0-9.]{0,6}|;x=1| ;\tq=0\\.5 )"),
                0..6,
            ),
        ) {
            let list = parts.iter().map(|(name, weight)| format!("{name}{weight}")).collect::<Vec<_>>().join(",");
            prop_assert_eq!(ours(&list), reference(&list), "{}", list);
        }

        #[test]
        fn nothing_panics(value in prop::collection::vec(any::<u8>(), 0..64)) {
            let accepted = Accepted::read([value.as_slice()].into_iter());
            let _ = (accepted.choose(&Coding::ALL), accepted.refuses_identity());
        }
    }
}
