//! Whose turn it is, who is left out, and what clients notice of a death: nothing.

use std::time::Duration;

use serde_json::json;

use crate::support::gateway::{Gateway, server};
use crate::support::part::Server;
use crate::support::stub::{Act, Stub};
use crate::support::{eventually, http};

fn call() -> serde_json::Value {
    json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": { "text": "hi" } } })
}

/// `count` calls by 16 clients at once; returns how many were answered with anything but 200.
async fn load(gateway: &Gateway, count: usize) -> usize {
    let client = http();
    let calls = (0..count).map(|_| {
        let (client, url) = (client.clone(), gateway.at("/api/mcp/stub"));
        async move { client.post(url).json(&call()).send().await.map_or(0, |response| response.status().as_u16()) }
    });
    let statuses: Vec<u16> = futures::StreamExt::collect(futures::StreamExt::buffer_unordered(futures::stream::iter(calls), 16)).await;
    statuses.iter().filter(|status| **status != 200).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_come_out_exactly() {
    let (heavy, light) = (Stub::start().await, Stub::start().await);
    let gateway = Gateway::with(&format!("{}{}", heavy.backend("heavy", ", weight: 3"), light.backend("light", ""))).await;
    both_up(&gateway, "light", "heavy").await;
    assert_eq!(load(&gateway, 10_000).await, 0);
    let (heavy, light) = (heavy.calls(), light.calls());
    assert_eq!(heavy + light, 10_000);
    assert!((7_350..=7_650).contains(&heavy), "3:1 within 2 %: {heavy} to {light}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backend_costs_only_what_it_was_already_given() {
    let (mut dies, lives) = (Server::ts().await, Server::ts().await);
    let entry = |name: &str, server: &Server| {
        format!("  - {{ name: {name}, url: \"{}\", capabilities: [stub], health_check: {{mcp: true, interval: 300ms}} }}\n", server.url)
    };
    let yaml = format!("{}backends:\n{}{}", server(""), entry("dies", &dies), entry("lives", &lives));
    let gateway = Gateway::start(&yaml).await;
    both_up(&gateway, "dies", "lives").await;
    assert_eq!(load(&gateway, 100).await, 0);
    let (url, stop) = (gateway.at("/api/mcp/stub"), std::sync::atomic::AtomicBool::new(false));
    let failed = std::sync::atomic::AtomicUsize::new(0);
    let caller = async || {
        let client = http();
        while !stop.load(std::sync::atomic::Ordering::SeqCst) {
            let answer = client.post(&url).json(&call()).send().await;
            if answer.map_or(0, |response| response.status().as_u16()) != 200 {
                failed.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
    };
    let killer = async {
        dies.process.kill().await;
        eventually("it counts as unhealthy", async || (up(&gateway, "dies").await == 0).then_some(())).await;
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    futures::join!(caller(), caller(), caller(), caller(), killer);
    let failed = failed.into_inner();
    // The kernel closes the connections of the dead before its listener, which may take one more from each.
    assert!(failed <= 8, "at most what each caller had given it when it died; connecting fails over: {failed} failed");
    assert_eq!(load(&gateway, 400).await, 0, "none fails after the threshold");
    let health: serde_json::Value = http().get(gateway.at("/health")).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!((&health["status"], &health["backends"]["healthy"]), (&json!("degraded"), &json!(1)));
}

async fn both_up(gateway: &Gateway, one: &str, other: &str) {
    eventually("both are healthy", async || (up(gateway, one).await + up(gateway, other).await == 2).then_some(())).await;
}

async fn up(gateway: &Gateway, backend: &str) -> u64 {
    gateway.metric(&format!("backend_up{{backend=\"{backend}\"}}")).await
}

#[tokio::test]
async fn an_unhealthy_backend_gets_nothing_and_none_left_is_503() {
    let stub = Stub::start().await;
    let gateway = Gateway::with(&stub.backend("one", ", health_check: {path: /health, interval: 50ms}")).await;
    assert_eq!(gateway.rest("stub", call()).await.0, 200);
    stub.sicken();
    eventually("it counts as unhealthy", async || (up(&gateway, "one").await == 0).then_some(())).await;
    let before = stub.posts();
    let response = http().post(gateway.at("/api/mcp/stub")).json(&call()).send().await.expect("an answer");
    assert_eq!((response.status().as_u16(), response.headers().contains_key("retry-after")), (503, true));
    assert_eq!(http().get(gateway.at("/ready")).send().await.expect("an answer").status(), 503);
    assert_eq!(http().get(gateway.at("/health")).send().await.expect("an answer").status(), 200, "alive all the same");
    assert_eq!(stub.posts(), before);
}

#[tokio::test]
async fn a_call_that_was_sent_is_not_repeated_elsewhere() {
    let (one, two) = (Stub::start().await, Stub::start().await);
    let gateway = Gateway::with(&format!("{}{}", one.backend("one", ", timeout: 300ms"), two.backend("two", ", timeout: 300ms"))).await;
    both_up(&gateway, "one", "two").await;
    for act in [Act::Hang, Act::Hangup] {
        one.act(act.clone());
        two.act(act);
        let before = one.calls() + two.calls();
        let (status, _) = gateway.rest("stub", call()).await;
        assert!(status == 502 || status == 504, "{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(one.calls() + two.calls() - before, 1);
    }
}
