//! Sealed session ids. What a legacy client sees as `Mcp-Session-Id` is the upstream's id and the backend that gave it,
//! sealed (AES-256-GCM, RFC 5116) under a key all replicas share and bound to the server it was opened on. So any replica
//! can continue any session without a shared store, and no client can forge one, move it to another server or read where
//! its backend is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hkdf};

/// Longest upstream session id we seal; the specification gives no bound.
const MAX_UPSTREAM_ID: usize = 1024;

/// A session as the upstream knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Name of the backend that opened it.
    pub backend: String,
    /// The address of the backend that opened it; a name may stand for several instances.
    pub address: String,
    /// The id the backend gave.
    pub id: String,
}

/// Seals and opens session ids.
pub struct Sealer {
    key: LessSafeKey,
    random: SystemRandom,
}

impl Sealer {
    /// Derives the key from `secret` (HKDF-SHA256, RFC 5869), so that a secret of any length and form serves.
    pub fn new(secret: &[u8]) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"mcp-gateway session v1");
        let prk = salt.extract(secret);
        let okm = prk.expand(&[b"mcp-session-id"], &AES_256_GCM).expect("one key is within HKDF's bounds");
        Self { key: LessSafeKey::new(UnboundKey::from(okm)), random: SystemRandom::new() }
    }

    /// The id to show the client; `None` if the upstream's id is not one we can carry.
    pub fn seal(&self, server: &str, subject: &str, session: &Session) -> Option<String> {
        let fits = !session.id.is_empty() && session.id.len() <= MAX_UPSTREAM_ID && session.id.bytes().all(|b| b.is_ascii_graphic());
        if !fits {
            return None;
        }
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut sealed = format!("{}\n{}\n{}", session.backend, session.address, session.id).into_bytes();
        let aad = Aad::from(binding(server, subject));
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        let mut token = nonce.to_vec();
        token.extend_from_slice(&sealed);
        Some(URL_SAFE_NO_PAD.encode(token))
    }

    /// The session behind an id we gave to `subject` on `server`; `None` for anything else.
    pub fn open(&self, server: &str, subject: &str, token: &str) -> Option<Session> {
        let mut token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (nonce, sealed) = token.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::from(binding(server, subject)), sealed).ok()?;
        let (backend, rest) = std::str::from_utf8(plain).ok()?.split_once('\n')?;
        let (address, id) = rest.split_once('\n')?;
        Some(Session { backend: backend.to_owned(), address: address.to_owned(), id: id.to_owned() })
    }
}

/// Both parts are hashed apart, so that no pair of server and subject reads like another.
fn binding(server: &str, subject: &str) -> [u8; 64] {
    let mut bound = [0; 64];
    bound[..32].copy_from_slice(digest::digest(&digest::SHA256, server.as_bytes()).as_ref());
    bound[32..].copy_from_slice(digest::digest(&digest::SHA256, subject.as_bytes()).as_ref());
    bound
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session() -> Session {
        Session { backend: "primary".into(), address: "10.0.0.1:80".into(), id: "abc-123".into() }
    }

    #[test]
    fn only_its_own_server_subject_and_key_open_a_session() {
        let sealer = Sealer::new(b"0123456789abcdef");
        let token = sealer.seal("files", "ann", &session()).unwrap();
        assert_eq!(sealer.open("files", "ann", &token), Some(session()));
        assert_eq!(Sealer::new(b"0123456789abcdef").open("files", "ann", &token), Some(session()), "another replica");
        assert_eq!(sealer.open("other", "ann", &token), None);
        assert_eq!(sealer.open("files", "bob", &token), None);
        assert_eq!(Sealer::new(b"another secret!!").open("files", "ann", &token), None);
        assert!(sealer.seal("files", "ann", &Session { id: "a\nb".into(), ..session() }).is_none());
    }

    proptest! {
        #[test]
        fn no_other_text_opens(at in 0usize..60, bit in 0u8..8, noise in ".{0,80}") {
            let sealer = Sealer::new(b"0123456789abcdef");
            let mut token = sealer.seal("files", "ann", &session()).unwrap().into_bytes();
            let at = at % token.len();
            token[at] ^= 1 << bit;
            prop_assert_eq!(String::from_utf8(token).ok().and_then(|token| sealer.open("files", "ann", &token)), None);
            prop_assert_eq!(sealer.open("files", "ann", &noise), None);
        }
    }
}
