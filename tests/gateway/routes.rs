//! Routing rules: which backends a request may go to, by what is asked, who asks and how.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::stub::{Act, Stub};

/// Three backends of one server: two in the shard `eu`, one of them called `gpu`.
struct Fleet {
    plain: Stub,
    eu: Stub,
    gpu: Stub,
    gateway: Gateway,
}

impl Fleet {
    async fn start(more: &str) -> Self {
        let (plain, eu, gpu) = (Stub::start().await, Stub::start().await, Stub::start().await);
        let check = ", health_check: {path: /health, interval: 10m}, timeout: 30s";
        let backends = [
            plain.backend("plain", check),
            eu.backend("eu", &format!("{check}, shard: eu")),
            gpu.backend("gpu", &format!("{check}, shard: eu")),
        ];
        let gateway = Gateway::start(&format!("{}backends:\n{}{more}", server(""), backends.concat())).await;
        gateway.knows("stub").await;
        Self { plain, eu, gpu, gateway }
    }

    fn calls(&self) -> [usize; 3] {
        [self.plain.calls(), self.eu.calls(), self.gpu.calls()]
    }

    /// Makes a call six times, and says how many of them each backend got.
    async fn spread(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> [usize; 3] {
        let before = self.calls();
        for _ in 0..6 {
            let request = headers.iter().fold(http().post(self.gateway.at(path)), |request, (name, value)| request.header(*name, *value));
            let request = request.header("accept", "application/json, text/event-stream");
            let answer = request.json(body).send().await.expect("an answer");
            assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap_or_default());
        }
        std::array::from_fn(|at| self.calls()[at] - before[at])
    }
}

fn rest(arguments: Value) -> Value {
    json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": arguments } })
}

fn native(arguments: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "echo", "arguments": arguments } })
}

const REST: &str = "/api/mcp/stub";
const NATIVE: &str = "/mcp/stub";

#[tokio::test]
async fn the_first_rule_that_matches_says_where_a_request_goes() {
    let fleet = Fleet::start(
        "routes:\n\
         \x20 - { name: large, when: 'size(arguments) > 3 && tool == \"echo\"', backends: [gpu] }\n\
         \x20 - { when: 'request.headers[\"x-region\"] == \"eu\" && server == \"stub\"', backends: { shard: eu } }\n\
         \x20 - { name: never, when: 'request.headers[\"x-region\"] == \"eu\"', backends: [plain] }\n\
         \x20 - { when: 'server == \"other\" || arguments.n > 100', backends: [gpu] }\n",
    )
    .await;
    let large = json!({ "a": 1, "b": 2, "c": 3, "d": 4 });
    for (path, call) in [(REST, rest as fn(Value) -> Value), (NATIVE, native)] {
        assert_eq!(fleet.spread(path, &[], &call(large.clone())).await, [0, 0, 6], "{path}: by the size of the arguments");
        assert_eq!(fleet.spread(path, &[("x-region", "eu")], &call(large.clone())).await, [0, 0, 6], "{path}: the first rule decides");
        assert_eq!(fleet.spread(path, &[("x-region", "eu")], &call(json!({}))).await, [0, 3, 3], "{path}: by a header, to a shard");
        assert_eq!(fleet.spread(path, &[], &call(json!({ "n": 101 }))).await, [0, 0, 6], "{path}: by an argument");
        assert_eq!(fleet.spread(path, &[], &call(json!({ "n": "x" }))).await, [2, 2, 2], "{path}: what cannot be evaluated does not match");
    }
    let log = fleet.gateway.said().await;
    let access = || log.iter().filter(|line| line.contains("\"access\"") && line.contains("POST"));
    assert_eq!(access().filter(|line| line.contains("large")).count(), 24);
    assert!(access().any(|line| line.contains("route-2")) && !access().any(|line| line.contains("never")));
}

#[tokio::test]
async fn arguments_that_a_rule_cannot_judge_for_certain_go_nowhere() {
    let fleet = Fleet::start(
        "routes:\n\
         \x20 - { name: named, when: 'request.headers[\"x-loud\"] == \"1\" && arguments.loud', backends: [gpu] }\n\
         \x20 - { name: large, when: 'arguments.n > 100', backends: [gpu], transform: [ { request: { params: { set: { arguments.checked: true } } } } ] }\n\
         \x20 - { backends: [plain] }\n",
    )
    .await;
    let twofold = [json!({ "n": 101, "N": 1 }), json!({ "N": 101 }), json!({ "n": 1, "x": [{ "deep": { "a": 1, "A": 2 } }] })];
    for (arguments, name) in twofold.iter().zip(["`n`", "`N`", "`a`"]) {
        for (path, body) in
            [(REST, rest(arguments.clone())), (NATIVE, native(arguments.clone())), (NATIVE, json!([native(arguments.clone())]))]
        {
            let answer = http().post(fleet.gateway.at(path)).json(&body).send().await.expect("an answer");
            let (status, text) = (answer.status(), answer.text().await.expect("text"));
            let tells =
                text.to_lowercase().contains(&name.to_lowercase()) && text.contains("route large") && text.contains("invalid_params");
            assert!(status == 400 && tells, "{path} {arguments}: {status} {text}");
        }
    }
    let batch = json!([rest(json!({ "n": 1 })), rest(twofold[0].clone()), rest(json!({ "n": 101 }))]);
    let (status, answers) = fleet.gateway.rest("stub", batch).await;
    let of = |at: usize| (answers[at]["backend"].as_str(), answers[at]["code"].as_str());
    assert_eq!((status, of(0), of(1), of(2)), (200, (Some("plain"), None), (None, Some("invalid_params")), (Some("gpu"), None)));
    assert_eq!(fleet.calls(), [1, 0, 1], "nothing else was sent");
    for (path, call) in [(REST, rest as fn(Value) -> Value), (NATIVE, native)] {
        assert_eq!(fleet.spread(path, &[("x-loud", "0")], &call(json!({ "Loud": 1 }))).await, [6, 0, 0], "{path}: no rule looks at it");
        assert_eq!(fleet.spread(path, &[], &call(json!({ "loud": 1, "n": "x" }))).await, [6, 0, 0], "{path}: nor can this be evaluated");
    }
}

#[tokio::test]
async fn each_request_of_a_batch_goes_its_own_way() {
    let fleet = Fleet::start("routes: [ { when: 'has(arguments.big)', backends: [gpu] }, { backends: [plain] } ]\n").await;
    let batch: Vec<Value> = (0..8).map(|i| rest(if i % 2 == 0 { json!({ "big": i }) } else { json!({ "i": i }) })).collect();
    let (status, answers) = fleet.gateway.rest("stub", json!(batch)).await;
    let backends: Vec<&str> = answers.as_array().expect("an array").iter().filter_map(|answer| answer["backend"].as_str()).collect();
    assert_eq!((status, backends), (200, ["gpu", "plain"].repeat(4)));
    let send = async |batch: Value| http().post(fleet.gateway.at(NATIVE)).json(&batch).send().await.expect("an answer").status().as_u16();
    let alike = json!([native(json!({ "big": 1 })), native(json!({ "big": 2 }))]);
    send(alike.clone()).await;
    assert_eq!(fleet.gpu.body(), alike.to_string(), "a native batch goes where its calls lead");
    let before = (fleet.plain.posts(), fleet.gpu.posts());
    assert_eq!(send(json!([native(json!({})), native(json!({ "big": 1 }))])).await, 400, "and nowhere if they lead apart");
    assert_eq!((fleet.plain.posts(), fleet.gpu.posts()), before);
}

#[tokio::test]
async fn a_rule_sees_who_asks_and_from_where() {
    let fleet = Fleet::start(
        "auth: { required: false, anonymous: { roles: [guest], tenant: visitors }, external: { url: 'http://127.0.0.1:1/', headers: [x-none] } }\n\
         routes:\n\
         \x20 - { when: '\"guest\" in principal.roles && principal.tenant == \"visitors\" && request.client.startsWith(\"127.\") && request.path == \"/mcp/stub\"', backends: [eu] }\n\
         \x20 - { when: 'version == \"v2\" && method == \"tools/call\" && name == \"echo\" && request.method == \"POST\"', backends: [gpu] }\n",
    )
    .await;
    assert_eq!(fleet.spread(NATIVE, &[], &native(json!({}))).await, [0, 6, 0]);
    assert_eq!(fleet.spread("/api/v2/mcp/stub", &[], &rest(json!({}))).await, [0, 0, 6]);
    assert_eq!(fleet.spread(REST, &[], &rest(json!({}))).await, [2, 2, 2]);
}

#[tokio::test]
async fn a_rule_has_a_time_of_its_own_and_a_refusal_names_it() {
    let fleet = Fleet::start(
        "routes:\n\
         \x20 - { name: hasty, when: 'has(arguments.hasty)', backends: [gpu], timeout: 300ms }\n\
         \x20 - { name: elsewhere, when: 'has(arguments.gone)', backends: [eu] }\n",
    )
    .await;
    fleet.gpu.act(Act::Hang);
    for path in [REST, NATIVE] {
        let begun = Instant::now();
        let body = if path == REST { rest(json!({ "hasty": 1 })) } else { native(json!({ "hasty": 1 })) };
        let answer = http().post(fleet.gateway.at(path)).json(&body).send().await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.expect("text"));
        assert!(status == 504 && text.contains("route hasty, timeout 0.3 s"), "{path}: {status} {text}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{path}: the backend's own 30 s do not count");
    }
    let gone = fleet.eu.url.clone();
    drop(fleet.eu);
    crate::support::eventually("the backend is gone", async || http().get(format!("{gone}/health")).send().await.is_err().then_some(()))
        .await;
    for (path, body) in [(REST, rest(json!({ "gone": 1 }))), (NATIVE, native(json!({ "gone": 1 })))] {
        let answer = http().post(fleet.gateway.at(path)).json(&body).send().await.expect("an answer");
        let (status, text) = (answer.status(), answer.text().await.expect("text"));
        assert!(status == 503 && text.contains("route elsewhere") && text.contains("no_healthy_backend"), "{path}: {status} {text}");
    }
    assert_eq!([fleet.plain.calls(), fleet.gpu.calls()], [0, 2], "nothing went where the rule does not lead");
}
