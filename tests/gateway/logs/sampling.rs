//! The share of access records that is written: of quick successes alone.

use std::time::Duration;

use serde_json::{Value, json};

use super::{call, hold, logging, native, record, rest, written, yaml};
use crate::support::gateway::{Gateway, server};
use crate::support::stub::{Act, Stub};
use crate::support::{eventually, http};

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_or_was_refused_is_always_written_and_says_that_it_stands_for_itself() {
    let stub = Stub::start().await;
    let gateway = logging(&stub, "sample: 0", "").await;
    let echo = || native(&gateway, "tools/call", json!({ "name": "echo", "arguments": {} }));
    for request in [rest(&gateway, &call()), echo(), rest(&gateway, &json!([call(), call()])), http().get(gateway.at("/health"))] {
        assert_eq!(record(&gateway, request).await, (200, None), "it went well");
    }
    let always = |told: &(u16, Option<Value>), status: u16| {
        let is_one = told.1.as_ref().is_some_and(|record| record["sample"] == 1.0);
        assert!(told.0 == status && is_one, "{status}: {told:?}");
    };
    always(&record(&gateway, http().post(gateway.at("/api/mcp/nobody")).json(&call())).await, 404);
    always(&record(&gateway, rest(&gateway, &json!([call(), { "method": "no" }]))).await, 200);
    stub.act(Act::Say("result", json!({ "resultType": "complete", "content": [], "isError": true })));
    for request in [rest(&gateway, &call()), echo(), rest(&gateway, &json!([call(), call()]))] {
        always(&record(&gateway, request).await, 200);
    }
    stub.act(Act::Say("error", json!({ "code": -32000, "message": "no" })));
    always(&record(&gateway, rest(&gateway, &call()).header("accept", "text/event-stream")).await, 200);
    stub.act(Act::Status(500));
    always(&record(&gateway, rest(&gateway, &call())).await, 502);
    stub.act(Act::Hang);
    let id = uuid::Uuid::new_v4().to_string();
    let left = rest(&gateway, &call()).header("x-request-id", &id).timeout(Duration::from_millis(500)).send().await;
    assert!(left.is_err(), "the caller left");
    let record = eventually("its record is written", async || written(&gateway, &id).await).await;
    assert_eq!((&record["outcome"], &record["sample"]), (&json!("abandoned"), &json!(1.0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_took_long_is_always_written_and_both_keys_change_with_a_reload() {
    let stub = Stub::start().await;
    let gateway = logging(&stub, "sample: 0, slow: 1h", "").await;
    let held = async || {
        let long = Duration::from_millis(50);
        tokio::join!(hold(&stub, long), record(&gateway, rest(&gateway, &call()))).1.1
    };
    assert_eq!(held().await, None);
    gateway.load(&yaml(&stub, "sample: 0, slow: 50ms", "")).await;
    assert_eq!(held().await.map(|record| record["sample"].clone()), Some(json!(1.0)));
    gateway.load(&yaml(&stub, "sample: 0, slow: 0", "")).await;
    assert_eq!(held().await, None, "nothing is slow");
    gateway.load(&yaml(&stub, "sample: 1", "")).await;
    assert_eq!(held().await.map(|record| record["sample"].clone()), Some(Value::Null), "all are written, and none says how many");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_traces_are_written_in_every_replica_and_say_what_they_stand_for() {
    let stub = Stub::start().await;
    let shared = server("  session_secret: 0123456789abcdef\n");
    let replica = async |server: &str, log: &str| {
        let gateway =
            Gateway::start(&format!("{server}observability: {{ log: {{ {log} }} }}\nbackends:\n{}", stub.backend("one", ""))).await;
        gateway.knows("stub").await;
        gateway
    };
    let (one, two) = tokio::join!(replica(&shared, "sample: 0.5"), replica(&shared, "sample: 50%"));
    let other = replica(&server(""), "sample: 0.5").await;
    let ids: Vec<String> = (0..60).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
    let client = http();
    let mut kept = [Vec::new(), Vec::new(), Vec::new()];
    for (gateway, kept) in [&one, &two, &other].into_iter().zip(&mut kept) {
        for id in &ids {
            let request = client.post(gateway.at("/api/mcp/stub")).json(&call()).header("x-request-id", id);
            let answer = request.header("traceparent", format!("00-{id}-b7ad6b7169203331-00")).send().await.expect("an answer");
            assert_eq!(answer.status(), 200);
        }
        kept.extend(records(gateway, &ids).await);
    }
    assert_eq!(kept[0], kept[1]);
    assert_ne!(kept[0], kept[2], "who does not know the secret cannot tell which are");
    assert!((10..50).contains(&kept[0].len()), "about half: {}", kept[0].len());
}

/// Those of the requests that have a record, which says that it is one of two.
async fn records(gateway: &Gateway, ids: &[String]) -> Vec<String> {
    let said = super::said(gateway).await;
    let lines: Vec<Value> = said.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |id: &&String| {
        let record = lines.iter().find(|line| line["target"] == "access" && line["request_id"] == id.as_str());
        record.is_some_and(|record| {
            assert_eq!(record["sample"], 0.5, "{record}");
            true
        })
    };
    ids.iter().filter(of).cloned().collect()
}
