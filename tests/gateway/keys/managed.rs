//! Keys made, rotated and revoked while running, on gateways that share a file or a Redis.

use serde_json::{Value, json};

use super::{by_key, call, guarded};
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::stub::Stub;
use crate::support::{eventually, http};

/// One request to the admin listener: status and body.
pub async fn admin(gateway: &Gateway, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    raw(gateway, method, path, body).await
}

async fn raw(gateway: &Gateway, method: &str, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let answer = http().request(method, format!("{}/admin/keys{path}", gateway.admin)).body(body).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// Makes a key for a reader.
pub async fn create(gateway: &Gateway, id: &str) -> String {
    let (status, made) = admin(gateway, "POST", "", json!({ "id": id, "tenant": "acme", "roles": ["reader"] })).await;
    assert_eq!((status, made["id"].as_str()), (201, Some(id)), "{made}");
    made["key"].as_str().expect("a key").to_owned()
}

async fn rotate(gateway: &Gateway, id: &str, overlap: &str) -> String {
    let (status, made) = admin(gateway, "POST", &format!("/{id}/rotate"), json!({ "overlap": overlap })).await;
    assert_eq!((status, made["id"].as_str()), (200, Some(id)), "{made}");
    made["key"].as_str().expect("a key").to_owned()
}

/// The row of a key in the list; `null` if there is none.
pub async fn listed(gateway: &Gateway, id: &str) -> Value {
    let (status, list) = admin(gateway, "GET", "", Value::Null).await;
    assert_eq!(status, 200, "{list}");
    list["keys"].as_array().expect("a list").iter().find(|row| row["id"] == id).cloned().unwrap_or_default()
}

/// Waits until a gateway answers a call with a key so.
pub async fn comes(gateway: &Gateway, key: &str, status: u16, what: &str) {
    eventually(what, async || (by_key(gateway, key).await == status).then_some(())).await;
}

/// Two gateways with one store.
struct Pair {
    one: Gateway,
    two: Gateway,
    stub: Stub,
    redis: Option<Redis>,
    dir: tempfile::TempDir,
}

impl Pair {
    async fn start(in_redis: bool) -> Self {
        let (stub, dir) = (Stub::start().await, tempfile::tempdir().expect("a temporary folder"));
        let redis = if in_redis { Some(Redis::start().await) } else { None };
        let (auth, more) = match &redis {
            Some(redis) => ("  api_keys: {}\n".to_owned(), redis.section()),
            None => (format!("  api_keys: {{ store: {{ file: {} }} }}\n", dir.path().join("shared.json").display()), String::new()),
        };
        let (one, two) = tokio::join!(guarded(&stub, &auth, &more), guarded(&stub, &auth, &more));
        Self { one, two, stub, redis, dir }
    }

    /// Whether the store knows when a key was last used.
    async fn stored_use(&self, id: &str) -> bool {
        let Some(redis) = &self.redis else {
            let text = std::fs::read(self.dir.path().join("shared.json")).expect("readable");
            return serde_json::from_slice::<Value>(&text).expect("JSON")[id]["last_used"].is_number();
        };
        let mut asked = redis::cmd("HEXISTS");
        asked.arg("{mcp-gateway:keys}:used").arg(id).query_async(&mut redis.connection().await).await.expect("an answer")
    }

    async fn both(&self, key: &str, status: u16, what: &str) {
        comes(&self.one, key, status, what).await;
        comes(&self.two, key, status, what).await;
    }
}

async fn a_life(in_redis: bool) {
    let pair = Pair::start(in_redis).await;
    let first = create(&pair.one, "ann").await;
    assert!(first.starts_with("mgk_"), "scanners for leaked secrets know it");
    pair.both(&first, 200, "a new key is good everywhere").await;
    assert_eq!(call(&pair.two, "other", &[("x-api-key", &first)]).await.0, 403, "for its roles");

    let second = rotate(&pair.two, "ann", "1h").await;
    pair.both(&second, 200, "so is its successor").await;
    assert_eq!((by_key(&pair.one, &first).await, by_key(&pair.two, &first).await), (200, 200), "and both, while they overlap");
    assert_eq!(listed(&pair.one, "ann").await["secrets"], 2);
    let third = rotate(&pair.one, "ann", "1s").await;
    pair.both(&third, 200, "the third is good").await;
    for old in [&first, &second] {
        pair.both(old, 401, "the overlap ends").await;
    }
    pair.both(&third, 200, "the third goes on").await;
    assert_eq!(listed(&pair.two, "ann").await["secrets"], 1);
    let fourth = rotate(&pair.one, "ann", "0s").await;
    pair.both(&third, 401, "no overlap").await;
    pair.both(&fourth, 200, "the fourth is good").await;

    let Pair { one, two, .. } = pair;
    let pair = Pair { one: one.again().await, two: two.again().await, ..pair };
    pair.both(&fourth, 200, "it outlives the processes").await;
    assert_eq!((by_key(&pair.one, &third).await, by_key(&pair.two, &first).await), (401, 401), "and what ended stays so");
    assert_eq!(listed(&pair.two, "ann").await["tenant"], "acme");

    assert_eq!(admin(&pair.two, "DELETE", "/ann", Value::Null).await, (200, json!({ "id": "ann" })));
    pair.both(&fourth, 401, "a revoked key is refused everywhere").await;
    for gateway in [&pair.one, &pair.two] {
        eventually("it is listed no more", async || listed(gateway, "ann").await.is_null().then_some(())).await;
    }
    let anew = create(&pair.one, "ann").await;
    pair.both(&anew, 200, "the id can be used again").await;
    assert_eq!((by_key(&pair.one, &fourth).await, by_key(&pair.two, &fourth).await), (401, 401), "which brings no old key back");
    assert!(pair.stub.calls() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_lives_and_dies_on_all_gateways_of_a_file() {
    a_life(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_lives_and_dies_on_all_gateways_of_a_redis() {
    a_life(true).await;
}

/// Uses a key on one gateway and looks at the lists of both.
async fn a_list(in_redis: bool) {
    let pair = Pair::start(in_redis).await;
    let wish = json!({ "id": "ann", "tenant": "acme", "roles": ["reader", "writer"], "tier": "gold", "expires": "2999-06-30" });
    let (status, made) = admin(&pair.one, "POST", "", wish).await;
    assert_eq!(status, 201, "{made}");
    let key = made["key"].as_str().expect("a key");
    let gateways = [("the one that made it", &pair.one), ("the other", &pair.two)];
    for (which, gateway) in gateways {
        let row = eventually("it is listed", async || Some(listed(gateway, "ann").await).filter(|row| !row.is_null())).await;
        let expected = json!({ "tenant": "acme", "roles": ["reader", "writer"], "tier": "gold", "expires": "2999-06-30T00:00:00Z", "secrets": 1, "last_used": null });
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(&row[name], value, "{which}, {name}: {row}");
        }
        assert!(row["created"].as_str().is_some_and(|time| time.ends_with('Z')), "{row}");
        let text = row.to_string();
        assert!(!text.contains("sha256") && !text.contains("hash") && !text.contains(&key[4..]), "{text}");
    }
    comes(&pair.one, key, 200, "it is good").await;
    for (which, gateway) in gateways {
        let used = async || listed(gateway, "ann").await["last_used"].as_str().filter(|time| time.ends_with('Z')).map(drop);
        eventually(&format!("{which} tells of its use"), used).await;
    }
    let Pair { one, two, .. } = pair;
    drop(one);
    let two = two.again().await;
    eventually("a restart forgets no use", async || listed(&two, "ann").await["last_used"].is_string().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_gateways_of_a_file_list_a_key_with_its_last_use() {
    a_list(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_gateways_of_a_redis_list_a_key_with_its_last_use() {
    a_list(true).await;
}

/// Uses a key, revokes it and makes another of its id.
async fn a_second_life(in_redis: bool) {
    let pair = Pair::start(in_redis).await;
    let first = create(&pair.one, "ann").await;
    comes(&pair.one, &first, 200, "it is good").await;
    eventually("its use is stored", async || pair.stored_use("ann").await.then_some(())).await;
    assert_eq!(admin(&pair.one, "DELETE", "/ann", Value::Null).await.0, 200);
    create(&pair.one, "ann").await;
    let row = eventually("it is listed", async || Some(listed(&pair.one, "ann").await).filter(|row| !row.is_null())).await;
    assert_eq!(row["last_used"], Value::Null, "a new key of an old id was never used: {row}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_key_of_an_id_in_a_file_was_never_used() {
    a_second_life(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_key_of_an_id_in_a_redis_was_never_used() {
    a_second_life(true).await;
}

/// Makes keys on both gateways at once: each of its own id, and one that all want.
async fn a_rush(in_redis: bool) {
    let pair = Pair::start(in_redis).await;
    let gateways = [&pair.one, &pair.two];
    let own = (0..20).map(async |i: usize| (i, create(gateways[i % 2], &format!("own-{i}")).await));
    let wanted = (0..20).map(async |i: usize| admin(gateways[i % 2], "POST", "", json!({ "id": "wanted", "roles": ["reader"] })).await);
    let (own, wanted) = futures::future::join(futures::future::join_all(own), futures::future::join_all(wanted)).await;
    let made: Vec<_> = wanted.iter().filter(|(status, _)| *status == 201).collect();
    assert_eq!(made.len(), 1, "one gets it: {wanted:?}");
    assert!(wanted.iter().all(|(status, _)| [201, 409].contains(status)), "the others are told: {wanted:?}");
    pair.both(made[0].1["key"].as_str().expect("a key"), 200, "and its key is the good one").await;
    for (i, key) in own {
        pair.both(&key, 200, &format!("own-{i} was not lost")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_made_at_the_same_time_is_lost_in_a_file() {
    a_rush(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_made_at_the_same_time_is_lost_in_a_redis() {
    a_rush(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spoilt_file_takes_no_key_away_and_lets_nobody_in() {
    use std::os::unix::fs::PermissionsExt as _;
    let pair = Pair::start(false).await;
    let path = pair.dir.path().join("shared.json");
    let key = create(&pair.one, "ann").await;
    pair.both(&key, 200, "it is good").await;
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o077, 0, "nobody else reads the hashes");
    let good = std::fs::read(&path).expect("readable");
    std::fs::write(&path, "{ spoilt").expect("writable");
    let said = async || pair.two.process.output().iter().any(|line| line.contains("managed keys")).then_some(());
    eventually("the log says so", said).await;
    let unknown = format!("mgk_{}", "C".repeat(43));
    assert_eq!((by_key(&pair.two, &key).await, by_key(&pair.two, &unknown).await), (200, 401), "what is known goes on");
    let (status, refused) = admin(&pair.one, "POST", "", json!({ "id": "bob" })).await;
    assert_eq!((status, refused["code"].as_str()), (503, Some("store_unavailable")), "{refused}");
    assert_eq!(std::fs::read(&path).expect("readable"), b"{ spoilt", "it is not written over");
    std::fs::write(&path, good).expect("writable");
    let made = eventually("keys can be made again", async || {
        let (status, made) = admin(&pair.one, "POST", "", json!({ "id": "bob", "roles": ["reader"] })).await;
        (status == 201).then(|| made["key"].as_str().expect("a key").to_owned())
    })
    .await;
    pair.both(&made, 200, "a new key is good").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_is_refused() {
    let pair = Pair::start(false).await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3);
    let (status, made) = admin(&pair.one, "POST", "", json!({ "id": "brief", "roles": ["reader"], "expires": soon.to_string() })).await;
    assert_eq!(status, 201, "{made}");
    pair.both(made["key"].as_str().expect("a key"), 401, "its time is over").await;
    let (_, made) = admin(&pair.one, "POST", "", json!({ "id": "late", "roles": ["reader"], "expires": "2020-01-01" })).await;
    assert_ne!(by_key(&pair.one, made["key"].as_str().unwrap_or("none")).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_by_name() {
    let stub = Stub::start().await;
    let configured = format!("      - {{ id: fixed, hash: \"sha256:{}\", roles: [reader] }}\n", "0".repeat(64));
    let gateway = guarded(&stub, &format!("  api_keys:\n    keys:\n{configured}"), "").await;
    create(&gateway, "ann").await;
    let mut faults = Vec::new();
    let mut expect = |what: String, (status, body): (u16, Value), wanted: (u16, &str), named: &str| {
        let detail = body["detail"].as_str().unwrap_or_default();
        if (status, body["code"].as_str().unwrap_or_default()) != wanted || !detail.contains(named) {
            faults.push(format!("{what}: wanted {wanted:?} naming `{named}`, got {status} {body}"));
        }
    };
    for id in ["ann", "fixed"] {
        expect(format!("a second `{id}`"), admin(&gateway, "POST", "", json!({ "id": id })).await, (409, "conflict"), "");
    }
    for (method, path) in [("DELETE", "/nobody"), ("POST", "/nobody/rotate"), ("DELETE", "/fixed"), ("GET", "/ann/x"), ("POST", "/ann/x")] {
        expect(format!("{method} {path}"), admin(&gateway, method, path, Value::Null).await, (404, "not_found"), "");
    }
    for (method, path) in [("PUT", ""), ("DELETE", ""), ("GET", "/ann"), ("POST", "/ann"), ("GET", "/ann/rotate")] {
        expect(format!("{method} {path}"), admin(&gateway, method, path, Value::Null).await, (405, "method_not_allowed"), "");
    }
    let wrong = [
        (json!({ "id": "x", "roles": ["reader", "raeder"] }), "invalid_params", "raeder"),
        (json!({ "id": "x y" }), "invalid_params", "key id"),
        (json!({ "id": "" }), "invalid_params", "key id"),
        (json!({ "id": "a".repeat(65) }), "invalid_params", "key id"),
        (json!({ "id": "x", "expires": "tomorrow" }), "invalid_params", "expires"),
        (json!({ "id": "x", "tenant": "a b" }), "invalid_params", "tenant"),
        (json!({ "id": "x", "tenant": "" }), "invalid_params", "tenant"),
        (json!({ "id": "x", "tier": "a\nb" }), "invalid_params", "tier"),
        (json!({}), "invalid_request", "id"),
        (json!({ "id": "x", "role": ["reader"] }), "invalid_request", "role"),
        (json!({ "id": 5 }), "invalid_request", "`id`"),
        (json!({ "id": "x", "roles": "reader" }), "invalid_request", "`roles`"),
        (json!({ "id": "x", "roles": [7] }), "invalid_request", "`roles`"),
        (json!({ "id": "x", "tenant": {} }), "invalid_request", "`tenant`"),
        (json!({ "id": "x", "expires": 1_893_456_000 }), "invalid_request", "`expires`"),
        (json!(["x", null, ["reader"], null, null]), "invalid_request", ""),
        (json!("x"), "invalid_request", ""),
    ];
    for (body, code, named) in wrong {
        expect(body.to_string(), admin(&gateway, "POST", "", body).await, (400, code), named);
    }
    for (body, code) in
        [("", "parse_error"), ("{", "parse_error"), ("id=x", "parse_error"), ("{\"id\":\"x\",\"id\":\"y\"}", "invalid_request")]
    {
        expect(body.to_owned(), raw(&gateway, "POST", "", body).await, (400, code), "");
    }
    for overlap in ["soon", "-1s", "1y"] {
        let answer = admin(&gateway, "POST", "/ann/rotate", json!({ "overlap": overlap })).await;
        expect(format!("overlap {overlap}"), answer, (400, "invalid_params"), "overlap");
    }
    let large = raw(&gateway, "POST", "", vec![b' '; 70_000]).await;
    expect("a large body".to_owned(), large, (413, "body_too_large"), "");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(listed(&gateway, "x").await.is_null(), "none of it made a key");
    assert_eq!(listed(&gateway, "ann").await["secrets"], 1, "nor a second secret");
}

#[tokio::test]
async fn without_api_keys_there_are_none_to_manage() {
    let stub = Stub::start().await;
    let gateway = Gateway::with(&stub.backend("one", "")).await;
    let (status, body) = admin(&gateway, "POST", "", json!({ "id": "ann" })).await;
    assert_eq!((status, body["code"].as_str()), (404, Some("not_found")), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_shown_anywhere_but_once() {
    for in_redis in [false, true] {
        let pair = Pair::start(in_redis).await;
        let first = create(&pair.one, "ann").await;
        pair.both(&first, 200, "it is good").await;
        let second = rotate(&pair.one, "ann", "1h").await;
        pair.both(&second, 200, "it is good").await;
        let refused = format!("mgk_{}", "nobody-made-this-one".repeat(2));
        assert_eq!(by_key(&pair.one, &refused).await, 401);
        assert_eq!(call(&pair.one, "echo", &[("authorization", &format!("Bearer {refused}"))]).await.0, 401);
        assert_eq!(admin(&pair.one, "DELETE", "/ann", Value::Null).await.0, 200);
        let mut shown = vec![("the file", if in_redis { String::new() } else { stored(&pair) })];
        for gateway in [&pair.one, &pair.two] {
            shown.push(("the log", gateway.said().await.join("\n")));
            for place in ["/admin/config", "/admin/keys", "/metrics"] {
                let answer = http().get(format!("{}{place}", gateway.admin)).send().await.expect("an answer");
                shown.push((place, answer.text().await.expect("text")));
            }
        }
        for (place, text) in &shown {
            for secret in [&first, &second, &refused] {
                assert!(!text.contains(&secret[4..]), "{place} shows a key: {text}");
            }
        }
        let log = &shown[1].1;
        assert!(log.contains("\"audit\"") && log.contains("ann"), "the log is about keys: {log}");
    }
}

/// What is in the shared file.
fn stored(pair: &Pair) -> String {
    std::fs::read_to_string(pair.dir.path().join("shared.json")).expect("readable")
}
