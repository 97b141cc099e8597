//! What is in etcd is what is served: keys that come, change, go and expire.

use std::sync::Arc;

use futures::future::join_all;
use serde_json::Value;

use super::{Load, admin, backends, by_etcd, call, has, names, revision, shown, value, yaml};
use crate::support::etcd::Etcd;
use crate::support::gateway::{Gateway, server};
use crate::support::stub::Stub;
use crate::support::{client, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn keys_come_change_go_and_expire() {
    let (etcd, one, two) = (Etcd::start().await, Stub::start().await, Stub::start().await);
    etcd.put("/backends/one", &value(&one, "")).await;
    let gateway = by_etcd(&etcd, "", "").await;
    has(&gateway, &["one"]).await;
    let row = shown(&gateway, "one").await;
    assert_eq!((row["source"].as_str(), row["era"].as_str(), &row["draining"]), (Some("etcd"), Some("modern"), &Value::Bool(false)));
    assert_eq!(call(&gateway).await, (200, "one".to_owned()));

    etcd.put("/backends/eu/two", &value(&two, ", weight: 7")).await;
    has(&gateway, &["one", "two"]).await;
    assert_eq!(shown(&gateway, "two").await["backend"]["weight"], 7);

    etcd.put("/backends/eu/two", &value(&two, ", weight: 8, name: second")).await;
    has(&gateway, &["one", "second"]).await;
    assert_eq!(shown(&gateway, "second").await["backend"]["weight"], 8);

    etcd.delete("/backends/one").await;
    has(&gateway, &["second"]).await;
    assert_eq!(call(&gateway).await, (200, "second".to_owned()));

    etcd.put_leased("/backends/brief", &value(&one, ""), 2).await;
    has(&gateway, &["brief", "second"]).await;
    has(&gateway, &["second"]).await;
    assert_eq!(gateway.metric("discovery_up{source=\"etcd\"}").await, 1);
    assert_eq!(gateway.metric("discovery_backends{source=\"etcd\"}").await, 1);
    assert_eq!(gateway.metric("backend_up{backend=\"one\"}").await, 0, "the series of what is gone goes too");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_backend_is_told_and_the_last_good_one_stays() {
    let (etcd, stub) = (Etcd::start().await, Stub::start().await);
    etcd.put("/backends/good", &value(&stub, ", credential: { bearer: t0ken }")).await;
    let mut gateway = by_etcd(&etcd, "", "").await;
    has(&gateway, &["good"]).await;
    let wrong = [
        (
            "/backends/good",
            value(&stub, ", credential: { bearer: s3cret }, wieght: 3"),
            "etcd key /backends/good:1: wieght: unknown key `wieght`; did you mean `weight`?",
        ),
        ("/backends/yaml", "[ s3cret".to_owned(), "etcd key /backends/yaml:"),
        ("/backends/url", "{ url: 'http://u:s3cret@host' }".to_owned(), "etcd key /backends/url:1: url: `http://host` holds credentials"),
        (
            "/backends/file",
            "{ url: 'http://host', credential: { bearer_file: /etc/passwd } }".to_owned(),
            "etcd key /backends/file:1: credential.bearer_file: files are read for the configuration only",
        ),
        (
            "/backends/ca",
            "{ url: 'https://host', tls: { ca: /dev/null } }".to_owned(),
            "etcd key /backends/ca:1: tls.ca: cannot read /dev/null: not a regular file of at most 1 MiB",
        ),
        ("/backends/", "{ url: 'http://host' }".to_owned(), "etcd key /backends/:"),
    ];
    for (key, text, _) in &wrong {
        etcd.put(key, text).await;
    }
    for (_, _, told) in &wrong {
        gateway.process.says(told).await;
    }
    etcd.put("/backends/last", &value(&stub, "")).await;
    has(&gateway, &["good", "last"]).await;
    assert_eq!(call(&gateway).await.0, 200);
    assert_eq!(gateway.metric("discovery_rejected_total{source=\"etcd\"}").await, wrong.len() as u64);
    let config = admin(&gateway, "GET", "config", Value::Null).await.1.to_string();
    let said = gateway.said().await.join("\n") + &config + &format!("{:?}", backends(&gateway).await);
    assert!(!said.contains("s3cret") && !said.contains("t0ken"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_changes_in_a_burst_are_few_snapshots_and_the_last_wins() {
    let (etcd, stub) = (Etcd::start().await, Stub::start().await);
    etcd.put("/backends/first", &value(&stub, "")).await;
    let gateway = by_etcd(&etcd, "", "").await;
    has(&gateway, &["first"]).await;
    let before = revision(&gateway).await;
    for round in 1..=50 {
        let weight = format!(", weight: {round}");
        let text = value(&stub, &weight);
        join_all((0..20).map(async |i| etcd.put(&format!("/backends/b{i:02}"), &text).await)).await;
    }
    etcd.delete("/backends/first").await;
    eventually("the last state is served", async || {
        let rows = backends(&gateway).await;
        (rows.len() == 20 && rows.iter().all(|row| row["backend"]["weight"] == 50 && row["healthy"] == true)).then_some(())
    })
    .await;
    let published = revision(&gateway).await - before;
    assert!(published <= 60, "1,001 changes were {published} snapshots");
    assert_eq!(call(&gateway).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_that_come_change_and_go_under_load_fail_nothing() {
    let (etcd, stubs) = (Etcd::start().await, join_all((0..3).map(|_| Stub::start())).await);
    let key = |i: usize| format!("/backends/b{i}");
    etcd.put(&key(0), &value(&stubs[0], "")).await;
    let gateway = Arc::new(by_etcd(&etcd, "", "").await);
    has(&gateway, &["b0"]).await;
    let load = Load::start(&gateway);
    for round in 1..=10 {
        let (comes, goes) = (round % 3, (round + 2) % 3);
        etcd.put(&key(comes), &value(&stubs[comes], &format!(", weight: {round}"))).await;
        let name = format!("b{comes}");
        eventually("it is there", async || (shown(&gateway, &name).await["healthy"] == true).then_some(())).await;
        // The only other one changes while it serves.
        etcd.put(&key(goes), &value(&stubs[goes], ", weight: 99")).await;
        etcd.delete(&key(goes)).await;
        has(&gateway, &[&name]).await;
        etcd.put(&key(comes), &value(&stubs[comes], &format!(", weight: {}", round + 1))).await;
        eventually("it changed", async || (shown(&gateway, &name).await["backend"]["weight"] == round + 1).then_some(())).await;
    }
    load.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discovered_backend_gets_nothing_before_it_is_healthy() {
    let (etcd, well, sick) = (Etcd::start().await, Stub::start().await, Stub::start().await);
    sick.sicken();
    etcd.put("/backends/sick", &value(&sick, ", weight: 1000")).await;
    etcd.put("/backends/well", &value(&well, "")).await;
    let gateway = by_etcd(&etcd, "", "").await;
    eventually("the well one is served", async || (shown(&gateway, "well").await["healthy"] == true).then_some(())).await;
    for _ in 0..50 {
        assert_eq!(call(&gateway).await, (200, "well".to_owned()));
    }
    assert_eq!((names(&gateway).await.len(), sick.posts()), (2, 0), "it is known, and was asked for its health only");
    sick.be_sick(false);
    has(&gateway, &["sick", "well"]).await;
    eventually("it takes its share", async || (call(&gateway).await.1 == "sick").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_wins_a_name_and_keeps_it_over_reloads() {
    let (etcd, ours, theirs) = (Etcd::start().await, Stub::start().await, Stub::start().await);
    etcd.put("/backends/one", &value(&theirs, "")).await;
    etcd.put("/backends/two", &value(&theirs, "")).await;
    let configured = format!("backends:\n{}", ours.backend("one", ""));
    let mut gateway = by_etcd(&etcd, "", &configured).await;
    has(&gateway, &["one", "two"]).await;
    assert_eq!(
        (shown(&gateway, "one").await["source"].clone(), shown(&gateway, "two").await["source"].clone()),
        ("file".into(), "etcd".into())
    );
    gateway.process.says("backend one: the configuration has it").await;
    gateway.load(&yaml(&etcd, "", &configured.replace("name: one", "name: other"))).await;
    has(&gateway, &["one", "other", "two"]).await;
    assert_eq!(shown(&gateway, "one").await["source"], "etcd", "a name that is free is the next one's");
    gateway.load(&format!("{}{configured}", server(""))).await;
    assert_eq!(names(&gateway).await, ["one"], "no etcd, none of its backends");
    gateway.load(&yaml(&etcd, ", prefix: /others/", &configured)).await;
    etcd.put("/others/three", &value(&theirs, "")).await;
    has(&gateway, &["one", "three"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_verified_by_the_ca_given() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let pair = crate::listeners::certificate(dir.path(), "localhost");
    let trusting = client(reqwest::Client::builder().add_root_certificate(pair.root.clone()));
    let (etcd, stub) = (Etcd::with_tls(&pair.cert, &pair.key, trusting).await, Stub::start().await);
    etcd.put("/backends/one", &value(&stub, "")).await;
    let configured = format!("backends:\n{}", stub.backend("configured", ""));
    let mut stranger = by_etcd(&etcd, "", &configured).await;
    stranger.process.says("discovery, etcd: https://localhost").await;
    assert_eq!((names(&stranger).await, stranger.metric("discovery_up{source=\"etcd\"}").await), (vec!["configured".to_owned()], 0));
    let gateway: Gateway = by_etcd(&etcd, &format!(", ca: {}", pair.cert.display()), "").await;
    has(&gateway, &["one"]).await;
}
