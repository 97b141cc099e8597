//! What is written down in PostgreSQL of what was asked, what never is, and what becomes of it when PostgreSQL does not take
//! it.

mod outages;
mod questions;
mod schema;

use serde_json::{Value, json};

use crate::cache::{call, list, native_by, read};
use crate::network::hash;
use crate::support::gateway::{Gateway, server};
use crate::support::postgres::{PASSWORD, Postgres};
use crate::support::stub::Stub;
use crate::support::{eventually, http};

const KEY: &str = "a-key-of-more-than-twenty-characters";

/// A configuration that writes to `url` what a stub is asked, with more keys below `analytics:`, and more at its end.
pub fn yaml(stub: &Stub, url: &str, analytics: &str, more: &str) -> String {
    format!("{}backends:\n{}analytics:\n  postgres: \"{url}\"\n  flush: 50ms\n{analytics}{more}", server(""), stub.backend("one", ""))
}

/// A gateway that writes to `postgres`.
pub async fn start(stub: &Stub, postgres: &Postgres, analytics: &str, more: &str) -> Gateway {
    let gateway = Gateway::start(&yaml(stub, &postgres.url(), analytics, more)).await;
    gateway.knows("stub").await;
    gateway
}

/// What was counted: produced, stored, dropped for each reason, and queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    pub produced: u64,
    pub stored: u64,
    pub full: u64,
    pub rejected: u64,
    pub strangers: u64,
    pub queued: u64,
}

impl Numbers {
    pub async fn of(gateway: &Gateway) -> Self {
        // In one breath, or they would not belong together.
        let text = http().get(gateway.at("/metrics")).send().await.expect("metrics").text().await.expect("text");
        let number = |series: &str| text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or(0);
        Self {
            produced: number("analytics_events_total "),
            stored: number("analytics_stored_total "),
            full: number("analytics_dropped_total{reason=\"queue_full\"}"),
            rejected: number("analytics_dropped_total{reason=\"rejected\"}"),
            strangers: number("analytics_dropped_total{reason=\"strangers\"}"),
            queued: number("analytics_queued "),
        }
    }

    pub fn dropped(self) -> u64 {
        self.full + self.rejected + self.strangers
    }

    pub fn add_up(self) -> bool {
        self.produced == self.stored + self.dropped() + self.queued
    }

    /// Waits until so many came about, and none of them waits any more.
    pub async fn settled(gateway: &Gateway, produced: u64) -> Self {
        eventually("all events are stored or dropped", async || {
            let numbers = Self::of(gateway).await;
            // Nothing moves any more: what was counted while they were read is in the next reading.
            (numbers.produced >= produced && numbers.queued == 0).then_some(())
        })
        .await;
        let numbers = Self::of(gateway).await;
        assert!(numbers.produced == produced && numbers.add_up(), "{numbers:?}");
        numbers
    }
}

/// All events in the order of their time, as JSON, and everything they say as one text.
async fn events(postgres: &Postgres) -> (Vec<Value>, String) {
    let rows = postgres.rows("SELECT to_jsonb(e)::text FROM mcp_gateway.events e ORDER BY at").await;
    let texts: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    (texts.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect(), texts.join("\n"))
}

/// Whether an event says all of this.
fn says(event: &Value, expected: &Value) -> bool {
    expected.as_object().expect("an object").iter().all(|(key, value)| &event[key] == value)
}

fn has(events: &[Value], expected: &Value) {
    assert!(events.iter().any(|event| says(event, expected)), "none says {expected}:\n{events:#?}");
}

#[tokio::test]
async fn of_a_crowd_without_credentials_a_few_are_written_down_and_all_are_counted() {
    const CROWD: u64 = 300;
    let (stub, postgres) = (Stub::start().await, Postgres::start().await);
    let more = format!("auth: {{ api_keys: {{ keys: [ {{ id: ci, hash: \"{}\" }} ] }} }}\n", hash(KEY));
    let gateway = Gateway::start(&yaml(&stub, &postgres.url(), "", &more)).await;
    let client = http();
    let ask = async |key: &str| {
        let request = client.post(gateway.at("/api/mcp/stub")).header("x-api-key", key).json(&list());
        request.send().await.expect("an answer").status().as_u16()
    };
    let statuses = futures::future::join_all((0..CROWD).map(|_| ask("wrong"))).await;
    assert!(statuses.iter().all(|status| *status == 401), "{statuses:?}");
    assert_ne!(ask(KEY).await, 401);
    let numbers = Numbers::settled(&gateway, CROWD + 1).await;
    assert!(numbers.strangers > 0 && numbers.dropped() == numbers.strangers, "{numbers:?}");
    assert_eq!(numbers.stored, CROWD + 1 - numbers.strangers);
    has(&events(&postgres).await.0, &json!({ "subject": "ci", "way": "api_key" }));
}

#[tokio::test]
async fn each_request_is_one_row_in_either_lane_refused_and_cached_ones_too() {
    let (stub, postgres) = (Stub::start().await, Postgres::start().await);
    let more = format!(
        "cache: {{ enabled: true, tools: [ {{ tool: cached, ttl: 1m }} ] }}\n\
         rate_limits:\n  rules: [ {{ name: few, match: {{ tool: rare }}, rate: 1/h }} ]\n\
         auth:\n  api_keys:\n    keys: [ {{ id: ci, hash: \"{}\", tenant: acme, roles: [user] }} ]\n\
         roles:\n  user: [ {{ methods: [\"tools/*\", \"resources/*\"] }} ]\n",
        hash(KEY)
    );
    let gateway = Gateway::start(&yaml(&stub, &postgres.url(), "", &more)).await;
    let client = http();
    let key = [("x-api-key", KEY)];
    let rest = async |body: &Value| {
        let request = client.post(gateway.at("/api/mcp/stub")).header("x-api-key", KEY).header("cookie", "canary-of-a-header");
        request.json(body).send().await.expect("an answer").status().as_u16()
    };
    let mut asked = 0;
    let there = async || {
        asked += 1;
        (rest(&json!({ "method": "list_tools" })).await == 200).then_some(())
    };
    eventually("the backend is there", there).await;
    let prompt = json!({ "method": "get_prompt", "params": { "name": "plan" } });
    let canary = json!({ "secret": "canary-of-an-argument" });
    assert_eq!(rest(&call("echo", &canary)).await, 200);
    assert_eq!(rest(&call("cached", &canary)).await, 200);
    assert_eq!(rest(&call("cached", &canary)).await, 200);
    assert_eq!(rest(&call("rare", &json!({}))).await, 200);
    assert_eq!(rest(&call("rare", &json!({}))).await, 429);
    rest(&read("file:///canary-of-a-uri")).await;
    assert_eq!(rest(&prompt).await, 403);
    assert_eq!(rest(&call(&format!("nul\0{}", "x".repeat(5000)), &json!({}))).await, 200);
    assert_eq!(rest(&json!([call("first", &canary), prompt, call("second", &canary)])).await, 200);
    let answer = native_by(&client, &gateway, &json!(1), "tools/call", json!({ "name": "echo", "arguments": canary }), &key2(&key)).await;
    assert_eq!(answer.status(), 200);
    let answer = client.post(gateway.at("/api/v2/mcp/stub")).header("x-api-key", "canary-of-a-wrong-key").json(&list()).send().await;
    assert_eq!(answer.expect("an answer").status(), 401);
    let numbers = Numbers::settled(&gateway, asked + 13).await;
    assert_eq!(numbers.dropped(), 0, "{numbers:?}");
    let (rows, text) = events(&postgres).await;
    assert_eq!(rows.len() as u64, numbers.stored);
    let known = json!({ "lane": "rest", "version": "v1", "tenant": "acme", "subject": "ci", "way": "api_key", "server": "stub" });
    let with = |more: Value| {
        let mut all = known.clone();
        all.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        all
    };
    let called = |name: &str, more: Value| {
        let mut all = with(more);
        all["method"] = json!("tools/call");
        all["name"] = json!(name);
        all
    };
    has(&rows, &called("echo", json!({ "outcome": "ok", "status": 200, "backend": "one", "code": null })));
    has(&rows, &called("cached", json!({ "outcome": "ok", "cache": "miss" })));
    has(&rows, &called("cached", json!({ "outcome": "ok", "cache": "hit", "backend": "one" })));
    has(
        &rows,
        &called("rare", json!({ "outcome": "refused", "status": 429, "code": "rate_limited", "rate_limit": "few", "backend": null })),
    );
    has(&rows, &with(json!({ "method": "resources/read", "name": null })));
    has(&rows, &with(json!({ "method": "prompts/get", "name": "plan", "outcome": "refused", "status": 403, "code": "forbidden" })));
    has(&rows, &called("first", json!({ "outcome": "ok", "status": 200, "backend": "one" })));
    has(&rows, &called("second", json!({ "outcome": "ok", "status": 200, "backend": "one" })));
    has(&rows, &with(json!({ "method": null, "outcome": "refused", "status": 403, "code": "forbidden" })));
    has(
        &rows,
        &json!({ "lane": "native", "version": null, "subject": "ci", "method": "tools/call", "name": "echo", "outcome": "ok", "backend": "one" }),
    );
    has(
        &rows,
        &json!({ "lane": "rest", "version": "v2", "subject": null, "server": null, "status": 401, "code": "unauthorized", "outcome": "refused" }),
    );
    let long = rows.iter().find_map(|row| row["name"].as_str().filter(|name| name.starts_with("nul"))).expect("the long name");
    assert_eq!((long.chars().count(), &long[..6]), (128, "nul\u{fffd}"));
    let echo = rows.iter().find(|row| says(row, &called("echo", json!({})))).expect("a call");
    assert!(
        echo["bytes_in"].as_u64() > Some(50) && echo["bytes_out"].as_u64() > Some(50) && echo["duration_ms"].as_f64() > Some(0.0),
        "{echo}"
    );
    assert!(!text.contains("canary") && !text.contains(KEY), "{text}");
    let said = gateway.said().await.join("\n");
    assert!(!said.contains(PASSWORD), "{said}");
    let config = http().get(format!("{}/admin/config", gateway.admin)).send().await.expect("an answer").text().await.expect("text");
    assert!(config.contains("\"analytics\"") && !config.contains(PASSWORD), "{config}");
}

fn key2<'k>(key: &'k [(&'k str, &'k str)]) -> Vec<(&'k str, &'k str)> {
    [key, &[("mcp-name", "echo")]].concat()
}

#[tokio::test]
async fn what_waits_is_stored_when_the_process_ends() {
    let (stub, postgres) = (Stub::start().await, Postgres::start().await);
    let yaml = yaml(&stub, &postgres.url(), "", "").replace("flush: 50ms", "flush: 1h");
    let mut gateway = Gateway::start(&yaml).await;
    gateway.knows("stub").await;
    for _ in 0..5 {
        gateway.call("stub", "echo", json!({})).await;
    }
    eventually("five wait for others", async || (Numbers::of(&gateway).await.queued == 5).then_some(())).await;
    assert_eq!(postgres.events().await, 0);
    gateway.process.signal("TERM");
    gateway.process.child.wait().await.expect("ended");
    assert_eq!(postgres.events().await, 5);
}

#[tokio::test]
async fn a_reload_sends_new_events_elsewhere_and_old_ones_where_they_were_to_go() {
    let (stub, first, second) = (Stub::start().await, Postgres::start().await, Postgres::start().await);
    let slow = |url: &str| yaml(&stub, url, "", "").replace("flush: 50ms", "flush: 1h");
    let gateway = Gateway::start(&slow(&first.url())).await;
    gateway.knows("stub").await;
    gateway.call("stub", "echo", json!({})).await;
    assert_eq!(first.events().await, 0, "it waits");
    gateway.load(&yaml(&stub, &second.url(), "", "")).await;
    gateway.call("stub", "echo", json!({})).await;
    Numbers::settled(&gateway, 2).await;
    assert_eq!((first.events().await, second.events().await), (1, 1));
    let off = yaml(&stub, &second.url(), "", "");
    gateway.load(off.split("analytics:").next().expect("the rest")).await;
    gateway.call("stub", "echo", json!({})).await;
    assert_eq!(Numbers::of(&gateway).await.produced, 2, "nothing is told when it is off");
}

#[tokio::test]
async fn without_analytics_there_are_no_series_and_no_answers() {
    let stub = Stub::start().await;
    let gateway = Gateway::with(&stub.backend("one", "")).await;
    let metrics = http().get(gateway.at("/metrics")).send().await.expect("metrics").text().await.expect("text");
    assert!(!metrics.contains("analytics_"), "{metrics}");
    let answer = http().get(format!("{}/admin/analytics", gateway.admin)).send().await.expect("an answer");
    assert_eq!(answer.status(), 404);
}
