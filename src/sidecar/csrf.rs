//! Tokens against cross-site request forgery. A token is a random value and its MAC under a key of this process, so
//! nothing is stored; another site can neither make one nor read ours.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

/// Bytes of the random part.
const RANDOM: usize = 16;
/// How long a token is good, in seconds.
const AGE: i64 = 12 * 3600;
/// Bytes before the MAC: the random part and the time of issue.
const SIGNED: usize = RANDOM + 8;

/// Issues and checks tokens.
pub struct Tokens {
    key: hmac::Key,
    random: SystemRandom,
}

impl Tokens {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random).expect("the system has randomness");
        Self { key, random }
    }

    pub fn issue(&self) -> String {
        self.issue_at(jiff::Timestamp::now().as_second())
    }

    fn issue_at(&self, now: i64) -> String {
        let mut token = vec![0; RANDOM];
        self.random.fill(&mut token).expect("the system has randomness");
        token.extend_from_slice(&now.to_be_bytes());
        let mac = hmac::sign(&self.key, &token);
        token.extend_from_slice(mac.as_ref());
        URL_SAFE_NO_PAD.encode(token)
    }

    pub fn is_good(&self, given: Option<&[u8]>) -> bool {
        let token = given.and_then(|value| URL_SAFE_NO_PAD.decode(value).ok()).unwrap_or_default();
        let Some((signed, mac)) = token.split_at_checked(SIGNED) else { return false };
        let issued = signed[RANDOM..].try_into().map(i64::from_be_bytes).unwrap_or_default();
        hmac::verify(&self.key, signed, mac).is_ok() && (0..AGE).contains(&(jiff::Timestamp::now().as_second() - issued))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_fresh_tokens_are_good() {
        let tokens = Tokens::new();
        let good = |token: &str| tokens.is_good(Some(token.as_bytes()));
        assert!(good(&tokens.issue()));
        assert!(!good(&Tokens::new().issue()));
        assert!(!good(&tokens.issue_at(jiff::Timestamp::now().as_second() - AGE)));
        assert!(!good("") && !good("AAAA") && !tokens.is_good(None));
    }
}
