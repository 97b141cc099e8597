//! Who is let in by a JSON Web Token: every way to forge one that was ever published, every way to be honest, and what
//! becomes of tokens when the keys change. Tokens are written by hand here (`tokens/token.rs`), because what no library
//! writes is what an attacker sends.

mod claims;
mod forged;
mod headers;
mod honest;
pub mod key;
mod realm;
mod shapes;
pub mod token;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use self::forged::{Case, World, bearer};
use self::key::Key;
use self::realm::{Idp, auth, issuer};
use self::token::{Token, from_now};
use crate::support::gateway::{Gateway, server};
use crate::support::stub::Stub;
use crate::support::{eventually, http};

/// A gateway that asks for tokens, before a stub.
struct Guarded {
    stub: Stub,
    gateway: Gateway,
    client: reqwest::Client,
}

struct Answer {
    status: u16,
    challenge: String,
    problem: Value,
}

impl Guarded {
    async fn start(auth: &str) -> Self {
        let stub = Stub::start().await;
        let backend = stub.backend("one", ", health_check: {path: /health, interval: 10m}");
        let gateway = Gateway::start(&format!("{}{auth}backends:\n{backend}", server(""))).await;
        Self { stub, gateway, client: http() }
    }

    /// A tool call, because the stub counts those: unlike `tools/list` it gets one from nobody but a client.
    async fn ask(&self, headers: &[String]) -> Answer {
        let call = json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": {} } });
        let mut request = self.client.post(self.gateway.at("/api/mcp/stub")).json(&call);
        for value in headers {
            request = request.header("authorization", value);
        }
        let response = request.send().await.expect("an answer");
        let challenge = response.headers().get("www-authenticate").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let status = response.status().as_u16();
        Answer { status, challenge, problem: response.json().await.unwrap_or_default() }
    }

    async fn status(&self, token: &str) -> u16 {
        self.ask(&[format!("Bearer {token}")]).await.status
    }

    async fn admits(&self, cases: &[Case]) {
        let before = self.stub.calls();
        let mut faults = Vec::new();
        for case in cases {
            let answer = self.ask(&case.headers).await;
            if answer.status != 200 {
                faults.push(format!("{}: {} {}", case.name, answer.status, answer.problem));
            }
        }
        assert!(faults.is_empty(), "{} of {} not admitted:\n{}", faults.len(), cases.len(), faults.join("\n"));
        assert_eq!(self.stub.calls() - before, cases.len(), "every one reaches the backend, once");
    }
}

/// Why this is not how to refuse a case; `None` if it is.
fn fault(case: &Case, answer: &Answer) -> Option<String> {
    let told = (answer.status, answer.problem["code"].as_str(), answer.problem["status"].as_u64());
    // RFC 6750 §3.1 gives an error only for a token; what carries none, or more than one, may do without.
    let one = matches!(&case.headers[..], [only] if only.strip_prefix("Bearer ").is_some_and(|token| !token.trim().is_empty()));
    let challenged = answer.challenge.starts_with("Bearer") && (!one || answer.challenge.contains("error=\"invalid_token\""));
    let refused = told == (401, Some("unauthorized"), Some(401)) && challenged;
    (!refused).then(|| format!("{}: {told:?}, WWW-Authenticate: {}, {}", case.name, answer.challenge, answer.problem))
}

#[tokio::test]
async fn no_forged_token_is_admitted() {
    let world = World::start().await;
    let guarded = Guarded::start(&world.yaml()).await;
    // What a case is made from is admitted, before and after: nothing but its one fault can be why it is refused.
    let honest = world.honest();
    guarded.admits(&honest).await;
    let before = guarded.stub.calls();
    let cases = world.forged();
    assert!(cases.len() > 250, "only {} cases", cases.len());
    assert_eq!(cases.iter().map(|case| &case.name).collect::<BTreeSet<_>>().len(), cases.len(), "each has a name of its own");
    let mut faults = Vec::new();
    for case in &cases {
        faults.extend(fault(case, &guarded.ask(&case.headers).await));
    }
    assert!(faults.is_empty(), "{} of {} not refused as they should be:\n{}", faults.len(), cases.len(), faults.join("\n"));
    assert_eq!(guarded.stub.calls(), before, "none reached the backend");
    assert_eq!(world.trap.visits(), 0, "nobody asked the thief's server");
    guarded.admits(&honest).await;
}

#[tokio::test]
async fn every_honest_token_is_admitted() {
    let realm = honest::Realm::start().await;
    let guarded = Guarded::start(&realm.yaml()).await;
    guarded.admits(&realm.cases()).await;
}

#[tokio::test]
async fn a_token_admitted_before_is_refused_once_its_time_is_over() {
    let idp = Idp::start().await;
    let key = Key::new("ES256", "one");
    let guarded = Guarded::start(&auth(&[issuer(forged::IDP, "ES256", &idp.publish("/jwks.json", &[key.jwk()]))])).await;
    // Three seconds of the leeway are left.
    let token = Token::of(forged::IDP, &key).claim("exp", from_now(-57)).compact();
    guarded.admits(&[bearer("still good", &token)]).await;
    eventually("its time is over", async || (guarded.status(&token).await == 401).then_some(())).await;
}

#[tokio::test]
async fn all_who_come_with_a_new_key_at_once_are_admitted() {
    let (idp, old, new) = (Idp::start().await, Key::new("ES256", "old"), Key::new("ES256", "new"));
    let guarded = Guarded::start(&auth(&[issuer(forged::IDP, "ES256", &idp.publish("/jwks.json", &[old.jwk()]))])).await;
    guarded.admits(&[bearer("the old key", Token::of(forged::IDP, &old).compact())]).await;
    let before = idp.fetches("/jwks.json");
    idp.publish("/jwks.json", &[old.jwk(), new.jwk()]);
    let tokens: Vec<String> = (0..8).map(|i| Token::of(forged::IDP, &new).claim("sub", format!("user {i}")).compact()).collect();
    let statuses = futures::future::join_all(tokens.iter().map(|token| guarded.status(token))).await;
    assert_eq!(statuses, [200; 8], "whoever comes while the keys are fetched waits for them");
    let fetched = idp.fetches("/jwks.json") - before;
    assert!(fetched <= 2, "one fetch serves all: {fetched}");
}

#[tokio::test]
async fn a_rotated_key_is_learned_and_a_withdrawn_one_forgotten() {
    let (idp, old, new) = (Idp::start().await, Key::new("ES256", "old"), Key::new("ES256", "new"));
    // One issuer for each question, so that no answer is owed to what was fetched for another.
    let [rotated, failing, flooded] =
        ["rotated", "failing", "flooded"].map(|name| (format!("https://{name}.example"), format!("/{name}.json")));
    let issuers = [&rotated, &failing, &flooded].map(|(name, path)| issuer(name, "ES256", &idp.publish(path, &[old.jwk()])));
    let guarded = Guarded::start(&auth(&issuers)).await;

    let known = Token::of(&rotated.0, &old).compact();
    assert_eq!(guarded.status(&known).await, 200);
    idp.publish(&rotated.1, &[new.jwk()]);
    assert_eq!(guarded.status(&Token::of(&rotated.0, &new).compact()).await, 200, "a new key is learned at its first use");
    assert_eq!(guarded.status(&known).await, 401, "a withdrawn key is forgotten, and the tokens it signed with it");

    let known = Token::of(&failing.0, &old).compact();
    assert_eq!(guarded.status(&known).await, 200);
    let before = idp.fetches(&failing.1);
    idp.fail(&failing.1);
    assert_eq!(guarded.status(&Token::of(&failing.0, &new).compact()).await, 401);
    assert!(idp.fetches(&failing.1) > before, "the gateway has seen the failure");
    assert_eq!(guarded.status(&known).await, 200, "what is known stays known");
    assert_eq!(guarded.status(&Token::of(&failing.0, &old).claim("sub", "bob").compact()).await, 200, "for tokens never seen before, too");

    let known = Token::of(&flooded.0, &old).compact();
    assert_eq!(guarded.status(&known).await, 200);
    let before = idp.fetches(&flooded.1);
    let strange: Vec<String> =
        (0..50).map(|_| Token::of(&flooded.0, &new).head("kid", uuid::Uuid::new_v4().to_string()).compact()).collect();
    let statuses = futures::future::join_all(strange.iter().map(|token| guarded.status(token))).await;
    assert_eq!(statuses, [401; 50]);
    let fetched = idp.fetches(&flooded.1) - before;
    assert!(fetched <= 2, "strangers cannot make the gateway fetch: {fetched} times");
    assert_eq!(guarded.status(&known).await, 200);
}
