//! The playground makes calls as any caller does: it is no way round what callers are refused.

use serde_json::{Value, json};

use super::{KEY, guarded, overview, policy, token};
use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::stub::Stub;

/// What the playground answers: its status, and the answer of the call.
async fn attempt(gateway: &Gateway, wish: &Value) -> (u16, Value) {
    let request = http().post(format!("{}/admin/try", gateway.admin)).json(wish);
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

fn calls(tool: &str, credential: Option<(&str, &str)>) -> Value {
    let request = json!({ "method": "call_tool", "params": { "tool_name": tool, "arguments": { "n": 1 } } });
    let credential = credential.map(|(header, value)| json!({ "header": header, "value": value }));
    json!({ "server": "stub", "request": request, "credential": credential })
}

#[tokio::test]
async fn a_call_is_judged_by_what_the_caller_shows_and_by_nothing_of_the_operators() {
    let stub = Stub::start().await;
    let gateway = guarded(&stub, "rate_limits: { rules: [ { name: few, by: [subject], rate: 2/h, burst: 2 } ] }\n").await;
    let status = async |tool: &str, credential| {
        let (status, answer) = attempt(&gateway, &calls(tool, credential)).await;
        assert_eq!(status, 200, "{answer}");
        answer["status"].as_u64().expect("a status")
    };
    assert_eq!(status("echo", None).await, 401);
    assert_eq!(status("echo", Some(("x-api-key", "mgk_wrong"))).await, 401);
    assert_eq!(status("regional", Some(("X-API-Key", KEY))).await, 403);
    let (_, answer) = attempt(&gateway, &calls("echo", Some(("x-api-key", KEY)))).await;
    let body: Value = serde_json::from_str(answer["body"].as_str().expect("text")).expect("JSON");
    assert_eq!((&answer["status"], &body["backend"], &body["cached"]), (&json!(200), &json!("one"), &json!(false)), "{answer}");
    assert!(body["result"][0]["text"].as_str().is_some_and(|text| text.contains("\"n\":1")), "{body}");
    assert!(answer["request_id"].as_str().is_some_and(|id| !id.is_empty()) && answer["seconds"].is_f64());
    let bearer = token("ann");
    assert_eq!(status("regional", Some(("authorization", &bearer))).await, 200, "a token goes where tokens go");
    assert_eq!(status("echo", Some(("x-api-key", KEY))).await, 200);
    assert_eq!(status("echo", Some(("x-api-key", KEY))).await, 429, "limits count its calls");
    let told = overview(&gateway).await.to_string();
    let said = gateway.said().await.join("\n");
    assert!([&told, &said].iter().all(|text| !text.contains(KEY) && !text.contains(&bearer)));
    assert!(told.contains("rate_limited") && said.contains("\"principal\":\"reader\""), "and are told like others");
}

#[tokio::test]
async fn no_header_but_a_credentials_can_be_given_and_nobody_else_can_be_called() {
    let stub = Stub::start().await;
    let gateway = guarded(&stub, "").await;
    for header in ["x-forwarded-for", "host", "via", "cookie", "mcp-session-id", "x-api-key\r\nx", ""] {
        let (status, answer) = attempt(&gateway, &calls("echo", Some((header, "1")))).await;
        assert_eq!((status, &answer["code"]), (400, &json!("invalid_params")), "{header}");
    }
    assert_eq!(attempt(&gateway, &calls("echo", Some(("x-api-key", "a\r\nb: c")))).await.0, 400);
    for server in ["../../health", "stub?x=1", "stub HTTP/1.1", "", "a/b"] {
        let (status, answer) = attempt(&gateway, &json!({ "server": server, "request": {} })).await;
        assert_eq!((status, &answer["code"]), (400, &json!("invalid_params")), "{server}");
    }
    assert_eq!(attempt(&gateway, &json!({ "server": "stub", "request": {}, "url": "http://a" })).await.0, 400);
    let browser = http().post(format!("{}/admin/try", gateway.admin)).header("origin", &gateway.admin).json(&calls("echo", None));
    assert_eq!(browser.send().await.expect("an answer").status(), 403, "a browser shows that its page is ours");
    assert_eq!(stub.calls(), 0);
}

#[tokio::test]
async fn an_operator_at_an_address_that_may_not_call_may_not_here() {
    let stub = Stub::start().await;
    let yaml = format!("{}{}access: {{ deny: [127.0.0.0/8] }}\nbackends:\n{}", server(""), policy(), stub.backend("one", ""));
    let gateway = Gateway::start_unready(&yaml).await;
    let (status, answer) = attempt(&gateway, &calls("echo", Some(("x-api-key", KEY)))).await;
    assert_eq!((status, &answer["code"]), (403, &json!("address_forbidden")), "{answer}");
    assert_eq!(stub.calls(), 0);
}
