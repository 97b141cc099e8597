//! What never is in the log, however loud it is: credentials, arguments, results, query strings.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{native, said};
use crate::network::hash;
use crate::support::gateway::{Gateway, server};
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::stub::{Act, Stub};
use crate::support::{eventually, http};

const KEY: &str = "mgk_planted-api-key-of-ann";

/// Every secret has `planted` in it, so that none can be forgotten.
fn yaml(stub: &Stub, redis: &Redis, postgres: &str) -> String {
    let server = server("  admin_token: planted-admin-token\n  session_secret: planted-session-secret\n  h2c: 127.0.0.1:0\n");
    let port = redis.url().rsplit(':').next().unwrap_or_default().to_owned();
    let keys = format!(
        "auth:\n  api_keys: {{ keys: [ {{ id: ann, hash: \"{}\" }} ], store: {{ redis: true }} }}\n  jwt: [ {{ algorithms: [HS256], secret: planted-secret-of-32-bytes-or-more-for-tokens }} ]\n",
        hash(KEY)
    );
    format!(
        "{server}{keys}observability:\n  log: {{ level: trace }}\n  tracing: {{ otlp: \"{}\", sample: 1, headers: {{ authorization: planted-header-of-collector }} }}\n\
         redis: {{ url: \"redis://:planted-redis-password@127.0.0.1:{port}\" }}\n\
         analytics: {{ postgres: \"{postgres}\", flush: 10ms }}\n\
         rate_limits: {{ store: redis, rules: [ {{ name: all, by: [subject], rate: 10000/s }} ] }}\n\
         cache: {{ enabled: true, redis: true, tools: [ {{ tool: echo, ttl: 60s }} ] }}\n\
         routes: [ {{ name: odd, when: \"int(arguments.text) == 1 || arguments.absent == 1\" }} ]\n\
         transform: [ {{ request: {{ params: {{ set: {{ arguments.more: planted-by-transform }} }} }} }} ]\n\
         backends:\n{}",
        stub.url,
        stub.backend("one", ", credential: { bearer: planted-backend-credential }")
    )
}

/// What a client sends as it stands, and whatever comes back.
async fn raw(gateway: &Gateway, text: &str) {
    let mut stream = TcpStream::connect(gateway.url.trim_start_matches("http://")).await.expect("connected");
    stream.write_all(text.as_bytes()).await.expect("written");
    stream.shutdown().await.expect("shut");
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

fn arguments() -> Value {
    json!({ "text": "planted-argument", "planted-name": ["planted-deep"] })
}

fn call() -> Value {
    json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": arguments() } })
}

async fn called(gateway: &Gateway) {
    let _ = http().post(gateway.at("/api/mcp/stub")).json(&call()).header("x-api-key", KEY).send().await.expect("an answer");
}

/// Calls in every lane, with secrets wherever a caller can put one.
async fn calls(gateway: &Gateway) {
    for way in 0..4 {
        let request = match way {
            0 => http().post(gateway.at("/api/mcp/stub?token=planted-in-query")).json(&call()),
            1 => http().post(gateway.at("/api/mcp/stub")).json(&json!([call(), call()])),
            2 => http().post(gateway.at("/api/mcp/stub")).json(&call()).header("accept", "text/event-stream"),
            _ => native(gateway, "tools/call", json!({ "name": "echo", "arguments": arguments() })),
        };
        let request = request.header("x-api-key", KEY).header("cookie", "sid=planted-cookie").header("baggage", "a=planted-baggage");
        let request = request.header("cache-control", "no-cache").header("referer", "http://x/?planted-in-referer");
        let _ = request.header("mcp-param-x", "planted-param").send().await.expect("an answer").bytes().await;
    }
}

/// What a server may do, with secrets in what it says.
fn acts() -> [Act; 9] {
    let result = json!({ "resultType": "complete", "content": [{ "type": "text", "text": "planted-result" }], "isError": true });
    [
        Act::Echo,
        Act::Say("result", result.clone()),
        Act::Say("error", json!({ "code": -32000, "message": "planted-message", "data": "planted-data" })),
        Act::Events(result),
        Act::Body(200, json!({ "planted": "planted-body" })),
        Act::Stream("event: message\ndata: planted-in-no-json\n\n".to_owned()),
        Act::Status(401),
        Act::Status(500),
        Act::Hangup,
    ]
}

/// URIs of resources, and requests that are refused or broken.
async fn others(gateway: &Gateway) {
    for uri in ["db://planted-user:planted-password@host/table?token=planted-in-uri#planted-fragment", "file:///srv/x?planted"] {
        let read = json!({ "method": "read_resource", "params": { "uri": uri } });
        let _ = http().post(gateway.at("/api/mcp/stub")).json(&read).header("x-api-key", KEY).send().await.expect("an answer");
        let _ = native(gateway, "resources/read", json!({ "uri": uri })).header("x-api-key", KEY).send().await.expect("an answer");
    }
    for credential in ["planted-opaque-token", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.planted-signature", "mgk_planted-wrong-key"] {
        for path in ["/api/mcp/stub", "/mcp/stub"] {
            let refused = http().post(gateway.at(path)).json(&call()).bearer_auth(credential).send().await.expect("an answer");
            assert_eq!(refused.status(), 401);
        }
    }
    for broken in [
        "POST /api/mcp/stub?planted-query HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer planted-in-broken\r\nbad header line\r\n\r\n",
        "POST /api/mcp/stub HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer planted-in-cut",
        "POST /mcp/stub HTTP/1.1\r\nhost: localhost\r\nx-api-key: planted-in-length\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{\"planted-cut\"",
        "\u{16}\u{3}planted-binary\r\n\r\n",
        "GET /planted-path?planted-query HTTP/1.1\r\nhost: localhost\r\ncookie: planted\r\n\r\n",
        "POST /api/mcp/stub HTTP/1.1\r\nhost: localhost\r\nauthorization: planted\r\ncontent-length: planted\r\n\r\n",
    ] {
        raw(gateway, broken).await;
    }
}

/// What administrators send.
async fn administered(gateway: &Gateway, stub: &Stub) {
    let admin = |path: &str| format!("{}{path}", gateway.admin);
    let wrong = http().get(admin("/admin/config")).bearer_auth("planted-wrong-admin").send().await.expect("an answer");
    assert_eq!(wrong.status(), 401);
    let shown = http().get(admin("/admin/config")).bearer_auth("planted-admin-token").send().await.expect("an answer").text().await;
    assert!(!shown.expect("text").contains("planted-admin"), "nor is it shown");
    let backend = json!({ "url": stub.url, "credential": { "bearer": "planted-registered" }, "protocol": "mcp" });
    let put = http().put(admin("/admin/backends/more")).bearer_auth("planted-admin-token").json(&backend);
    assert!(put.send().await.expect("an answer").status().is_success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_in_the_log_at_any_level_of_any_module() {
    let (stub, mut redis, postgres) = (Stub::start().await, Redis::start().await, Postgres::start().await);
    let set = ::redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("planted-redis-password").to_owned();
    set.query_async::<()>(&mut redis.connection().await).await.expect("a password of its own");
    let right = postgres.url();
    let password = right.split("gateway:").nth(1).and_then(|rest| rest.split('@').next()).expect("a password").to_owned();
    let gateway = Gateway::start(&yaml(&stub, &redis, &right)).await;
    for act in acts() {
        stub.act(act);
        calls(&gateway).await;
    }
    stub.act(Act::Echo);
    others(&gateway).await;
    administered(&gateway, &stub).await;
    eventually("something is in PostgreSQL", async || (postgres.events().await > 0).then_some(())).await;
    // A password that is wrong, and one where nobody listens; then no Redis.
    for url in ["postgres://gateway:planted-pg-password@127.0.0.1:1/x".to_owned(), right.replace(&password, "planted-pg-wrong")] {
        std::fs::write(gateway.config_path(), yaml(&stub, &redis, &url)).expect("writable");
        let reload = http().post(format!("{}/admin/reload", gateway.admin)).bearer_auth("planted-admin-token");
        let answer = reload.send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap_or_default());
        called(&gateway).await;
        let missed = |lines: &[String]| lines.iter().any(|line| line.contains("PostgreSQL cannot be"));
        eventually("PostgreSQL is missed", async || missed(&gateway.process.output()).then_some(())).await;
    }
    redis.stop().await;
    called(&gateway).await;
    let lines = said(&gateway).await;
    let records = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let loud: Vec<Value> = records.filter(|record| record["level"] == "debug" || record["level"] == "trace").collect();
    let of_others = |record: &&Value| !record["target"].as_str().is_some_and(|target| target.starts_with("mcp_gateway::"));
    assert!(!loud.is_empty() && loud.iter().find(of_others).is_none(), "below info are we alone: {:?}", loud.iter().find(of_others));
    for what in ["planted", password.as_str(), hash(KEY).trim_start_matches("sha256:")] {
        let told: Vec<&String> = lines.iter().filter(|line| line.contains(what)).collect();
        assert!(told.is_empty(), "`{what}` in\n{told:#?}");
    }
}
