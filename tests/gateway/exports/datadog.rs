//! What an agent gets by DogStatsD.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::UnixDatagram;

use super::{ask, exports, is_restless, says_what_changed, start, traffic};
use crate::support::dogstatsd::{Agent, Heard, Known};
use crate::support::exposition::{self, Series, float};
use crate::support::gateway::{Gateway, command};
use crate::support::load::Load;
use crate::support::stub::Stub;
use crate::support::{PATIENCE, eventually};
use crate::upgrade::fleet::Fleet;

type Told = Arc<Mutex<Heard>>;

/// Everything that an agent was told of a counter whose tags have these.
pub fn count(agent: &Agent, name: &str, tags: &[&str]) -> f64 {
    let heard = agent.heard.lock().expect("no panic while held");
    let wanted = |known: &[String]| tags.iter().all(|tag| known.iter().any(|known| known == tag));
    heard.series.iter().filter(|((known, with), _)| known == name && wanted(with)).map(|(_, known)| known.sum).sum()
}

/// The tags of a series, as Datadog would have them.
fn tags(series: &Series, common: &[&str]) -> Vec<String> {
    let allowed = |c: char| if c.is_alphanumeric() || "_-:./".contains(c) { c } else { '_' };
    let own = series.labels.iter().filter(|(name, value)| *name != "le" && !value.is_empty());
    let mut all: Vec<String> = own.map(|(name, value)| format!("{name}:{}", value.chars().map(allowed).collect::<String>())).collect();
    let has = |tag: &str| series.labels.keys().any(|name| tag.starts_with(&format!("{name}:")));
    all.extend(common.iter().filter(|tag| !has(tag)).map(|tag| (*tag).to_owned()));
    all.sort();
    all
}

/// What differs between what agents were told, together, and what the metrics say.
fn differences(agents: &[&Told], shown: &[Series], common: &[&str]) -> Vec<String> {
    let mut told: BTreeMap<(String, Vec<String>), Known> = BTreeMap::new();
    for agent in agents {
        for (series, known) in &agent.lock().expect("no panic while held").series {
            let all = told.entry(series.clone()).or_default();
            all.sum += known.sum;
            all.last = known.last.or(all.last);
            all.values.extend(&known.values);
        }
    }
    let near = |told: f64, shown: f64| (told - shown).abs() <= 1e-9 * shown.abs();
    let mut found = Vec::new();
    for series in shown.iter().filter(|series| !is_restless(series)) {
        let name = |name: &str| (format!("mcp_gateway.{name}"), tags(series, common));
        let known = told.get(&name(&series.name)).cloned().unwrap_or_default();
        let agrees = match (series.kind.as_str(), series.labels.get("le")) {
            ("gauge", _) => known.last.is_some_and(|last| near(last, series.value)),
            ("histogram", Some(bound)) => {
                let values = told.get(&name(series.name.strip_suffix("_bucket").expect("a bucket"))).cloned().unwrap_or_default().values;
                let bound = bound.parse().unwrap_or(f64::INFINITY);
                let below: u64 = values.iter().filter(|(value, _)| *value < bound).map(|(_, times)| times).sum();
                near(float(below), series.value)
            }
            _ => near(known.sum, series.value),
        };
        if !agrees {
            found.push(format!("{series:?} but {known:?}"));
        }
    }
    found
}

/// Waits until agents know what the metrics say; they were told nothing else than DogStatsD.
async fn agree(gateway: &Gateway, agents: &[&Told], common: &[&str]) {
    let until = Instant::now() + PATIENCE;
    loop {
        let differ = differences(agents, &exposition::of(gateway).await, common);
        if differ.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "{differ:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for agent in agents {
        assert_eq!(agent.lock().expect("no panic while held").faults, Vec::<String>::new());
    }
}

const VERSION: &str = concat!("version:", env!("CARGO_PKG_VERSION"));

#[tokio::test]
async fn what_an_agent_adds_up_by_udp_is_what_the_metrics_say() {
    let stub = Stub::start().await;
    let (agent, address) = Agent::udp("127.0.0.1:0").await;
    let settings = format!("datadog: {{ statsd: \"udp://{address}\", interval: 100ms, tags: {{ env: test, team: 'a|b,c' }} }}");
    let gateway = start(&stub, &settings).await;
    let common = ["env:test", "team:a_b_c", "service:mcp-gateway", VERSION];
    traffic(&gateway, &stub).await;
    agree(&gateway, &[&agent.heard], &common).await;
    let load = Load::on(&gateway);
    load.more(300).await;
    let (asked, failed) = load.end().await;
    agree(&gateway, &[&agent.heard], &common).await;
    assert_eq!(failed, 0);
    assert!(count(&agent, "mcp_gateway.mcp_requests_total", &["tool:echo", "outcome:ok", "env:test"]) >= float(asked));
    let heard = agent.heard.lock().expect("no panic while held");
    assert!(heard.longest <= 1432 && heard.longest > 1000, "{}", heard.longest);
    assert!(heard.lines > 3 * heard.datagrams, "{} in {}", heard.lines, heard.datagrams);
    let values = |heard: &Known| heard.values.iter().any(|(_, times)| *times > 1);
    assert!(heard.series.values().any(values), "equal values are told at once");
}

#[tokio::test]
async fn what_an_agent_adds_up_by_a_socket_is_what_the_metrics_say() {
    let (stub, dir) = (Stub::start().await, tempfile::tempdir().expect("a temporary folder"));
    let socket = dir.path().join("dsd.socket");
    let agent = Agent::unix(&socket);
    let gateway = start(&stub, &format!("datadog: {{ statsd: \"unix://{}\", interval: 100ms }}", socket.display())).await;
    traffic(&gateway, &stub).await;
    agree(&gateway, &[&agent.heard], &["service:mcp-gateway", VERSION]).await;
    let heard = agent.heard.lock().expect("no panic while held");
    assert!(heard.longest <= 8192 && heard.longest > 1432, "{}", heard.longest);
}

#[tokio::test]
async fn datadogs_own_variables_say_where_the_agent_is_and_whose_metrics_they_are() {
    let stub = Stub::start().await;
    let (agent, address) = Agent::udp("127.0.0.1:0").await;
    let (host, port) = address.split_once(':').expect("a port");
    let mut command = command();
    command.envs([("DD_AGENT_HOST", host), ("DD_DOGSTATSD_PORT", port), ("DD_ENV", "prod"), ("DD_SERVICE", "edge"), ("DD_VERSION", "7")]);
    let gateway = Gateway::start_by(command, &super::yaml(&stub, "datadog: { interval: 100ms }")).await;
    gateway.knows("stub").await;
    agree(&gateway, &[&agent.heard], &["env:prod", "service:edge", "version:7"]).await;
}

#[tokio::test]
async fn what_was_counted_last_is_told_at_the_end() {
    let stub = Stub::start().await;
    let (agent, address) = Agent::udp("127.0.0.1:0").await;
    let mut gateway = start(&stub, &format!("datadog: {{ statsd: \"{address}\", interval: 1h }}")).await;
    gateway.call("stub", "echo", json!({})).await;
    assert_eq!(agent.heard.lock().expect("no panic while held").datagrams, 0);
    gateway.process.signal("TERM");
    assert!(gateway.process.child.wait().await.expect("it ends").success());
    let told = async || (count(&agent, "mcp_gateway.mcp_requests_total", &["tool:echo"]) > 0.0).then_some(());
    eventually("it is told", told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_processes_of_an_upgrade_tell_adds_up() {
    let stub = Stub::start().await;
    let (agent, address) = Agent::udp("127.0.0.1:0").await;
    let mut old = start(&stub, &format!("datadog: {{ statsd: \"{address}\", interval: 100ms }}")).await;
    ask(&old, 20).await;
    let mut new = Fleet::successor(&old);
    new.says("waiting for the running process").await;
    ask(&old, 20).await;
    old.process.signal("QUIT");
    new.says("took over").await;
    ask(&old, 20).await;
    assert!(old.process.child.wait().await.expect("an end").success());
    ask(&old, 20).await;
    new.signal("TERM");
    assert!(new.child.wait().await.expect("an end").success());
    let told = || count(&agent, "mcp_gateway.mcp_requests_total", &["tool:echo", "outcome:ok"]);
    eventually("all of it is told", async || (told() >= 80.0).then_some(())).await;
    assert!((told() - 80.0).abs() < f64::EPSILON, "{}", told());
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_said_once_and_told_of_everything_when_it_comes() {
    let (stub, dir) = (Stub::start().await, tempfile::tempdir().expect("a temporary folder"));
    let socket = dir.path().join("dsd.socket");
    let gateway = start(&stub, &format!("datadog: {{ statsd: \"unix://{}\", interval: 100ms }}", socket.display())).await;
    let common = ["service:mcp-gateway", VERSION];
    let load = Load::on(&gateway);
    load.more(100).await;
    eventually("it is counted", async || (exports(&gateway, "datadog", "failed").await > 2).then_some(())).await;
    let first = Agent::unix(&socket);
    eventually("it is told", async || (exports(&gateway, "datadog", "ok").await > 2).then_some(())).await;
    load.more(100).await;
    // Restarted, as an agent is: its socket is another one under the same name.
    let counted = exports(&gateway, "datadog", "failed").await;
    std::fs::remove_file(&socket).expect("there");
    let before = first.stop().await;
    eventually("it is counted", async || (exports(&gateway, "datadog", "failed").await > counted + 2).then_some(())).await;
    load.more(100).await;
    let second = Agent::unix(&socket);
    let (_, failed) = load.end().await;
    assert_eq!(failed, 0);
    let told = async || (count(&second, "mcp_gateway.mcp_requests_total", &["tool:echo"]) > 0.0).then_some(());
    eventually("it is told again", told).await;
    agree(&gateway, &[&before, &second.heard], &common).await;
    says_what_changed(&gateway, "datadog", "the Datadog agent at unix://", 2).await;
}

#[tokio::test]
async fn that_nobody_listens_at_a_port_is_noticed() {
    let stub = Stub::start().await;
    let address = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").to_string();
    let gateway = start(&stub, &format!("datadog: {{ statsd: \"{address}\", interval: 100ms }}")).await;
    traffic(&gateway, &stub).await;
    eventually("it is counted", async || (exports(&gateway, "datadog", "failed").await > 5).then_some(())).await;
    assert_eq!(exports(&gateway, "datadog", "ok").await, 0);
    let (agent, _) = Agent::udp(&address).await;
    agree(&gateway, &[&agent.heard], &["service:mcp-gateway", VERSION]).await;
    says_what_changed(&gateway, "datadog", "the Datadog agent at udp://127.0.0.1", 1).await;
}

#[tokio::test]
async fn an_agent_that_reads_nothing_is_given_up_until_it_does() {
    let (stub, dir) = (Stub::start().await, tempfile::tempdir().expect("a temporary folder"));
    let socket = dir.path().join("dsd.socket");
    let hung = UnixDatagram::bind(&socket).expect("a path");
    let gateway = start(&stub, &format!("datadog: {{ statsd: \"unix://{}\", interval: 100ms }}", socket.display())).await;
    let load = Load::on(&gateway);
    load.more(100).await;
    let before = gateway.resident();
    // What the system keeps for it is not read.
    eventually("it is counted", async || (exports(&gateway, "datadog", "failed").await > 2).then_some(())).await;
    load.more(300).await;
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown <= 32 << 10, "{grown} KiB more");
    let agent = Agent::reading(hung);
    let (_, failed) = load.end().await;
    assert_eq!(failed, 0);
    agree(&gateway, &[&agent.heard], &["service:mcp-gateway", VERSION]).await;
    says_what_changed(&gateway, "datadog", "the Datadog agent at unix://", 1).await;
}
