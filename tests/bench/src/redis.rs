//! The Redis that a shared rate limit is kept in; on the core of the load, as in life it is on another machine.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Result;
use crate::cpu::Cores;
use crate::process::Process;

const BINARY: &str = "/usr/bin/redis-server";

/// Starts it and waits until it takes connections.
pub async fn start(addr: SocketAddr, cores: Cores, dir: &Path) -> Result<Process> {
    if !Path::new(BINARY).exists() {
        return Err(format!("{BINARY} is missing (Debian: apt install redis-server), or leave it out with --only").into());
    }
    let dir = dir.join("redis");
    std::fs::create_dir(&dir)?;
    let mut command = Command::new(BINARY);
    command.args(["--port", &addr.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]).arg(&dir);
    let process = Process::start("redis", command, cores.load, cores, &dir)?;
    for _ in 0..100 {
        if TcpStream::connect(addr).is_ok() {
            return Ok(process);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err("redis takes no connections".into())
}
