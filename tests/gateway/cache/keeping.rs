//! Hits in both lanes, what tells questions apart, and what is never kept.

use serde_json::json;

use super::{caching, call, list, native, read, rest, status, told, tools, yaml};
use crate::support::gateway::Gateway;
use crate::support::stub::{Act, Stub};

#[tokio::test]
async fn a_rest_caller_is_answered_from_the_cache_and_told_so() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let gateway = caching(&stub, "", "").await;
    let before = stub.asked("tools/list");
    let (fresh, first) = told(rest(&gateway, &list(), &[]).await).await;
    assert_eq!((fresh.as_str(), &first["cached"]), ("mcp-gateway; fwd=miss; stored", &json!(false)));
    let second = rest(&gateway, &list(), &[("x-request-id", "mine")]).await;
    assert_eq!(second.headers()["x-request-id"], "mine");
    assert_eq!(second.headers()["age"], "0");
    let (kept, second) = told(second).await;
    assert!(kept.starts_with("mcp-gateway; hit; ttl=59") || kept == "mcp-gateway; hit; ttl=60", "{kept}");
    assert_eq!((&second["cached"], &second["result"], &second["backend"]), (&json!(true), &first["result"], &json!("one")));
    assert!(second["response_time"].as_f64().is_some_and(|time| time < 1.0));
    assert_eq!(stub.asked("tools/list") - before, 1);
    assert_eq!(gateway.metric("cache_requests_total{result=\"hit\",server=\"stub\",tier=\"memory\"}").await, 1);
    assert_eq!(gateway.metric("cache_requests_total{result=\"miss\",server=\"stub\",tier=\"memory\"}").await, 1);
    assert!(gateway.metric("cache_bytes{tier=\"memory\"}").await > 100);
}

#[tokio::test]
async fn a_native_caller_gets_its_own_id_and_what_is_left_of_the_time() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let gateway = caching(&stub, "", "").await;
    let before = stub.asked("tools/list");
    let (fresh, first) = told(native(&gateway, &json!(1), "tools/list", json!({}), &[]).await).await;
    assert_eq!((fresh.as_str(), &first["id"], &first["result"]["ttlMs"]), ("mcp-gateway; fwd=miss; stored", &json!(1), &json!(60_000)));
    for id in [json!(2), json!("zwei"), json!("\u{e9}\"")] {
        let params = json!({ "_meta": { "progressToken": id, "traceparent": "00-0-0-00" } });
        let response = native(&gateway, &id, "tools/list", params, &[]).await;
        assert_eq!(
            (response.headers()["content-type"].to_str().unwrap(), response.headers().contains_key("age")),
            ("application/json", true)
        );
        let (kept, answer) = told(response).await;
        assert!(kept.starts_with("mcp-gateway; hit; ttl="), "{kept}");
        assert_eq!((&answer["id"], &answer["result"]["tools"], &answer["jsonrpc"]), (&id, &first["result"]["tools"], &json!("2.0")));
        assert!(answer["result"]["ttlMs"].as_u64().is_some_and(|left| (50_000..60_000).contains(&left)), "{answer}");
        assert_eq!(answer["result"]["cacheScope"], "public");
    }
    assert_eq!(stub.asked("tools/list") - before, 1);
}

#[tokio::test]
async fn an_answer_as_events_is_passed_on_as_it_came_and_kept() {
    let stub = Stub::start().await;
    let result = json!({ "resultType": "complete", "content": [] });
    let gateway = caching(&stub, "  tools: [ { tool: echo, ttl: 1m } ]\n", "").await;
    // A notification before it: that must not wait, so the answer is none that is kept.
    stub.act(Act::Events(result));
    for calls in 1..=2 {
        let response = native(&gateway, &json!(1), "tools/call", json!({ "name": "echo" }), &[("mcp-name", "echo")]).await;
        assert_eq!(status(&response), "mcp-gateway; fwd=miss");
        let text = response.text().await.expect("text");
        assert!(text.contains("notifications/message") && text.contains("id: 7"), "{text}");
        assert_eq!(stub.calls(), calls);
    }
    stub.act(Act::OneEvent(json!({ "resultType": "complete", "content": [{ "type": "text", "text": "kept" }] })));
    let response = native(&gateway, &json!(1), "tools/call", json!({ "name": "echo" }), &[("mcp-name", "echo")]).await;
    assert_eq!(
        (status(&response).as_str(), response.headers()["content-type"].to_str().unwrap()),
        ("mcp-gateway; fwd=miss; stored", "text/event-stream")
    );
    assert!(response.text().await.expect("text").starts_with("id: 6\ndata: \n\nid: 7\n"));
    let (kept, answer) = told(native(&gateway, &json!(2), "tools/call", json!({ "name": "echo" }), &[("mcp-name", "echo")]).await).await;
    assert!(kept.starts_with("mcp-gateway; hit"), "{kept}");
    assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!(2), &json!("kept")));
    assert_eq!(stub.calls(), 3);
}

#[tokio::test]
async fn one_question_is_one_however_it_is_written() {
    let stub = Stub::start().await;
    let gateway = caching(&stub, "  tools: [ { tool: echo, ttl: 1m } ]\n", "").await;
    let ask = async |text: &str| {
        let body = format!(r#"{{"method":"call_tool","params":{text}}}"#);
        let request = crate::support::http().post(gateway.at("/api/mcp/stub")).header("content-type", "application/json").body(body);
        let (status, _) = told(request.send().await.expect("an answer")).await;
        status.contains("; hit")
    };
    assert!(!ask(r#"{"tool_name":"echo","arguments":{"a":1,"b":[100,"x"]}}"#).await);
    assert!(ask(r#"{"arguments":{"b":[1e2,"\u0078"],"a":1.0},"name":"echo"}"#).await);
    for other in [
        r#"{"tool_name":"echo","arguments":{"a":1,"b":["x",100]}}"#,
        r#"{"tool_name":"echo","arguments":{"a":"1","b":[100,"x"]}}"#,
        r#"{"tool_name":"echo","arguments":{"a":1,"b":[100,"x"]},"_meta":{"com.example/region":"eu"}}"#,
        r#"{"tool_name":"echo"}"#,
    ] {
        assert!(!ask(other).await && ask(other).await, "{other}");
    }
    assert_eq!(stub.calls(), 5);
}

#[tokio::test]
async fn pages_by_cursor_are_apart_and_a_whole_list_is_as_short_lived_as_its_pages() {
    let stub = Stub::start().await;
    let gateway = caching(&stub, "", "").await;
    stub.results("tools/list", tools("public"));
    for cursor in ["", "a", "b"] {
        let body = json!({ "method": "list_tools", "params": { "cursor": cursor } });
        let ask = async || {
            let response = crate::support::http().post(gateway.at("/api/v2/mcp/stub")).json(&body).send().await.expect("an answer");
            told(response).await
        };
        assert_eq!(ask().await.0, "mcp-gateway; fwd=miss; stored", "{cursor}");
        let (kept, answer) = ask().await;
        assert!(kept.contains("; hit") && answer["result"]["ttlMs"].as_u64().is_some_and(|left| left < 60_000), "{kept} {answer}");
    }
}

#[tokio::test]
async fn failures_questions_and_what_says_nothing_of_itself_are_never_kept() {
    let stub = Stub::start().await;
    let gateway = caching(&stub, "  tools: [ { tool: echo, ttl: 1m } ]\n", "").await;
    let complete = json!({ "resultType": "complete", "content": [{ "type": "text", "text": "x" }] });
    let with = |name: &str, value: serde_json::Value| {
        let mut result = complete.clone();
        result[name] = value;
        result
    };
    let acts = [
        Act::Say("result", with("isError", json!(true))),
        Act::Say("result", with("ttlMs", json!(0))),
        Act::Say("error", json!({ "code": -32000, "message": "no" })),
        Act::Say("result", json!({ "resultType": "input_required", "inputRequests": {} })),
        Act::Say("result", json!({ "resultType": "task", "taskId": "t" })),
        Act::Status(500),
    ];
    for (at, act) in acts.into_iter().enumerate() {
        stub.act(act);
        for lane in ["rest", "native"] {
            let before = stub.calls();
            for _ in 0..2 {
                let response = match lane {
                    "rest" => rest(&gateway, &call("echo", &json!({ "at": at })), &[]).await,
                    _ => {
                        native(
                            &gateway,
                            &json!(1),
                            "tools/call",
                            json!({ "name": "echo", "arguments": { "at": at } }),
                            &[("mcp-name", "echo")],
                        )
                        .await
                    }
                };
                assert!(!status(&response).contains("hit") && !status(&response).contains("stored"), "{at} {lane} {}", status(&response));
            }
            assert_eq!(stub.calls() - before, 2, "{at} {lane}");
        }
    }
    // The control: the same question is kept once its answer is one.
    stub.act(Act::Say("result", complete));
    let control = call("echo", &json!({ "at": "control" }));
    assert_eq!(status(&rest(&gateway, &control, &[]).await), "mcp-gateway; fwd=miss; stored");
    // A retry with what was asked back, and a caller who wants none of it.
    let retry = json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": { "at": "control" }, "requestState": "s" } });
    assert_eq!(status(&rest(&gateway, &retry, &[]).await), "mcp-gateway; fwd=bypass; detail=continued");
    for directive in ["no-cache", "max-age=0, No-Store"] {
        assert_eq!(status(&rest(&gateway, &control, &[("cache-control", directive)]).await), "mcp-gateway; fwd=bypass; detail=caller");
    }
    assert!(status(&rest(&gateway, &control, &[]).await).contains("; hit"));
    assert!(gateway.metric("cache_bypasses_total{reason=\"caller\",server=\"stub\"}").await == 2);
}

#[tokio::test]
async fn what_nobody_listed_or_hinted_at_is_left_alone() {
    let stub = Stub::start().await;
    let gateway = caching(&stub, "  tools: [ { tool: echo, ttl: 1m } ]\n", "").await;
    let response = rest(&gateway, &call("regional", &json!({})), &[]).await;
    assert_eq!(status(&response), "", "a tool that is not listed");
    // A modern server that says nothing of its list.
    let before = stub.asked("tools/list");
    for _ in 0..2 {
        assert!(!status(&rest(&gateway, &list(), &[]).await).contains("hit"));
    }
    assert_eq!(stub.asked("tools/list") - before, 2);
}

#[tokio::test]
async fn answers_of_legacy_servers_are_kept_by_configuration() {
    let stub = Stub::start().await;
    let backends = stub.backend("one", "").replace("era: modern", "era: legacy");
    let yaml = yaml(&stub, "  ttl: 1m\n", "").replace(&stub.backend("one", ""), &backends);
    let gateway = Gateway::start(&yaml).await;
    gateway.knows("stub").await;
    assert_eq!(status(&rest(&gateway, &list(), &[]).await), "mcp-gateway; fwd=miss; stored");
    assert!(status(&rest(&gateway, &list(), &[]).await).contains("; hit"));
    stub.results("resources/read", json!({ "contents": [{ "uri": "a:b", "text": "$N" }] }));
    assert_eq!(status(&rest(&gateway, &read("a:b"), &[]).await), "mcp-gateway; fwd=miss; stored");
    assert!(status(&rest(&gateway, &read("a:b"), &[]).await).contains("; hit"));
}

#[tokio::test]
async fn without_a_cache_nothing_is_kept_or_told() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let gateway = Gateway::with(&stub.backend("one", "")).await;
    gateway.knows("stub").await;
    let before = stub.asked("tools/list");
    for _ in 0..2 {
        let response = rest(&gateway, &list(), &[]).await;
        assert!(status(&response).is_empty() && !response.headers().contains_key("age"));
    }
    assert_eq!(stub.asked("tools/list") - before, 2);
}

#[tokio::test]
async fn a_batch_tells_whether_all_of_it_was_kept_and_a_stream_that_it_is_asked_for() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("public"));
    let gateway = caching(&stub, "", "").await;
    let gateway = &gateway;
    let batch = async |requests: &[serde_json::Value]| rest(gateway, &json!(requests), &[]).await;
    let ping = json!({ "method": "ping" });
    assert_eq!(status(&batch(std::slice::from_ref(&ping)).await), "", "nothing of it is of a kind that is kept");
    let refusing = rest(gateway, &json!([list(), ping]), &[("cache-control", "no-cache")]).await;
    assert_eq!(status(&refusing), "mcp-gateway; fwd=bypass; detail=caller");
    assert_eq!(status(&batch(&[list(), ping.clone()]).await), "mcp-gateway; fwd=miss; stored");
    assert_eq!(status(&batch(&[list(), ping]).await), "mcp-gateway; fwd=partial");
    let (all, answers) = told(batch(&[list(), list()]).await).await;
    assert_eq!((all.as_str(), &answers[1]["cached"]), ("mcp-gateway; hit", &json!(true)));
    let before = stub.asked("tools/list");
    let streamed = rest(gateway, &list(), &[("accept", "text/event-stream")]).await;
    assert_eq!(streamed.headers()["content-type"], "text/event-stream");
    assert_eq!(status(&streamed), "mcp-gateway; fwd=bypass; detail=progress");
    assert!(streamed.text().await.expect("events").contains("event: result"));
    assert_eq!(stub.asked("tools/list") - before, 1);
}
