//! How the process starts, reloads, hands over and stops. `serve` builds the state, the listeners and the services and hands them to
//! Pingora's server, which runs until told to stop.
//!
//! Services: `proxy` (HTTP/1.1 and TLS), `h2c` where asked for, `admin`, and `caretaker`, the background service that
//! looks after backends and reloads. Each has a runtime of its own.

mod announced;
mod banner;
mod caretaker;
pub mod cli;
mod doctor;
mod door;
mod drain;
mod handover;
mod listen;
mod pid;
mod probe;
mod secret;
mod systemd;
mod takeover;
mod tls;
mod upgrade;
mod watch;

use std::path::Path;
use std::sync::{Arc, Mutex};

use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::background::background_service;
use tokio::sync::{mpsc, watch as channel};

use self::caretaker::Caretaker;
use self::drain::Signals;
use self::handover::Predecessor;
use self::listen::{Sockets, Stands};
use self::pid::PidFile;
use self::takeover::Takeover;
use self::tls::Certificates;
use crate::config::{Config, Source, risk};
use crate::extend::Extensions;
use crate::observe::log as logging;
use crate::snapshot::State;

/// Runs the gateway until it is told to stop. With `upgrade` it takes over from one that runs, once that comes.
///
/// # Errors
/// Why it could not start.
pub fn serve(mut config: Config, source: Source, extensions: Extensions, upgrade: bool) -> Result<(), String> {
    drain::deafen()?;
    logging::init(&config.observability.log);
    pingora::tls::install_default_crypto_provider();
    let mut predecessor = upgrade.then(|| Predecessor::meet(&config.server.state_dir)).transpose()?;
    let given = predecessor.as_mut().map(|predecessor| std::mem::take(&mut predecessor.listeners));
    let sockets = Arc::new(Sockets::settle(&mut config.server, given.unwrap_or_default())?);
    let secret = secret::obtain(&config.server);
    let inherited = predecessor.as_mut().and_then(|predecessor| predecessor.pid_file.take());
    let pid_file = Arc::new(inherited.or_else(|| name_us(&config.server.state_dir)));
    let certificates = config.server.tls.as_ref().map(Certificates::load).transpose()?.map(Arc::new);
    let (reload, wishes) = mpsc::channel(16);
    let state = Arc::new(State::new(config, &secret, reload, extensions)?);

    let snapshot = state.snapshot();
    let mut server = Server::new_with_opt_and_conf(None, conf(&snapshot.config));
    server.bootstrap();
    let ((stop, stopping), (failed, failure)) = (channel::channel(false), channel::channel(None));
    let stands = Stands { state: &state, certificates: certificates.as_ref(), sockets: &sockets, stop: &stopping };
    let listening = listen::add_services(&mut server, &stands)?;
    let takeover = predecessor.map(|predecessor| Takeover { predecessor, pid_file: Arc::clone(&pid_file), failure: failed });
    let risks = risk::risks(&snapshot.config, &source);
    banner::show(&snapshot.config, &source, &risks);
    state.shared.risks.store(Arc::new(risks));
    let caretaker = Caretaker::new(Arc::clone(&state), source, certificates, wishes, takeover);
    let caretaker = server.add_service(background_service("caretaker", caretaker));
    for service in listening {
        service.add_dependency(&caretaker);
    }
    drop(snapshot);
    let signals = Signals { state, sockets: Mutex::new(Some(sockets)), pid_file, stop, failure: failure.clone() };
    server.run(RunArgs { shutdown_signal: Box::new(signals) });
    let failure = failure.borrow().clone();
    log::info!("stopped");
    logging::flush();
    failure.map_or(Ok(()), Err)
}

/// Names this process in the PID file, for those who want to upgrade it.
fn name_us(state_dir: &Path) -> Option<PidFile> {
    let path = handover::serving_file(state_dir);
    let named = secret::own_folder(state_dir).and_then(|()| PidFile::claim(&path)).and_then(|claimed| {
        claimed.as_ref().map(PidFile::name_us).transpose()?;
        Ok(claimed)
    });
    match named {
        Ok(Some(pid_file)) => Some(pid_file),
        Ok(None) => {
            log::warn!("{} is of another gateway that runs: this one cannot be upgraded without a restart", path.display());
            None
        }
        Err(error) => {
            log::info!("this process cannot be upgraded without a restart: {}: {error}", path.display());
            None
        }
    }
}

fn conf(config: &Config) -> ServerConf {
    let server = &config.server;
    ServerConf {
        threads: server.workers,
        // A single worker has nobody to steal from; without the machinery it is 10 % cheaper.
        work_stealing: server.workers > 1,
        // `drain` waits for what is under way; when it returns, nothing is left to wait for.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}
