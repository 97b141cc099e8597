//! The worked example of an authenticator compiled in (`tests/examples/custom_auth.rs`), run as its users would.

use std::path::Path;

use serde_json::json;
use tokio::process::Command;

use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::stub::Stub;

#[tokio::test]
async fn an_authenticator_of_ones_own_decides_about_its_credential() {
    let stub = Stub::start().await;
    let binary = Path::new(env!("CARGO_BIN_EXE_mcp-gateway")).with_file_name("examples/custom_auth");
    assert!(binary.exists(), "{} is missing: `cargo test` builds it when no single test target is named", binary.display());
    let mut command = Command::new(binary);
    command.env_clear();
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
