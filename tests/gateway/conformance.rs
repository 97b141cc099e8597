//! The official conformance suite, check by check as it reads without a gateway: through one gateway, and through two
//! used in turn, where a legacy session opened on one is continued on the other.

use std::path::Path;

use tokio::process::Command;

use crate::support::alternator::Alternator;
use crate::support::gateway::{Gateway, server};
use crate::support::part::Server;
use crate::support::root;

async fn suite(url: &str, version: &str, out: &Path) {
    let output = Command::new("bash").arg(root().join("tests/e2e/conformance.sh")).args([url, version]).arg(out).output();
    let output = output.await.expect("the suite runs");
    assert!(out.exists(), "no results: {}", String::from_utf8_lossy(&output.stderr));
}

/// Compares two runs; the last line of the comparison must count `checks`.
async fn equal(direct: &Path, through: &Path, checks: usize) {
    let output = Command::new("python3").arg(root().join("tests/e2e/conformance_compare.py")).args([direct, through]).output();
    let output = output.await.expect("the comparison runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim_end().ends_with(&format!("{checks} of {checks} checks equal")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_check_reads_as_it_does_direct_also_through_two_replicas() {
    let server_part = Server::conformance().await;
    let yaml = format!(
        "{}backends:\n  - {{ name: one, url: \"{}\", protocol: mcp, capabilities: [everything] }}\n",
        server("  session_secret: 0123456789abcdef0123456789abcdef\n"),
        server_part.url
    );
    let (first, second) = (Gateway::start(&yaml).await, Gateway::start(&yaml).await);
    let both = Alternator::start(vec![first.url.clone(), second.url.clone()]).await;
    let dir = tempfile::tempdir().expect("a temporary folder");
    for (version, checks) in [("2025-11-25", 84), ("2026-07-28", 152)] {
        let at = |name: &str| dir.path().join(format!("{name}-{version}"));
        suite(&format!("{}/mcp", server_part.url), version, &at("direct")).await;
        suite(&first.at("/mcp/everything"), version, &at("one")).await;
        suite(&format!("{}/mcp/everything", both.url), version, &at("two")).await;
        equal(&at("direct"), &at("one"), checks).await;
        equal(&at("direct"), &at("two"), checks).await;
    }
}
