//! The start-up banner, and what is said of dangerous settings.

use std::os::unix::fs::PermissionsExt as _;

use super::{said, yaml};
use crate::support::gateway::{Gateway, command, server};
use crate::support::stub::Stub;

/// Everything a banner may speak of; no store is reached for it.
fn everything(stub: &Stub, format: &str) -> String {
    format!(
        "{}observability:\n  log: {{ format: {format} }}\n  tracing: {{ otlp: \"http://127.0.0.1:4318\", sample: 0.25 }}\n\
         auth: {{ required: false, jwt: [ {{ algorithms: [HS256], secret: a-secret-of-32-bytes-or-more-for-tokens }} ] }}\n\
         roles: {{ reader: [ {{ tools: [echo] }} ] }}\n\
         rate_limits: {{ rules: [ {{ name: all, rate: 10000/s }} ] }}\n\
         cache: {{ enabled: true, memory: 8MiB }}\n\
         routes: [ {{ name: one, backends: [one] }} ]\n\
         transform: [ {{ request: {{ params: {{ remove: [arguments.debug] }} }} }} ]\n\
         discovery: {{ etcd: {{ endpoints: [\"http://127.0.0.1:1\"] }} }}\n\
         redis: {{ url: \"redis://127.0.0.1:1/0\" }}\n\
         analytics: {{ postgres: \"postgres://x@127.0.0.1:1/x\" }}\n\
         backends:\n{}",
        server("  h2c: 127.0.0.1:0\n"),
        stub.backend("one", "")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_lines_say_what_is_on_in_both_formats() {
    let stub = Stub::start().await;
    for format in ["json", "text"] {
        let gateway = Gateway::start(&everything(&stub, format)).await;
        let lines = said(&gateway).await;
        let config = gateway.config_path().display().to_string();
        for expected in [
            concat!("mcp-gateway ", env!("CARGO_PKG_VERSION"), " ("),
            &config,
            "listening on http://127.0.0.1:",
            "listening on h2c://127.0.0.1:",
            "admin on http://127.0.0.1:",
            "upgrade.sock",
            "backends: 1 configured (1 mcp); more from etcd, PUT /admin/backends",
            "Redis (backends), PostgreSQL (analytics), etcd (backends)",
            "callers: authentication by JWT, or anonymous; 1 role(s)",
            "1 rate limit(s), 1 route(s), 1 transformation(s), a cache of 8 MiB, circuit breakers, traces to http://127.0.0.1:4318/ (25 %)",
            "log level info, access records of 100 % of quick successes",
        ] {
            let has = lines.iter().filter(|line| line.contains(expected)).count();
            assert!(has > 0, "{format}: {expected} in\n{}", lines.join("\n"));
        }
        let is_json = |line: &&String| serde_json::from_str::<serde_json::Value>(line).is_ok();
        assert_eq!(lines.iter().all(|line| is_json(&line)), format == "json");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_tells_of_risks_and_a_reload_of_those_that_are_new() {
    let stub = Stub::start().await;
    let quiet = yaml(&stub, "level: info", "");
    let gateway = Gateway::start(&quiet).await;
    let of = |lines: &[String], name: &str| lines.iter().filter(|line| line.contains(&format!("[{name}]"))).count();
    assert_eq!(of(&said(&gateway).await, "no_auth_on_loopback"), 1, "told as the start");
    gateway.load(&quiet.replace("  workers: 2\n", "  workers: 2\n  trusted_proxies: [0.0.0.0/0]\n")).await;
    let lines = said(&gateway).await;
    assert_eq!((of(&lines, "no_auth_on_loopback"), of(&lines, "every_proxy_trusted")), (1, 1));
    let told = lines.iter().find(|line| line.contains("[every_proxy_trusted]")).expect("it is told");
    assert!(told.contains("\"warn\"") && told.contains("gateway.yaml:5: server.trusted_proxies: "), "{told}");
    gateway.load(&quiet).await;
    gateway.load(&quiet.replace("  workers: 2\n", "  workers: 2\n  trusted_proxies: [0.0.0.0/0]\n")).await;
    assert_eq!(of(&said(&gateway).await, "every_proxy_trusted"), 2, "it was gone meanwhile");
}

#[tokio::test]
async fn check_tells_of_risks_with_their_lines_and_the_configuration_is_good_all_the_same() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("g.yaml");
    std::fs::write(&path, "server:\n  session_secret: a-secret-that-all-can-read\nbackends: [{ name: a, url: 'http://a' }]\n")
        .expect("writable");
    let check = async || {
        let output = command().arg("check").arg("--config").arg(&path).output().await.expect("runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("ours");
    let (code, told, said) = check().await;
    assert_eq!((code, said.trim()), (Some(0), "ok: 1 backend(s)"));
    for expected in ["g.yaml:2: server.session_secret: 1 secret(s)", "NO AUTHENTICATION", "warning: ", "[secrets_in_readable_file]"] {
        assert!(told.contains(expected), "{expected} in\n{told}");
    }
    assert!(!told.contains("a-secret-that"), "{told}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("ours");
    let (_, told, _) = check().await;
    assert!(!told.contains("secrets_in_readable_file") && told.contains("[no_auth]"), "{told}");
}
