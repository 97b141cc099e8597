//! The gateway's own legacy sessions: the one place that holds their state. REST callers have no session, legacy
//! servers demand one, so each backend and server has one of ours, opened by the first caller that needs it (everyone
//! else waits for that one), used by all, and replaced once when the server forgot it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;

/// A session the gateway holds with a legacy server.
#[derive(Debug, PartialEq, Eq)]
pub struct Session {
    /// `None` with servers that keep no sessions.
    pub id: Option<String>,
    /// The revision negotiated.
    pub version: String,
    /// What the server calls itself.
    pub server: String,
}

/// Our session with one server of one backend.
#[derive(Default)]
pub struct Slot {
    current: ArcSwapOption<Session>,
    opening: tokio::sync::Mutex<()>,
}

impl Slot {
    /// The session in use, if there is one.
    pub fn current(&self) -> Option<Arc<Session>> {
        self.current.load_full()
    }

    /// The session in use, opened by `open` if there is none; otherwise `open` is never polled.
    ///
    /// # Errors
    /// That of `open`.
    pub async fn obtain<E>(&self, open: impl Future<Output = Result<Session, E>>) -> Result<Arc<Session>, E> {
        if let Some(session) = self.current() {
            return Ok(session);
        }
        let _single = self.opening.lock().await;
        if let Some(session) = self.current() {
            return Ok(session);
        }
        let session = Arc::new(open.await?);
        self.current.store(Some(Arc::clone(&session)));
        Ok(session)
    }

    /// Forgets `stale`, unless somebody already replaced it.
    pub fn forget(&self, stale: &Arc<Session>) {
        self.current.compare_and_swap(stale, None);
    }
}

/// The sessions with one backend, by address and MCP path.
#[derive(Default)]
pub struct SessionPool(Mutex<HashMap<SocketAddr, HashMap<String, Arc<Slot>>>>);

impl SessionPool {
    pub fn slot(&self, address: SocketAddr, path: &str) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = slots.entry(address).or_default();
        if let Some(slot) = slots.get(path) {
            return Arc::clone(slot);
        }
        Arc::clone(slots.entry(path.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn many_callers_open_one_session_and_replace_it_once() {
        let slot = Slot::default();
        let opened = AtomicU32::new(0);
        let open = async || {
            let id = opened.fetch_add(1, Ordering::SeqCst).to_string();
            tokio::task::yield_now().await;
            Ok::<_, ()>(Session { id: Some(id), version: "v".into(), server: String::new() })
        };
        let all = futures::future::join_all((0..50).map(|_| slot.obtain(open()))).await;
        assert!(all.iter().all(|session| session.as_ref().unwrap().id.as_deref() == Some("0")));
        let stale = slot.obtain(open()).await.unwrap();
        slot.forget(&stale);
        let fresh = slot.obtain(open()).await.unwrap();
        slot.forget(&stale);
        assert_eq!(slot.obtain(open()).await.unwrap(), fresh, "a late report of the old loss does no harm");
        assert_eq!(opened.load(Ordering::SeqCst), 2);
    }
}
