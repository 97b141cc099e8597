//! Stopping. Pingora on SIGTERM closes its listeners at once and then sleeps the whole grace period; we keep accepting
//! for a moment while `/ready` says no, wait only for what is under way, and end streams cleanly when time is up.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{SignalKind, signal};

use crate::snapshot::{Phase, State};

/// Time for load balancers to see that we are not ready before connections are refused.
const LAME_DUCK: Duration = Duration::from_millis(500);
/// Time for streams to write their end.
const LAST_WORDS: Duration = Duration::from_secs(2);

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

/// Waits for the signal that stops the process.
pub struct Signals {
    pub state: Arc<State>,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let open = |kind| signal(kind).expect("signals can be watched once a runtime is up");
        let (mut terminate, mut interrupt, mut quit) =
            (open(SignalKind::terminate()), open(SignalKind::interrupt()), open(SignalKind::quit()));
        loop {
            tokio::select! {
                _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
                // Left to its default it would kill the only server.
                _ = quit.recv() => log::error!("SIGQUIT: handing over to a new process is not supported yet; still serving"),
                _ = terminate.recv() => break,
            }
        }
        tokio::select! {
            () = self.drain() => ShutdownSignal::GracefulTerminate,
            // Asked twice, or urgently.
            _ = interrupt.recv() => ShutdownSignal::FastShutdown,
            _ = terminate.recv() => ShutdownSignal::FastShutdown,
        }
    }
}

impl Signals {
    async fn drain(&self) {
        let life = &self.state.shared.life;
        let grace = self.state.snapshot().config.server.grace_period;
        log::info!("SIGTERM: draining for up to {grace:?}");
        life.enter(Phase::LameDuck);
        tokio::time::sleep(LAME_DUCK.min(grace)).await;
        life.enter(Phase::Draining);
        let whole = life.idle(grace.saturating_sub(LAME_DUCK)).await;
        life.enter(Phase::Closing);
        if !whole && !life.idle(LAST_WORDS).await {
            log::warn!("requests were still under way when the grace period ended");
        }
    }
}
