//! A Redis that dies, comes back with nothing, or is exchanged for another: what is known goes on, nothing else gets in.

use serde_json::{Value, json};

use super::managed::{admin, comes, create, listed};
use super::{by_key, call, guarded, guarded_by, new_key};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::stub::Stub;

/// What looks like a key of ours and is none.
fn unknown() -> String {
    format!("mgk_{}", "B".repeat(43))
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_down_known_keys_go_on_and_no_other_gets_in() {
    let (stub, mut redis) = (Stub::start().await, Redis::start().await);
    let gateway = guarded(&stub, "  api_keys: {}\n", &redis.section()).await;
    let known = create(&gateway, "ann").await;
    comes(&gateway, &known, 200, "the key is good").await;
    redis.stop().await;
    for _ in 0..3 {
        assert_eq!((by_key(&gateway, &known).await, by_key(&gateway, &unknown()).await), (200, 401));
        for (method, path, body) in
            [("POST", "", json!({ "id": "bob" })), ("DELETE", "/ann", Value::Null), ("POST", "/ann/rotate", Value::Null)]
        {
            let (status, refused) = admin(&gateway, method, path, body).await;
            assert_eq!((status, refused["code"].as_str()), (503, Some("store_unavailable")), "{method} {path}: {refused}");
            assert!(!refused.to_string().contains("redis://"), "{refused}");
        }
        assert_eq!(listed(&gateway, "ann").await["id"], "ann", "what is known is listed");
    }
    redis.resume().await;
    let made = at_last(&gateway, "bob").await;
    comes(&gateway, &made, 200, "the new key is good").await;
    assert_eq!(by_key(&gateway, &unknown()).await, 401);
}

/// Makes a key as soon as that is possible again.
async fn at_last(gateway: &Gateway, id: &str) -> String {
    eventually("keys can be made again", async || {
        let (status, made) = admin(gateway, "POST", "", json!({ "id": id, "roles": ["reader"] })).await;
        (status == 201).then(|| made["key"].as_str().expect("a key").to_owned())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_as_one_that_is_down() {
    let (stub, redis) = (Stub::start().await, Redis::start().await);
    let gateway = guarded(&stub, "  api_keys: {}\n", &redis.section()).await;
    let known = create(&gateway, "ann").await;
    comes(&gateway, &known, 200, "the key is good").await;
    redis.hang();
    let (status, refused) = admin(&gateway, "POST", "", json!({ "id": "bob" })).await;
    assert_eq!((status, refused["code"].as_str()), (503, Some("store_unavailable")), "{refused}");
    assert_eq!((by_key(&gateway, &known).await, by_key(&gateway, &unknown()).await), (200, 401));
    // Nor does it forget them because it is told to wait longer.
    gateway.load(&guarded_by(&stub, "  api_keys: {}\n", &redis.waited_for("5s"))).await;
    assert_eq!((by_key(&gateway, &known).await, by_key(&gateway, &unknown()).await), (200, 401));
    redis.wake();
    let made = at_last(&gateway, "bob").await;
    comes(&gateway, &made, 200, "the new key is good").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_without_its_redis_waits_for_it() {
    let (stub, mut redis) = (Stub::start().await, Redis::start().await);
    let (fixed, entry) = new_key("fixed").await;
    let auth = format!("  api_keys: {{ keys: [ {} ] }}\n", entry.replace("roles: []", "roles: [reader]"));
    redis.stop().await;
    let gateway = guarded(&stub, &auth, &redis.section()).await;
    assert_eq!(by_key(&gateway, &fixed).await, 200, "a configured key needs no store");
    let (status, body) = call(&gateway, "echo", &[("x-api-key", &unknown())]).await;
    assert_eq!((status, body["code"].as_str()), (503, Some("auth_unavailable")), "whether it is one cannot be said: {body}");
    redis.resume().await;
    let key = at_last(&gateway, "bob").await;
    comes(&gateway, &key, 200, "it is good").await;
    comes(&gateway, &unknown(), 401, "what is none is known to be none").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_gateway_finds_its_way_back() {
    let (stub, mut redis) = (Stub::start().await, Redis::start().await);
    let section = redis.section();
    let (one, two) = tokio::join!(guarded(&stub, "  api_keys: {}\n", &section), guarded(&stub, "  api_keys: {}\n", &section));
    let lost = create(&one, "ann").await;
    for gateway in [&one, &two] {
        comes(gateway, &lost, 200, "the key is good").await;
    }
    redis.stop().await;
    redis.resume().await;
    // More changes than there were before, so that nobody can take the new store for the old one.
    let mut made = Vec::new();
    for id in ["bob", "eve", "sue"] {
        made.push(at_last(&one, id).await);
    }
    for gateway in [&one, &two] {
        for key in &made {
            comes(gateway, key, 200, "a new key is good everywhere").await;
        }
        comes(gateway, &lost, 401, "what Redis lost is lost").await;
    }
}

/// Two stores that changed as often as each other are not the same store.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_lost_its_data_is_read_anew() {
    let (stub, redis) = (Stub::start().await, Redis::start().await);
    let gateway = guarded(&stub, "  api_keys: {}\n", &redis.section()).await;
    let lost = create(&gateway, "ann").await;
    comes(&gateway, &lost, 200, "the key is good").await;
    // What a restart without persistence, or a failover to a replica that lagged behind, and another gateway's first key
    // look like to one that did not look in between.
    let (key, entry) = new_key("bob").await;
    let hash = entry.split('"').nth(1).expect("a hash");
    let record = json!({ "id": "bob", "tenant": null, "roles": ["reader"], "tier": null, "created": 1, "expires": null, "last_used": null, "secrets": [{ "hash": hash, "until": null }] });
    let mut exchange = redis::pipe();
    exchange.atomic().cmd("FLUSHALL").ignore().cmd("HSET").arg("{mcp-gateway:keys}").arg("bob").arg(record.to_string()).ignore();
    exchange.cmd("SET").arg("{mcp-gateway:keys}:version").arg("the name of another state").ignore();
    exchange.query_async::<()>(&mut redis.connection().await).await.expect("exchanged");
    comes(&gateway, &key, 200, "the key that is there now is good").await;
    comes(&gateway, &lost, 401, "the one that is not is refused").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_names_another_redis_goes_there() {
    let (stub, first, second) = (Stub::start().await, Redis::start().await, Redis::start().await);
    let (here, there) = (first.section(), second.section());
    let (one, two) = tokio::join!(guarded(&stub, "  api_keys: {}\n", &here), guarded(&stub, "  api_keys: {}\n", &there));
    let (ours, theirs) = (create(&one, "ann").await, create(&two, "bob").await);
    comes(&one, &ours, 200, "a key of the first store").await;
    assert_eq!(by_key(&one, &theirs).await, 401, "the stores are two");
    one.load(&guarded_by(&stub, "  api_keys: {}\n", &second.section())).await;
    comes(&one, &theirs, 200, "a key of the second store").await;
    comes(&one, &ours, 401, "those of the first are no longer good").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_redis_is_told_to_nobody() {
    let (stub, redis) = (Stub::start().await, Redis::start().await);
    let wrong = redis.url().replace("redis://", "redis://ann:s3cret@");
    let gateway: Gateway = guarded(&stub, "  api_keys: {}\n", &format!("redis: {{ url: \"{wrong}\" }}\n")).await;
    let (status, refused) = admin(&gateway, "POST", "", json!({ "id": "ann" })).await;
    assert_eq!(status, 503, "{refused}");
    let config = crate::support::http().get(format!("{}/admin/config", gateway.admin)).send().await.expect("an answer");
    let shown = [refused.to_string(), config.text().await.expect("text"), gateway.said().await.join("\n")].concat();
    assert!(!shown.contains("s3cret"), "{shown}");
}
