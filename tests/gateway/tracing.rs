//! What a collector of traces is told, decoded from the OTLP protobuf that was sent.

use std::sync::atomic::Ordering;

use mcp_gateway::digest::hex;
use serde_json::{Value, json};

use crate::support::collector::{Collector, pairs};
use crate::support::gateway::{Gateway, server};
use crate::support::stub::{Act, Stub};
use crate::support::{eventually, http};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn yaml(backends: &str, url: &str, sample: f64) -> String {
    let tracing = format!("{{ otlp: \"{url}\", sample: {sample}, service: edge, headers: {{ x-team: canary-of-the-header }} }}");
    format!("{}backends:\n{backends}observability: {{ tracing: {tracing} }}\n", server(""))
}

async fn call(gateway: &Gateway, tool: &str, headers: &[(&str, &str)]) -> u16 {
    let body = json!({ "method": "call_tool", "params": { "tool_name": tool, "arguments": { "secret": "canary-of-arguments" } } });
    let request = http().post(gateway.at("/api/mcp/stub")).json(&body);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.expect("an answer").status().as_u16()
}

async fn native(gateway: &Gateway, headers: &[(&str, &str)], meta: &Value) -> u16 {
    let mut meta = meta.clone();
    meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "echo", "arguments": {}, "_meta": meta } });
    let request = http().post(gateway.at("/mcp/stub")).header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/call");
    let request = request.header("mcp-name", "echo").header("accept", "application/json, text/event-stream").json(&body);
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.expect("an answer").status().as_u16()
}

fn id(bytes: &[u8]) -> String {
    hex(bytes)
}

#[tokio::test]
async fn a_request_and_who_was_asked_are_spans_of_the_callers_trace() {
    let (stub, collector) = (Stub::start().await, Collector::start().await);
    let gateway = Gateway::start(&yaml(&stub.backend("one", ""), &collector.url, 0.0)).await;
    gateway.knows("stub").await;
    assert_eq!(call(&gateway, "echo", &[("traceparent", PARENT), ("x-request-id", "mine")]).await, 200);
    let seen = stub.headers()["traceparent"].to_str().expect("text").to_owned();
    let spans = collector.trace("tools/call echo").await;
    let [request, asked] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(
        (id(&request.trace_id).as_str(), id(&request.parent_span_id).as_str()),
        ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    );
    assert_eq!((&asked.parent_span_id, asked.name.as_str(), request.kind, asked.kind), (&request.span_id, "POST", 2, 3));
    assert_eq!(seen, format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", id(&asked.span_id)), "the backend's parent is the attempt");
    assert!(request.start_time_unix_nano <= asked.start_time_unix_nano && asked.end_time_unix_nano <= request.end_time_unix_nano);
    let told = pairs(&request.attributes);
    for (name, value) in [
        ("mcp.method.name", "tools/call"),
        ("gen_ai.tool.name", "echo"),
        ("mcp_gateway.server", "stub"),
        ("mcp_gateway.backend", "one"),
        ("mcp_gateway.outcome", "ok"),
        ("mcp_gateway.request_id", "mine"),
        ("http.route", "/api/mcp/{server}"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(told.get(name).map(String::as_str), Some(value), "{name} in {told:?}");
    }
    assert_eq!(pairs(&asked.attributes)["http.response.status_code"], "200");
    assert_eq!(asked.events.len(), 1);
    let all = format!(
        "{spans:?} {:?}",
        collector.told.spans.lock().expect("no panic while held").iter().map(|(_, about)| about.clone()).collect::<Vec<_>>()
    );
    assert!(all.contains("edge") && !all.contains("canary"), "{all}");
    assert_eq!(collector.told.headers.lock().expect("no panic while held")["x-team"], "canary-of-the-header");
    assert!(!gateway.said().await.iter().any(|line| line.contains("canary")));
}

#[tokio::test]
async fn the_share_decides_about_new_traces_the_caller_about_his_own_and_failures_are_always_told() {
    let (stub, collector) = (Stub::start().await, Collector::start().await);
    let gateway = Gateway::start(&yaml(&stub.backend("one", ""), &collector.url, 0.0)).await;
    gateway.knows("stub").await;
    for headers in [&[][..], &[("traceparent", UNSAMPLED)]] {
        assert_eq!(call(&gateway, "echo", headers).await, 200);
        assert!(stub.headers()["traceparent"].to_str().expect("text").ends_with("-00"));
    }
    stub.act(Act::Status(500));
    assert!(call(&gateway, "boom", &[]).await >= 500);
    stub.act(Act::Echo);
    // A tool that nobody knows does not name a span.
    let spans = collector.trace("tools/call").await;
    assert_eq!(collector.names(), ["tools/call", "POST"], "nothing else was told");
    let failed = spans.iter().map(|span| (span.status.clone().unwrap_or_default().code, pairs(&span.attributes))).collect::<Vec<_>>();
    assert!(failed.iter().all(|(code, _)| *code == 2), "{failed:?}");
    assert_eq!((failed[0].1["error.type"].as_str(), failed[1].1["error.type"].as_str()), ("backend_failed", "500"));
    let all = Gateway::start(&yaml(&stub.backend("one", ""), &collector.url, 1.0)).await;
    all.knows("stub").await;
    assert_eq!(call(&all, "regional", &[]).await, 200);
    assert!(stub.headers()["traceparent"].to_str().expect("text").ends_with("-01"));
    collector.trace("tools/call regional").await;
}

#[tokio::test]
async fn every_attempt_is_a_span() {
    let (stub, collector) = (Stub::start().await, Collector::start().await);
    let other = Stub::start().await;
    let backends = format!("{}{}", stub.backend("one", ", weight: 100"), other.backend("two", ""));
    let text = yaml(&backends, &collector.url, 1.0) + "load_balancer: { retries: { max: 1, repeat: reads } }\n";
    let gateway = Gateway::start(&text).await;
    gateway.knows("stub").await;
    drop(stub);
    let list = json!({ "method": "list_resources" });
    let asked = async || {
        let _ = gateway.rest("stub", list.clone()).await;
        let spans = collector.told.spans.lock().expect("no panic while held");
        let failed = spans.iter().find(|(span, _)| pairs(&span.attributes).get("error.type").is_some_and(|kind| kind == "unreachable"))?;
        let trace = failed.0.trace_id.clone();
        let mut of: Vec<(String, String)> = spans
            .iter()
            .filter(|(span, _)| span.trace_id == trace && span.name == "POST")
            .map(|(span, _)| pairs(&span.attributes))
            .map(|told| (told["mcp_gateway.attempt"].clone(), told["mcp_gateway.backend"].clone()))
            .collect();
        of.sort();
        (of.len() == 2).then_some(of)
    };
    let attempts = eventually("two attempts", asked).await;
    assert_eq!(attempts, [("1".to_owned(), "one".to_owned()), ("2".to_owned(), "two".to_owned())]);
}

#[tokio::test]
async fn a_trace_in_the_message_is_continued_and_passed_on() {
    let (stub, collector) = (Stub::start().await, Collector::start().await);
    let gateway = Gateway::start(&yaml(&stub.backend("one", ""), &collector.url, 0.0)).await;
    gateway.knows("stub").await;
    assert_eq!(native(&gateway, &[], &json!({ "traceparent": PARENT })).await, 200);
    let body: Value = serde_json::from_str(&stub.body()).expect("JSON");
    let header = stub.headers()["traceparent"].to_str().expect("text").to_owned();
    let spans = collector.trace("tools/call echo").await;
    assert_eq!(
        (id(&spans[0].trace_id).as_str(), id(&spans[0].parent_span_id).as_str()),
        ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    );
    let ours = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", id(&spans[0].span_id));
    assert_eq!(body["params"]["_meta"]["traceparent"], ours.as_str(), "in the message our own span");
    assert!(header.contains(&id(&spans[1].span_id)) && header.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{header}");
    // The header counts where both are there, and what is no traceparent is passed on as it came.
    let odd = json!({ "traceparent": 7 });
    assert_eq!(native(&gateway, &[("traceparent", UNSAMPLED)], &odd).await, 200);
    let body: Value = serde_json::from_str(&stub.body()).expect("JSON");
    assert_eq!(body["params"]["_meta"]["traceparent"], 7);
}

#[tokio::test]
async fn without_a_collector_everything_goes_on_and_what_is_lost_is_counted() {
    let stub = Stub::start().await;
    let collector = Collector::start().await;
    let address = collector.url.trim_start_matches("http://").to_owned();
    let gateway = Gateway::start(&yaml(&stub.backend("one", ""), &collector.url, 1.0)).await;
    gateway.knows("stub").await;
    collector.told.status.store(400, Ordering::SeqCst);
    assert_eq!(call(&gateway, "echo", &[]).await, 200);
    eventually("what it refuses is counted", async || (gateway.metric("trace_spans_total{result=\"failed\"}").await > 0).then_some(()))
        .await;
    collector.told.status.store(503, Ordering::SeqCst);
    assert_eq!(call(&gateway, "regional", &[]).await, 200);
    drop(collector);
    for _ in 0..50 {
        assert_eq!(call(&gateway, "echo", &[]).await, 200);
    }
    // It comes back where it was, and is told what was kept for it.
    let again = Collector::at(&address).await;
    again.trace("tools/call regional").await;
    again.trace("tools/call echo").await;
    assert_eq!(gateway.metric("trace_spans_total{result=\"dropped\"}").await, 0);
    assert!(gateway.metric("trace_spans_total{result=\"exported\"}").await > 50);
}

#[tokio::test]
async fn what_is_still_queued_at_the_end_is_told() {
    let (stub, collector) = (Stub::start().await, Collector::start().await);
    let mut gateway = Gateway::start(&yaml(&stub.backend("one", ""), &collector.url, 1.0)).await;
    gateway.knows("stub").await;
    // Within the two seconds that a batch waits for more.
    assert_eq!(call(&gateway, "echo", &[]).await, 200);
    gateway.process.signal("TERM");
    assert!(gateway.process.child.wait().await.expect("it ends").success());
    assert!(collector.names().contains(&"tools/call echo".to_owned()), "{:?}", collector.names());
}
