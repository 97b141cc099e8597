//! The page in a real browser. The script (`tests/e2e/admin_page.mjs`) fails on anything the browser complains of, on any
//! dialog, and on any request that leaves the gateway.

use std::net::UdpSocket;

use serde_json::json;

use super::{KEY, call, guarded, token};
use crate::support::gateway::{Gateway, server};
use crate::support::part::node;
use crate::support::process::Process;
use crate::support::root;
use crate::support::stub::Stub;

const SUBJECT: &str = "\"><img src=x onerror=window.owned=4>";

fn browse(scenario: &str, origin: &str, values: &[&str]) -> Process {
    let mut command = node();
    command.arg(root().join("tests/e2e/admin_page.mjs")).args([scenario, origin]).args(values);
    Process::start(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_goes_down_and_comes_back_is_seen_without_a_reload() {
    let stub = Stub::start().await;
    let check = "load_balancer: { health_check_interval: 250ms, unhealthy_threshold: 1, healthy_threshold: 1 }\n";
    let gateway = Gateway::start(&format!("{}{check}backends:\n{}", server(""), stub.backend("one", ", health_check: /health"))).await;
    let mut browser = browse("watch", &gateway.admin, &["one"]);
    browser.says("watching").await;
    stub.be_sick(true);
    browser.says("saw it down").await;
    stub.be_sick(false);
    browser.says("all is well").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_playground_calls_a_tool_and_shows_its_answer() {
    let stub = Stub::start().await;
    let schema =
        json!({ "type": "object", "required": ["text"], "properties": { "text": { "type": "string" }, "times": { "type": "integer" } } });
    let tools = ["echo", "other"].map(|name| json!({ "name": name, "inputSchema": schema }));
    stub.results("tools/list", json!({ "resultType": "complete", "tools": tools }));
    let gateway = guarded(&stub, "").await;
    browse("playground", &gateway.admin, &[KEY, "what-nobody-else-is-to-see"]).says("all is well").await;
    assert!(stub.body().contains("12345678901234567890"), "numbers keep their digits: {}", stub.body());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_execute_nothing() {
    let stub = Stub::start().await;
    let schema = json!({ "type": "object", "properties": { "\"><img src=x onerror=window.owned=5>": { "type": "string", "description": "<script>window.owned=6</script>" } } });
    let tool =
        json!({ "name": "<script>window.owned=1</script>", "description": "\"><img src=x onerror=window.owned=2>", "inputSchema": schema });
    stub.results("tools/list", json!({ "resultType": "complete", "tools": [tool] }));
    let gateway = guarded(&stub, "").await;
    let bearer = token(SUBJECT);
    assert_eq!(
        call(&gateway, "<svg onload=window.owned=7>", "x", json!({}), Some(("authorization", &format!("Bearer {bearer}")))).await,
        404
    );
    browse("hostile", &gateway.admin, &[&bearer, SUBJECT]).says("all is well").await;
}

/// The address this machine has among others, where it has one.
fn outside() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()));
    socket.map_or_else(|_| "127.0.0.1".to_owned(), |address| address.ip().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_signs_in_from_outside_with_the_token_and_out_again() {
    let stub = Stub::start().await;
    let settings = server("  admin_token: the-admin-token\n").replace("admin: 127.0.0.1:0", "admin: 0.0.0.0:0");
    let gateway = Gateway::start(&format!("{settings}backends:\n{}", stub.backend("one", ""))).await;
    let origin = gateway.admin.replace("0.0.0.0", &outside());
    browse("login", &origin, &["the-admin-token"]).says("all is well").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_javascript_it_is_read_and_its_buttons_work_and_it_fits_a_phone() {
    let stub = Stub::start().await;
    let gateway = Gateway::start(&format!("{}cache: {{ enabled: true }}\nbackends:\n{}", server(""), stub.backend("one", ""))).await;
    gateway.knows("stub").await;
    assert_eq!(gateway.rest("nowhere", json!({ "method": "list_tools" })).await.0, 404);
    browse("plain", &gateway.admin, &[]).says("all is well").await;
}
