//! Metrics as an operator uses them: the exposition, the rules made of it, and the dashboard, by promtool and by a real
//! Prometheus.

mod dashboard;
mod exposition;
mod rules;

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::listeners::certificate;
use crate::support::gateway::{Gateway, server};
use crate::support::redis::Redis;
use crate::support::stub::{Act, Stub};
use crate::support::{eventually, http, root};

const KEY: &str = "a-key-of-more-than-twenty-characters";

/// A gateway with most of what can be configured, before backends of which one fails and one is not there.
struct World {
    gateway: Gateway,
    yaml: String,
    stub: Stub,
    client: Client,
    redis: Redis,
    _failing: Stub,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let (stub, failing, redis) = (Stub::start().await, Stub::start().await, Redis::start().await);
        failing.act(Act::Status(500));
        let dir = tempfile::tempdir().expect("a temporary folder");
        let pair = certificate(dir.path(), "localhost");
        let tls = format!("  tls: {{ listen: 127.0.0.1:0, cert: {}, key: {} }}\n", pair.cert.display(), pair.key.display());
        let digest = ring::digest::digest(&ring::digest::SHA256, KEY.as_bytes());
        let hash = digest.as_ref().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"));
        let yaml = format!(
            "{}{}auth: {{ required: false, api_keys: {{ keys: [ {{ id: ann, hash: \"{hash}\", tenant: acme }} ] }} }}
circuit_breaker:
  failure_threshold: 2
  recovery_timeout: 500ms
  tools: [ {{ server: stub, tool: regional, failure_threshold: 1, recovery_timeout: 10m }} ]
rate_limits: {{ store: redis, rules: [ {{ name: all, rate: 100000/s }}, {{ name: tight, match: {{ server: stub, method: ping }}, rate: 1/h, burst: 1 }} ] }}
cache: {{ enabled: true, redis: true, tools: [ {{ server: stub, tool: echo, ttl: 1m }} ] }}
analytics: {{ postgres: \"postgres://nobody@127.0.0.1:9/nothing\", queue: 10, batch: 1 }}
observability: {{ datadog: {{ statsd: \"unix:///nowhere/dsd.socket\", interval: 200ms }} }}
backends:
{}  - {{ name: failing, url: \"{}\", protocol: mcp, era: modern, capabilities: [broken] }}
  - {{ name: gone, url: \"http://127.0.0.1:9\", capabilities: [lost] }}
",
            server(&tls),
            redis.section(),
            stub.backend("one", ""),
            failing.url,
        );
        let gateway = Gateway::start(&yaml).await;
        gateway.knows("stub").await;
        gateway.knows("broken").await;
        let world = Self { gateway, yaml, stub, client: http(), redis, _failing: failing, _dir: dir };
        world.open_a_breaker_of_a_tool().await;
        world.register_and_drain_a_backend().await;
        world
    }

    async fn open_a_breaker_of_a_tool(&self) {
        self.stub.act(Act::Status(500));
        assert_eq!(self.ask("stub", &call("regional", 0), &[]).await, 502);
        self.stub.act(Act::Echo);
    }

    async fn register_and_drain_a_backend(&self) {
        let url = format!("{}/admin/backends/found", self.gateway.admin);
        let backend = json!({ "url": "http://127.0.0.1:9", "capabilities": ["found"] });
        assert!(self.client.put(&url).json(&backend).send().await.expect("an answer").status().is_success());
        let drain = async || self.client.post(format!("{url}/drain")).send().await.ok()?.status().is_success().then_some(());
        eventually("it is drained", drain).await;
    }

    async fn ask(&self, server: &str, body: &Value, headers: &[(&str, &str)]) -> StatusCode {
        let request = self.client.post(self.gateway.at(&format!("/api/mcp/{server}"))).json(body);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.expect("an answer").status()
    }

    /// One of every kind of request there is a panel for.
    async fn round(&self, number: usize) {
        let list = json!({ "method": "list_tools" });
        for (server, body, headers) in [
            ("stub", call("echo", number), &[][..]),
            ("stub", call("echo", 0), &[]),
            ("stub", call("echo", 0), &[]),
            ("stub", call("echo", 0), &[("cache-control", "no-cache")]),
            ("stub", list.clone(), &[("x-api-key", KEY)]),
            ("stub", list.clone(), &[("x-api-key", "a-key-that-nobody-was-ever-given")]),
            ("stub", call("unheard_of", number), &[]),
            ("stub", json!({ "method": "ping" }), &[]),
            ("broken", call("echo", number), &[]),
            ("lost", list.clone(), &[]),
            ("nowhere", list, &[]),
        ] {
            self.ask(server, &body, headers).await;
        }
    }

    /// Goes on asking for as long as it is polled.
    async fn live(&self) {
        for number in 1.. {
            self.round(number).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A stream that is open until it is dropped.
    async fn stream(&self) -> reqwest::Response {
        let request = self.client.get(self.gateway.at("/mcp/stub")).header("accept", "text/event-stream");
        let answer = request.header("mcp-protocol-version", "2025-11-25").send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        answer
    }

    async fn exposition(&self) -> String {
        self.client.get(self.gateway.at("/metrics")).send().await.expect("metrics").text().await.expect("text")
    }
}

fn call(tool: &str, number: usize) -> Value {
    json!({ "method": "call_tool", "params": { "tool_name": tool, "arguments": { "number": number } } })
}

/// A file of the repository that is YAML or JSON.
fn read(path: &str) -> Value {
    let text = std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The rules of a file.
fn rules(path: &str) -> Vec<Value> {
    let groups = read(path)["groups"].as_array().expect("groups").clone();
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

/// The metrics an expression asks for: names that are neither functions, nor keywords, nor labels.
fn names(expression: &str) -> BTreeSet<String> {
    const WORDS: &[&str] = &["and", "or", "unless", "bool", "offset", "sum", "min", "max", "avg", "count", "topk"];
    const LISTS: &[&str] = &["by", "without", "on", "ignoring", "group_left", "group_right"];
    let mut found = BTreeSet::new();
    let mut rest = expression;
    let behind = |text: &'_ str, end: char| text.find(end).map_or(text.len(), |at| at + 1);
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if !is_word(first) {
            let inside = match first {
                '{' => behind(rest, '}'),
                '[' => behind(rest, ']'),
                '"' => 1 + behind(&rest[1..], '"'),
                _ => first.len_utf8(),
            };
            rest = &rest[inside..];
            continue;
        }
        let (word, after) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        rest = after;
        if LISTS.contains(&word) {
            rest = &rest[behind(rest, ')')..];
        } else if !first.is_ascii_digit() && !WORDS.contains(&word) && !after.trim_start().starts_with('(') {
            found.insert(word.to_owned());
        }
    }
    found
}

#[test]
fn the_names_in_an_expression_are_found() {
    let expression =
        r#"topk(10, sum by (a, le) (rate(x_bucket{b=~"c",d!=""}[5m])) / ignoring (g) j:y:z) > 0.05 and on (h) max(w offset 5m)"#;
    assert_eq!(names(expression), ["j:y:z", "w", "x_bucket"].map(str::to_owned).into());
    assert_eq!(names("a{b=\"c\"} unless d == 2 or vector(0)"), ["a", "d"].map(str::to_owned).into());
}
