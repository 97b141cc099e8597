//! The systemd unit: valid, hardened, and its own lines run as systemd would run them, on a socket of the test's own in
//! its place.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::Command;

use super::fleet::Fleet;
use super::yaml;
use crate::support::gateway::{Gateway, command};
use crate::support::process::Process;
use crate::support::stub::Stub;
use crate::support::{PATIENCE, root};

/// Where a service manager would listen.
struct Ear {
    folder: TempDir,
    socket: UnixDatagram,
}

impl Ear {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        Self { folder, socket }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("notify")
    }

    async fn hears(&self) -> String {
        let mut buffer = [0; 1024];
        let length = tokio::time::timeout(PATIENCE, self.socket.recv(&mut buffer)).await.expect("told").expect("read");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

/// The unit with the binary of this build.
fn unit() -> String {
    let unit = std::fs::read_to_string(root().join("conf/systemd/mcp-gateway.service")).expect("the unit");
    unit.replace("/usr/local/bin/mcp-gateway", env!("CARGO_BIN_EXE_mcp-gateway"))
}

/// One line of it, by its key, as a command in the environment it sets, but for the test's own configuration.
fn line(key: &str, gateway: &Path, ear: &Ear) -> Command {
    let unit = unit();
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).expect("in the unit").to_owned();
    let (exec, environment) = (value(key), value("Environment"));
    assert_eq!(environment, "MCP_GATEWAY_CONFIG=/etc/mcp-gateway/gateway.yaml");
    let mut words = exec.split(' ');
    let mut command = command();
    assert_eq!(Some(env!("CARGO_BIN_EXE_mcp-gateway")), words.next());
    command.args(words).env("NOTIFY_SOCKET", ear.path());
    command.env("MCP_GATEWAY_CONFIG", gateway.join("gateway.yaml")).env("STATE_DIR", gateway.join("state"));
    command
}

async fn analyze(arguments: &[&str]) -> (bool, String) {
    let run = Command::new("systemd-analyze").args(arguments).env("SYSTEMD_COLORS", "0").output().await;
    let output = run.unwrap_or_else(|e| panic!("systemd-analyze: {e}; install the Debian package systemd, or run `make parts`"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

#[tokio::test]
async fn the_unit_is_valid_and_hardened() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("mcp-gateway.service");
    std::fs::write(&path, unit()).expect("writable");
    let path = path.to_str().expect("text");
    assert_eq!(analyze(&["verify", "--man=no", path]).await, (true, String::new()));
    // Exposure is at most 2.0 of 10.
    let (hard, said) = analyze(&["security", "--offline=true", "--threshold=20", "--no-pager", path]).await;
    assert!(hard, "{said}");
    let softer = unit().replace("ProtectSystem=strict", "").replace("NoNewPrivileges=yes", "").replace("CapabilityBoundingSet=", "");
    std::fs::write(path, softer).expect("writable");
    assert!(!analyze(&["security", "--offline=true", "--threshold=20", "--no-pager", path]).await.0, "the threshold means something");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_unit_starts_reloads_and_survives_a_bad_reload() {
    let (stub, ear) = (Stub::start().await, Ear::new());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().to_owned();
    std::fs::write(path.join("gateway.yaml"), yaml(&stub, "", 1)).expect("writable");
    let gateway = Gateway::follow(Process::start(line("ExecStart", &path, &ear)), folder).await;
    assert!(ear.hears().await.starts_with("READY=1\n"));
    gateway.ready().await;
    let mut fleet = Fleet::of(gateway).await;
    let (status, said) = fleet.reload(line("ExecReload", &path, &ear)).await;
    assert!(status.success(), "{said}");
    let told = ear.hears().await;
    let told: HashMap<_, _> = told.lines().filter_map(|line| line.split_once('=')).collect();
    fleet.took_over(&said).await;
    assert_eq!(told["MAINPID"], std::fs::read_to_string(path.join("state/mcp-gateway.pid")).expect("a PID file").trim());
    assert_eq!(told["READY"], "1");
    fleet.first.call("stub", "echo", serde_json::json!({})).await;
    std::fs::write(path.join("gateway.yaml"), "backends: [").expect("writable");
    let (status, said) = fleet.reload(line("ExecReload", &path, &ear)).await;
    assert_eq!(status.code(), Some(2), "what RestartPreventExitStatus= names: {said}");
    fleet.first.call("stub", "echo", serde_json::json!({})).await;
}

/// What systemd is told, on a socket of the test's own.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_learns_which_process_is_the_service() {
    let (stub, ear) = (Stub::start().await, Ear::new());
    let mut run = command();
    run.env("NOTIFY_SOCKET", ear.path());
    let mut old = Gateway::start_by(run, &yaml(&stub, "", 1)).await;
    assert!(ear.hears().await.starts_with("READY=1\n"));
    old.ready().await;
    let mut run = Fleet::command(&old);
    run.args(["run", "--upgrade"]).env("NOTIFY_SOCKET", ear.path());
    let mut new = Process::start(run);
    new.says("waiting for the running process").await;
    old.process.signal("QUIT");
    let told = ear.hears().await;
    assert!(told.starts_with(&format!("MAINPID={}\nREADY=1\n", new.child.id().expect("running"))), "{told}");
    assert!(old.process.child.wait().await.expect("an end").success());
    new.signal("TERM");
    let told = ear.hears().await;
    assert!(told.starts_with("STOPPING=1\n"), "the old process, which left, did not say that the service stops: {told}");
}
