//! How much is under way at the same time, with a short queue before it: a backend, or the gateway itself, is never given
//! more than it may have, and who comes when even the queue is full is told so at once, before waiting becomes the norm.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::traffic::Queue;

/// The part of its wait that a newcomer is given by a queue that does not empty.
const SHORT: u32 = 10;

/// Places for a bounded number of requests.
#[derive(Debug)]
pub struct Room {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    origin: Instant,
    /// Milliseconds after `origin` when the queue was last empty.
    emptied: AtomicU64,
}

/// One request's place, given back when dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// No place, and none soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The queue is as long as it may be.
    Queue,
    /// The wait was in vain.
    Late,
}

impl Room {
    pub fn new(size: usize) -> Self {
        let places = Arc::new(Semaphore::new(size.min(Semaphore::MAX_PERMITS)));
        Self { places, waiting: AtomicUsize::new(0), origin: Instant::now(), emptied: AtomicU64::new(0) }
    }

    pub fn is_full(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// Takes a place if one is free.
    pub fn enter_now(&self) -> Option<Place> {
        Arc::clone(&self.places).try_acquire_owned().ok().map(|permit| Place { _permit: permit })
    }

    /// Takes a place, waiting for one if need be.
    ///
    /// # Errors
    /// [`Full`].
    pub async fn enter(&self, queue: &Queue) -> Result<Place, Full> {
        if let Some(place) = self.enter_now() {
            return Ok(place);
        }
        // Boxed: few wait, and who does not should not carry what waiting takes.
        Box::pin(self.wait(queue)).await
    }

    async fn wait(&self, queue: &Queue) -> Result<Place, Full> {
        let waiter = Waiter::join(self, queue).ok_or(Full::Queue)?;
        let wait = if self.is_standing(queue) { queue.wait / SHORT } else { queue.wait };
        let acquired = tokio::time::timeout(wait, Arc::clone(&self.places).acquire_owned()).await;
        drop(waiter);
        match acquired {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            _ => Err(Full::Late),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the queue has not been empty for as long as anybody should wait (the idea of CoDel, RFC 8289: a queue is
    /// good for bursts, and a standing one only adds delay).
    fn is_standing(&self, queue: &Queue) -> bool {
        Duration::from_millis(self.now().saturating_sub(self.emptied.load(Ordering::Relaxed))) > queue.wait
    }
}

/// Somebody in the queue.
struct Waiter<'r>(&'r Room);

impl<'r> Waiter<'r> {
    fn join(room: &'r Room, queue: &Queue) -> Option<Self> {
        let before = room.waiting.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            room.emptied.store(room.now(), Ordering::Relaxed);
        }
        // Dropping it undoes the count.
        Some(Self(room)).filter(|_| before < queue.length)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.emptied.store(self.0.now(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_place_waits_a_little_and_no_more_than_may() {
        let room = Arc::new(Room::new(1));
        let queue = Queue { length: 1, wait: Duration::from_millis(100) };
        let place = room.enter(&queue).await.unwrap();
        let second = tokio::spawn({
            let room = Arc::clone(&room);
            async move { room.enter(&queue).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert_eq!(room.enter(&queue).await.unwrap_err(), Full::Queue);
        drop(place);
        assert_eq!(second.await.unwrap(), Ok(()));
        let _place = room.enter(&queue).await.unwrap();
        assert_eq!(room.enter(&queue).await.unwrap_err(), Full::Late);
    }

    #[tokio::test]
    async fn a_place_is_given_back_whatever_happens_to_who_waits() {
        let room = Room::new(1);
        let queue = Queue { length: 10, wait: Duration::from_secs(60) };
        let place = room.enter(&queue).await.unwrap();
        {
            let waits = room.enter(&queue);
            let mut waits = std::pin::pin!(waits);
            assert!(futures::poll!(&mut waits).is_pending());
        }
        assert_eq!(room.waiting.load(Ordering::Relaxed), 0);
        drop(place);
        assert!(room.enter(&queue).await.is_ok());
    }
}
