//! `GET /admin/analytics` on events that are known.

use serde_json::{Value, json};

use super::start;
use crate::support::gateway::Gateway;
use crate::support::postgres::Postgres;
use crate::support::stub::Stub;
use crate::support::{eventually, http};

async fn ask(gateway: &Gateway, query: &str) -> (u16, Value) {
    let answer = http().get(format!("{}/admin/analytics{query}", gateway.admin)).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn rows(gateway: &Gateway, query: &str) -> Vec<Value> {
    let (status, answer) = ask(gateway, query).await;
    assert_eq!(status, 200, "{answer}");
    answer["rows"].as_array().expect("rows").clone()
}

/// A gateway beside a hundred calls of `files/read` that took 1 to 100 ms, the last ten of which failed, and a few others.
async fn known(stub: &Stub, postgres: &Postgres) -> Gateway {
    let gateway = start(stub, postgres, "", "").await;
    let ready = async || {
        let days = postgres.number("SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass('mcp_gateway.events')").await;
        (days == 2).then_some(())
    };
    eventually("the schema is there", ready).await;
    let columns =
        "(at, request_id, lane, tenant, subject, way, server, method, name, outcome, status, code, duration_ms, bytes_in, bytes_out)";
    postgres
        .run(&format!(
            "INSERT INTO mcp_gateway.events {columns}
                SELECT now() - make_interval(secs => 1 + n * 0.01), 'r' || n, 'rest', 'acme', 'ann', 'jwt', 'files', 'tools/call', 'read',
                    CASE WHEN n > 90 THEN 'failed' ELSE 'ok' END, CASE WHEN n > 90 THEN 502 ELSE 200 END,
                    CASE WHEN n > 90 THEN 'backend_failed' END, n, 10, 100 FROM generate_series(1, 100) n;
            INSERT INTO mcp_gateway.events {columns} VALUES
                (now(), 'a', 'native', 'beta', 'bob', 'api_key', 'data', 'tools/call', 'query', 'refused', 429, 'rate_limited', 2, 1, 1),
                (now(), 'b', 'native', 'beta', 'bob', 'api_key', 'data', 'tools/call', 'query', 'abandoned', 0, NULL, 2, 1, 1),
                (now(), 'c', 'native', 'beta', 'bob', 'api_key', 'data', 'subscriptions/listen', NULL, 'ok', 200, NULL, 9e9, 1, 1),
                (now(), 'd', 'rest', NULL, NULL, NULL, NULL, NULL, NULL, 'refused', 401, 'unauthorized', 1, 1, 1)"
        ))
        .await;
    gateway
}

#[tokio::test]
async fn questions_are_answered_by_tool_caller_server_tenant_and_error() {
    let (stub, postgres) = (Stub::start().await, Postgres::start().await);
    let gateway = known(&stub, &postgres).await;
    let tools = rows(&gateway, "").await;
    assert_eq!(tools.len(), 2, "{tools:?}");
    let top = &tools[0];
    assert_eq!((&top["server"], &top["tool"], &top["count"], &top["errors"]), (&json!("files"), &json!("read"), &json!(100), &json!(10)));
    assert_eq!((&top["error_share"], &top["bytes_in"], &top["bytes_out"]), (&json!(0.1), &json!(1000), &json!(10_000)));
    // Between the two nearest, as `percentile_cont` has it.
    assert_eq!((&top["p50_ms"], &top["p95_ms"], &top["p99_ms"]), (&json!(50.5), &json!(95.05), &json!(99.01)));
    assert!(top["last_seen"].as_str().is_some_and(|seen| seen.ends_with('Z')), "{top}");
    assert_eq!((&tools[1]["count"], &tools[1]["errors"]), (&json!(2), &json!(1)), "who left is no error: {tools:?}");
    let callers = rows(&gateway, "?by=caller").await;
    let names: Vec<_> = callers.iter().map(|row| (row["tenant"].clone(), row["subject"].clone(), row["count"].clone())).collect();
    assert_eq!(
        names,
        [(json!("acme"), json!("ann"), json!(100)), (json!("beta"), json!("bob"), json!(2)), (Value::Null, Value::Null, json!(1))]
    );
    let servers = rows(&gateway, "?by=server&window=15m").await;
    assert_eq!(servers.iter().map(|row| row["server"].clone()).collect::<Vec<_>>(), [json!("files"), json!("data"), Value::Null]);
    assert_eq!(servers[1]["p99_ms"], json!(2.0), "a stream that stays is no latency");
    assert_eq!(rows(&gateway, "?by=tenant&limit=1").await.len(), 1);
    let errors = rows(&gateway, "?by=error").await;
    let names: Vec<_> = errors.iter().map(|row| (row["error"].clone(), row["count"].clone())).collect();
    assert_eq!(names[0], (json!("backend_failed"), json!(10)));
    assert!(names.contains(&(json!("rate_limited"), json!(1))) && names.contains(&(json!("unauthorized"), json!(1))), "{names:?}");
    assert_eq!(rows(&gateway, "?server=data").await.len(), 1);
    postgres.run("UPDATE mcp_gateway.events SET at = at - interval '2 minutes' WHERE server = 'data'").await;
    assert_eq!(rows(&gateway, "?server=data&window=1m").await.len(), 0, "outside of the window");
}

#[tokio::test]
async fn wrong_questions_are_400_and_a_database_that_is_not_there_is_503_until_it_is() {
    let (stub, mut postgres) = (Stub::start().await, Postgres::start().await);
    let gateway = known(&stub, &postgres).await;
    for (query, named) in [("?by=colour", "by"), ("?window=99d", "window"), ("?limit=0", "limit"), ("?colour=red", "colour")] {
        let (status, answer) = ask(&gateway, query).await;
        assert!(status == 400 && answer["detail"].as_str().is_some_and(|detail| detail.contains(named)), "{query}: {answer}");
    }
    let answer = http().post(format!("{}/admin/analytics", gateway.admin)).send().await.expect("an answer");
    assert_eq!(answer.status(), 405);
    assert_eq!(rows(&gateway, "").await.len(), 2);
    postgres.stop().await;
    let (status, answer) = ask(&gateway, "").await;
    assert_eq!((status, &answer["code"]), (503, &json!("analytics_unavailable")), "{answer}");
    postgres.resume().await;
    assert_eq!(rows(&gateway, "").await.len(), 2);
    postgres.hang();
    let (status, answer) = ask(&gateway, "").await;
    assert_eq!((status, &answer["code"]), (503, &json!("analytics_unavailable")), "{answer}");
    postgres.wake();
    assert_eq!(rows(&gateway, "").await.len(), 2);
}
