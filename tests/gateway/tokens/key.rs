//! Keys that sign whatever they are given, under any name, and show their public half in every form an attacker could
//! find it in.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use aws_lc_rs::{hmac, rsa};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::token::b64;

enum Pair {
    Secret(Vec<u8>),
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// A key with the name tokens call it by (none if empty) and the algorithm it is meant for.
pub struct Key {
    pub kid: String,
    pub alg: &'static str,
    pair: Pair,
}

impl Key {
    /// A fresh key pair.
    pub fn new(alg: &'static str, kid: &str) -> Self {
        let pair = match alg {
            "ES256" => Pair::Ec(EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")),
            "ES384" => Pair::Ec(EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key")),
            "EdDSA" => Pair::Ed(Ed25519KeyPair::generate().expect("a key")),
            _ => Pair::Rsa(Box::new(RsaKeyPair::generate(rsa::KeySize::Rsa2048).expect("a key"))),
        };
        Self { kid: kid.into(), alg, pair }
    }

    /// A secret for HMAC, shared or guessed.
    pub fn secret(alg: &'static str, secret: impl AsRef<[u8]>) -> Self {
        Self { kid: String::new(), alg, pair: Pair::Secret(secret.as_ref().to_vec()) }
    }

    /// A P-256 key made elsewhere.
    pub fn pkcs8(kid: &str, pkcs8: &[u8]) -> Self {
        let pair = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).expect("a P-256 key");
        Self { kid: kid.into(), alg: "ES256", pair: Pair::Ec(pair) }
    }

    pub fn named(mut self, kid: &str) -> Self {
        self.kid = kid.into();
        self
    }

    /// A signature as `alg` wants it, whatever the key is meant for.
    pub fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Secret(secret) => {
                let hash = match alg {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
            }
            Pair::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match alg {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signed = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signed).expect("signed");
                signed
            }
            Pair::Ec(pair) => pair.sign(&random, message).expect("signed").as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A P-256 signature as ASN.1, which certificates carry and JWS does not.
    pub fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        let Pair::Ec(pair) = &self.pair else { panic!("{} is no elliptic curve", self.alg) };
        let pkcs8 = pair.to_pkcs8v1().expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).expect("a P-256 key");
        pair.sign(&SystemRandom::new(), message).expect("signed").as_ref().to_vec()
    }

    /// The public half as a JWK that says no more than it must.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Secret(secret) => json!({ "kty": "oct", "k": b64(secret) }),
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus().big_endian_without_leading_zero(), public.exponent().big_endian_without_leading_zero());
                json!({ "kty": "RSA", "n": b64(n), "e": b64(e) })
            }
            Pair::Ec(pair) => {
                // An uncompressed point: 4, x, y.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                json!({ "kty": "EC", "crv": if x.len() == 32 { "P-256" } else { "P-384" }, "x": b64(x), "y": b64(y) })
            }
            Pair::Ed(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key()) }),
        };
        if !self.kid.is_empty() {
            jwk["kid"] = json!(self.kid);
        }
        jwk
    }

    /// The JWK with more members.
    pub fn jwk_with(&self, more: &Value) -> Value {
        let mut jwk = self.jwk();
        for (name, value) in more.as_object().expect("an object") {
            jwk[name] = value.clone();
        }
        jwk
    }

    /// The public half alone: `RSAPublicKey` of PKCS#1, or the point of a curve.
    pub fn bare(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Secret(secret) => secret.clone(),
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// The public half as X.509 has it.
    pub fn der(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'static> = match &self.pair {
            Pair::Secret(_) => panic!("a secret has no public half"),
            Pair::Rsa(pair) => pair.public_key().as_der().expect("DER"),
            Pair::Ec(pair) => pair.public_key().as_der().expect("DER"),
            Pair::Ed(pair) => pair.public_key().as_der().expect("DER"),
        };
        der.as_ref().to_vec()
    }

    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.der())
    }
}

/// The text `openssl` would write.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
