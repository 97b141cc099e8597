//! What is not to be admitted, third part: headers that bring their own key, name one that must not be used, or ask for
//! something we do not do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::forged::{Case, IDP, ODD, TWO, WEAK_TOKEN, World, bearer};
use super::key::Key;
use super::token::{Token, b64, segments};

/// Parameters that change what the token means.
pub fn parameters(world: &World) -> Vec<Case> {
    let es = || world.es();
    let mut cases = vec![
        // Understood by nobody, so to be refused (RFC 7515 §4.1.11; CVE-2025-59420 and its kin).
        bearer("crit of a known claim", es().head("crit", json!(["exp"])).head("exp", 1).compact()),
        bearer("crit of something unknown", es().head("crit", json!(["x-policy"])).head("x-policy", "strict").compact()),
        bearer("crit of something absent", es().head("crit", json!(["x-policy"])).compact()),
        bearer("crit empty", es().head("crit", json!([])).compact()),
        bearer("crit no array", es().head("crit", "exp").compact()),
        // RFC 7797: what is signed is not what is read.
        bearer("b64 false", es().head("b64", false).compact()),
        bearer("b64 false and critical", es().head("crit", json!(["b64"])).head("b64", false).compact()),
        bearer("b64 false, signed unencoded", unencoded(&es().head("crit", json!(["b64"])).head("b64", false))),
        bearer("b64 true", es().head("b64", true).compact()),
        bearer("b64 no boolean", es().head("b64", "false").compact()),
        bearer("alg twice, none first", es().head_first(r#""alg":"none""#).compact()),
        bearer("alg twice, none last", es().head_last(r#""alg":"none""#).compact()),
        bearer("alg twice, the same", es().head_last(r#""alg":"ES256""#).compact()),
        bearer("alg twice, once with an escape", es().head_last(r#""\u0061lg":"ES256""#).compact()),
        bearer("typ twice", es().head_first(r#""typ":"dpop+jwt""#).compact()),
        bearer("an unread parameter twice", es().head_first(r#""x":1"#).head_last(r#""x":2"#).compact()),
    ];
    // A token made for something else (RFC 8725 §3.11).
    for typ in ["logout+jwt", "dpop+jwt", "secevent+jwt", "application/dpop+jwt", "text/at+jwt", "at+jwt ", "JWE", "JOSE", ""] {
        cases.push(bearer(format!("typ `{typ}`"), es().head("typ", typ).compact()));
    }
    for typ in [json!(1), json!(["JWT"])] {
        cases.push(bearer(format!("typ {typ}"), es().head("typ", typ).compact()));
    }
    let nested = es().head("cty", "JWT");
    cases.push(bearer("a token in a token", nested.sealed(nested.header(), &world.admitted)));
    cases.push(bearer("claims said to be a token", nested.compact()));
    cases.push(bearer("claims said to be compressed", es().head("zip", "DEF").compact()));
    let [_, payload, _] = segments(&world.admitted);
    let payload = super::token::unb64(payload);
    for (name, header) in [
        ("header no object", &b"\"ES256\""[..]),
        ("header an array", br#"["ES256","JWT"]"#),
        ("header no JSON", b"alg=ES256"),
        ("header not UTF-8", b"{\"alg\":\"ES256\",\"kid\":\"es-1\",\"x\":\"\xff\"}"),
        ("something after the header", br#"{"alg":"ES256","kid":"es-1"}{}"#),
        ("a comma too many", br#"{"alg":"ES256","kid":"es-1",}"#),
    ] {
        cases.push(bearer(name, es().sealed(header, &payload)));
    }
    // Nothing may come of a depth nobody writes but to exhaust a stack. A thief's, so that no leniency admits it.
    let bottomless = format!(r#"{{"alg":"ES256","kid":"es-1","x":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
    cases.push(bearer("a bottomless header", es().by(&world.thief).sealed(bottomless, payload)));
    cases
}

/// Detached content, signed without being encoded.
fn unencoded(token: &Token) -> String {
    let header = b64(token.header());
    format!("{header}..{}", b64(token.sign(&format!("{header}.{}", token.payload()))))
}

/// Keys the token brings along or says where to get (CVE-2018-0114; RFC 8725 §3.10). The first of each pair is the
/// attack; the second is truly signed, and refused for asking.
pub fn keys(world: &World) -> Vec<Case> {
    let certified = rcgen::generate_simple_self_signed(["idp.example".to_owned()]).expect("a certificate");
    let certificate = json!([STANDARD.encode(certified.cert.der())]);
    let holder = Key::pkcs8("es-1", &certified.signing_key.serialize_der());
    let trap = |path: &str| json!(format!("{}{path}", world.trap.url));
    let thief = &world.thief;
    let mut cases = Vec::new();
    let brought = [
        ("jwk", thief.jwk(), thief),
        ("jku", trap("/jwks.json"), thief),
        ("x5u", trap("/chain.pem"), thief),
        ("x5c", certificate, &holder),
    ];
    for (name, value, key) in brought {
        let asks = world.es().head(name, value);
        cases.push(bearer(format!("{name} of the thief"), asks.clone().by(key).compact()));
        cases.push(bearer(format!("{name} of the thief, without kid"), asks.clone().by(key).headless("kid").compact()));
        cases.push(bearer(format!("{name} of the thief, its own kid"), asks.clone().by(key).head("kid", "thief").compact()));
        cases.push(bearer(format!("{name} beside a true signature"), asks.compact()));
    }
    let own = world.es().head("jwk", world.es.jwk()).compact();
    cases.push(bearer("jwk with the right key", own));
    let secret = Key::secret("HS256", "brought along");
    cases.push(bearer("jwk with a secret", world.hs().head("jwk", secret.jwk()).by(&secret).compact()));
    // An address that begins like the right one, and one that is no network's.
    let disguised = world.trap.url.replace("http://", "http://idp.example@");
    cases.push(bearer("jku that begins with the right host", world.es().head("jku", disguised).by(thief).compact()));
    cases.push(bearer("jku of a file", world.es().head("jku", "file:///dev/null").by(thief).compact()));
    cases.extend(unfit(world));
    cases
}

/// Truly signed by a key that is published, though not for this.
fn unfit(world: &World) -> Vec<Case> {
    let odd = &world.odd;
    vec![
        bearer("a key for encryption", Token::of(ODD, &odd.encrypting).compact()),
        bearer("a key for another algorithm", Token::of(ODD, &odd.misfit).compact()),
        bearer("a key for another hash", Token::of(ODD, &odd.misfit_rsa).compact()),
        bearer("a key for another hash, under its algorithm", Token::of(ODD, &odd.misfit_rsa).alg("RS512").compact()),
        bearer("an RSA key of 1024 bits", WEAK_TOKEN),
        bearer("the first of two keys of one name", Token::of(ODD, &odd.twins[0]).compact()),
        bearer("the second of two keys of one name", Token::of(ODD, &odd.twins[1]).compact()),
        bearer("no kid, and two keys fit", Token::of(TWO, &world.two[0]).headless("kid").compact()),
        bearer("no kid, and two keys fit, the other", Token::of(TWO, &world.two[1]).headless("kid").compact()),
        bearer("the kid of the other key", Token::of(TWO, &world.two[0]).head("kid", "two-2").compact()),
        bearer("the kid of an RSA key", Token::of(ODD, &odd.good).head("kid", "misfit-rsa").compact()),
    ]
}

/// Names of keys, which have been paths, queries and commands to somebody (RFC 8725 §3.10).
pub fn names(world: &World) -> Vec<Case> {
    let empty = Key::secret("HS256", "");
    let chosen = Key::secret("HS256", "chosen");
    // What the name yields in a gateway that looks there is a secret the attacker knows.
    let yields = [
        ("../../../../../../dev/null", &empty),
        ("/dev/null", &empty),
        ("/proc/sys/kernel/randomize_va_space", &Key::secret("HS256", "2\n")),
        ("x' UNION SELECT 'chosen' --", &chosen),
        ("es-1'; DROP TABLE keys; --", &empty),
        ("es-1|cat /dev/null", &empty),
        ("${jndi:ldap://127.0.0.1:9/a}", &empty),
    ];
    let mut cases: Vec<Case> = yields
        .into_iter()
        .map(|(kid, secret)| bearer(format!("kid {kid}"), world.es().head("kid", kid).alg("HS256").by(secret).compact()))
        .collect();
    let unknown: [(&str, Value); 12] = [
        ("very long", json!("es-1".repeat(2000))),
        ("of another issuer", json!("two-1")),
        ("in capitals", json!("ES-1")),
        ("with a space", json!("es-1 ")),
        ("cut short", json!("es-")),
        ("ended by a zero", json!("es-1\u{0}")),
        ("empty", json!("")),
        ("a number", json!(1)),
        ("a boolean", json!(true)),
        ("an array", json!(["es-1"])),
        ("an object", json!({ "es-1": 1 })),
        ("a path", json!("../es-1")),
    ];
    // Truly signed: the name alone decides.
    cases.extend(unknown.into_iter().map(|(what, kid)| bearer(format!("kid {what}"), world.es().head("kid", kid).compact())));
    cases.push(bearer("kid twice", Token::of(IDP, &world.es).head_first(r#""kid":"two-1""#).compact()));
    cases
}
