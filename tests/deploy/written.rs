//! Reading what is written, and the tools that judge it, installed by `tests/parts/install.sh`.

use std::path::{Path, PathBuf};
use std::process::Command;

use mcp_gateway::config::{self, Config};
use serde::Deserialize as _;
use serde_json::Value;

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The documents of a YAML text.
pub fn documents(yaml: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(yaml).map(|document| Value::deserialize(document).expect("YAML that is also JSON")).collect()
}

pub fn yaml(path: &str) -> Value {
    documents(&text(path)).swap_remove(0)
}

/// The files below a folder, with their path in the repository.
pub fn files(dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(dir)).unwrap_or_else(|e| panic!("{dir}: {e}"));
    let mut found: Vec<_> = entries.map(|entry| format!("{dir}/{}", entry.expect("readable").file_name().display())).collect();
    found.sort();
    found
}

/// A tool among the parts.
pub fn part(path: &str) -> PathBuf {
    let parts = std::env::var_os("MCP_PARTS_DIR").map_or_else(|| root().join(".parts"), PathBuf::from);
    let tool = parts.join(path);
    assert!(tool.exists(), "{} is missing: run `make parts`", tool.display());
    tool
}

/// Runs a command to its end: whether it succeeded, and everything it said.
pub fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// The gateway's binary, undisturbed by the tester's environment.
pub fn gateway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-gateway"));
    command.env_clear();
    command
}

/// What the gateway makes of a configuration; `mcp-gateway check` has to let it pass as well.
pub fn loaded(path: &Path) -> Config {
    let (passed, said) = run(gateway().arg("check").arg("--config").arg(path));
    assert!(passed, "{}: {said}", path.display());
    let text = std::fs::read_to_string(path).expect("readable");
    config::parse("gateway.yaml", &text, &|_| None).expect("checked before")
}

/// The paths the gateway answers: those of its documentation, and that.
pub fn paths() -> Vec<String> {
    let (_, document) = run(gateway().arg("openapi"));
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let documented = document["paths"].as_object().expect("paths").keys().cloned();
    documented.chain(["/docs", "/openapi.json"].map(str::to_owned)).collect()
}

/// An image's reference names one version: a tag with a number in it, and neither `latest` nor a number that moves on.
pub fn is_pinned(image: &str) -> bool {
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let version = tag.trim_start_matches('v').split('-').next().unwrap_or_default();
    version.split('.').count() >= 2 && version.split('.').all(|part| part.parse::<u32>().is_ok())
}

#[test]
fn a_tag_that_moves_is_not_pinned() {
    for moving in ["redis", "redis:latest", "node:24", "debian:bookworm-slim"] {
        assert!(!is_pinned(moving), "{moving}");
    }
    for pinned in ["debian:12.15-slim", "prom/prometheus:v3.5.0", "rust:1.95.0-slim-bookworm"] {
        assert!(is_pinned(pinned), "{pinned}");
    }
}
