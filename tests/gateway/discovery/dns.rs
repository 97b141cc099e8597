//! Backends that are DNS records, asked of a name server whose records change.

use super::{backends, call, has, names, shown};
use crate::support::eventually;
use crate::support::gateway::{Gateway, server};
use crate::support::names::Names;
use crate::support::stub::Stub;

/// A stub on 127.0.0.1 and one on 127.0.0.2, on the same port.
async fn twins() -> (Stub, Stub, u16) {
    loop {
        let one = Stub::start().await;
        let port = port(&one);
        if let Some(two) = Stub::at(&format!("127.0.0.2:{port}")).await {
            return (one, two, port);
        }
    }
}

fn port(stub: &Stub) -> u16 {
    stub.url.rsplit_once(':').expect("a port").1.parse().expect("a number")
}

fn yaml(names: &Names, entry: &str) -> String {
    let template = "protocol: mcp, era: modern, capabilities: [stub], health_check: { path: /health, interval: 1 }";
    format!("{}discovery:\n  dns: {{ name: tools, {entry}, nameserver: \"{}\", {template} }}\n", server(""), names.address)
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_come_and_go_with_their_records() {
    let (dns, (_one, _two, port)) = (Names::start().await, twins().await);
    let (one, two) = (format!("tools-127-0-0-1-{port}"), format!("tools-127-0-0-2-{port}"));
    dns.set("tools.example", 1, &["127.0.0.1"]);
    let gateway = Gateway::start(&yaml(&dns, &format!("host: tools.example, port: {port}, weight: 3"))).await;
    has(&gateway, &[&one]).await;
    let row = shown(&gateway, &one).await;
    assert_eq!((row["source"].as_str(), row["backend"]["weight"].as_u64()), (Some("dns"), Some(3)));
    assert_eq!(call(&gateway).await, (200, one.clone()));
    dns.set("tools.example", 1, &["127.0.0.1", "127.0.0.2"]);
    has(&gateway, &[&one, &two]).await;
    dns.set("tools.example", 1, &["127.0.0.2"]);
    has(&gateway, &[&two]).await;
    assert_eq!(gateway.metric("discovery_up{source=\"dns:tools\"}").await, 1);

    // Nothing that can go wrong with a name takes its addresses away.
    let label = "discovery_up{source=\"dns:tools\"}";
    for failing in [true, false] {
        dns.fail(failing);
        dns.set("tools.example", 1, &[]);
        eventually("it is noticed", async || (gateway.metric(label).await == 0).then_some(())).await;
        assert_eq!((call(&gateway).await, names(&gateway).await.len()), ((200, two.clone()), 1));
    }
    let gateway = gateway.again().await;
    has(&gateway, &[&two]).await;
    dns.set("tools.example", 1, &["127.0.0.1"]);
    has(&gateway, &[&one]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_bring_ports_and_weights_and_the_lowest_priority_alone_counts() {
    let (dns, one, two, three) = (Names::start().await, Stub::start().await, Stub::start().await, Stub::start().await);
    let name = |stub: &Stub| format!("tools-127-0-0-1-{}", port(stub));
    dns.set("pod.example", 60, &["127.0.0.1"]);
    let service = "_mcp._tcp.example";
    dns.set_services(
        service,
        1,
        &[(10, 5, port(&one), "pod.example"), (10, 0, port(&two), "pod.example"), (20, 9, port(&three), "pod.example")],
    );
    let gateway = Gateway::start(&yaml(&dns, &format!("host: {service}, type: srv"))).await;
    let mut wanted = [name(&one), name(&two)];
    wanted.sort();
    has(&gateway, &[&wanted[0], &wanted[1]]).await;
    let weight = async |stub: &Stub| shown(&gateway, &name(stub)).await["backend"]["weight"].as_u64();
    assert_eq!((weight(&one).await, weight(&two).await), (Some(5), Some(1)), "0 is the smallest share there is");

    // One target that leads nowhere takes no other with it.
    dns.set_services(service, 1, &[(20, 9, port(&three), "pod.example"), (20, 1, port(&one), "nowhere.example")]);
    has(&gateway, &[&name(&three)]).await;
    assert_eq!(call(&gateway).await, (200, name(&three)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_to_live_says_when_to_ask_again() {
    let (dns, stub) = (Names::start().await, Stub::start().await);
    for (name, ttl) in [("brief.example", 0), ("long.example", 3600)] {
        dns.set(name, ttl, &["127.0.0.1"]);
    }
    let entry = |name: &str| {
        let health = "health_check: { path: /health, interval: 1 }";
        format!(
            "    - {{ name: {name}, host: {name}.example, port: {}, nameserver: \"{}\", protocol: mcp, capabilities: [stub], {health} }}\n",
            port(&stub),
            dns.address
        )
    };
    let gateway = Gateway::start(&format!("{}discovery:\n  dns:\n{}{}", server(""), entry("brief"), entry("long"))).await;
    eventually("both are known", async || (backends(&gateway).await.len() == 2).then_some(())).await;
    let (brief, long) = (dns.asked("brief.example"), dns.asked("long.example"));
    eventually("the brief one is asked again and again", async || (dns.asked("brief.example") >= brief + 6).then_some(())).await;
    assert_eq!(dns.asked("long.example"), long, "the long one is not");
    let heavier = entry("brief").replace("protocol: mcp", "protocol: mcp, weight: 5");
    gateway.load(&format!("{}discovery:\n  dns:\n{heavier}{}", server(""), entry("long"))).await;
    let name = format!("brief-127-0-0-1-{}", port(&stub));
    eventually("the new template counts", async || (shown(&gateway, &name).await["backend"]["weight"] == 5).then_some(())).await;
    assert_eq!(dns.asked("long.example"), long, "what a reload did not change goes on as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_too_long_or_get_lost_are_asked_for_again() {
    let (dns, (_one, _two, port)) = (Names::start().await, twins().await);
    let (one, two) = (format!("tools-127-0-0-1-{port}"), format!("tools-127-0-0-2-{port}"));
    dns.set("tools.example", 1, &["127.0.0.1", "127.0.0.2"]);
    dns.grow();
    dns.lose(1);
    let gateway = Gateway::start(&yaml(&dns, &format!("host: tools.example, port: {port}"))).await;
    has(&gateway, &[&one, &two]).await;
    assert_eq!((dns.over_tcp() > 0, dns.to_lose()), (true, 0));
    assert_eq!(gateway.metric("discovery_up{source=\"dns:tools\"}").await, 1);
}
