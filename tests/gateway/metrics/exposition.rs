//! What `/metrics` says: the names that were promised, nothing that callers make up, and what alerts stand on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::{World, call};
use crate::listeners::address;
use crate::support::gateway::{Gateway, server};
use crate::support::prometheus::promtool;
use crate::support::stub::Stub;
use crate::support::{eventually, root};

/// Names and labels that users' dashboards stand on: they are never renamed.
const PROMISED: &[(&str, &[&str])] = &[
    ("http_requests_total", &["method", "route", "status"]),
    ("http_request_duration_seconds", &["route"]),
    ("mcp_requests_total", &["server", "method", "tool", "outcome"]),
    ("mcp_request_duration_seconds", &["server", "method", "tool"]),
    ("mcp_response_size_bytes", &["server", "tool"]),
    ("backend_up", &["backend"]),
    ("backend_requests_total", &["backend", "status"]),
    ("backend_response_time_seconds", &["backend"]),
    ("backend_in_flight", &["backend"]),
    ("circuit_breaker_state", &["backend"]),
    ("cache_requests_total", &["server", "tier", "result"]),
    ("cache_bytes", &["tier"]),
    ("rate_limit_decisions_total", &["rule", "decision"]),
    ("auth_decisions_total", &["way", "decision"]),
    ("config_reloads_total", &["result"]),
    ("config_last_reload_timestamp_seconds", &[]),
    ("redis_errors_total", &[]),
    ("analytics_dropped_total", &["reason"]),
    ("open_streams", &[]),
];

/// What is said of a family.
#[derive(Default)]
struct Family<'t> {
    kind: &'t str,
    help: &'t str,
    labels: BTreeSet<&'t str>,
}

/// The families of an exposition.
fn families(text: &str) -> BTreeMap<&str, Family<'_>> {
    let mut found: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    let mut family = "";
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            family = name;
            found.entry(name).or_default().help = help;
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            found.entry(name).or_default().kind = kind;
        } else {
            let labels = line.split("=\"").filter_map(|part| part.rsplit(['{', ',']).next());
            let labels = labels.filter(|label| !label.contains('}') && !label.contains(' ') && *label != "le");
            found.entry(family).or_default().labels.extend(labels);
        }
    }
    found
}

/// The table of the documentation.
fn table(families: &BTreeMap<&str, Family<'_>>) -> String {
    let mut table = String::from("| metric | labels | |\n|---|---|---|\n");
    for (name, Family { kind, help, labels }) in families {
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(" ");
        let _ = writeln!(table, "| `{name}` ({kind}) | {labels} | {help} |");
    }
    table
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_promised_is_there_under_its_name_and_promtool_finds_no_fault() {
    let world = World::start().await;
    world.round(1).await;
    let text = world.exposition().await;
    let (fine, said) = promtool(&["check", "metrics"], &text).await;
    assert!(fine && said.is_empty(), "{said}");
    let families = families(&text);
    for (name, labels) in PROMISED {
        assert_eq!(families.get(name).map(|family| &family.labels), Some(&labels.iter().copied().collect()), "{name}");
    }
    let line = |line: &str| assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    line(&format!(
        "mcp_gateway_build_info{{arch=\"{}\",os=\"linux\",version=\"{}\"}} 1",
        std::env::consts::ARCH,
        env!("CARGO_PKG_VERSION")
    ));
    line("cache_requests_total{result=\"hit\",server=\"stub\",tier=\"memory\"} 1");
    line("config_reloads_total{result=\"failed\"} 0");
    let documented = std::fs::read_to_string(root().join("conf/prometheus/README.md")).expect("readable");
    let (_, rest) = documented.split_once("held true by a test -->\n").expect("the mark before the table");
    let (written, _) = rest.split_once("<!-- end -->").expect("the mark behind it");
    assert_eq!(written, table(&families), "the table as it should be:\n{}", table(&families));
    let (_, said) = promtool(&["check", "metrics"], "no_help_total 1\n").await;
    assert!(said.contains("no help text"), "and it would find one: {said}");
}

#[tokio::test]
async fn what_callers_make_up_makes_no_series() {
    let world = World::start().await;
    let ask = async |number: usize| {
        let made_up = format!("made-up-{number}");
        world.ask("stub", &call(&made_up, 0), &[("x-api-key", &made_up)]).await;
        world.ask("stub", &call(&made_up, 0), &[]).await;
        world.ask("stub", &json!({ "method": made_up }), &[]).await;
        world.ask(&made_up, &call("echo", 0), &[("cache-control", "no-cache"), ("x-tenant", &made_up)]).await;
        let native = json!({ "jsonrpc": "2.0", "id": 1, "method": made_up, "params": { "name": made_up } });
        let _ = world.client.post(world.gateway.at("/mcp/stub")).json(&native).send().await;
        let _ = world.client.get(world.gateway.at(&format!("/{made_up}"))).send().await;
        let _ = world.client.post(world.gateway.at(&format!("/api/{made_up}/mcp/stub"))).json(&native).send().await;
        let method = reqwest::Method::from_bytes(made_up.to_uppercase().as_bytes()).expect("a token");
        let _ = world.client.request(method, world.gateway.at("/health")).send().await;
    };
    let series = async || {
        world
            .exposition()
            .await
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(series, _)| series.to_owned())
            .collect::<BTreeSet<_>>()
    };
    ask(0).await;
    // The exposition counts itself.
    drop(series().await);
    let before = series().await;
    for number in 1..20 {
        ask(number).await;
    }
    let after = series().await;
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(!after.iter().any(|series| series.to_lowercase().contains("made-up")), "{after:?}");
}

/// Writes a certificate that holds until the first of a month of 2050.
fn certificate_until(dir: &Path, month: u8) {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
    params.not_after = rcgen::date_time_ymd(2050, month, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    std::fs::write(dir.join("key.pem"), key.serialize_pem()).expect("writable");
    std::fs::write(dir.join("cert.pem"), params.self_signed(&key).expect("a certificate").pem()).expect("writable");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_certificate_is_that_of_the_one_in_use() {
    let (stub, dir) = (Stub::start().await, tempfile::tempdir().expect("a temporary folder"));
    certificate_until(dir.path(), 1);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let tls = format!("  tls: {{ listen: 127.0.0.1:0, cert: {}, key: {} }}\n", file("cert.pem"), file("key.pem"));
    let mut gateway = Gateway::start(&format!("{}backends:\n{}", server(&tls), stub.backend("one", ""))).await;
    address(&mut gateway, "listening on https://").await;
    let ends = async || gateway.metric("certificate_expiry_timestamp_seconds{certificate=\"server.tls.cert\"}").await;
    let is = async |second: u64| eventually("its end is told", async || (ends().await == second).then_some(())).await;
    is(2_524_608_000).await;
    certificate_until(dir.path(), 2);
    is(2_527_286_400).await;
    std::fs::write(dir.path().join("cert.pem"), "no certificate").expect("writable");
    gateway.process.says("the certificate was not reloaded").await;
    assert_eq!(gateway.metric("certificate_expiry_timestamp_seconds{certificate=\"server.tls.cert\"}").await, 2_527_286_400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_loaded_is_told_until_one_can() {
    let stub = Stub::start().await;
    let yaml = format!("{}backends:\n{}", server(""), stub.backend("one", ""));
    let gateway = Gateway::start(&yaml).await;
    let told = async |counter: &str| [gateway.metric("config_last_reload_successful").await, gateway.metric(counter).await];
    let failed = "config_reloads_total{result=\"failed\"}";
    assert_eq!(told(failed).await, [1, 0]);
    std::fs::write(gateway.config_path(), "backends: 7\n").expect("writable");
    eventually("it failed", async || (told(failed).await[0] == 0 && told(failed).await[1] > 0).then_some(())).await;
    gateway.load(&yaml).await;
    let [successful, loaded] = told("config_reloads_total{result=\"ok\"}").await;
    assert!(successful == 1 && loaded > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_a_client_holds_open_is_no_slow_request() {
    let world = World::start().await;
    let streams = async |count: u64| {
        let open = async || (world.gateway.metric("open_streams").await == count).then_some(());
        eventually("the stream is counted", open).await;
    };
    drop({
        let stream = world.stream().await;
        streams(1).await;
        stream
    });
    streams(0).await;
    let requests = "http_requests_total{method=\"GET\",route=\"/mcp/{server}\",status=\"200\"}";
    eventually("it is counted as a request", async || (world.gateway.metric(requests).await == 1).then_some(())).await;
    let timed = "http_request_duration_seconds_count{route=\"/mcp/{server}\"}";
    assert_eq!(world.gateway.metric(timed).await, 0);
    let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    world.client.post(world.gateway.at("/mcp/stub")).json(&message).send().await.expect("an answer");
    eventually("an exchange is timed", async || (world.gateway.metric(timed).await == 1).then_some(())).await;
}
