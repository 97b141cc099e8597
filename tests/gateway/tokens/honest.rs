//! What is to be admitted: the positive twin of every case that is not.

use serde_json::json;

use super::forged::{Case, bearer};
use super::key::Key;
use super::realm::{Idp, auth, issuer};
use super::shapes::LIMIT;
use super::token::{Token, from_now};

const HS: [&str; 3] = ["HS256", "HS384", "HS512"];
const RSA: [&str; 6] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
const CURVES: [&str; 3] = ["ES256", "ES384", "EdDSA"];
/// Long enough for every hash.
const SECRET: &str = "a-secret-of-eighty-characters-so-that-it-is-longer-than-the-longest-hash-we-take";
const SEVERAL: &str = "https://several.example";

/// An issuer for each algorithm, and one with several keys.
pub struct Realm {
    idp: Idp,
    hs: Vec<Key>,
    rsa: Key,
    curves: Vec<Key>,
    several: Vec<Key>,
}

fn name(alg: &str) -> String {
    format!("https://{}.example", alg.to_lowercase())
}

impl Realm {
    pub async fn start() -> Self {
        let several = vec![Key::new("ES256", "first"), Key::new("ES256", "second"), Key::new("EdDSA", "third")];
        Self {
            idp: Idp::start().await,
            hs: HS.iter().map(|alg| Key::secret(alg, SECRET)).collect(),
            rsa: Key::new("RS256", "rsa"),
            curves: CURVES.iter().map(|alg| Key::new(alg, &format!("key-of-{alg}"))).collect(),
            several,
        }
    }

    /// Publishes the keys and says where.
    pub fn yaml(&self) -> String {
        let publish = |path: String, keys: &[&Key]| {
            let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
            self.idp.publish(&path, &keys)
        };
        let mut issuers: Vec<String> = HS.iter().map(|alg| issuer(&name(alg), alg, &format!("secret: {SECRET}"))).collect();
        issuers.extend(RSA.iter().map(|alg| issuer(&name(alg), alg, &publish(format!("/{alg}.json"), &[&self.rsa]))));
        issuers.extend(self.curves.iter().map(|key| issuer(&name(key.alg), key.alg, &publish(format!("/{}.json", key.alg), &[key]))));
        let several: Vec<&Key> = self.several.iter().collect();
        issuers.push(issuer(SEVERAL, "ES256, EdDSA", &publish("/several.json".into(), &several)));
        auth(&issuers)
    }

    fn es(&self) -> Token<'_> {
        Token::of(&name("ES256"), &self.curves[0])
    }

    pub fn cases(&self) -> Vec<Case> {
        let mut cases = self.algorithms();
        cases.extend(self.headers());
        cases.extend(self.claims());
        cases
    }

    fn algorithms(&self) -> Vec<Case> {
        let mut tokens: Vec<(&str, Token)> =
            self.hs.iter().chain(&self.curves).map(|key| (key.alg, Token::of(&name(key.alg), key))).collect();
        tokens.extend(RSA.iter().map(|alg| (*alg, Token::of(&name(alg), &self.rsa).alg(alg))));
        let mut cases = Vec::new();
        for (alg, token) in tokens {
            cases.push(bearer(alg, token.compact()));
            cases.push(bearer(format!("{alg} without kid, where one key fits"), token.headless("kid").compact()));
        }
        cases.extend(self.several.iter().map(|key| bearer(format!("kid {}", key.kid), Token::of(SEVERAL, key).compact())));
        let third = Token::of(SEVERAL, &self.several[2]).headless("kid");
        cases.push(bearer("no kid, and of three keys one fits the algorithm", third.compact()));
        cases
    }

    fn headers(&self) -> Vec<Case> {
        let mut cases = vec![
            bearer("no typ", self.es().headless("typ").compact()),
            bearer("a header parameter nobody reads", self.es().head("x-note", json!({ "a": [1, null] })).compact()),
        ];
        for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/at+JWT"] {
            cases.push(bearer(format!("typ {typ}"), self.es().head("typ", typ).compact()));
        }
        for scheme in ["bearer", "BEARER"] {
            cases.push(Case { name: format!("scheme {scheme}"), headers: vec![format!("{scheme} {}", self.es().compact())] });
        }
        let long = self.es().stretched(LIMIT, 0);
        assert!((LIMIT - 4..=LIMIT).contains(&long.len()), "{} is barely short enough", long.len());
        cases.push(bearer("as long as may be", long));
        cases
    }

    fn claims(&self) -> Vec<Case> {
        let es = || self.es();
        let tokens = [
            ("aud in an array", es().claim("aud", json!(["gateway"]))),
            ("aud among others", es().claim("aud", json!(["another", "gateway"]))),
            ("expired within the leeway", es().claim("exp", from_now(-30))),
            ("to be valid within the leeway", es().claim("nbf", from_now(30))),
            ("exp with a fraction", es().without("exp").claim_last(&format!("\"exp\":{}.5", from_now(300)))),
            ("exp with an exponent", es().without("exp").claim_last("\"exp\":4.1024448e9")),
            ("exp in 2100", es().claim("exp", 4_102_444_800_i64)),
            ("nbf with a fraction", es().without("nbf").claim_last(&format!("\"nbf\":{}.5", from_now(-300)))),
            ("no nbf", es().without("nbf")),
            ("no iat", es().without("iat")),
            ("no scope, tenant, roles or tier", es().without("scope").without("org").without("roles").without("plan")),
            (
                "claims nobody reads",
                es().claim("jti", "1").claim("deep", json!({ "a": [{ "b": null }], "c": 1.5 })).claim("https://x.example/y", true),
            ),
            ("a subject beyond ASCII", es().claim("sub", "Ærøskøbing 東京 🦀")),
            ("a subject with an escape", es().without("sub").claim_last(r#""sub":"\u0061lice""#)),
            ("a claim with an escape", es().without("sub").claim_last(r#""\u0073ub":"alice""#)),
            ("a single letter for a subject", es().claim("sub", "a")),
            ("members of one name in different objects", es().claim("deep", json!({ "iss": "x", "exp": 0, "deep": {} }))),
        ];
        let mut cases: Vec<Case> = tokens.into_iter().map(|(name, token)| bearer(name, token.compact())).collect();
        let spaced = es().payload().replace("\":", "\" :\n\t").replace(",\"", " , \"");
        cases.push(bearer("white space in the payload", es().sealed(es().header(), spaced)));
        cases
    }
}
