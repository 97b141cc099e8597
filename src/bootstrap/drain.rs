//! Stopping and leaving. Pingora on SIGTERM closes its listeners at once and then sleeps the whole grace period; we keep
//! accepting for a moment while `/ready` says no, wait only for what is under way, and end streams cleanly when time is
//! up. On SIGQUIT a new process takes over: nothing is refused, and who still has a connection here is served on it.

use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::handover::{self, Estate, Heir};
use super::listen::Sockets;
use super::pid::PidFile;
use super::systemd;
use crate::snapshot::{Phase, State};

/// Time for load balancers to see that we are not ready before connections are refused.
const LAME_DUCK: Duration = Duration::from_millis(500);
/// Time for streams to write their end.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Time for connections that were just accepted to be counted, before nobody is said to be left.
const SETTLE: Duration = Duration::from_secs(2);
/// Time for the listeners, and for HTTP/2 connections, to notice that they are to close.
const CLOSE: Duration = Duration::from_millis(50);
/// Time for what is to be written down.
const LAST_NOTES: Duration = Duration::from_secs(3);

/// Takes SIGHUP and SIGQUIT away from their default, which is death, before anything else is done. Nobody listens yet;
/// what comes this early has nothing to reload or hand over.
///
/// # Errors
/// When the system does not allow signals to be handled.
pub fn deafen() -> Result<(), String> {
    let fault = |e: std::io::Error| format!("signals cannot be handled: {e}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(fault)?;
    runtime.block_on(async {
        signal(SignalKind::hangup()).map(drop).map_err(fault)?;
        signal(SignalKind::quit()).map(drop).map_err(fault)
    })
}

/// Waits for the signal that stops the process, and stops it as is fit.
pub struct Signals {
    pub state: Arc<State>,
    /// Until no new connections are taken.
    pub sockets: Mutex<Option<Arc<Sockets>>>,
    pub pid_file: Arc<Option<PidFile>>,
    /// Has the listeners closed and HTTP/2 clients told.
    pub stop: watch::Sender<bool>,
    /// Why this process cannot take over from the one before it.
    pub failure: watch::Receiver<Option<String>>,
}

/// A hand-over that is under way.
type Handover<'s> = Pin<Box<dyn Future<Output = Result<Heir, String>> + Send + 's>>;

/// How the process ends.
enum End {
    Stop,
    Leave(Heir),
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let open = |kind| signal(kind).expect("signals can be watched once a runtime is up");
        let (mut terminate, mut interrupt, mut quit) =
            (open(SignalKind::terminate()), open(SignalKind::interrupt()), open(SignalKind::quit()));
        let mut failure = self.failure.clone();
        let mut handover: Option<Handover<'_>> = None;
        let end = loop {
            tokio::select! {
                _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
                _ = terminate.recv() => break End::Stop,
                Ok(_) = failure.wait_for(Option::is_some) => return ShutdownSignal::FastShutdown,
                // Left to its default it would kill the only server.
                _ = quit.recv() => match handover {
                    Some(_) => log::info!("SIGQUIT: already handing over"),
                    None => handover = Some(Box::pin(self.hand_over())),
                },
                outcome = outcome(&mut handover) => match outcome {
                    Ok(heir) => break End::Leave(heir),
                    Err(why) => {
                        log::error!("not handed over, still serving: {why}");
                        handover = None;
                    }
                },
            }
        };
        drop(handover);
        match end {
            End::Stop => tokio::select! {
                () = self.drain() => ShutdownSignal::GracefulTerminate,
                // Asked twice, or urgently.
                _ = interrupt.recv() => ShutdownSignal::FastShutdown,
                _ = terminate.recv() => ShutdownSignal::FastShutdown,
            },
            End::Leave(heir) => tokio::select! {
                () = self.leave(heir, &mut terminate) => ShutdownSignal::GracefulTerminate,
                _ = interrupt.recv() => ShutdownSignal::FastShutdown,
            },
        }
    }
}

async fn outcome(handover: &mut Option<Handover<'_>>) -> Result<Heir, String> {
    match handover {
        Some(handover) => handover.await,
        None => pending().await,
    }
}

impl Signals {
    async fn hand_over(&self) -> Result<Heir, String> {
        log::info!("SIGQUIT: handing over to a new process");
        let snapshot = self.state.snapshot();
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Some(sockets), Some(pid_file)) = (sockets, self.pid_file.as_ref()) else {
            return Err("this process has no state directory of its own (server.state_dir) to hand over in".to_owned());
        };
        let sick = snapshot.upstream.backends.iter().filter(|backend| !backend.is_healthy());
        let estate = Estate {
            unhealthy: sick.map(|backend| backend.name().to_owned()).collect(),
            ready: snapshot.is_ready(),
            keys: snapshot.auth.is_prepared(),
            draining: self.state.shared.discovery.draining(),
            ..Estate::default()
        };
        handover::bequeath(&snapshot.config.server.state_dir, estate, &sockets, pid_file).await
    }

    /// After a hand-over: takes no new connections, serves what comes on those there are, each to its end.
    async fn leave(&self, heir: Heir, terminate: &mut Signal) {
        let grace = self.state.snapshot().config.server.grace_period;
        log::info!("handed over: finishing what is under way for up to {grace:?}");
        let until = tokio::time::Instant::now() + grace;
        self.state.shared.life.enter(Phase::LameDuck);
        self.close_doors();
        tokio::time::sleep(CLOSE).await;
        drop(heir);
        tokio::select! {
            () = self.deserted(SETTLE.min(grace)) => {}
            () = tokio::time::sleep_until(until) => log::info!("the grace period ended: ending the streams that are left"),
            () = self.urged(terminate) => log::info!("SIGTERM: ending the streams that are left"),
        }
        self.close(true).await;
    }

    /// Completes when no connection is left.
    async fn deserted(&self, settle: Duration) {
        tokio::time::sleep(settle).await;
        while self.state.shared.metrics.connections.get() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Completes when SIGTERM asks a process that leaves to hurry: by being repeated, or because the service manager waits
    /// for this process to end before it starts the one that crashed. A service that is stopped sends it to all its
    /// processes, and those that leave have their time.
    async fn urged(&self, terminate: &mut Signal) {
        terminate.recv().await;
        if !self.pid_file.as_ref().as_ref().is_some_and(PidFile::names_a_dead_process) {
            log::info!("SIGTERM: already ending within the grace period; once more ends it now");
            terminate.recv().await;
        }
    }

    async fn drain(&self) {
        let life = &self.state.shared.life;
        let grace = self.state.snapshot().config.server.grace_period;
        log::info!("SIGTERM: draining for up to {grace:?}");
        systemd::stopping();
        life.enter(Phase::LameDuck);
        tokio::time::sleep(LAME_DUCK.min(grace)).await;
        life.enter(Phase::Draining);
        let whole = life.idle(grace.saturating_sub(LAME_DUCK)).await;
        self.close_doors();
        if let Some(pid_file) = self.pid_file.as_ref() {
            pid_file.unname_us();
        }
        self.close(!whole).await;
    }

    fn close_doors(&self) {
        self.stop.send_replace(true);
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Ends what is still open.
    async fn close(&self, wait: bool) {
        let life = &self.state.shared.life;
        life.enter(Phase::Closing);
        tokio::time::sleep(CLOSE).await;
        if wait && !life.idle(LAST_WORDS).await {
            log::warn!("requests were still under way when the grace period ended");
        }
        if let Some(spans) = &self.state.shared.spans {
            spans.finish(LAST_WORDS).await;
        }
        if let Some(analytics) = &self.state.snapshot().analytics {
            analytics.finish(LAST_NOTES).await;
        }
        self.state.shared.metrics.exports.finish(LAST_WORDS).await;
    }
}
