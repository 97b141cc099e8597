//! Replacing the running process: under load from real clients, with open streams, and everything that may go wrong with
//! the new one, which must leave the old one serving.

pub mod fleet;
mod load;
mod unit;

use futures::StreamExt as _;
use serde_json::{Value, json};

use self::fleet::Fleet;
use self::load::{Load, Streams};
use crate::listeners::{address, certificate};
use crate::support::gateway::{Gateway, command, server};
use crate::support::stub::Stub;
use crate::support::{client, eventually, http};

fn yaml(stub: &Stub, more: &str, weight: usize) -> String {
    format!("{}backends:\n{}", server(more), stub.backend("one", &format!(", weight: {weight}")))
}

type Opened = std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>>>>;

/// A stream of a server through a gateway, open: its first event has come.
async fn open(url: &str) -> Opened {
    opened(http().get(format!("{url}/mcp/stub"))).await
}

async fn opened(request: reqwest::RequestBuilder) -> Opened {
    let answer = request.header("accept", "text/event-stream").send().await.expect("a stream");
    // The end of an HTTP/2 stream comes as an empty piece.
    let says_something = |event: &reqwest::Result<bytes::Bytes>| std::future::ready(event.as_ref().map_or(true, |event| !event.is_empty()));
    let mut stream: Opened = Box::pin(answer.bytes_stream().filter(says_something));
    assert!(stream.next().await.is_some_and(|event| event.is_ok()));
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn five_upgrades_and_twenty_reloads_under_load_fail_nothing_and_cut_no_stream() {
    let stub = Stub::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pair = certificate(folder.path(), "localhost");
    let tls = format!("  tls: {{ listen: 127.0.0.1:0, cert: {}, key: {} }}\n", pair.cert.display(), pair.key.display());
    let more = format!("  h2c: 127.0.0.1:0\n  grace_period: 10m\n{tls}");
    let mut fleet = Fleet::of(Gateway::start(&yaml(&stub, &more, 1)).await).await;
    let streams = Streams::open(&fleet, 50).await;
    let load = Load::start(&fleet, &pair.root);
    for round in 0..5 {
        fleet.upgrade().await;
        for reload in 0..4 {
            fleet.first.load(&yaml(&stub, &more, 1 + (round + reload) % 3)).await;
        }
        stub.say(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": round } }));
        streams.all_hear(&format!("\"data\":{round}")).await;
        load.goes_on().await;
        tokio::time::sleep(load::longer() / 5).await;
    }
    load.end().await;
    assert_eq!(fleet.old.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_takes_over_on_sigquit_and_the_old_one_ends() {
    let stub = Stub::start().await;
    let mut old = Gateway::start(&yaml(&stub, "", 1)).await;
    let mut new = Fleet::successor(&old);
    new.says("waiting for the running process").await;
    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(old.dir.path().join("state").join(name)).expect("there").permissions().mode() & 0o777
    };
    assert_eq!((mode("upgrade.sock"), mode("")), (0o600, 0o700));
    let id = std::fs::read_to_string(old.dir.path().join("state/mcp-gateway.pid")).expect("a PID file");
    assert_eq!(id.trim().parse(), Ok(old.process.child.id().expect("running")));
    old.process.signal("QUIT");
    new.says("took over").await;
    old.process.says("handed over").await;
    assert!(old.process.child.wait().await.expect("an end").success());
    let id = std::fs::read_to_string(old.dir.path().join("state/mcp-gateway.pid")).expect("a PID file");
    assert_eq!(id.trim().parse(), Ok(new.child.id().expect("running")));
    assert!(!old.dir.path().join("state/upgrade.sock").exists());
    old.call("stub", "echo", json!({})).await;
    assert_eq!(http().get(old.at("/ready")).send().await.expect("an answer").status(), 200);
    new.signal("TERM");
    assert!(new.child.wait().await.expect("an end").success());
    assert_eq!(std::fs::read_to_string(old.dir.path().join("state/mcp-gateway.pid")).expect("a PID file"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_in_the_old_process_until_the_grace_period_ends() {
    let stub = Stub::start().await;
    let mut old = Gateway::start(&yaml(&stub, "  grace_period: 6s\n  h2c: 127.0.0.1:0\n", 1)).await;
    let kept = http();
    assert_eq!(kept.get(old.at("/ready")).send().await.expect("an answer").text().await.expect("text"), r#"{"ready":true}"#);
    let mut stream = open(&old.url).await;
    // Of the revision that tells clients when to come back.
    let mut told = opened(http().get(old.at("/mcp/stub")).header("mcp-protocol-version", "2025-11-25")).await;
    let h2c = client(reqwest::Client::builder().http2_prior_knowledge());
    let mut multiplexed = opened(h2c.get(format!("http://{}/mcp/stub", address(&mut old, "listening on h2c://").await))).await;
    let mut new = Fleet::successor(&old);
    new.says("waiting for the running process").await;
    old.process.signal("QUIT");
    new.says("took over").await;
    // On a connection of the old process, which asks the client to come anew.
    let answer = kept.get(old.at("/ready")).send().await.expect("an answer");
    assert_eq!((answer.status().as_u16(), &answer.headers()["connection"]), (503, &"close".parse().expect("a header")));
    assert_eq!(kept.get(old.at("/ready")).send().await.expect("an answer").status(), 200);
    stub.say(&json!({ "jsonrpc": "2.0", "method": "notifications/still" }));
    for stream in [&mut stream, &mut multiplexed] {
        assert!(String::from_utf8_lossy(&stream.next().await.expect("open").expect("whole")).contains("still"));
    }
    for stream in [&mut stream, &mut multiplexed] {
        let end = stream.next().await;
        assert!(end.is_none(), "a clean end: {end:?}");
    }
    assert!(told.next().await.is_some_and(|event| event.is_ok()));
    let last = told.next().await.expect("open").expect("whole");
    assert!(last.starts_with(b"retry: ") && last.ends_with(b"\n\n"), "{last:?}");
    assert!(told.next().await.is_none());
    assert!(old.process.child.wait().await.expect("an end").success());
    // A client comes back.
    let mut again = open(&old.url).await;
    stub.say(&json!({ "jsonrpc": "2.0", "method": "notifications/again" }));
    assert!(again.next().await.is_some_and(|event| event.is_ok()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_meets_a_new_process_that_does_not_know_its_backends() {
    let stub = Stub::start().await;
    let old = Gateway::start(&yaml(&stub, "", 1)).await;
    old.knows("stub").await;
    // What the new process asks waits.
    stub.hold(true);
    let mut new = Fleet::successor(&old);
    new.says("waiting for the running process").await;
    old.process.signal("QUIT");
    new.says("admin on").await;
    let body = json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": {} } });
    let calls: Vec<_> = (0..40).map(|_| tokio::spawn(http().post(old.at("/api/mcp/stub")).json(&body).send())).collect();
    eventually("all of them are at the backend", async || (stub.asked("tools/call") == 40).then_some(())).await;
    stub.hold(false);
    for call in calls {
        assert_eq!(call.await.expect("no panic").expect("an answer").status(), 200);
    }
    new.says("took over").await;
    old.call("stub", "echo", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_to_a_broken_configuration_leaves_the_old_process_serving() {
    let stub = Stub::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut gateway = Gateway::start(&yaml(&stub, "", 1)).await;
    let (old, good) = (gateway.process.child.id(), yaml(&stub, "", 1));
    let unreachable = "backends:\n  - { name: one, url: \"http://127.0.0.1:9\", capabilities: [stub] }\n";
    let nowhere = good.replace("listen: 127.0.0.1:0", &format!("listen: {}", taken.local_addr().expect("bound")));
    let tls = server("  tls: { listen: 127.0.0.1:0, cert: /nowhere/cert.pem, key: /nowhere/key.pem }\n") + "backends: []\n";
    for (broken, status, why) in [
        ("backends: [".to_owned(), 2, "problem(s) in the configuration"),
        (good.replace("workers", "wrokers"), 2, "did you mean `workers`"),
        (nowhere, 1, "server.listen: cannot listen on"),
        (tls, 2, "/nowhere/cert.pem"),
        (server("") + unreachable, 1, "no backend is healthy for the new process"),
    ] {
        // Another file: the running process reloads its own when it changes.
        let path = gateway.dir.path().join("new.yaml");
        std::fs::write(&path, broken).expect("writable");
        let mut run = Fleet::command(&gateway);
        let output = run.arg("upgrade").arg("--config").arg(path).output().await.expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains(why), "{why} in\n{said}");
        gateway.call("stub", "echo", json!({})).await;
    }
    assert_eq!(gateway.process.child.id(), old);
    gateway.process.says("not handed over, still serving").await;
    let mut fleet = Fleet::of(gateway).await;
    fleet.upgrade().await;
    fleet.first.call("stub", "echo", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_to_a_binary_that_crashes_leaves_the_old_process_serving() {
    let stub = Stub::start().await;
    let old = Gateway::start(&yaml(&stub, "", 1)).await;
    let mut stream = open(&old.url).await;
    // At once; when it has the listeners; and while it serves already.
    for last_words in [None, Some("admin on"), Some("serving beside")] {
        let mut new = Fleet::successor(&old);
        if let Some(words) = last_words {
            new.says("waiting for the running process").await;
            old.process.signal("QUIT");
            new.says(words).await;
        }
        new.kill().await;
        let failures = async || old.process.output().iter().filter(|line| line.contains("still serving: the new process ended")).count();
        let expected = [None, Some("admin on"), Some("serving beside")].iter().position(|words| *words == last_words).expect("listed");
        eventually("the old process is told", async || (failures().await == expected).then_some(())).await;
        for _ in 0..20 {
            old.call("stub", "echo", json!({})).await;
        }
    }
    stub.say(&json!({ "jsonrpc": "2.0", "method": "notifications/still" }));
    assert!(stream.next().await.is_some_and(|event| event.is_ok()), "no stream was cut");
    // Nothing is left behind that would be in the way.
    let mut fleet = Fleet::of(old).await;
    fleet.upgrade().await;
    fleet.first.call("stub", "echo", json!({})).await;
}

/// A service manager does not start a process anew before all of the service's are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_leaves_hurries_when_its_successor_is_dead() {
    let stub = Stub::start().await;
    let mut old = Gateway::start(&yaml(&stub, "  grace_period: 10m\n", 1)).await;
    let mut stream = open(&old.url).await;
    let mut new = Fleet::successor(&old);
    new.says("waiting for the running process").await;
    old.process.signal("QUIT");
    new.says("took over").await;
    old.process.signal("TERM");
    old.process.says("already ending within the grace period").await;
    stub.say(&json!({ "jsonrpc": "2.0", "method": "notifications/still" }));
    assert!(stream.next().await.is_some_and(|event| event.is_ok()));
    old.process.signal("TERM");
    assert!(stream.next().await.is_none(), "asked twice");
    assert!(old.process.child.wait().await.expect("an end").success());
    // The same with a successor that crashed: once is enough.
    let mut stream = open(&old.url).await;
    let mut newest = Fleet::successor(&old);
    newest.says("waiting for the running process").await;
    new.signal("QUIT");
    newest.says("took over").await;
    // Nobody has noticed its end yet: its parent, as a service manager may, does so later.
    newest.signal("KILL");
    let stat = format!("/proc/{}/stat", newest.child.id().expect("not waited for"));
    eventually("it is dead", async || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")).then_some(())).await;
    new.signal("TERM");
    assert!(stream.next().await.is_none(), "a clean end");
    assert!(new.child.wait().await.expect("an end").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigquit_with_nobody_to_take_over_changes_nothing() {
    let stub = Stub::start().await;
    let mut gateway = Gateway::start(&yaml(&stub, "", 1)).await;
    // A socket that a process left behind is nobody.
    drop(std::os::unix::net::UnixListener::bind(gateway.dir.path().join("state/upgrade.sock")).expect("bound"));
    gateway.process.signal("QUIT");
    gateway.process.says("SIGQUIT: handing over").await;
    gateway.process.signal("QUIT");
    gateway.process.says("already handing over").await;
    gateway.process.says("still serving: no new process waits").await;
    gateway.call("stub", "echo", json!({})).await;
    assert_eq!(http().get(gateway.at("/ready")).send().await.expect("an answer").status(), 200);
    gateway.process.signal("TERM");
    assert!(gateway.process.child.wait().await.expect("an end").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_upgrades_at_once_one_succeeds() {
    let stub = Stub::start().await;
    let mut fleet = Fleet::of(Gateway::start(&yaml(&stub, "", 1)).await).await;
    let (one, other) = (fleet.begin(), fleet.begin());
    let (one, other) = tokio::join!(one, other);
    let (good, bad) = if one.0.success() { (one, other) } else { (other, one) };
    assert!(good.0.success() && !bad.0.success(), "{}\n{}", good.1, bad.1);
    assert!(bad.1.contains("another one is under way"), "{}", bad.1);
    fleet.took_over(&good.1).await;
    fleet.first.call("stub", "echo", json!({})).await;
}

#[tokio::test]
async fn without_a_gateway_there_is_nothing_to_upgrade() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("gateway.yaml");
    std::fs::write(&path, "server:\n  state_dir: ${STATE_DIR}\nbackends: []\n").expect("writable");
    // A number that was left behind is nobody's.
    std::fs::write(dir.path().join("mcp-gateway.pid"), "1\n").expect("writable");
    let mut run = command();
    run.args(["upgrade", "--config"]).arg(&path).env("STATE_DIR", dir.path());
    let output = run.output().await.expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("no gateway runs on"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_managed_keys_and_drains_survive_an_upgrade() {
    let (stub, other) = (Stub::start().await, Stub::start().await);
    let auth = "auth: { api_keys: { keys: [] } }\nroles: { all: [{ servers: [\"*\"] }] }\n";
    let yaml = format!("{}{auth}backends:\n{}{}", server(""), stub.backend("one", ""), other.backend("two", ""));
    let gateway = Gateway::start(&yaml).await;
    let admin = gateway.admin.clone();
    let made: Value = http()
        .post(format!("{admin}/admin/keys"))
        .json(&json!({ "id": "ann", "tenant": "acme", "roles": ["all"] }))
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    let key = made["key"].as_str().expect("a key").to_owned();
    let drained = http().post(format!("{admin}/admin/backends/two/drain")).send().await.expect("an answer");
    assert_eq!(drained.status(), 200);
    let mut fleet = Fleet::of(gateway).await;
    fleet.upgrade().await;
    let before = other.calls();
    for _ in 0..10 {
        let body = json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": {} } });
        let url = fleet.first.at("/api/mcp/stub");
        assert_eq!(http().post(url).header("x-api-key", &key).json(&body).send().await.expect("an answer").status(), 200);
    }
    assert_eq!(other.calls(), before, "a backend that was drained still is");
}
