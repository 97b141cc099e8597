//! What servers say of their lists on streams of the gateway's own.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{caching, list, rest, status, tools, yaml};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::stub::Stub;

async fn is_hit(gateway: &Gateway) -> bool {
    status(&rest(gateway, &list(), &[]).await).contains("; hit")
}

fn changed() -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" })
}

/// Kept until the server says that it changed, and again after that, also where the stream began anew.
async fn follows(stub: &Stub, gateway: &Gateway) {
    eventually("it is listened to", async || (stub.waiting() == 1).then_some(())).await;
    for round in 0..2 {
        let kept = async || is_hit(gateway).await.then_some(());
        eventually("the list is kept", kept).await;
        let before = stub.asked("tools/list");
        assert!(is_hit(gateway).await && stub.asked("tools/list") == before);
        stub.say(&changed());
        eventually("what changed is asked for anew", async || (!is_hit(gateway).await).then_some(())).await;
        assert!(is_hit(gateway).await, "round {round}");
    }
    // A moment without a stream is let pass.
    stub.hush();
    eventually("the stream ends", async || (stub.waiting() == 0).then_some(())).await;
    eventually("it is listened to again", async || (stub.waiting() == 1).then_some(())).await;
    assert!(is_hit(gateway).await);
    stub.say(&changed());
    eventually("and is heard again", async || (!is_hit(gateway).await).then_some(())).await;
}

#[tokio::test]
async fn a_modern_server_is_heard_though_no_client_listens() {
    let stub = Stub::start().await;
    stub.tell();
    stub.results("tools/list", tools("public"));
    let gateway = caching(&stub, "", "").await;
    follows(&stub, &gateway).await;
    assert!(is_hit(&gateway).await);
    let before = stub.asked("subscriptions/listen");
    // Nobody is listened to for longer than that: what changed meanwhile nobody was told.
    stub.hold(true);
    stub.hush();
    let began = Instant::now();
    let long = async || (stub.asked("subscriptions/listen") > before && began.elapsed() > Duration::from_secs(6)).then_some(());
    eventually("nobody listens for a while", long).await;
    assert!(is_hit(&gateway).await);
    stub.hold(false);
    eventually("what may have changed is asked for anew", async || (!is_hit(&gateway).await).then_some(())).await;
}

#[tokio::test]
async fn a_legacy_server_is_heard_though_no_client_listens() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let gateway = Gateway::start(&yaml(&stub, "", "").replace("era: modern", "era: legacy")).await;
    gateway.knows("stub").await;
    follows(&stub, &gateway).await;
}

#[tokio::test]
async fn one_that_does_not_tell_is_asked_once_and_one_that_is_not_to_be_heard_never() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let gateway = caching(&stub, "", "").await;
    eventually("it was asked", async || (stub.asked("subscriptions/listen") == 1).then_some(())).await;
    assert!(!is_hit(&gateway).await && is_hit(&gateway).await);
    drop(gateway);
    stub.tell();
    let silent = caching(&stub, "  listen: false\n", "").await;
    // One that came later and listens shows that the other had its time.
    let hearing = caching(&stub, "", "").await;
    eventually("it is listened to", async || (stub.waiting() == 1).then_some(())).await;
    assert_eq!(stub.asked("subscriptions/listen"), 2);
    drop((silent, hearing));
}

#[tokio::test]
async fn what_a_server_says_before_its_answer_counts_also_where_nobody_wants_to_hear_it() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let gateway = caching(&stub, "", "").await;
    assert!(!is_hit(&gateway).await && is_hit(&gateway).await);
    let result = json!({ "jsonrpc": "2.0", "id": "$ID", "result": { "resultType": "complete", "content": [] } });
    stub.act(crate::support::stub::Act::Stream(format!("data: {}\n\ndata: {result}\n\n", changed())));
    // Its answer has another's id, so the call fails; what was said before was said all the same.
    let _ = rest(&gateway, &super::call("echo", &json!({})), &[]).await;
    assert!(!is_hit(&gateway).await);
}
