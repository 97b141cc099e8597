//! More than there is room for: a bounded number goes through, a few wait, the rest is told so at once, and whoever asks
//! how the gateway is always gets an answer.

use crate::support::gateway::{Gateway, server};
use crate::support::stub::{Act, Stub};
use crate::support::{eventually, http};

use super::call;

async fn gateway(stub: &Stub, limits: &str, backend: &str, more: &str) -> Gateway {
    let limits = format!("  limits: {{ {limits} }}\n");
    Gateway::start(&format!("{}backends:\n{}{more}", server(&limits), stub.backend("one", backend))).await
}

fn send(gateway: &Gateway) -> tokio::task::JoinHandle<u16> {
    let url = gateway.at("/api/mcp/stub");
    tokio::spawn(async move { http().post(url).json(&call()).send().await.map_or(0, |response| response.status().as_u16()) })
}

#[tokio::test]
async fn a_backend_is_given_no_more_than_it_may_have_and_the_queue_is_short() {
    let stub = Stub::start().await;
    let gateway = gateway(&stub, "", ", max_in_flight: 2", "load_balancer: { queue: { length: 1, wait: 30s } }\n").await;
    stub.act(Act::Hang);
    let working = [send(&gateway), send(&gateway)];
    eventually("two are under way", async || (stub.waiting() == 2).then_some(())).await;
    stub.act(Act::Echo);
    // Of two more one waits, and whichever comes second finds the queue full.
    let ask = || tokio::spawn(http().post(gateway.at("/api/mcp/stub")).json(&call()).send());
    let (refused, waits) = futures::future::select(ask(), ask()).await.factor_first();
    let refused = refused.expect("no panic").expect("an answer");
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let problem: serde_json::Value = refused.json().await.expect("JSON");
    assert_eq!(problem["code"], "overloaded");
    assert_eq!(stub.calls(), 2, "nothing of the refused was sent");
    working[0].abort();
    assert_eq!(waits.await.expect("no panic").expect("an answer").status(), 200, "who waited is served when somebody leaves");
    working[1].abort();
    let metric = async || gateway.metric("backend_in_flight{backend=\"one\"}").await;
    eventually("nothing is in flight", async || (metric().await == 0).then_some(())).await;
}

#[tokio::test]
async fn the_gateway_as_a_whole_takes_so_much_and_health_always_answers() {
    let stub = Stub::start().await;
    let gateway = gateway(&stub, "in_flight: 2, queue: { length: 0 }", "", "").await;
    stub.act(Act::Hang);
    let working = [send(&gateway), send(&gateway)];
    eventually("two are under way", async || (stub.waiting() == 2).then_some(())).await;
    assert_eq!(send(&gateway).await.expect("no panic"), 503);
    for path in ["/health", "/ready", "/metrics"] {
        assert_eq!(http().get(gateway.at(path)).send().await.expect("an answer").status(), 200, "{path}");
    }
    assert_eq!(gateway.metric("overload_refusals_total{reason=\"in_flight\"}").await, 1);
    working.iter().for_each(tokio::task::JoinHandle::abort);
    stub.act(Act::Echo);
    eventually("there is room again", async || (send(&gateway).await.ok()? == 200).then_some(())).await;
}

#[tokio::test]
async fn an_address_that_floods_is_turned_away_before_anything_is_asked() {
    let stub = Stub::start().await;
    let gateway = gateway(&stub, "requests_per_ip: 20", "", "").await;
    let mut refused = 0;
    for _ in 0..200 {
        refused += usize::from(send(&gateway).await.expect("no panic") == 429);
    }
    assert!(refused > 0, "200 requests at once are more than 20 in a second on any machine that runs tests");
    assert_eq!(http().get(gateway.at("/health")).send().await.expect("an answer").status(), 200);
    assert!(stub.calls() <= 200 - refused);
}

#[tokio::test]
async fn who_sends_a_body_slowly_keeps_nobody_out() {
    use tokio::io::AsyncWriteExt as _;
    let stub = Stub::start().await;
    let gateway = gateway(&stub, "in_flight: 2, queue: { length: 0 }", "", "").await;
    let address = gateway.url.trim_start_matches("http://").to_owned();
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut socket = tokio::net::TcpStream::connect(&address).await.expect("connected");
        let head =
            format!("POST /api/mcp/stub HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{");
        socket.write_all(head.as_bytes()).await.expect("sent");
        slow.push(socket);
    }
    let begun = async || (gateway.metric("open_connections").await >= 4).then_some(());
    eventually("the slow ones are in", begun).await;
    for _ in 0..3 {
        assert_eq!(send(&gateway).await.expect("no panic"), 200);
    }
    drop(slow);
}

#[tokio::test]
async fn a_time_that_a_route_sets_is_no_measure_of_the_backend() {
    let stub = Stub::start().await;
    let routes = "routes: [ { name: hasty, when: 'tool == \"echo\"', timeout: 100ms } ]\ncircuit_breaker: { failure_threshold: 2, recovery_timeout: 10m }\n";
    let gateway = gateway(&stub, "", "", routes).await;
    stub.act(Act::Hang);
    for _ in 0..4 {
        assert_eq!(send(&gateway).await.expect("no panic"), 504);
    }
    stub.act(Act::Echo);
    assert_eq!(gateway.metric("circuit_breaker_state{backend=\"one\"}").await, 0);
    assert_eq!(send(&gateway).await.expect("no panic"), 200);
}
