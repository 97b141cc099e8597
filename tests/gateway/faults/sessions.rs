//! Native sessions, which only their own backend can continue.

use super::*;

/// Opens a session; gives back its id.
async fn initialize(gateway: &Gateway) -> String {
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
    let request = http().post(gateway.at("/mcp/stub")).header("accept", "application/json, text/event-stream").json(&body);
    let response = request.send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    response.headers()["mcp-session-id"].to_str().expect("text").to_owned()
}

async fn within(gateway: &Gateway, session: &str, kind: Kind) -> Told {
    let (method, params) = match kind {
        Kind::Call(name) => ("tools/call", json!({ "name": name, "arguments": {} })),
        Kind::List => ("tools/list", json!({})),
    };
    let body = json!({ "jsonrpc": "2.0", "id": 2, "method": method, "params": params });
    let request = http().post(gateway.at("/mcp/stub")).header("accept", "application/json, text/event-stream");
    send(request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25").json(&body)).await
}

#[tokio::test]
async fn failures_within_sessions_open_the_breaker_and_nobody_else_takes_over() {
    let (one, two) = (Faulty::start(), Faulty::start());
    let more = "circuit_breaker: { failure_threshold: 2, recovery_timeout: 300ms }\n";
    let gateway = gateway(&[one.backend("one", ""), two.backend("two", "")], more).await;
    let session = initialize(&gateway).await;
    assert_eq!(within(&gateway, &session, WRITE).await.status, 200);
    let (home, name, other) = if one.calls() == 1 { (&one, "one", &two) } else { (&two, "two", &one) };
    for fault in [Fault::Status(500), Fault::ResetAfterAll, Fault::CloseInBody] {
        home.commit(fault);
        for _ in 0..2 {
            let told = within(&gateway, &session, Kind::List).await;
            assert_eq!(told.status, if fault == Fault::Status(500) { 500 } else { 502 }, "{fault:?}");
        }
        home.commit(Fault::Hang);
        assert_ne!(breaker(&gateway, name).await, "closed", "{fault:?}");
        home.commit(None);
        eventually("the session goes on", async || {
            let told = within(&gateway, &session, WRITE).await;
            assert!(told.status == 200 || (told.code == "circuit_open" && told.retry_after.is_some()), "{told:?}");
            (told.status == 200).then_some(())
        })
        .await;
        assert_eq!(breaker(&gateway, name).await, "closed");
    }
    assert_eq!((other.calls(), other.lists()), (0, 0), "nobody else knows the session");
}
