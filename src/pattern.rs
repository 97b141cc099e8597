//! What configuration compares a name with: a word, a glob or anything. Most are words or beginnings of words, which a
//! comparison answers in a fraction of the time that a glob takes, on every request.

use globset::GlobMatcher;

/// A text to compare with.
pub enum Pattern {
    Any,
    Exactly(String),
    /// Whatever is none of these.
    NoneOf(Vec<String>),
    /// What a glob with its only `*` at the end says, a good deal faster.
    Begins(String),
    Glob(GlobMatcher),
}

impl Pattern {
    /// Reads one. Without one any text fits, and none at all; `*` is any text.
    pub fn new(written: Option<&str>) -> Self {
        let is_plain = |text: &str| !text.contains(['*', '?', '[', ']', '{', '}', '\\']);
        match written {
            None => Self::Any,
            Some(text) if is_plain(text) => Self::Exactly(text.to_owned()),
            Some(text) if text.strip_suffix('*').is_some_and(is_plain) => Self::Begins(text.trim_end_matches('*').to_owned()),
            // One that does not compile was refused with the configuration.
            Some(text) => globset::Glob::new(text).map_or(Self::Exactly(text.to_owned()), |glob| Self::Glob(glob.compile_matcher())),
        }
    }

    /// Whether a text, or the lack of one, is what it says.
    pub fn fits(&self, text: Option<&str>) -> bool {
        match (self, text) {
            (Self::Any, _) => true,
            (_, None) => false,
            (Self::Exactly(wanted), Some(text)) => wanted == text,
            (Self::NoneOf(others), Some(text)) => others.iter().all(|other| other != text),
            (Self::Begins(start), Some(text)) => text.starts_with(start.as_str()),
            (Self::Glob(glob), Some(text)) => glob.is_match(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_beginnings_say_what_their_globs_do() {
        for written in ["read", "read_*", "*", "re?d", "{read,write}", "[rw]*", "*_file", "", "a**"] {
            let (pattern, glob) = (Pattern::new(Some(written)), globset::Glob::new(written).unwrap().compile_matcher());
            for text in ["read", "read_file", "write", "reed", "", "a", "a/b", "read_"] {
                assert_eq!(pattern.fits(Some(text)), glob.is_match(text), "{written} {text}");
            }
            assert!(!pattern.fits(None), "{written}");
        }
        assert!(Pattern::new(None).fits(None));
    }
}
