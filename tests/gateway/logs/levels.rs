//! The level, by module, changed while running.

use reqwest::Method;
use serde_json::{Value, json};

use super::{call, logging, rest, said, yaml};
use crate::support::gateway::{Gateway, server};
use crate::support::stub::Stub;
use crate::support::{eventually, http};

/// A condition that cannot be evaluated, of which `mcp_gateway::route` tells at debug.
const UNCLEAR: &str = "routes: [ { name: odd, when: \"arguments.absent == 1\" } ]\n";

/// How often that was told so far, after one more call.
async fn told(gateway: &Gateway) -> usize {
    assert_eq!(rest(gateway, &call()).send().await.expect("an answer").status(), 200);
    let is_it = |line: &&String| line.contains("\"debug\"") && line.contains("route odd");
    said(gateway).await.iter().filter(is_it).count()
}

async fn ask(gateway: &Gateway, method: Method, body: Option<Value>) -> (u16, Value) {
    let request = http().request(method, format!("{}/admin/log", gateway.admin));
    let answer = body.iter().fold(request, reqwest::RequestBuilder::json).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_set_while_running_is_heard_and_taken_back() {
    let stub = Stub::start().await;
    let gateway = logging(&stub, "level: info", UNCLEAR).await;
    assert_eq!(told(&gateway).await, 0);
    let (status, now) = ask(&gateway, Method::PUT, Some(json!({ "level": "info,mcp_gateway::route=debug" }))).await;
    assert_eq!((status, &now["level"], &now["configured"]), (200, &json!("info,mcp_gateway::route=debug"), &json!("info")));
    assert_eq!((&now["is_set"], &now["until"]), (&json!(true), &Value::Null));
    assert_eq!(told(&gateway).await, 1);
    ask(&gateway, Method::PUT, Some(json!({ "level": "info,mcp_gateway::upstream=debug" }))).await;
    assert_eq!(told(&gateway).await, 1, "of another module");
    ask(&gateway, Method::PUT, Some(json!({ "level": "trace" }))).await;
    assert_eq!(told(&gateway).await, 2);
    let (status, now) = ask(&gateway, Method::DELETE, None).await;
    assert_eq!((status, &now["level"], &now["is_set"]), (200, &json!("info"), &json!(false)));
    assert_eq!(told(&gateway).await, 2);
    let lines = said(&gateway).await;
    for change in ["the log level is trace, by PUT", "the log level is info, by DELETE"] {
        assert!(lines.iter().any(|line| line.contains(change)), "{change}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_for_a_time_ends_by_itself() {
    let stub = Stub::start().await;
    let gateway = logging(&stub, "level: info", "").await;
    let (status, now) = ask(&gateway, Method::PUT, Some(json!({ "level": "debug", "for": "1s" }))).await;
    assert_eq!(status, 200);
    assert!(now["until"].as_str().is_some_and(|until| until.ends_with('Z')), "{now}");
    let over = async || (ask(&gateway, Method::GET, None).await.1["is_set"] == false).then_some(());
    eventually("its time is over", over).await;
    assert_eq!(ask(&gateway, Method::GET, None).await.1["level"], "info");
    // One that was replaced does not end its successor.
    ask(&gateway, Method::PUT, Some(json!({ "level": "debug", "for": "50ms" }))).await;
    ask(&gateway, Method::PUT, Some(json!({ "level": "trace", "for": "1h" }))).await;
    ask(&gateway, Method::PUT, Some(json!({ "level": "info", "for": "100ms" }))).await;
    eventually("the last is over", over).await;
    let lines = said(&gateway).await;
    assert!(lines.iter().any(|line| line.contains("since the time of the one before is over")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_cannot_be_is_refused_naming_the_member() {
    let stub = Stub::start().await;
    let gateway = logging(&stub, "level: info", "").await;
    let wrong = [
        (json!({ "level": "inof" }), "level"),
        (json!({ "level": "info,mcp_gateway=loud" }), "level"),
        (json!({ "level": "" }), "level"),
        (json!({ "level": 3 }), "level"),
        (json!({}), "level"),
        (json!({ "level": "pingora_core=trace" }), "level"),
        (json!({ "level": "info,tokio_postgres=debug" }), "level"),
        (json!({ "level": "info", "for": "soon" }), "for"),
        (json!({ "level": "info", "for": "0s" }), "for"),
        (json!({ "level": "info", "for": "8d" }), "for"),
        (json!({ "levl": "info" }), "levl"),
    ];
    for (body, member) in wrong {
        let (status, problem) = ask(&gateway, Method::PUT, Some(body.clone())).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert_eq!((status, detail.contains(&format!("`{member}`"))), (400, true), "{body}: {problem}");
    }
    let (status, _) = ask(&gateway, Method::POST, Some(json!({ "level": "debug" }))).await;
    assert_eq!(status, 405);
    let now = ask(&gateway, Method::GET, None).await.1;
    assert_eq!((&now["level"], &now["is_set"], &now["format"]), (&json!("info"), &json!(false), &json!("json")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_is_guarded_as_everything_administrators_do() {
    let stub = Stub::start().await;
    let gateway = Gateway::start(&format!("{}backends:\n{}", server("  admin_token: the-admin-token\n"), stub.backend("one", ""))).await;
    let url = format!("{}/admin/log", gateway.admin);
    let wish = json!({ "level": "off" });
    let status = async |request: reqwest::RequestBuilder| request.send().await.expect("an answer").status().as_u16();
    assert_eq!(status(http().get(&url)).await, 401);
    assert_eq!(status(http().put(&url).json(&wish)).await, 401);
    assert_eq!(status(http().delete(&url)).await, 401);
    let known = http().put(&url).json(&wish).bearer_auth("the-admin-token");
    assert_eq!(status(known.header("origin", &gateway.admin)).await, 403, "a page of a browser, without the token against forgery");
    let now: Value = http().get(&url).bearer_auth("the-admin-token").send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(now["level"], "info");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_applies_another_level_and_leaves_one_that_was_set_unless_it_brings_another() {
    let stub = Stub::start().await;
    let gateway = logging(&stub, "level: info", UNCLEAR).await;
    gateway.load(&yaml(&stub, "level: \"info,mcp_gateway::route=debug\"", UNCLEAR)).await;
    assert_eq!(told(&gateway).await, 1);
    ask(&gateway, Method::PUT, Some(json!({ "level": "info" }))).await;
    gateway.load(&yaml(&stub, "level: \"info,mcp_gateway::route=debug\", sample: 0.5", UNCLEAR)).await;
    let now = ask(&gateway, Method::GET, None).await.1;
    assert_eq!((&now["level"], &now["is_set"], &now["sample"]), (&json!("info"), &json!(true), &json!(0.5)));
    assert_eq!(told(&gateway).await, 1, "the configured level is the same, so the one that was set holds");
    gateway.load(&yaml(&stub, "level: debug", UNCLEAR)).await;
    let now = ask(&gateway, Method::GET, None).await.1;
    assert_eq!((&now["level"], &now["is_set"]), (&json!("debug"), &json!(false)));
    assert_eq!(told(&gateway).await, 2);
    std::fs::write(gateway.config_path(), yaml(&stub, "level: warn", UNCLEAR)).expect("writable");
    eventually("the changed file is noticed", async || (ask(&gateway, Method::GET, None).await.1["level"] == "warn").then_some(())).await;
    std::fs::write(gateway.config_path(), yaml(&stub, "level: error", UNCLEAR)).expect("writable");
    gateway.process.signal("HUP");
    eventually("SIGHUP is heard", async || (ask(&gateway, Method::GET, None).await.1["level"] == "error").then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_format_takes_a_restart_and_the_log_says_so() {
    let stub = Stub::start().await;
    let mut gateway = logging(&stub, "format: json", "").await;
    gateway.load(&yaml(&stub, "format: text", "")).await;
    gateway.process.says("observability.log.format changed, which takes an upgrade or a restart").await;
    assert_eq!(ask(&gateway, Method::GET, None).await.1["format"], "json");
}
