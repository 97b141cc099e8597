//! Reloading: under load, by every way there is, and with a broken file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, server};
use crate::support::stub::Stub;
use crate::support::{eventually, http};

fn yaml(stubs: &[&Stub], weight: usize) -> String {
    let backends: String =
        stubs.iter().enumerate().map(|(i, stub)| stub.backend(&format!("b{i}"), &format!(", weight: {weight}"))).collect();
    format!("{}backends:\n{backends}", server(""))
}

async fn reloads(gateway: &Gateway, result: &str) -> u64 {
    gateway.metric(&format!("config_reloads_total{{result=\"{result}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_reloads_under_load_fail_nothing_and_cut_no_stream() {
    let (one, two) = (Stub::start().await, Stub::start().await);
    let gateway = Arc::new(Gateway::start(&yaml(&[&one, &two], 1)).await);
    let stop = Arc::new(AtomicBool::new(false));
    let (answered, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (gateway, stop, answered, failed) = (Arc::clone(&gateway), Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&failed));
            tokio::spawn(async move {
                let client = http();
                let body = json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": {} } });
                while !stop.load(Ordering::SeqCst) {
                    let status = client.post(gateway.at("/api/mcp/stub")).json(&body).send().await.map_or(0, |r| r.status().as_u16());
                    if status == 200 { &answered } else { &failed }.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let stream = http().get(gateway.at("/mcp/stub")).header("accept", "text/event-stream").send().await.expect("a stream");
    let mut stream = stream.bytes_stream();
    assert!(stream.next().await.is_some_and(|event| event.is_ok()));
    for round in 0..20 {
        // Weights change and a backend comes and goes, so that every reload builds something new.
        let stubs: &[&Stub] = if round % 2 == 0 { &[&one] } else { &[&one, &two] };
        std::fs::write(gateway.config_path(), yaml(stubs, 1 + round % 3)).expect("writable");
        let told: Value =
            http().post(format!("{}/admin/reload", gateway.admin)).send().await.expect("an answer").json().await.expect("JSON");
        assert_eq!(told["reloaded"], true, "{told}");
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("no panic");
    }
    assert!(reloads(&gateway, "ok").await >= 20);
    assert_eq!(failed.load(Ordering::SeqCst), 0);
    assert!(answered.load(Ordering::SeqCst) > 100);
    let cut = tokio::time::timeout(std::time::Duration::from_millis(100), stream.next()).await;
    assert!(cut.is_err(), "the stream is still open: {cut:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_leaves_the_old_configuration_serving() {
    let stub = Stub::start().await;
    let mut gateway = Gateway::start(&yaml(&[&stub], 1)).await;
    for broken in ["backends: [", "server: { lisen: 1 }\nbackends: []\n", "backends:\n  - { name: b0 }\n"] {
        let before = reloads(&gateway, "failed").await;
        std::fs::write(gateway.config_path(), broken).expect("writable");
        let answer = http().post(format!("{}/admin/reload", gateway.admin)).send().await.expect("an answer");
        assert_eq!(answer.status(), 422);
        let told: Value = answer.json().await.expect("JSON");
        assert!(told["problems"][0].as_str().is_some_and(|problem| problem.contains("gateway.yaml")), "{told}");
        assert!(reloads(&gateway, "failed").await > before);
        gateway.call("stub", "echo", json!({})).await;
    }
    gateway.process.says("the last good one goes on serving").await;
}

#[tokio::test]
async fn no_reload_opens_the_admin_listener() {
    let stub = Stub::start().await;
    let with = |admin: &str| format!("{}{admin}backends:\n{}", server(""), stub.backend("one", ""));
    let gateway = Gateway::start(&with("  admin_token: the-token\n")).await;
    let reload = http().post(format!("{}/admin/reload", gateway.admin)).bearer_auth("the-token");
    // The new address needs no token, but the old socket is the one that stays.
    std::fs::write(gateway.config_path(), with("").replace("admin: 127.0.0.1:0", "admin: 127.0.0.1:9")).expect("writable");
    assert_eq!(reload.send().await.expect("an answer").status(), 200);
    assert_eq!(http().get(format!("{}/admin/config", gateway.admin)).send().await.expect("an answer").status(), 401);
}

#[tokio::test]
async fn secrets_in_a_broken_url_are_not_repeated() {
    let stub = Stub::start().await;
    let gateway = Gateway::start(&yaml(&[&stub], 1)).await;
    for url in ["http://user:HUSH@127.0.0.1:99999", "htp://user:HUSH@x", "http://x/?token=HUSH", "http://user:HUSH@x"] {
        std::fs::write(gateway.config_path(), format!("backends: [{{ name: a, url: \"{url}\" }}]\n")).expect("writable");
        let told = http().post(format!("{}/admin/reload", gateway.admin)).send().await.expect("an answer").text().await.expect("text");
        assert!(told.contains("problems") && !told.contains("HUSH"), "{url}: {told}");
    }
    assert!(!gateway.process.output().join("\n").contains("HUSH"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_and_a_changed_file_reload() {
    let stub = Stub::start().await;
    let gateway = Gateway::start(&yaml(&[&stub], 1)).await;
    std::fs::write(gateway.config_path(), yaml(&[&stub], 2)).expect("writable");
    eventually("the changed file is noticed", async || (reloads(&gateway, "ok").await >= 1).then_some(())).await;
    let before = reloads(&gateway, "ok").await;
    gateway.process.signal("HUP");
    eventually("SIGHUP reloads", async || (reloads(&gateway, "ok").await > before).then_some(())).await;
    let config: Value = http().get(format!("{}/admin/config", gateway.admin)).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(config["config"]["backends"][0]["weight"], 2);
}
