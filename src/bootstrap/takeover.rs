//! How a new process takes over from the one before it: it finds its backends first, so that no request meets it
//! unprepared, then accepts beside the old one, and only when that went well for a moment is the old one let go.

use std::collections::HashSet;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::services::ServiceReadyNotifier;
use tokio::sync::watch;

use super::handover::Predecessor;
use super::pid::PidFile;
use super::systemd;
use crate::snapshot::{Phase, State};

/// How long the backends that the old process reaches, the keys of issuers and managed keys may take to be found.
const FIND: Duration = Duration::from_secs(10);
/// How long any backend at all may take after that.
const FIND_ANY: Duration = Duration::from_secs(10);
/// How long both processes serve: a new one that crashes on what clients really send has not taken over yet.
const PROBATION: Duration = Duration::from_secs(2);

/// A take-over that has begun.
pub struct Takeover {
    pub predecessor: Predecessor,
    pub pid_file: Arc<Option<PidFile>>,
    /// Told why there is no take-over; the process ends then.
    pub failure: watch::Sender<Option<String>>,
}

impl Takeover {
    /// Opens the listeners when this process can serve, and lets the old one go.
    pub async fn run(self, state: Arc<State>, gate: ServiceReadyNotifier) {
        // Dropping it would open the listeners of a process that gives up.
        let gate = ManuallyDrop::new(gate);
        let failure = self.failure.clone();
        if let Err(why) = self.take(&state, gate).await {
            failure.send_replace(Some(why));
        }
    }

    async fn take(self, state: &State, gate: ManuallyDrop<ServiceReadyNotifier>) -> Result<(), String> {
        let estate = &self.predecessor.estate;
        for name in &estate.draining {
            state.shared.discovery.drain(name, true);
        }
        state.mark_draining(&state.snapshot());
        let unhealthy: HashSet<&str> = estate.unhealthy.iter().map(String::as_str).collect();
        until(FIND, || is_prepared(state, &unhealthy)).await;
        if estate.keys && !state.snapshot().auth.is_prepared() {
            return Err(
                "upgrade: keys (of an issuer, or managed ones) that the running process knows cannot be read by the new one".to_owned()
            );
        }
        if estate.ready && !until(FIND_ANY, || state.snapshot().is_ready()).await {
            return Err("upgrade: no backend is healthy for the new process, and some are for the running one".to_owned());
        }
        state.snapshot().upstream.gather();
        is_wanted(state)?;
        log::info!("ready: serving beside the running process");
        ManuallyDrop::into_inner(gate).notify_ready();
        tokio::time::sleep(PROBATION).await;
        is_wanted(state)?;
        let relieved = self.predecessor.relieve().await?;
        if let Some(pid_file) = self.pid_file.as_ref() {
            pid_file.name_us().unwrap_or_else(|e| log::error!("the PID file cannot be written: {e}"));
        }
        systemd::we_are_the_service();
        relieved.dismiss().await;
        log::info!("took over; the process before this one finishes what it has under way");
        Ok(())
    }
}

/// A process that was told to stop meanwhile takes over from nobody.
fn is_wanted(state: &State) -> Result<(), String> {
    if state.shared.life.phase() > Phase::Serving { Err("upgrade: told to stop before it took over".to_owned()) } else { Ok(()) }
}

/// Whether everything a request may need is there, as far as it is for the old process.
fn is_prepared(state: &State, unhealthy: &HashSet<&str>) -> bool {
    let snapshot = state.snapshot();
    let mut wanted = snapshot.upstream.backends.iter().filter(|backend| !unhealthy.contains(backend.name()));
    wanted.all(|backend| backend.is_healthy()) && snapshot.auth.is_prepared() && snapshot.limits.store_is_up() != Some(false)
}

async fn until(limit: Duration, done: impl Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !done() {
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}
