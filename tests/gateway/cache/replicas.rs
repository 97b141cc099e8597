//! Two gateways and a real Redis: what one keeps the other gives, what one voids neither gives, and whatever becomes of the
//! Redis, nobody notices but who looks at the upstream.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{call, native, read, rest, status, told, tools, yaml};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::stub::Stub;

const TOOLS: &str = "  redis: true\n  tools: [ { tool: echo, ttl: 1m } ]\n";

async fn replica(stub: &Stub, redis: &Redis) -> Gateway {
    started(stub, &redis.section()).await
}

/// One that waits for Redis no longer than is usual.
async fn hasty(stub: &Stub, redis: &Redis) -> Gateway {
    started(stub, &redis.waited_for("50ms")).await
}

async fn started(stub: &Stub, section: &str) -> Gateway {
    let gateway = Gateway::start(&yaml(stub, TOOLS, section)).await;
    gateway.knows("stub").await;
    gateway
}

async fn is_hit(gateway: &Gateway, body: &Value) -> bool {
    status(&rest(gateway, body, &[]).await).contains("; hit")
}

/// The keys of entries, once there are so many.
async fn entries(redis: &Redis, count: usize) -> Vec<String> {
    let mut connection = redis.connection().await;
    eventually("it is in Redis", async || kept(&mut connection).await.filter(|keys| keys.len() == count)).await
}

async fn kept(connection: &mut ::redis::aio::MultiplexedConnection) -> Option<Vec<String>> {
    let keys: Vec<String> = ::redis::cmd("KEYS").arg("mcp-gateway:cache:*").query_async(connection).await.ok()?;
    Some(keys.into_iter().filter(|key| !key.ends_with(":epochs")).collect())
}

fn long() -> Value {
    json!({ "resultType": "complete", "ttlMs": 60_000, "cacheScope": "public", "contents": [{ "uri": "a:b", "text": format!("$N{}", "x".repeat(20_000)) }] })
}

#[tokio::test]
async fn what_one_keeps_the_other_gives() {
    let (stub, redis) = (Stub::start().await, Redis::start().await);
    stub.results("tools/list", tools("public"));
    stub.results("resources/read", long());
    let (one, two) = (replica(&stub, &redis).await, replica(&stub, &redis).await);
    let first = told(rest(&one, &read("a:b"), &[]).await).await;
    assert_eq!(first.0, "mcp-gateway; fwd=miss; stored");
    entries(&redis, 1).await;
    let (kept, answer) = told(rest(&two, &read("a:b"), &[]).await).await;
    assert!(kept.contains("; hit") && answer["cached"] == json!(true) && answer["result"] == first.1["result"], "{kept}");
    assert_eq!(stub.asked("resources/read"), 1);
    assert_eq!(two.metric("cache_requests_total{result=\"hit\",server=\"stub\",tier=\"redis\"}").await, 1);
    let fresh = told(native(&one, &json!(1), "tools/list", json!({}), &[]).await).await;
    entries(&redis, 2).await;
    let (kept, answer) = told(native(&two, &json!("x"), "tools/list", json!({}), &[]).await).await;
    assert!(kept.contains("; hit") && answer["id"] == "x" && answer["result"]["tools"] == fresh.1["result"]["tools"], "{kept}");
    // Compressed where it is long.
    let mut connection = redis.connection().await;
    let mut sizes = Vec::new();
    for key in entries(&redis, 2).await {
        sizes.push(::redis::cmd("STRLEN").arg(key).query_async::<usize>(&mut connection).await.expect("a number"));
    }
    assert!(sizes.iter().all(|size| *size < 2000), "{sizes:?}");
}

#[tokio::test]
async fn what_one_voids_neither_gives() {
    let (stub, redis) = (Stub::start().await, Redis::start().await);
    stub.results("resources/read", long());
    let (one, two) = (replica(&stub, &redis).await, replica(&stub, &redis).await);
    let asked = read("a:b");
    assert!(!is_hit(&one, &asked).await);
    entries(&redis, 1).await;
    assert!(is_hit(&two, &asked).await && is_hit(&two, &asked).await);
    let written = Instant::now();
    let _ = rest(&one, &call("regional", &json!({})), &[]).await;
    let number = |answer: &Value| answer["result"][0]["text"].as_str().map(|text| text.trim_end_matches('x').to_owned());
    let mine = number(&told(rest(&one, &asked, &[]).await).await.1);
    eventually("the other heard", async || (number(&told(rest(&two, &asked, &[]).await).await.1) == mine).then_some(())).await;
    assert!(written.elapsed() < Duration::from_secs(2), "{:?}", written.elapsed());
    // A message that is lost: what is in memory stays, but nobody takes it over from Redis.
    let mut connection = redis.connection().await;
    assert!(is_hit(&two, &asked).await);
    let _: () = ::redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").query_async(&mut connection).await.expect("killed");
    let _ = rest(&one, &call("regional", &json!({})), &[]).await;
    let three = replica(&stub, &redis).await;
    assert!(!is_hit(&three, &asked).await, "whoever comes new is not given it");
}

#[tokio::test]
async fn whatever_becomes_of_redis_requests_are_answered() {
    let (stub, mut redis) = (Stub::start().await, Redis::start().await);
    stub.results("resources/read", long());
    let gateway = hasty(&stub, &redis).await;
    assert!(!is_hit(&gateway, &read("a:0")).await);
    for (at, state) in ["hung", "awake", "killed", "back"].into_iter().enumerate() {
        match state {
            "hung" => redis.hang(),
            "awake" => redis.wake(),
            "killed" => redis.stop().await,
            _ => redis.resume().await,
        }
        assert!(is_hit(&gateway, &read("a:0")).await, "{state}: from memory");
        for i in 0..5 {
            let began = Instant::now();
            let response = rest(&gateway, &read(&format!("a:{at}:{i}")), &[]).await;
            assert_eq!(status(&response), "mcp-gateway; fwd=miss; stored", "{state}");
            assert!(began.elapsed() < Duration::from_secs(2), "{state} {:?}", began.elapsed());
        }
    }
    assert!(gateway.metric("redis_errors_total").await > 0);
    // It is used again without a restart.
    let other = replica(&stub, &redis).await;
    let mut i = 0;
    eventually("it is shared again", async || {
        i += 1;
        let body = read(&format!("b:{i}"));
        let _ = rest(&gateway, &body, &[]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        is_hit(&other, &body).await.then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_voided_while_redis_took_no_writes_does_not_come_back_with_it() {
    let (stub, redis) = (Stub::start().await, Redis::start().await);
    stub.results("resources/read", long());
    let gateway = replica(&stub, &redis).await;
    assert!(!is_hit(&gateway, &read("a:b")).await);
    entries(&redis, 1).await;
    let mut connection = redis.connection().await;
    let mut wants_replicas = ::redis::cmd("CONFIG");
    wants_replicas.arg("SET").arg("min-replicas-to-write");
    let _: () = wants_replicas.clone().arg(1).query_async(&mut connection).await.expect("set");
    let _ = rest(&gateway, &call("regional", &json!({})), &[]).await;
    eventually("the write was refused", async || (gateway.metric("redis_errors_total").await > 0).then_some(())).await;
    let _: () = wants_replicas.arg(0).query_async(&mut connection).await.expect("set");
    let mut i = 0;
    eventually("Redis is used again", async || {
        i += 1;
        let _ = rest(&gateway, &read(&format!("c:{i}")), &[]).await;
        kept(&mut connection).await.filter(|keys| keys.len() > 1)
    })
    .await;
    assert!(!is_hit(&gateway, &read("a:b")).await);
}

#[tokio::test]
async fn garbage_is_counted_and_dropped() {
    let (stub, redis) = (Stub::start().await, Redis::start().await);
    stub.results("resources/read", long());
    let (one, two) = (replica(&stub, &redis).await, replica(&stub, &redis).await);
    let mut connection = redis.connection().await;
    for (at, garbage) in ["", "p", "z\u{0}\u{1}", "p{}\n{}", "x", "pnull"].into_iter().enumerate() {
        let asked = read(&format!("a:{at}"));
        assert!(!is_hit(&one, &asked).await);
        let keys = entries(&redis, 1).await;
        let _: () = ::redis::cmd("SET").arg(&keys[0]).arg(garbage).query_async(&mut connection).await.expect("set");
        assert_eq!(status(&rest(&two, &asked, &[]).await), "mcp-gateway; fwd=miss; stored", "{garbage:?}");
        assert_eq!(two.metric("cache_garbage_total").await, at as u64 + 1, "{garbage:?}");
        let _: () = ::redis::cmd("FLUSHALL").query_async(&mut connection).await.expect("emptied");
    }
}

#[tokio::test]
async fn a_value_of_another_question_is_none() {
    let (stub, redis) = (Stub::start().await, Redis::start().await);
    stub.results("resources/read", long());
    let (one, two) = (replica(&stub, &redis).await, replica(&stub, &redis).await);
    let mut connection = redis.connection().await;
    assert!(!is_hit(&one, &read("b:1")).await);
    let first = entries(&redis, 1).await.remove(0);
    assert!(!is_hit(&one, &read("b:2")).await);
    let second = entries(&redis, 2).await.into_iter().find(|key| *key != first).expect("another");
    let _: () = ::redis::cmd("COPY").arg(&first).arg(&second).arg("REPLACE").query_async(&mut connection).await.expect("copied");
    assert!(!is_hit(&two, &read("b:2")).await, "what it holds is the answer to b:1");
    assert!(is_hit(&two, &read("b:1")).await, "the control");
}

#[tokio::test]
async fn how_long_redis_is_waited_for_changes_with_a_reload_that_forgets_nothing() {
    let (stub, redis) = (Stub::start().await, Redis::start().await);
    stub.results("resources/read", long());
    let gateway = started(&stub, &redis.waited_for("5s")).await;
    assert!(!is_hit(&gateway, &read("a:b")).await);
    gateway.load(&yaml(&stub, TOOLS, &redis.waited_for("20ms"))).await;
    redis.hang();
    assert!(is_hit(&gateway, &read("a:b")).await, "from memory");
    let asked = tokio::time::timeout(Duration::from_secs(4), is_hit(&gateway, &read("a:c"))).await;
    assert_eq!(asked, Ok(false), "it is waited for no longer");
    redis.wake();
}
