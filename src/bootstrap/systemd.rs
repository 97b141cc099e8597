//! Telling the service manager (systemd, `Type=notify`) how we are. Where there is none, nothing is told.

use sd_notify::NotifyState;

/// The process serves.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// From now on this process is the service; the one before it finishes what it has under way.
pub fn we_are_the_service() {
    tell(&[
        NotifyState::MainPid(std::process::id()),
        NotifyState::Ready,
        NotifyState::Status("serving, taken over from the process before"),
    ]);
}

/// The service stops.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("the service manager cannot be told: {error}");
    }
}
