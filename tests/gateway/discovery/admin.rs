//! Backends registered through the admin listener: kept over a restart, shared through Redis, and refused by name.

use serde_json::{Value, json};

use super::{admin, by_etcd, call, has, names, shown, value};
use crate::support::etcd::Etcd;
use crate::support::gateway::{Gateway, server};
use crate::support::redis::Redis;
use crate::support::stub::Stub;
use crate::support::{eventually, http};

fn wish(stub: &Stub, weight: u32) -> Value {
    json!({ "url": stub.url, "protocol": "mcp", "era": "modern", "capabilities": ["stub"], "weight": weight,
        "health_check": { "path": "/health", "interval": "1s" }, "credential": { "bearer": "t0ken" } })
}

async fn empty(rest: &str) -> Gateway {
    Gateway::start_unready(&format!("{}backends: []\n{rest}", server(""))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_registered_changed_kept_over_a_restart_and_removed() {
    use std::os::unix::fs::PermissionsExt as _;
    let stub = Stub::start().await;
    let gateway = empty("").await;
    assert!(names(&gateway).await.is_empty());
    assert_eq!(call(&gateway).await.0, 404, "no server yet");
    let (status, made) = admin(&gateway, "PUT", "backends/one", wish(&stub, 2)).await;
    assert_eq!((status, &made["source"], &made["name"]), (201, &json!("admin"), &json!("one")), "{made}");
    assert_eq!((&made["backend"]["weight"], &made["backend"]["credential"]), (&json!(2), &json!("***")), "{made}");
    has(&gateway, &["one"]).await;
    assert_eq!(call(&gateway).await, (200, "one".to_owned()));
    let (status, made) = admin(&gateway, "PUT", "backends/one", wish(&stub, 3)).await;
    assert_eq!((status, &made["backend"]["weight"]), (200, &json!(3)), "the answer shows what is served: {made}");

    let file = gateway.dir.path().join("state/backends.json");
    assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    let gateway = gateway.again().await;
    has(&gateway, &["one"]).await;
    assert_eq!((call(&gateway).await, shown(&gateway, "one").await["backend"]["weight"].clone()), ((200, "one".to_owned()), json!(3)));
    assert_eq!(stub.headers().get("authorization").expect("our credential"), "Bearer t0ken");

    assert_eq!(admin(&gateway, "DELETE", "backends/one", Value::Null).await, (200, json!({ "name": "one", "removed": true })));
    assert!(names(&gateway).await.is_empty());
    assert_eq!(admin(&gateway, "DELETE", "backends/one", Value::Null).await.0, 404);
    let gateway = Gateway::on(gateway.dir).await;
    assert!(names(&gateway).await.is_empty(), "what was removed stays so");
    let told = http().get(format!("{}/admin/backends", gateway.admin)).send().await.expect("an answer").text().await.expect("text");
    assert!(!format!("{told}{:?}", gateway.said().await).contains("t0ken"));
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_what_is_registered_through_redis_also_while_it_is_down() {
    let (mut redis, one, two) = (Redis::start().await, Stub::start().await, Stub::start().await);
    let section = redis.section();
    let (left, right) = tokio::join!(empty(&section), empty(&section));
    assert_eq!(admin(&left, "PUT", "backends/one", wish(&one, 1)).await.0, 201);
    has(&left, &["one"]).await;
    has(&right, &["one"]).await;
    assert_eq!(admin(&right, "PUT", "backends/two", wish(&two, 1)).await.0, 201);
    has(&left, &["one", "two"]).await;
    assert_eq!(admin(&left, "DELETE", "backends/one", Value::Null).await.0, 200);
    has(&right, &["two"]).await;
    assert_eq!(call(&right).await, (200, "two".to_owned()));

    let kept = right.dir.path().join("state/discovery/admin.json");
    let has_two = async || std::fs::read_to_string(&kept).ok().filter(|text| text.contains("two") && !text.contains("\"one\"")).map(drop);
    eventually("the set is on disk", has_two).await;
    redis.stop().await;
    let right = right.again().await;
    has(&right, &["two"]).await;
    assert_eq!(call(&right).await, (200, "two".to_owned()));
    let (status, refused) = admin(&right, "PUT", "backends/three", wish(&one, 1)).await;
    assert_eq!((status, &refused["code"]), (503, &json!("store_unavailable")), "{refused}");
    redis.resume().await;
    eventually("it can be written again", async || (admin(&right, "PUT", "backends/three", wish(&one, 1)).await.0 < 300).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_another_source_is_a_conflict() {
    let (etcd, stub) = (Etcd::start().await, Stub::start().await);
    etcd.put("/backends/theirs", &value(&stub, "")).await;
    let gateway = by_etcd(&etcd, "", &format!("backends:\n{}", stub.backend("fixed", ""))).await;
    has(&gateway, &["fixed", "theirs"]).await;
    for (name, holder) in [("fixed", "the configuration"), ("theirs", "etcd")] {
        for (method, body) in [("PUT", wish(&stub, 1)), ("DELETE", Value::Null)] {
            let (status, refused) = admin(&gateway, method, &format!("backends/{name}"), body).await;
            let detail = refused["detail"].as_str().unwrap_or_default();
            assert_eq!((status, refused["code"].as_str()), (409, Some("conflict")), "{method} {name}: {refused}");
            assert!(detail.contains(holder), "{refused}");
        }
    }
    assert_eq!(admin(&gateway, "PUT", "backends/ours", wish(&stub, 1)).await.0, 201);
    has(&gateway, &["fixed", "ours", "theirs"]).await;
    // Later come, later served.
    etcd.put("/backends/ours", &value(&stub, ", weight: 9")).await;
    etcd.put("/backends/last", &value(&stub, "")).await;
    has(&gateway, &["fixed", "last", "ours", "theirs"]).await;
    assert_eq!(shown(&gateway, "ours").await["source"], "admin");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_by_member() {
    let gateway = empty("").await;
    let url = "http://10.0.0.1:80";
    let wrong = [
        ("x", json!({ "url": url, "wieght": 3 }), "invalid_params", "`wieght`: unknown key `wieght`; did you mean `weight`?"),
        ("x", json!({ "weight": 3 }), "invalid_params", "`url`: missing"),
        ("x", json!({ "url": "host:80" }), "invalid_params", "`url`: `host:80` is not an http:// or https:// URL"),
        ("x", json!({ "url": url, "weight": 0 }), "invalid_params", "`weight`: `0` is not a whole number"),
        ("x", json!({ "url": url, "weight": [1] }), "invalid_params", "`weight`: expected text, found a list"),
        ("x", json!({ "url": url, "health_check": { "mcp": true, "path": "/x" } }), "invalid_params", "`health_check.path`: give either"),
        (
            "x",
            json!({ "url": url, "credential": { "bearer_file": "/etc/passwd" } }),
            "invalid_params",
            "`credential.bearer_file`: files are read",
        ),
        ("x", json!({ "url": url, "name": "y" }), "invalid_params", "`name`: not the one in the path"),
        (
            "x",
            json!({ "url": "https://h", "tls": { "ca": "/dev/null" } }),
            "invalid_params",
            "`tls.ca`: cannot read /dev/null: not a regular file of at most 1 MiB",
        ),
        ("x%20y", json!({ "url": url }), "invalid_params", "backend name"),
        ("x", json!([{ "url": url }]), "invalid_request", "expected an object, found an array"),
        ("x", json!(5), "invalid_params", "expected a mapping, found a number"),
    ];
    for (name, body, code, told) in wrong {
        let (status, refused) = admin(&gateway, "PUT", &format!("backends/{name}"), body.clone()).await;
        let detail = refused["detail"].as_str().unwrap_or_default();
        assert!(status == 400 && refused["code"] == code && detail.contains(told), "{body}: wanted {told}, got {status} {refused}");
    }
    let (_, both) = admin(&gateway, "PUT", "backends/x", json!({ "weight": 0, "zzz": 1 })).await;
    let detail = both["detail"].as_str().unwrap_or_default();
    assert!(["`url`", "`weight`", "`zzz`"].iter().all(|member| detail.contains(member)), "all at once: {both}");
    let twice = r#"{"url":"http://a","url":"http://b"}"#;
    let sent = http().put(format!("{}/admin/backends/x", gateway.admin)).body(twice).send().await.expect("an answer");
    assert_eq!(sent.status(), 400, "{}", sent.text().await.unwrap_or_default());
    for (method, path, status) in [
        ("POST", "backends/x", 405),
        ("PUT", "backends", 405),
        ("GET", "backends/x", 404),
        ("POST", "backends/x/drain", 404),
        ("GET", "backends/x/drain", 405),
        ("GET", "backends/x/y", 404),
    ] {
        assert_eq!(admin(&gateway, method, path, Value::Null).await.0, status, "{method} {path}");
    }
    assert!(names(&gateway).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_takes_away_nothing_that_runs_and_no_reload_with_it() {
    let (stub, dir) = (Stub::start().await, tempfile::tempdir().expect("a temporary folder"));
    let pair = crate::listeners::certificate(dir.path(), "localhost");
    let yaml = |more: &str| format!("{}{more}backends:\n{}", server(""), stub.backend("fixed", ""));
    let gateway = Gateway::start(&yaml("")).await;
    let secured = json!({ "url": "https://localhost:1", "tls": { "ca": pair.cert } });
    assert_eq!(admin(&gateway, "PUT", "backends/secured", secured).await.0, 201);
    std::fs::remove_file(&pair.cert).expect("there");
    assert_eq!(admin(&gateway, "PUT", "backends/plain", wish(&stub, 1)).await.0, 201);
    assert_eq!(names(&gateway).await, ["fixed", "plain", "secured"]);
    // Everything is built anew, which that one cannot be.
    gateway.load(&yaml("load_balancer: { healthy_threshold: 1 }\n")).await;
    has(&gateway, &["fixed", "plain"]).await;
    assert_eq!(call(&gateway).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_backends_is_a_fault_unless_it_is_said() {
    for (yaml, good) in [("{}", false), ("backends: []", true), ("backends:", false), ("backends: []\nserver: { admin: 'off' }", false)] {
        let parsed = mcp_gateway::config::parse("test", yaml, &|_| None);
        assert_eq!(parsed.is_ok(), good, "{yaml}: {:?}", parsed.err());
    }
}
