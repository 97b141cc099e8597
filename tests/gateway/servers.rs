//! REST calls on the servers of every SDK, with the oddities each of them has.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http;
use crate::support::part::Server;

async fn gateway(server: &Server, more: &str) -> Gateway {
    let gateway = Gateway::with(&format!("  - {{ name: one, url: \"{}\", capabilities: [real]{more} }}\n", server.url)).await;
    gateway.knows("real").await;
    gateway
}

fn text(answer: &Value) -> &str {
    answer["result"][0]["text"].as_str().unwrap_or_default()
}

/// What every server can do; `echo` and `add` are tools all of them have.
async fn basics(gateway: &Gateway) {
    let answer = gateway.call("real", "echo", json!({ "text": "grüße" })).await;
    assert!(text(&answer).contains("grüße"), "{answer}");
    assert_eq!((&answer["backend"], &answer["cached"]), (&json!("one"), &json!(false)));
    assert!(answer["response_time"].as_f64().is_some_and(|seconds| seconds > 0.0));
    let (status, list) = gateway.rest("real", json!({ "method": "list_tools" })).await;
    assert_eq!(status, 200);
    let names: Vec<_> = list["result"].as_array().expect("a list").iter().map(|tool| tool["name"].as_str().unwrap_or_default()).collect();
    assert!(names.contains(&"echo"), "{names:?}");
    let (status, problem) = gateway.rest("real", json!({ "method": "call_tool", "params": { "tool_name": "no_such_tool" } })).await;
    assert_eq!((status, &problem["code"]), (404, &json!("unknown_name")), "{problem}");
}

async fn adds(gateway: &Gateway) {
    let answer = gateway.call("real", "add", json!({ "a": 2, "b": 40 })).await;
    assert_eq!(answer["structuredContent"]["sum"].as_f64(), Some(42.0), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_sdk_in_both_eras_and_all_modes() {
    for flags in [&[][..], &["--json"], &["--stateless"]] {
        let server = Server::python_sdk(flags).await;
        for era in ["legacy", "modern"] {
            let gateway = gateway(&server, &format!(", era: {era}")).await;
            basics(&gateway).await;
            adds(&gateway).await;
            let (_, listed) = gateway.rest("real", json!({ "method": "resources/list" })).await;
            let uri = listed["result"][0]["uri"].as_str().expect("a resource").to_owned();
            let (status, read) = gateway.rest("real", json!({ "method": "read_resource", "params": { "uri": uri } })).await;
            assert_eq!((status, read["result"][0]["uri"].as_str()), (200, Some(uri.as_str())), "{read}");
            let (status, failed) = gateway.rest("real", json!({ "method": "call_tool", "params": { "tool_name": "fail" } })).await;
            assert_eq!((status, &failed["isError"]), (200, &json!(true)), "{failed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn typescript_sdk_pages_its_tools_and_wants_parameter_headers() {
    let server = Server::ts().await;
    let gateway = gateway(&server, "").await;
    basics(&gateway).await;
    adds(&gateway).await;
    let (_, all) = gateway.rest("real", json!({ "method": "list_tools" })).await;
    let total = all["result"].as_array().expect("a list").len();
    assert!(total > 3, "more than one page of three: {total}");
    let (status, page) = crate::rest::v2(&gateway, "real", json!({ "method": "list_tools" })).await;
    assert_eq!((status, page["result"]["tools"].as_array().map(Vec::len)), (200, Some(3)), "{page}");
    let cursor = &page["result"]["nextCursor"];
    let (_, next) = crate::rest::v2(&gateway, "real", json!({ "method": "list_tools", "params": { "cursor": cursor } })).await;
    assert_ne!(next["result"]["tools"], page["result"]["tools"]);
    let answer = gateway.call("real", "route", json!({ "region": "eu-west" })).await;
    assert!(text(&answer).contains("eu-west"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_to_the_user_is_declined_or_refused_not_awaited() {
    let modern = Server::ts().await;
    let (status, problem) =
        gateway(&modern, "").await.rest("real", json!({ "method": "call_tool", "params": { "tool_name": "ask" } })).await;
    assert_eq!((status, &problem["code"]), (422, &json!("input_required")), "{problem}");
    // Legacy servers send `elicitation/create` although we declared no such capability; what they make of our "no" is theirs.
    let legacy = Server::ts_legacy().await;
    let (status, answer) =
        gateway(&legacy, "").await.rest("real", json!({ "method": "call_tool", "params": { "tool_name": "ask" } })).await;
    assert_eq!((status, &answer["isError"]), (200, &json!(true)), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn typescript_sdk_1_primes_its_streams_and_forgets_sessions() {
    let server = Server::ts_legacy().await;
    let gateway = gateway(&server, "").await;
    basics(&gateway).await;
    adds(&gateway).await;
    // It hangs up before the result and delivers it to whoever comes back with the last event's id.
    let dropped = gateway.call("real", "drop", json!({})).await;
    assert!(!text(&dropped).is_empty(), "{dropped}");
    let forgot: Value = http().post(format!("{}/expire", server.url)).send().await.expect("sent").json().await.expect("JSON");
    assert!(forgot["expired"].as_u64().is_some_and(|sessions| sessions > 0), "{forgot}");
    basics(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_everything_says_400_to_the_session_of_its_former_life() {
    let server = Server::everything().await;
    let gateway = gateway(&server, ", health_check: {mcp: true, interval: 10m}").await;
    let echo = json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": { "message": "hi" } } });
    let (status, answer) = gateway.rest("real", echo.clone()).await;
    assert!(status == 200 && text(&answer).contains("hi"), "{answer}");
    let _restarted = server.everything_again().await;
    // Eight at once find the session gone; one of them opens the new one.
    let answers = futures::future::join_all((0..8).map(|_| gateway.rest("real", echo.clone()))).await;
    for (status, answer) in answers {
        assert!(status == 200 && text(&answer).contains("hi"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fastmcp() {
    let server = Server::fastmcp().await;
    for era in ["legacy", "modern"] {
        let gateway = gateway(&server, &format!(", era: {era}")).await;
        basics(&gateway).await;
        let (status, prompts) = gateway.rest("real", json!({ "method": "list_prompts" })).await;
        assert_eq!(status, 200);
        let name = prompts["result"][0]["name"].as_str().expect("a prompt");
        let arguments: serde_json::Map<String, Value> = prompts["result"][0]["arguments"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|argument| (argument["name"].as_str().unwrap_or_default().to_owned(), json!("x")))
            .collect();
        let (status, prompt) =
            gateway.rest("real", json!({ "method": "get_prompt", "params": { "name": name, "arguments": arguments } })).await;
        assert!(status == 200 && prompt["result"][0]["role"].is_string(), "{prompt}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_logs_are_streamed_before_the_envelope() {
    let server = Server::python_sdk(&[]).await;
    for era in ["legacy", "modern"] {
        let gateway = gateway(&server, &format!(", era: {era}")).await;
        let body = json!({ "method": "call_tool", "params": { "tool_name": "slow", "arguments": { "ms": 50, "steps": 3 } } });
        let request = http().post(gateway.at("/api/mcp/real")).header("accept", "text/event-stream").json(&body);
        let response = request.send().await.expect("an answer");
        assert_eq!((response.status(), response.headers()["content-type"].as_bytes()), (StatusCode::OK, &b"text/event-stream"[..]));
        let stream = response.text().await.expect("a whole stream");
        let names: Vec<_> = stream.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
        assert_eq!(names.last(), Some(&"result"), "{era}: {stream}");
        assert!(names.contains(&"progress") && names.contains(&"message"), "{era}: {stream}");
        let last = stream.lines().rev().find_map(|line| line.strip_prefix("data: ")).expect("data");
        assert_eq!(serde_json::from_str::<Value>(last).expect("an envelope")["backend"], "one");
    }
}

/// In the legacy era a disconnect is no cancellation, so the gateway says it.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_leaves_or_waits_too_long_cancels_the_tool_on_a_legacy_server() {
    let server = Server::python_sdk(&[]).await;
    let gateway = gateway(&server, ", era: legacy, timeout: 2s").await;
    let cancelled = async || gateway.call("real", "cancelled", json!({})).await["structuredContent"]["count"].as_u64();
    let slow = |ms: u32| json!({ "method": "call_tool", "params": { "tool_name": "slow", "arguments": { "ms": ms } } });
    let sent = http().post(gateway.at("/api/mcp/real")).json(&slow(60_000)).send();
    let asking = tokio::spawn(sent);
    let under_way = async || (gateway.metric("backend_in_flight{backend=\"one\"}").await >= 1).then_some(());
    crate::support::eventually("the call is under way", under_way).await;
    asking.abort();
    crate::support::eventually("the tool is cancelled", async || (cancelled().await == Some(1)).then_some(())).await;
    let (status, _) = gateway.rest("real", slow(60_000)).await;
    assert_eq!(status, 504);
    crate::support::eventually("the second is cancelled too", async || (cancelled().await == Some(2)).then_some(())).await;
}

/// The stream of a call breaks, the server cannot be asked to resume it, and another one could serve the call: it may
/// have been executed, so nobody else is given it.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_server_dies_in_the_middle_goes_to_no_other() {
    let (one, two) = (Server::ts_legacy().await, Server::ts_legacy().await);
    let entry = |name: &str, server: &Server| {
        format!("  - {{ name: {name}, url: \"{}\", capabilities: [real], health_check: {{mcp: true, interval: 10m}} }}\n", server.url)
    };
    let gateway = Gateway::with(&format!("{}{}", entry("one", &one), entry("two", &two))).await;
    gateway.knows("real").await;
    let url = gateway.at("/api/mcp/real");
    let slow = json!({ "method": "call_tool", "params": { "tool_name": "slow", "arguments": { "ms": 30_000 } } });
    let asking = tokio::spawn(async move { http().post(url).json(&slow).send().await.expect("an answer").status().as_u16() });
    let working = async || {
        for name in ["one", "two"] {
            // In flight and its header answered: the call is on its stream.
            let series = |family: &str, more: &str| format!("{family}{{backend=\"{name}\"{more}}}");
            let flying = gateway.metric(&series("backend_in_flight", "")).await;
            if flying == 1 && gateway.metric(&series("backend_requests_total", ",status=\"2xx\"")).await > 0 {
                return Some(name);
            }
        }
        None
    };
    let name = crate::support::eventually("the call is on its stream", working).await;
    let (mut dies, _lives) = if name == "one" { (one, two) } else { (two, one) };
    let total = async |backend: &str| gateway.metric(&format!("backend_requests_total{{backend=\"{backend}\",status=\"2xx\"}}")).await;
    let other = if name == "one" { "two" } else { "one" };
    let before = total(other).await;
    dies.process.kill().await;
    assert_eq!(asking.await.expect("no panic"), 502);
    assert_eq!(total(other).await, before, "the other server was given the call");
}
