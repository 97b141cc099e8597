//! Starting and stopping: requests under way are finished, streams are ended cleanly, and a start that cannot succeed
//! says why.

use futures::StreamExt as _;
use serde_json::json;

use crate::support::gateway::{Gateway, command, server};
use crate::support::part::Server;
use crate::support::process::Process;
use crate::support::stub::Stub;
use crate::support::{eventually, http};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_is_under_way() {
    let part = Server::python_sdk(&[]).await;
    let yaml = format!("{}backends:\n  - {{ name: one, url: \"{}\", capabilities: [real] }}\n", server("  grace_period: 20s\n"), part.url);
    let mut gateway = Gateway::start(&yaml).await;
    gateway.knows("real").await;
    let url = gateway.at("/api/mcp/real");
    let body = json!({ "method": "call_tool", "params": { "tool_name": "slow", "arguments": { "ms": 1500 } } });
    let slow = tokio::spawn(async move { http().post(url).json(&body).send().await.expect("an answer").status() });
    eventually("the call is under way", async || {
        (gateway.metric("backend_in_flight{backend=\"one\"}").await >= 1
            || gateway.metric("backend_requests_total{backend=\"one\",status=\"2xx\"}").await >= 1)
            .then_some(())
    })
    .await;
    gateway.process.signal("TERM");
    eventually("not ready any more", async || {
        http().get(gateway.at("/ready")).send().await.map_or(Some(()), |answer| (answer.status() == 503).then_some(()))
    })
    .await;
    assert_eq!(slow.await.expect("no panic"), 200);
    let status = gateway.process.child.wait().await.expect("an end");
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_cleanly_when_the_grace_period_does() {
    let stub = Stub::start().await;
    let yaml = format!("{}backends:\n{}", server("  grace_period: 1s\n"), stub.backend("one", ""));
    let mut gateway = Gateway::start(&yaml).await;
    let stream = http().get(gateway.at("/mcp/stub")).header("accept", "text/event-stream").send().await.expect("a stream");
    let mut stream = stream.bytes_stream();
    assert!(stream.next().await.is_some_and(|event| event.is_ok()));
    gateway.process.signal("TERM");
    let end = stream.next().await;
    assert!(end.is_none(), "a clean end of the chunked body, not an error: {end:?}");
    assert!(gateway.process.child.wait().await.expect("an end").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_cannot_succeed_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let mut run = command();
    run.env("MCP_BACKENDS", "one:http://127.0.0.1:9").env("GATEWAY_HOST", "127.0.0.1").env("GATEWAY_PORT", address.port().to_string());
    let mut process = Process::start(run);
    process.says(&format!("server.listen: cannot listen on {address}")).await;
    assert!(!process.child.wait().await.expect("an end").success());
}
