//! The test stand: a directory, the origin, and the processes under test in front of it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::Result;
use crate::cpu::Cores;
use crate::process::Process;
use crate::row::Subject;
use crate::{gateway, nginx, redis};

pub struct Stand {
    // Dropped in this order: a process before the directory it writes to.
    _origin: Process,
    origin: SocketAddr,
    cores: Cores,
    gateway: PathBuf,
    dir: TempDir,
}

/// A process under test that answers.
pub struct Running {
    pub subject: Subject,
    pub addr: SocketAddr,
    pub core: usize,
    pub process: Process,
    /// What it needs besides.
    _beside: Option<Process>,
}

impl Stand {
    pub async fn build(gateway: PathBuf, cores: Cores) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("bench-").tempdir()?;
        let addr = free_addr()?;
        let command = ourselves(&["origin", "--port", &addr.port().to_string()])?;
        let mut origin = Process::start("origin", command, cores.load, cores, dir.path())?;
        origin.ready(addr, "/health").await?;
        Ok(Self { _origin: origin, origin: addr, cores, gateway, dir })
    }

    /// Starts one subject and waits until it can be asked.
    pub async fn start(&self, subject: Subject) -> Result<Running> {
        let addr = free_addr()?;
        let dir = self.dir.path().join(format!("{}-{}", subject.name(), addr.port()));
        fs::create_dir(&dir)?;
        let mut beside = None;
        let command = match subject {
            Subject::Pingora => self.bare(addr, &[])?,
            Subject::PingoraNosteal => self.bare(addr, &["--no-steal"])?,
            Subject::PingoraAnswer => self.bare(addr, &["--no-steal", "--answer"])?,
            Subject::Nginx => nginx::command(&dir, addr, self.origin)?,
            Subject::Gateway => gateway::command(&self.gateway, &dir, addr, self.origin, "")?,
            Subject::GatewayGuarded => gateway::command(&self.gateway, &dir, addr, self.origin, &gateway::guard())?,
            Subject::GatewayBare => gateway::command(&self.gateway, &dir, addr, self.origin, gateway::BARE)?,
            Subject::GatewayTraffic => gateway::command(&self.gateway, &dir, addr, self.origin, gateway::TRAFFIC)?,
            Subject::GatewayTold => gateway::command(&self.gateway, &dir, addr, self.origin, gateway::TOLD)?,
            Subject::GatewayCache => gateway::command(&self.gateway, &dir, addr, self.origin, gateway::CACHE)?,
            Subject::GatewayShared | Subject::GatewayCacheRedis => {
                let port = free_addr()?;
                beside = Some(redis::start(port, self.cores, &dir).await?);
                let more = if subject == Subject::GatewayShared { gateway::shared(port) } else { gateway::cache(port) };
                gateway::command(&self.gateway, &dir, addr, self.origin, &more)?
            }
        };
        let mut process = Process::start(subject.name(), command, self.cores.proxy, self.cores, &dir)?;
        let path = if subject.is_gateway() { "/ready" } else { "/health" };
        process.ready(addr, path).await?;
        Ok(Running { subject, addr, core: self.cores.proxy, process, _beside: beside })
    }

    fn bare(&self, listen: SocketAddr, flags: &[&str]) -> Result<Command> {
        let (listen, upstream) = (listen.to_string(), self.origin.to_string());
        ourselves(&[&["bare", "--listen", &listen, "--upstream", &upstream], flags].concat())
    }
}

fn ourselves(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}

/// The kernel does not hand a port out again at once, so it is ours until the child binds it.
fn free_addr() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
