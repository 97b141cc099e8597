//! etcd killed, hung, restarted, emptied, compacted behind our back, and guarded by passwords: what is served goes on, and
//! what changed is seen as soon as it can be.

use std::time::{Duration, Instant};

use super::{by_etcd, call, has, shown, value, yaml};
use crate::support::etcd::Etcd;
use crate::support::gateway::Gateway;
use crate::support::relay::Relay;
use crate::support::stub::Stub;
use crate::support::{eventually, http};

async fn up(gateway: &Gateway, wanted: u64) {
    let up = async || (gateway.metric("discovery_up{source=\"etcd\"}").await == wanted).then_some(());
    eventually(&format!("discovery_up is {wanted}"), up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_etcd_costs_nothing_and_what_changed_is_seen_once_it_is_back() {
    let (mut etcd, one, two) = (Etcd::start().await, Stub::start().await, Stub::start().await);
    etcd.put("/backends/one", &value(&one, "")).await;
    let mut gateway = by_etcd(&etcd, "", "").await;
    has(&gateway, &["one"]).await;
    for _ in 0..2 {
        etcd.stop().await;
        up(&gateway, 0).await;
        for _ in 0..20 {
            assert_eq!(call(&gateway).await, (200, "one".to_owned()));
        }
        etcd.resume().await;
        etcd.put("/backends/two", &value(&two, "")).await;
        let back = Instant::now();
        has(&gateway, &["one", "two"]).await;
        assert!(back.elapsed() < Duration::from_secs(10), "{:?}", back.elapsed());
        up(&gateway, 1).await;
        etcd.delete("/backends/two").await;
        has(&gateway, &["one"]).await;
    }
    gateway.process.says("the backends last told go on serving").await;
    etcd.stop().await;
    etcd.begin_anew().await;
    etcd.put("/backends/two", &value(&two, "")).await;
    has(&gateway, &["two"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_etcd_is_noticed_and_followed_again_when_it_wakes() {
    let (etcd, one, two) = (Etcd::start().await, Stub::start().await, Stub::start().await);
    etcd.put("/backends/one", &value(&one, "")).await;
    let gateway = by_etcd(&etcd, "", "").await;
    has(&gateway, &["one"]).await;
    etcd.hang();
    up(&gateway, 0).await;
    assert_eq!(call(&gateway).await, (200, "one".to_owned()));
    etcd.wake();
    etcd.put("/backends/two", &value(&two, "")).await;
    has(&gateway, &["one", "two"]).await;
    up(&gateway, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_while_etcd_is_down_serves_what_was_known() {
    use std::os::unix::fs::PermissionsExt as _;
    let (mut etcd, one, two) = (Etcd::start().await, Stub::start().await, Stub::start().await);
    etcd.put("/backends/one", &value(&one, ", credential: { bearer: t0ken }")).await;
    let gateway = by_etcd(&etcd, "", "").await;
    has(&gateway, &["one"]).await;
    let kept = gateway.dir.path().join("state/discovery/etcd.json");
    eventually("the set is on disk", async || kept.exists().then_some(())).await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode(&kept), mode(kept.parent().expect("a folder"))), (0o600, 0o700));
    etcd.stop().await;
    let gateway = gateway.again().await;
    has(&gateway, &["one"]).await;
    assert_eq!(call(&gateway).await, (200, "one".to_owned()));
    assert_eq!(one.headers().get("authorization").expect("our credential"), "Bearer t0ken");
    assert_eq!(shown(&gateway, "one").await["backend"]["credential"], "***");
    etcd.resume().await;
    etcd.put("/backends/two", &value(&two, "")).await;
    has(&gateway, &["one", "two"]).await;
    // What was remembered is worth no more than etcd's word.
    etcd.stop().await;
    let (process, dir) = (gateway.process, gateway.dir);
    drop(process);
    etcd.resume().await;
    etcd.delete("/backends/one").await;
    let gateway = Gateway::on(dir).await;
    has(&gateway, &["two"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_compacted_while_we_were_away_is_listed_anew() {
    let (mut etcd, one, two) = (Etcd::start().await, Stub::start().await, Stub::start().await);
    etcd.put("/backends/one", &value(&one, "")).await;
    let gateway = by_etcd(&etcd, "", "").await;
    has(&gateway, &["one"]).await;
    // The gateway is stopped rather than etcd, so that its watch is what comes too late.
    gateway.process.signal("STOP");
    etcd.stop().await;
    etcd.resume().await;
    etcd.delete("/backends/one").await;
    let mut last = 0;
    for weight in 1..20 {
        last = etcd.put("/backends/two", &value(&two, &format!(", weight: {weight}"))).await;
    }
    etcd.compact(last).await;
    gateway.process.signal("CONT");
    has(&gateway, &["two"]).await;
    assert_eq!(shown(&gateway, "two").await["backend"]["weight"], 19);
    etcd.put("/backends/three", &value(&one, "")).await;
    has(&gateway, &["three", "two"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_endpoint_is_asked_when_one_does_not_answer() {
    let (etcd, silent, stub) = (Etcd::start().await, Etcd::start().await, Stub::start().await);
    etcd.put("/backends/one", &value(&stub, "")).await;
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    silent.hang();
    let endpoints = format!("endpoints: [\"http://{refusing}\", \"{}\", \"{}\"]", silent.url(), etcd.url());
    let yaml = yaml(&etcd, "", "").replace(&format!("endpoints: [\"{}\"]", etcd.url()), &endpoints);
    let gateway = Gateway::start_unready(&yaml).await;
    has(&gateway, &["one"]).await;
    up(&gateway, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_silently_died_is_noticed_though_etcd_answers() {
    let (etcd, one, two) = (Etcd::start().await, Stub::start().await, Stub::start().await);
    etcd.put("/backends/one", &value(&one, "")).await;
    let port = etcd.url().rsplit_once(':').expect("a port").1.parse().expect("a number");
    let relay = Relay::start(port, "/v3/watch").await;
    let mut gateway = Gateway::start_unready(&yaml(&etcd, "", "").replace(&etcd.url(), &format!("http://{}", relay.address))).await;
    has(&gateway, &["one"]).await;
    etcd.put("/backends/two", &value(&two, "")).await;
    has(&gateway, &["one", "two"]).await;
    for rest in [vec!["one"], vec!["one", "two"]] {
        relay.deafen();
        match rest.len() {
            1 => etcd.delete("/backends/two").await,
            _ => drop(etcd.put("/backends/two", &value(&two, "")).await),
        }
        has(&gateway, &rest).await;
    }
    gateway.process.says("the watch is behind; listing anew").await;
    assert_eq!(gateway.metric("discovery_up{source=\"etcd\"}").await, 1, "that is no outage");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_without_a_quorum_are_not_believed_and_take_nothing_away() {
    let (mut cluster, one, two) = (Etcd::cluster().await, Stub::start().await, Stub::start().await);
    cluster[0].put("/backends/one", &value(&one, "")).await;
    let endpoints: Vec<String> = cluster.iter().map(|member| format!("\"{}\"", member.url())).collect();
    let first = format!("\"{}\"", cluster[0].url());
    let gateway = Gateway::start_unready(&yaml(&cluster[0], "", "").replace(&first, &endpoints.join(", "))).await;
    has(&gateway, &["one"]).await;
    // One of three may go, the one that is asked at that.
    cluster[0].stop().await;
    cluster[1].put("/backends/two", &value(&two, "")).await;
    has(&gateway, &["one", "two"]).await;
    cluster[1].stop().await;
    up(&gateway, 0).await;
    for _ in 0..20 {
        assert_eq!(call(&gateway).await.0, 200);
    }
    cluster[0].resume().await;
    up(&gateway, 1).await;
    cluster[0].delete("/backends/one").await;
    has(&gateway, &["two"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_and_passwords_are_shown_and_a_token_that_ends_is_replaced() {
    let (mut etcd, one, two) = (Etcd::start().await, Stub::start().await, Stub::start().await);
    etcd.put("/backends/one", &value(&one, "")).await;
    let gateway = by_etcd(&etcd, ", username: gw, password: s3cret", "").await;
    has(&gateway, &["one"]).await;
    etcd.guard("gw", "s3cret").await;
    let mut wrong = by_etcd(&etcd, ", username: gw, password: wrong-s3cret", "").await;
    wrong.process.says("authentication failed").await;
    up(&gateway, 1).await;
    // A restart forgets every token etcd gave.
    etcd.stop().await;
    etcd.resume().await;
    etcd.log_in().await;
    etcd.put("/backends/two", &value(&two, "")).await;
    has(&gateway, &["one", "two"]).await;
    up(&gateway, 1).await;
    let config = http().get(format!("{}/admin/config", gateway.admin)).send().await.expect("an answer").text().await.expect("text");
    for text in [config, gateway.said().await.join("\n"), wrong.said().await.join("\n")] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}
