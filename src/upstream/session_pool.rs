//! The gateway's own legacy sessions: the one place that holds their state. REST callers have no session, legacy
//! servers demand one, so each caller has one with each backend and server it uses, opened by the first request that needs
//! it (the caller's other ones wait for that one) and replaced once when the server forgot it. Callers do not share them,
//! because what one leaves in a session another would find; all the anonymous are one caller.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

/// Sessions kept with one backend.
const MOST: u64 = 10_000;
/// How long an unused session is kept.
const IDLE: Duration = Duration::from_secs(600);

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

/// Where a session is, and whose.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    pub address: SocketAddr,
    pub path: String,
    pub owner: Box<str>,
}

/// A session nobody used for a while; its server is told that it ended.
pub struct Abandoned {
    pub place: Place,
    pub session: Arc<Session>,
}

/// The sessions with one backend. Bounded, and closed when idle: each may cost its server hundreds of kilobytes.
pub struct SessionPool {
    slots: Cache<Arc<Place>, Arc<Slot>>,
    abandoned: Arc<Mutex<Vec<Abandoned>>>,
}

impl Default for SessionPool {
    fn default() -> Self {
        let abandoned: Arc<Mutex<Vec<Abandoned>>> = Arc::default();
        let list = Arc::clone(&abandoned);
        let slots = Cache::builder().max_capacity(MOST).eviction_policy(EvictionPolicy::lru()).time_to_idle(IDLE).eviction_listener(
            move |place: Arc<Arc<Place>>, slot: Arc<Slot>, _| {
                let Some(session) = slot.current() else { return };
                let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
                list.push(Abandoned { place: Place::clone(&place), session });
            },
        );
        Self { slots: slots.build(), abandoned }
    }
}

impl SessionPool {
    pub fn slot(&self, address: SocketAddr, path: String, owner: &str) -> Arc<Slot> {
        let place = Arc::new(Place { address, path, owner: owner.into() });
        self.slots.get_with(place, Arc::default)
    }

    /// Takes the sessions that were given up since the last time.
    pub fn abandoned(&self) -> Vec<Abandoned> {
        self.slots.run_pending_tasks();
        std::mem::take(&mut *self.abandoned.lock().unwrap_or_else(PoisonError::into_inner))
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
