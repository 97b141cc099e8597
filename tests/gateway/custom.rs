//! The worked examples of code compiled in (`tests/examples/custom_*.rs`), run as their users would.

use std::path::Path;

use serde_json::json;
use tokio::process::Command;

use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::stub::Stub;

fn example(name: &str) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_mcp-gateway")).with_file_name(format!("examples/{name}"));
    assert!(binary.exists(), "{} is missing: `cargo test` builds it when no single test target is named", binary.display());
    let mut command = Command::new(binary);
    command.env_clear();
    command
}

#[tokio::test]
async fn an_authenticator_of_ones_own_decides_about_its_credential() {
    let stub = Stub::start().await;
    let command = example("custom_auth");
    let yaml = format!(
        "{}backends:\n{}auth: {{ custom: true }}\nroles:\n  operator: [ {{}} ]\n  reader: [ {{ methods: [tools/list] }} ]\n",
        server(""),
        stub.backend("one", "")
    );
    let gateway = Gateway::start_by(command, &yaml).await;
    gateway.ready().await;
    let call = json!({ "method": "call_tool", "params": { "tool_name": "echo" } });
    for (credential, expected) in
        [(Some("Badge 5678"), 200), (Some("Badge 1234"), 403), (Some("Badge 9"), 401), (Some("Other 5678"), 401), (None, 401)]
    {
        let request = http().post(gateway.at("/api/mcp/stub")).json(&call);
        let request = credential.map_or(request.try_clone().expect("a plain body"), |value| request.header("authorization", value));
        assert_eq!(request.send().await.expect("an answer").status(), expected, "{credential:?}");
    }
    assert_eq!(stub.calls(), 1);
    assert_eq!(gateway.metric("auth_decisions_total{decision=\"admitted\",way=\"custom\"}").await, 2);
}

#[tokio::test]
async fn a_router_and_middleware_of_ones_own_decide_and_their_panics_admit_nothing() {
    let (one, two) = (Stub::start().await, Stub::start().await);
    let check = ", health_check: {path: /health, interval: 10m}";
    let routes = "routes: [ { name: fixed, when: 'has(headers.fixed)', backends: [one] } ]\n";
    let yaml = format!("{}backends:\n{}{}{routes}", server(""), one.backend("one", check), two.backend("two", check));
    let gateway = Gateway::start_by(example("custom_gateway"), &yaml).await;
    gateway.knows("stub").await;
    let rest = |tool: &str| json!({ "method": "call_tool", "params": { "tool_name": tool } });
    let native = |tool: &str| json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": tool } });
    for (path, echo, regional) in [("/api/mcp/stub", rest("echo"), rest("regional")), ("/mcp/stub", native("echo"), native("regional"))] {
        let (before, ask) = ([one.calls(), two.calls()], |body: &serde_json::Value| http().post(gateway.at(path)).json(body));
        for _ in 0..4 {
            let answer = ask(&echo).header("x-experiment", "1").header("fixed", "1").send().await.expect("an answer");
            assert_eq!(
                (answer.status().as_u16(), answer.headers()["x-ended"].to_str().ok()),
                (200, Some(if path == "/mcp/stub" { "under way" } else { "ok" }))
            );
            assert!(answer.headers().contains_key("x-waited-us") && two.headers().contains_key("x-caller"));
        }
        assert_eq!([one.calls() - before[0], two.calls() - before[1]], [0, 4], "{path}: it is asked before the configured routes");
        ask(&echo).header("fixed", "1").send().await.expect("an answer");
        assert_eq!(
            [one.calls() - before[0], two.calls() - before[1]],
            [1, 4],
            "{path}: who it has nothing to say about goes as configured"
        );
        let refused = ask(&regional).send().await.expect("an answer");
        assert_eq!((refused.status().as_u16(), refused.headers()["x-ended"].to_str().ok()), (409, Some("conflict")));
        assert!(refused.text().await.expect("text").contains("an experiment runs"));
        let broken = ask(&echo).header("x-experiment", "7").send().await.expect("an answer");
        assert_eq!(broken.status(), 500);
        assert_eq!([one.calls() - before[0], two.calls() - before[1]], [1, 4], "{path}: nothing refused is sent");
    }
    let (_, answers) = gateway.rest("stub", json!([rest("regional"), rest("echo")])).await;
    assert_eq!((answers[0]["code"].as_str(), answers[1]["result"].is_array()), (Some("conflict"), true), "{answers}");
}
