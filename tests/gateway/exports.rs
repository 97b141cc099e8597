//! Metrics told to others: what a Datadog agent and a collector get is what `/metrics` says, and nobody waits for them.

mod datadog;
mod otlp;

use serde_json::json;

use crate::support::collector::Collector;
use crate::support::dogstatsd::Agent;
use crate::support::eventually;
use crate::support::exposition::Series;
use crate::support::gateway::{Gateway, server};
use crate::support::stub::{Act, Stub};

/// What changes by itself, or by looking at it.
fn is_restless(series: &Series) -> bool {
    let looked = |label: &str| series.labels.get(label).is_some_and(|value| value.starts_with("/admin") || value == "/metrics");
    series.name.starts_with("process_")
        || series.name.starts_with("metrics_exports")
        || series.name == "open_connections"
        || looked("route")
}

/// A gateway before a stub that told others of metrics as this says, below `observability:`.
async fn start(stub: &Stub, observability: &str) -> Gateway {
    let gateway = Gateway::start(&yaml(stub, observability)).await;
    gateway.knows("stub").await;
    gateway
}

fn yaml(stub: &Stub, observability: &str) -> String {
    format!("{}backends:\n{}observability: {{ {observability} }}\n", server(""), stub.backend("one", ""))
}

/// Some of everything there is a metric for.
async fn traffic(gateway: &Gateway, stub: &Stub) {
    for number in 0..9 {
        gateway.call("stub", "echo", json!({ "number": number })).await;
    }
    gateway.call("stub", "regional", json!({})).await;
    stub.act(Act::Status(500));
    let failed = json!({ "method": "call_tool", "params": { "tool_name": "echo" } });
    assert_eq!(gateway.rest("stub", failed).await.0, 502);
    stub.act(Act::Echo);
    assert_eq!(gateway.rest("nowhere", json!({ "method": "ping" })).await.0, 404);
}

async fn exports(gateway: &Gateway, way: &str, result: &str) -> u64 {
    gateway.metric(&format!("metrics_exports_total{{result=\"{result}\",way=\"{way}\"}}")).await
}

/// Looks whether the log says what changed, and no more: that so many times somebody could not be told any more, and could
/// again. On a busy machine it may have been more often.
async fn says_what_changed(gateway: &Gateway, way: &str, whom: &str, times: u64) {
    let failed = exports(gateway, way, "failed").await;
    let said = gateway.said().await;
    let count = |text: &str| said.iter().filter(|line| line.contains(&format!("{text}{whom}"))).count() as u64;
    let (lost, found) = (count("metrics are not told to "), count("metrics are told again to "));
    assert!(lost == found && lost >= times && lost < failed, "{lost} and {found} for {failed} failures");
}

#[tokio::test]
async fn others_are_told_by_what_a_reload_says_and_of_nothing_twice() {
    let (stub, collector) = (Stub::start().await, Collector::start().await);
    let ((first, one), (second, two)) = (Agent::udp("127.0.0.1:0").await, Agent::udp("127.0.0.1:0").await);
    let mut gateway = start(&stub, "").await;
    traffic(&gateway, &stub).await;
    let settings = |address: &str| {
        let otlp = format!("metrics: {{ enabled: false, otlp: {{ endpoint: \"{}\", interval: 100ms }} }}", collector.url);
        yaml(&stub, &format!("datadog: {{ statsd: \"{address}\", interval: 100ms }}, {otlp}"))
    };
    gateway.load(&settings(&one)).await;
    let echo = |agent: &Agent| datadog::count(agent, "mcp_gateway.mcp_requests_total", &["outcome:ok", "tool:echo"]);
    eventually("the agent is told", async || (datagrams(&first) > 0).then_some(())).await;
    ask(&gateway, 3).await;
    eventually("of what came since", async || (echo(&first) >= 3.0).then_some(())).await;
    ask(&gateway, 2).await;
    gateway.load(&settings(&two)).await;
    ask(&gateway, 4).await;
    eventually("the other is told of the rest", async || (echo(&first) + echo(&second) >= 9.0).then_some(())).await;
    eventually("so is the collector", async || otlp::value(&collector, "open_streams", &[]).map(drop)).await;
    gateway.load(&yaml(&stub, "")).await;
    gateway.process.says("metrics are no longer told to the Datadog agent").await;
    gateway.process.says("metrics are no longer told to the collector").await;
    let (before, batches) = (datagrams(&first), otlp::batches(&collector));
    ask(&gateway, 2).await;
    assert_eq!((datagrams(&first), otlp::batches(&collector)), (before, batches), "nobody is told");
    gateway.load(&settings(&one)).await;
    eventually("the agent is told anew", async || (datagrams(&first) > before).then_some(())).await;
    ask(&gateway, 3).await;
    eventually("of what came since", async || (echo(&first) + echo(&second) >= 12.0).then_some(())).await;
    eventually("so is the collector", async || (otlp::batches(&collector) > batches).then_some(())).await;
    assert!((echo(&first) + echo(&second) - 12.0).abs() < f64::EPSILON, "nothing twice, and nothing of when nobody was told");
}

async fn ask(gateway: &Gateway, count: usize) {
    for _ in 0..count {
        gateway.call("stub", "echo", json!({})).await;
    }
}

/// How many datagrams an agent got.
fn datagrams(agent: &Agent) -> usize {
    agent.heard.lock().expect("no panic while held").datagrams
}
