//! The gateway under test, with the smallest configuration that serves one modern MCP backend.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::call::KEY;

/// Where `cargo build --release` puts it: beside this program.
pub fn beside() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("mcp-gateway"))
}

pub fn command(binary: &Path, dir: &Path, listen: SocketAddr, origin: SocketAddr, guard: &str) -> Result<Command> {
    if !binary.exists() {
        return Err(format!(
            "{} is missing (cargo build --release -p mcp-gateway, or --gateway PATH), or leave it out with --only",
            binary.display()
        )
        .into());
    }
    let path = dir.join("gateway.yaml");
    fs::write(&path, configuration(dir, listen, origin, guard) + guard)?;
    let mut command = Command::new(binary);
    command.arg("run").arg("--config").arg(path);
    Ok(command)
}

/// Authentication by API key, and a role that permits tools by name.
pub fn guard() -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, KEY.as_bytes());
    let hash: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "\
auth:
  api_keys: {{ keys: [ {{ id: load, hash: \"sha256:{hash}\", tenant: bench, roles: [caller] }} ] }}
roles:
  caller: [ {{ servers: [bench], methods: [\"tools/*\"], tools: [\"ec*\"] }} ]
"
    )
}

/// No traffic control at all.
pub const BARE: &str = "circuit_breaker: { enabled: false }\n";

/// All that is decided in the process: limits that admit everything, and are counted all the same.
pub const TRAFFIC: &str = "\
circuit_breaker: { failure_threshold: 5 }
routes: [ { when: 'request.method == \"POST\" && server == \"bench\"', backends: [origin] } ]
rate_limits:
  rules: [ { name: calls, match: { server: bench, tool: \"ec*\" }, by: [ip], rate: 4000000/s } ]
";

/// No traffic control, and everything is told: the log has an access record of each call, the origin is a collector too.
pub const TOLD: &str = "circuit_breaker: { enabled: false }\n# told\n";

/// A limit that is kept in Redis.
pub fn shared(redis: SocketAddr) -> String {
    format!(
        "\
circuit_breaker: {{ enabled: false }}
redis: {{ url: \"redis://{redis}/0\" }}
rate_limits:
  store: redis
  rules: [ {{ name: calls, match: {{ server: bench, tool: \"ec*\" }}, by: [ip], rate: 500000/s }} ]
"
    )
}

/// A cache that keeps all there is to ask.
pub const CACHE: &str = "\
cache: { enabled: true, tools: [ { server: bench, tool: echo, ttl: 1h } ] }
";

/// One that finds in Redis what its memory has no room for.
pub fn cache(redis: SocketAddr) -> String {
    format!(
        "\
redis: {{ url: \"redis://{redis}/0\" }}
cache: {{ enabled: true, redis: true, memory: 1MiB, max_entry: 128KiB, tools: [ {{ server: bench, tool: echo, ttl: 1h }} ] }}
"
    )
}

fn configuration(dir: &Path, listen: SocketAddr, origin: SocketAddr, guard: &str) -> String {
    let dir = dir.display();
    // More than ever come at once, so that nobody waits and everybody is counted.
    let in_flight = if guard == TRAFFIC { 1_000 } else { 0 };
    let told = if guard == TOLD {
        format!("{{ log: {{ level: info }}, tracing: {{ otlp: \"http://{origin}\", sample: 0.1 }} }}")
    } else {
        "{ log: { level: warn } }".into()
    };
    format!(
        "\
server:
  listen: {listen}
  workers: 1
  admin: \"off\"
  state_dir: {dir}/state
backends:
  - name: origin
    url: http://{origin}
    protocol: mcp
    era: modern
    capabilities: [bench]
    max_in_flight: {in_flight}
observability: {told}
"
    )
}
