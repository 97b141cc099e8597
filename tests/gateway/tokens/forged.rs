//! What is not to be admitted, first part: signatures that are missing, of the wrong kind, or somebody else's. Each case
//! is an honest token with one thing wrong, so that nothing but that one thing can be why it is refused.

use std::fmt::Display;

use serde_json::json;

use super::key::{Key, pem};
use super::realm::{Idp, Trap, auth, issuer};
use super::token::{Token, b64, from_now, segments, unb64};
use super::{claims, headers, shapes};

/// A request by the values of its `Authorization` headers.
pub struct Case {
    pub name: String,
    pub headers: Vec<String>,
}

pub fn bearer(name: impl Into<String>, token: impl Display) -> Case {
    Case { name: name.into(), headers: vec![format!("Bearer {token}")] }
}

pub const IDP: &str = "https://idp.example";
pub const RSA: &str = "https://rsa.example";
pub const ED: &str = "https://ed.example";
pub const SHARED: &str = "https://shared.example";
/// Has two keys of one kind.
pub const TWO: &str = "https://two.example";
/// Publishes keys not fit for use beside one that is.
pub const ODD: &str = "https://odd.example";

/// A key of 1024 bits and a token it signed, made with `openssl` because our library makes none that small. The token is
/// honest in all else and expires in 2100.
const WEAK_MODULUS: &str = "vl3Ggvf2ao3s29Avw3jZXq69nTicVyrsjE7m-nakbC65XkUK17LNr0zi5Ba7jnnUErf3cjZJ0ogiDp4goePAHm0Wxzrs6Q0LoMA_2-LHztlPPtGvEpht8f8Y0TqAfgcjRkW5WlZHylpOn8wB9TE6Y1rnZ11PyYNHiQwxnKbPIJU";
pub const WEAK_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IndlYWsiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL29kZC5leGFtcGxlIiwiYXVkIjoiZ2F0ZXdheSIsInN1YiI6ImFsaWNlIiwiZXhwIjo0MTAyNDQ0ODAwLCJzY29wZSI6InJlYWQgd3JpdGUiLCJvcmciOiJhY21lIiwicm9sZXMiOlsidXNlciJdLCJwbGFuIjoiZnJlZSJ9.Cr1Mr3moTMkVI6sEHIjWNlfRmfRloSayvdidHfPv6tGyP99NvBfQvJAXzaazL5FAnljBwaDGI7vUycImCd4WyIT2n64N4vyF5-fB1U-SoWsrb-4Q-Co-8tvQzim5ciG4FoVSEzFldwGzsYQWVlBOQEoFK8zhurR-eNIuTp41n80";

/// The issuers the gateway trusts, their keys, and a thief with keys and a server of its own.
pub struct World {
    idp: Idp,
    pub trap: Trap,
    pub es: Key,
    pub rsa: Key,
    pub ed: Key,
    pub hs: Key,
    pub two: [Key; 2],
    pub odd: Odd,
    /// Keys the gateway was never told of, under names it knows.
    pub thief: Key,
    pub thief_rsa: Key,
    /// A token the gateway has admitted before any case is tried.
    pub admitted: String,
}

/// The keys of [`ODD`].
pub struct Odd {
    pub good: Key,
    pub encrypting: Key,
    pub misfit: Key,
    pub misfit_rsa: Key,
    pub twins: [Key; 2],
    pub oct: Key,
}

impl World {
    pub async fn start() -> Self {
        let es = Key::new("ES256", "es-1");
        let admitted = Token::of(IDP, &es).compact();
        let odd = Odd {
            good: Key::new("ES256", "good"),
            encrypting: Key::new("ES256", "encrypting"),
            misfit: Key::new("ES256", "misfit"),
            misfit_rsa: Key::new("RS256", "misfit-rsa"),
            twins: [Key::new("ES256", "twin"), Key::new("ES256", "twin")],
            oct: Key::secret("HS256", "an-octet-key-in-a-public-key-set").named("oct"),
        };
        Self {
            idp: Idp::start().await,
            trap: Trap::start().await,
            es,
            rsa: Key::new("RS256", "rsa-1"),
            ed: Key::new("EdDSA", "ed-1"),
            hs: Key::secret("HS256", "a-secret-shared-by-the-gateway-and-its-issuer"),
            two: [Key::new("ES256", "two-1"), Key::new("ES256", "two-2")],
            odd,
            thief: Key::new("ES256", "es-1"),
            thief_rsa: Key::new("RS256", "rsa-1"),
            admitted,
        }
    }

    /// Publishes the keys and says where.
    pub fn yaml(&self) -> String {
        let odd = &self.odd;
        let weak = json!({ "kty": "RSA", "kid": "weak", "n": WEAK_MODULUS, "e": "AQAB" });
        let odd = [
            odd.good.jwk_with(&json!({ "use": "sig", "alg": "ES256" })),
            odd.encrypting.jwk_with(&json!({ "use": "enc" })),
            odd.misfit.jwk_with(&json!({ "alg": "ES384" })),
            odd.misfit_rsa.jwk_with(&json!({ "alg": "RS512" })),
            odd.twins[0].jwk(),
            odd.twins[1].jwk(),
            odd.oct.jwk_with(&json!({ "alg": "HS256" })),
            weak,
        ];
        auth(&[
            issuer(IDP, "ES256", &self.idp.publish("/jwks.json", &[self.es.jwk()])),
            issuer(RSA, "RS256, PS256", &self.idp.publish("/rsa.json", &[self.rsa.jwk()])),
            issuer(ED, "EdDSA", &self.idp.publish("/ed.json", &[self.ed.jwk()])),
            issuer(TWO, "ES256", &self.idp.publish("/two.json", &[self.two[0].jwk(), self.two[1].jwk()])),
            issuer(ODD, "ES256, RS256", &self.idp.publish("/odd.json", &odd)),
            issuer(SHARED, "HS256", &format!("secret: {}", String::from_utf8(self.hs.bare()).expect("text"))),
        ])
    }

    /// One honest token of each issuer: what the forged ones are made from.
    pub fn honest(&self) -> Vec<Case> {
        let honest = [
            ("ES256", self.admitted.clone()),
            ("RS256", self.rsa().compact()),
            ("PS256", self.rsa().alg("PS256").compact()),
            ("EdDSA", self.ed().compact()),
            ("HS256", self.hs().compact()),
            ("one of two keys", Token::of(TWO, &self.two[0]).compact()),
            ("a good key beside bad ones", Token::of(ODD, &self.odd.good).compact()),
        ];
        honest.into_iter().map(|(name, token)| bearer(format!("honest {name}"), token)).collect()
    }

    pub fn es(&self) -> Token<'_> {
        Token::of(IDP, &self.es)
    }

    pub fn rsa(&self) -> Token<'_> {
        Token::of(RSA, &self.rsa)
    }

    pub fn ed(&self) -> Token<'_> {
        Token::of(ED, &self.ed)
    }

    pub fn hs(&self) -> Token<'_> {
        Token::of(SHARED, &self.hs)
    }

    /// Every case there is.
    pub fn forged(&self) -> Vec<Case> {
        let groups = [
            unsigned(self),
            confused(self),
            unpinned(self),
            strangers(self),
            tampered(self),
            signatures(self),
            shapes::segments_and_text(self),
            shapes::carriers(self),
            headers::parameters(self),
            headers::keys(self),
            headers::names(self),
            claims::times(self),
            claims::parties(self),
            claims::payloads(self),
        ];
        groups.into_iter().flatten().collect()
    }
}

/// No algorithm, hence no signature (CVE-2015-9235; Auth0 took `nonE` in 2020), or an empty one that passes for the
/// right one because nothing differs (CVE-2020-28042).
fn unsigned(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    for (issuer, honest) in [("es", world.es()), ("hs", world.hs())] {
        for alg in ["none", "None", "NONE", "nOnE", ""] {
            let token = honest.clone().head("alg", alg);
            cases.push(bearer(format!("{issuer}: alg `{alg}`, empty signature"), token.signed_with("")));
            cases.push(bearer(format!("{issuer}: alg `{alg}`, no third segment"), token.unsigned()));
            cases.push(bearer(format!("{issuer}: alg `{alg}`, some signature"), token.signed_with([0])));
            cases.push(bearer(format!("{issuer}: alg `{alg}`, the true signature"), token.compact()));
        }
        let missing = honest.clone().headless("alg");
        cases.push(bearer(format!("{issuer}: no alg, empty signature"), missing.signed_with("")));
        cases.push(bearer(format!("{issuer}: no alg, the true signature"), missing.compact()));
        cases.push(bearer(format!("{issuer}: empty signature under the true alg"), honest.signed_with("")));
    }
    // Truly signed, but by an algorithm whose name is not one.
    for alg in [json!("es256"), json!("ES256 "), json!("ES256\u{0}"), json!(256), json!(null), json!(["ES256"]), json!({ "ES256": 1 })] {
        cases.push(bearer(format!("alg {alg}"), world.es().head("alg", alg).compact()));
    }
    cases
}

/// The public key taken for the secret of an HMAC (CVE-2015-9235, CVE-2016-10555), in every form that has once slipped
/// past a filter: PKCS#1 (CVE-2023-48223), a blank line in front (its 2026 sequel), DER, other key texts
/// (CVE-2022-29217, CVE-2024-33663).
fn confused(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, honest, key) in [("RSA", world.rsa(), &world.rsa), ("EC", world.es(), &world.es), ("Ed25519", world.ed(), &world.ed)] {
        let forms: [(&str, Vec<u8>); 8] = [
            ("PEM", key.pem().into()),
            ("PEM without its last newline", key.pem().trim_end().into()),
            ("PEM after a newline", format!("\n{}", key.pem()).into()),
            ("PEM of the bare key", pem("RSA PUBLIC KEY", &key.bare()).into()),
            ("DER", key.der()),
            ("bare key", key.bare()),
            ("JWK", key.jwk().to_string().into()),
            ("first number", unb64(key.jwk()[if kind == "RSA" { "n" } else { "x" }].as_str().expect("text"))),
        ];
        for (form, bytes) in forms {
            let secret = Key::secret("HS256", bytes);
            cases.push(bearer(format!("HS256 with the {kind} key's {form}"), honest.clone().alg("HS256").by(&secret).compact()));
        }
    }
    // The issuer that does take HS256 must not take it from anybody's public key either.
    let secret = Key::secret("HS256", world.rsa.pem());
    cases.push(bearer("HS256 of the HS256 issuer with the RSA key's PEM", world.hs().by(&secret).compact()));
    cases
}

/// True signatures by algorithms that are not this issuer's (RFC 8725 §3.1).
fn unpinned(world: &World) -> Vec<Case> {
    let mut cases = Vec::new();
    for alg in ["RS384", "RS512", "PS384", "PS512"] {
        cases.push(bearer(format!("{alg} where RS256 and PS256 are pinned"), world.rsa().alg(alg).compact()));
    }
    for alg in ["HS384", "HS512"] {
        cases.push(bearer(format!("{alg} where HS256 is pinned"), world.hs().alg(alg).compact()));
    }
    for alg in ["ES384", "ES512", "ES256K", "PS256", "RS256", "EdDSA", "Ed25519", "HS256"] {
        cases.push(bearer(format!("a P-256 signature called {alg}"), world.es().head("alg", alg).compact()));
    }
    let p384 = Key::new("ES384", "es-1");
    let foreign = [
        ("RS256 for the ES256 issuer", Token::of(IDP, &world.rsa)),
        ("RS256 for the ES256 issuer, under its kid", world.es().alg("RS256").by(&world.rsa)),
        ("EdDSA for the ES256 issuer", Token::of(IDP, &world.ed)),
        ("HS256 for the ES256 issuer", Token::of(IDP, &world.hs)),
        ("ES384 for the ES256 issuer", Token::of(IDP, &p384)),
        ("ES256 for the RSA issuer", Token::of(RSA, &world.es)),
        ("ES256 for the RSA issuer, under its kid", world.rsa().alg("ES256").by(&world.es)),
        ("ES256 for the EdDSA issuer", Token::of(ED, &world.es)),
        ("RS256 for the HS256 issuer", Token::of(SHARED, &world.rsa)),
        ("HS256 for the RSA issuer", Token::of(RSA, &world.hs)),
        ("HS256 by the octets in a key set", Token::of(ODD, &world.odd.oct)),
        ("HS256 by the octets in a key set, for the HS256 issuer", Token::of(SHARED, &world.odd.oct)),
    ];
    cases.extend(foreign.into_iter().map(|(name, token)| bearer(name, token.compact())));
    cases
}

/// Keys of somebody else: true signatures that prove nothing.
fn strangers(world: &World) -> Vec<Case> {
    let guesses = ["", "\0", "secret", "a-secret-shared-by-the-gateway-and-its-issue"];
    let guess = |secret: &str| world.hs().by(&Key::secret("HS256", secret)).compact();
    let mut cases: Vec<Case> = guesses.iter().map(|secret| bearer(format!("HS256 with the secret {secret:?}"), guess(secret))).collect();
    let stolen = [
        ("a thief's key under a known kid", world.es().by(&world.thief)),
        ("a thief's key without kid", world.es().by(&world.thief).headless("kid")),
        ("a thief's RSA key under a known kid", world.rsa().by(&world.thief_rsa)),
        ("a thief's RSA key, PS256", world.rsa().alg("PS256").by(&world.thief_rsa)),
        // Each of these is a key the gateway trusts, for another issuer (RFC 8725 §3.8).
        ("another issuer's key", Token::of(IDP, &world.two[0])),
        ("another issuer's key without kid", Token::of(IDP, &world.two[0]).headless("kid")),
        ("another issuer's key under our kid", Token::of(IDP, &world.two[0]).head("kid", "es-1")),
        ("the right key under another issuer's name", Token::of(TWO, &world.es)),
        ("the right key under another issuer's name and kid", Token::of(TWO, &world.es).head("kid", "two-1")),
        ("the right RSA key under another issuer's name", Token::of(ODD, &world.rsa)),
    ];
    cases.extend(stolen.into_iter().map(|(name, token)| bearer(name, token.compact())));
    cases
}

/// A token that was admitted, changed afterwards. Whoever remembers admitted tokens must remember all of each.
fn tampered(world: &World) -> Vec<Case> {
    let [header, payload, signature] = segments(&world.admitted);
    let changed = |segment: &str, from: &str, to: &str| {
        let text = String::from_utf8(unb64(segment)).expect("UTF-8");
        assert!(text.contains(from), "{from} is in {text}");
        b64(text.replace(from, to))
    };
    let flipped = |at: usize, bit: u8| {
        let mut bytes = unb64(signature);
        bytes[at] ^= bit;
        b64(bytes)
    };
    let late = format!("\"exp\":{}", from_now(3000));
    let expiry = String::from_utf8(unb64(payload)).expect("UTF-8").split(',').find(|m| m.contains("\"exp\"")).expect("exp").to_owned();
    let expiry = expiry.trim_start_matches('{').to_owned();
    let other = world.es().claim("sub", "bob").compact();
    let [_, other_payload, other_signature] = segments(&other);
    vec![
        // `j` differs from `J`, `d` from `e` and so on by one bit.
        bearer("a bit flipped in the header", format!("{}.{payload}.{signature}", changed(header, "JWT", "jWT"))),
        bearer("a bit flipped in the payload", format!("{header}.{}.{signature}", changed(payload, "acme", "acmd"))),
        bearer("the first bit of the signature flipped", format!("{header}.{payload}.{}", flipped(0, 0x80))),
        bearer("the last bit of the signature flipped", format!("{header}.{payload}.{}", flipped(63, 1))),
        bearer("another subject", format!("{header}.{}.{signature}", changed(payload, "alice", "admin"))),
        bearer("another role", format!("{header}.{}.{signature}", changed(payload, "\"user\"", "\"user\",\"admin\""))),
        bearer("a later expiry", format!("{header}.{}.{signature}", changed(payload, &expiry, &late))),
        bearer("the signature of another token", format!("{header}.{payload}.{other_signature}")),
        bearer("the payload of another token", format!("{header}.{other_payload}.{signature}")),
        bearer("signature and payload exchanged", format!("{header}.{signature}.{payload}")),
    ]
}

/// The order of P-256: a number that is zero to the curve without being zero.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84,
    0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// Signatures of the wrong form or with numbers for which careless arithmetic holds.
fn signatures(world: &World) -> Vec<Case> {
    let (es, rsa, ed, hs) = (world.es(), world.rsa(), world.ed(), world.hs());
    let true_es = es.sign(&es.unsigned());
    let true_rsa = rsa.sign(&rsa.unsigned());
    let mut one = [0; 64];
    (one[31], one[63]) = (1, 1);
    let mut rsa_one = [0; 256];
    rsa_one[255] = 1;
    // The neutral element and zero: true for every message under a key of small order.
    let mut neutral = [0; 64];
    neutral[0] = 1;
    vec![
        // "Psychic signatures", CVE-2022-21449: Java took r = s = 0 for anything.
        bearer("r = s = 0", es.signed_with([0; 64])),
        bearer("r = s = the order", es.signed_with([ORDER, ORDER].concat())),
        bearer("r = s = 1", es.signed_with(one)),
        bearer("r and s exchanged", es.signed_with([&true_es[32..], &true_es[..32]].concat())),
        bearer("r alone", es.signed_with(&true_es[..32])),
        bearer("a byte short", es.signed_with(&true_es[..63])),
        bearer("a byte more", es.signed_with([&true_es[..], &[0]].concat())),
        bearer("ASN.1 instead of r and s", es.signed_with(world.es.sign_der(es.unsigned().as_bytes()))),
        bearer("base64 twice", es.signed_with(b64(&true_es))),
        bearer("RSA signature zero", rsa.signed_with([0; 256])),
        bearer("RSA signature one", rsa.signed_with(rsa_one)),
        bearer("RSA signature a byte short", rsa.signed_with(&true_rsa[..255])),
        bearer("RSA signature after a zero", rsa.signed_with([&[0], &true_rsa[..]].concat())),
        bearer("PSS called RS256", rsa.clone().alg("PS256").head("alg", "RS256").compact()),
        bearer("PKCS#1 called PS256", rsa.clone().head("alg", "PS256").compact()),
        bearer("SHA-512 called RS256", rsa.clone().alg("RS512").head("alg", "RS256").compact()),
        bearer("Ed25519 signature zero", ed.signed_with([0; 64])),
        bearer("Ed25519 neutral element", ed.signed_with(neutral)),
        bearer("half of the HMAC", hs.signed_with(&hs.sign(&hs.unsigned())[..16])),
        bearer("one byte of the HMAC", hs.signed_with(&hs.sign(&hs.unsigned())[..1])),
        bearer("an HMAC and more", hs.signed_with([&hs.sign(&hs.unsigned())[..], &[0]].concat())),
        bearer("HS512 called HS256", hs.clone().alg("HS512").head("alg", "HS256").compact()),
    ]
}
