//! The audit log: one record for each decision about a caller, with the reason of a refusal and no credential.

use serde_json::{Value, json};

use super::{backend, call, hash};
use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::stub::Stub;

const KEY: &str = "mgk_the-key-of-ann-in-this-test";
const WRONG: &str = "mgk_a-key-that-nobody-has-in-this-test";

async fn gateway(stub: &Stub, level: &str) -> Gateway {
    let keys = format!("  api_keys: {{ keys: [ {{ id: ann, hash: \"{}\", tenant: acme, roles: [reader] }} ] }}\n", hash(KEY));
    let roles = "roles: { reader: [ { servers: [stub], tools: [echo] } ] }\n";
    let log = format!("observability: {{ log: {{ level: \"{level}\" }} }}\n");
    Gateway::start(&format!("{}auth:\n{keys}{roles}{log}{}", server("  trusted_proxies: [127.0.0.1/32]\n"), backend(stub))).await
}

/// Sends a request and gives back its status and the audit records of it.
async fn audited(gateway: &Gateway, request: reqwest::RequestBuilder) -> (u16, Vec<Value>) {
    let id = uuid::Uuid::new_v4().to_string();
    let answer = request.header("x-request-id", &id).header("x-forwarded-for", "10.1.2.3").send().await.expect("an answer");
    let status = answer.status().as_u16();
    let lines = gateway.said().await.into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
    let records = lines.filter(|line| line["target"] == "audit").map(|line| fields(&line));
    (status, records.filter(|record| record["request_id"] == id.as_str()).collect())
}

/// The fields of a record; they are either its own, or the text of its message.
fn fields(line: &Value) -> Value {
    line["msg"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| line.clone())
}

fn with_key(gateway: &Gateway, path: &str, body: &Value) -> reqwest::RequestBuilder {
    let request = http().post(gateway.at(path)).header("x-api-key", KEY).header("accept", "application/json, text/event-stream");
    request.json(body)
}

fn tool(name: &str) -> Value {
    json!({ "method": "call_tool", "params": { "tool_name": name, "arguments": { "text": "an-argument" } } })
}

fn native(name: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": name, "method": "tools/call", "params": { "name": name, "arguments": { "text": "an-argument" } } })
}

/// Each record as `decision name code`.
fn summary(records: &[Value]) -> Vec<String> {
    let text = |record: &Value, field: &str| record[field].as_str().unwrap_or("-").to_owned();
    records.iter().map(|record| format!("{} {} {}", text(record, "decision"), text(record, "name"), text(record, "code"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_decision_has_one_record_with_who_what_and_why() {
    let stub = Stub::start().await;
    let gateway = gateway(&stub, "info").await;
    for (path, body) in [("/api/mcp/stub", tool("echo")), ("/mcp/stub", native("echo"))] {
        let (status, records) = audited(&gateway, with_key(&gateway, path, &body)).await;
        assert_eq!((status, records.len()), (200, 1), "{path}: {records:?}");
        let expected = json!({
            "decision": "admitted", "client": "10.1.2.3", "way": "api_key", "issuer": "api_key", "subject": "ann", "tenant": "acme",
            "server": "stub", "method": "tools/call", "name": "echo"
        });
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(&records[0][name], value, "{path}, {name}: {}", records[0]);
        }
        assert_eq!((&records[0]["code"], &records[0]["reason"]), (&Value::Null, &Value::Null));
    }
    let anonymous = || http().post(gateway.at("/api/mcp/stub")).json(&tool("echo"));
    let refusals = [
        ("no credential", 401, "unauthorized", anonymous()),
        ("no such API key", 401, "unauthorized", anonymous().header("x-api-key", WRONG)),
        ("no such API key", 401, "unauthorized", anonymous().bearer_auth(WRONG)),
        ("Bearer", 401, "unauthorized", anonymous().header("authorization", "Basic bWdrXzpzM2NyZXQ=")),
        ("nobody knows", 401, "unauthorized", anonymous().bearer_auth("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.c2ln")),
        ("no role", 403, "forbidden", with_key(&gateway, "/api/mcp/stub", &tool("other"))),
        ("no role", 403, "forbidden", with_key(&gateway, "/mcp/stub", &native("other"))),
        ("no role", 403, "forbidden", with_key(&gateway, "/api/mcp/elsewhere", &tool("echo"))),
        ("no credential", 401, "unauthorized", http().get(gateway.at("/api/servers"))),
    ];
    for (reason, status, code, request) in refusals {
        let (answered, records) = audited(&gateway, request).await;
        assert_eq!((answered, records.len()), (status, 1), "{reason}: {records:?}");
        let record = &records[0];
        assert_eq!((record["decision"].as_str(), record["code"].as_str()), (Some("refused"), Some(code)), "{record}");
        assert!(record["reason"].as_str().is_some_and(|told| told.contains(reason)), "{reason}: {record}");
        assert_eq!(record["subject"].as_str(), (status == 403).then_some("ann"), "{record}");
        assert_eq!(record["client"], "10.1.2.3", "{record}");
    }
    let open = audited(&gateway, http().get(gateway.at("/health"))).await;
    assert_eq!(open, (200, vec![]), "where nobody is asked who he is, nothing is decided");
    let said = gateway.said().await.join("\n");
    for secret in [KEY, WRONG, "bWdrXzpzM2NyZXQ", "eyJhbGciOiJub25lIn0", "an-argument"] {
        assert!(!said.contains(secret), "{secret} in\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_has_a_record_for_each_of_its_requests() {
    let stub = Stub::start().await;
    let gateway = gateway(&stub, "info").await;
    let rest = json!([tool("echo"), tool("other"), tool("echo"), { "method": "ping" }]);
    let (status, records) = audited(&gateway, with_key(&gateway, "/api/mcp/stub", &rest)).await;
    assert_eq!((status, stub.calls()), (200, 2));
    assert_eq!(summary(&records), ["admitted echo -", "refused other forbidden", "admitted echo -", "admitted - -"]);
    let whole = json!([native("echo"), native("echo")]);
    let (status, records) = audited(&gateway, with_key(&gateway, "/mcp/stub", &whole)).await;
    assert_ne!(status, 403);
    assert_eq!(summary(&records), ["admitted echo -", "admitted echo -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_refused_native_batch_is_recorded_as_admitted() {
    let stub = Stub::start().await;
    let gateway = gateway(&stub, "info").await;
    let part = json!([native("echo"), native("other"), native("echo")]);
    let (status, records) = audited(&gateway, with_key(&gateway, "/mcp/stub", &part)).await;
    assert_eq!((status, stub.calls()), (403, 0), "it is sent whole or not at all");
    let told = summary(&records);
    assert!(told.contains(&"refused other forbidden".to_owned()), "{told:?}");
    assert!(!told.iter().any(|record| record.starts_with("admitted")), "nothing of it was sent, so nothing was admitted: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_a_stream_or_ends_a_session_has_a_record_too() {
    let stub = Stub::start().await;
    let gateway = gateway(&stub, "info").await;
    for method in ["GET", "DELETE"] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = http().request(method.clone(), gateway.at("/mcp/stub")).header("accept", "text/event-stream");
        let (_, records) = audited(&gateway, request.header("x-api-key", KEY)).await;
        assert_eq!((records.len(), records.first().map(|record| record["subject"] == "ann")), (1, Some(true)), "{method}: {records:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn admissions_can_be_switched_off() {
    let stub = Stub::start().await;
    let gateway = gateway(&stub, "info,audit=warn").await;
    assert_eq!(audited(&gateway, with_key(&gateway, "/api/mcp/stub", &call())).await, (200, vec![]));
    let (status, records) = audited(&gateway, with_key(&gateway, "/api/mcp/stub", &tool("other"))).await;
    assert_eq!((status, summary(&records)), (403, vec!["refused other forbidden".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fields_of_a_record_stand_in_it_as_in_the_access_log() {
    let stub = Stub::start().await;
    let gateway = gateway(&stub, "info").await;
    audited(&gateway, with_key(&gateway, "/api/mcp/stub", &call())).await;
    let lines: Vec<Value> = gateway.said().await.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let field = |target: &str| lines.iter().find(|line| line["target"] == target).map(|line| line["request_id"].is_string());
    assert_eq!((field("access"), field("audit")), (Some(true), Some(true)), "a collector finds both alike");
}
