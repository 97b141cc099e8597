//! The gateway under test, with the smallest configuration that serves one modern MCP backend.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;

/// Where `cargo build --release` puts it: beside this program.
pub fn beside() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("mcp-gateway"))
}

pub fn command(binary: &Path, dir: &Path, listen: SocketAddr, origin: SocketAddr) -> Result<Command> {
    if !binary.exists() {
        return Err(format!(
            "{} is missing (cargo build --release -p mcp-gateway, or --gateway PATH), or leave it out with --only",
            binary.display()
        )
        .into());
    }
    let path = dir.join("gateway.yaml");
    fs::write(&path, configuration(dir, listen, origin))?;
    let mut command = Command::new(binary);
    command.arg("run").arg("--config").arg(path);
    Ok(command)
}

fn configuration(dir: &Path, listen: SocketAddr, origin: SocketAddr) -> String {
    let dir = dir.display();
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
observability:
  log: {{ level: warn }}
"
    )
}
