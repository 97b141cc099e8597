//! Official SDK clients through the gateway, against servers of other SDKs, in both eras. What is required is what
//! works between the two without a gateway (`tests/parts/README.md`).

use rmcp::ServiceExt as _;
use rmcp::model::{CallToolRequestParams, ClientConfig};
use rmcp::transport::StreamableHttpClientTransport;

use crate::support::gateway::Gateway;
use crate::support::part::{Client, Server, scenario};

const ALL: &[&str] = &["tools", "progress", "logging", "elicitation", "sampling", "subscribe", "cancel", "resources", "prompts"];

fn backend(server: &Server) -> String {
    format!("  - {{ name: one, url: \"{}\", protocol: mcp, capabilities: [real] }}\n", server.url)
}

async fn run(client: Client, server: Server, era: &str, scenarios: &[&str]) {
    let gateway = Gateway::with(&backend(&server)).await;
    for name in scenarios {
        scenario(client, &gateway.at("/mcp/real"), era, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn typescript_client_on_a_python_server_legacy() {
    run(Client::Ts, Server::python_sdk(&[]).await, "legacy", ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typescript_client_on_a_python_server_modern() {
    run(Client::Ts, Server::python_sdk(&[]).await, "modern", ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_client_on_a_typescript_server_modern() {
    run(Client::Python, Server::ts().await, "modern", ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_client_on_a_typescript_server_legacy() {
    run(Client::Python, Server::ts_legacy().await, "legacy", ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_typescript_client_on_a_python_server() {
    run(Client::TsLegacy, Server::python_sdk(&[]).await, "legacy", ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_client_on_a_python_server_that_answers_json() {
    run(Client::Python, Server::python_sdk(&["--json"]).await, "legacy", &["tools", "subscribe", "cancel", "resources", "prompts"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typescript_client_on_fastmcp() {
    run(Client::Ts, Server::fastmcp().await, "legacy", &["tools", "resources", "prompts"]).await;
}

/// The Rust SDK's client, which negotiates the era by itself.
#[tokio::test(flavor = "multi_thread")]
async fn rust_client_on_python_and_typescript_servers() {
    for server in [Server::python_sdk(&[]).await, Server::ts().await, Server::ts_legacy().await] {
        let gateway = Gateway::with(&backend(&server)).await;
        let transport = StreamableHttpClientTransport::from_uri(gateway.at("/mcp/real"));
        let client = ClientConfig::default().serve(transport).await.expect("a session");
        let tools = client.list_all_tools().await.expect("tools");
        assert!(tools.iter().any(|tool| tool.name == "echo"), "{tools:?}");
        let arguments = serde_json::json!({ "text": "hi" }).as_object().cloned().expect("an object");
        let answer = client.call_tool(CallToolRequestParams::new("echo").with_arguments(arguments)).await.expect("an answer");
        assert!(serde_json::to_string(&answer).expect("JSON").contains("hi"), "{answer:?}");
        client.cancel().await.expect("an end");
    }
}
