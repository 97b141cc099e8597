//! One question at a time: whoever asks first asks upstream, the others wait for the answer. Who asks may fail or go away;
//! then the next in line asks. After that happened a few times everybody asks for himself, because waiting in turn for a
//! server that fails would take longer than failing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::entry::Entry;
use super::key::Key;

/// Askers that may fail before nobody waits for another.
const FAILURES: usize = 2;

/// How a question was settled.
#[derive(Clone)]
pub enum Settled {
    /// The answer, for everybody.
    Kept(Arc<Entry>),
    /// It was one caller's; others look again.
    Private,
    /// It is none that is kept, or asking failed too often.
    Passed,
}

/// The questions under way.
#[derive(Default)]
pub struct Flights {
    open: Mutex<HashMap<Key, Arc<Flight>>>,
}

struct Flight {
    /// One permit: whoever holds it asks.
    turn: Arc<Semaphore>,
    settled: watch::Sender<Option<Settled>>,
    waiting: AtomicUsize,
    failures: AtomicUsize,
}

/// What is whose part.
pub enum Part {
    /// Ask.
    Ask(Turn),
    /// Somebody asked.
    Settled(Settled),
    /// Nobody had an answer in time.
    Late,
}

/// The turn to ask. Dropped without an answer it goes to the next.
pub struct Turn {
    flights: Arc<Flights>,
    key: Key,
    flight: Arc<Flight>,
    permit: Option<OwnedSemaphorePermit>,
    settled: bool,
}

/// Somebody who waits, counted for as long as he does.
struct Waiting<'f> {
    flights: &'f Flights,
    key: &'f Key,
    flight: &'f Arc<Flight>,
}

impl<'f> Waiting<'f> {
    fn new(flights: &'f Flights, key: &'f Key, flight: &'f Arc<Flight>) -> Self {
        flight.waiting.fetch_add(1, Ordering::SeqCst);
        Self { flights, key, flight }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let others = self.flight.waiting.fetch_sub(1, Ordering::SeqCst) - 1;
        // The last one who waited, and nobody asks: the turn would lie there forever.
        if others == 0 && self.flight.turn.available_permits() > 0 {
            self.flights.close(self.key, self.flight);
        }
    }
}

impl Flights {
    /// Takes the turn, or waits for whoever has it.
    pub async fn join(self: &Arc<Self>, key: &Key, until: Instant) -> Part {
        let flight = self.flight(key);
        if let Some(turn) = self.take(key, &flight) {
            return Part::Ask(turn);
        }
        let mut settled = flight.settled.subscribe();
        let waiting = Waiting::new(self, key, &flight);
        let part = tokio::select! {
            biased;
            told = settled.wait_for(Option::is_some) => match told.ok().and_then(|told| told.clone()) {
                Some(told) => Part::Settled(told),
                None => Part::Settled(Settled::Passed),
            },
            permit = Arc::clone(&flight.turn).acquire_owned() => match permit {
                Ok(permit) => Part::Ask(self.turn(key, &flight, permit)),
                Err(_) => Part::Settled(Settled::Passed),
            },
            () = tokio::time::sleep_until(until.into()) => Part::Late,
        };
        drop(waiting);
        part
    }

    /// Takes the turn if nobody has it.
    pub fn try_join(self: &Arc<Self>, key: &Key) -> Option<Turn> {
        let flight = self.flight(key);
        self.take(key, &flight)
    }

    fn flight(&self, key: &Key) -> Arc<Flight> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(open.entry(key.clone()).or_insert_with(|| {
            Arc::new(Flight {
                turn: Arc::new(Semaphore::new(1)),
                settled: watch::Sender::new(None),
                waiting: AtomicUsize::new(0),
                failures: AtomicUsize::new(0),
            })
        }))
    }

    fn take(self: &Arc<Self>, key: &Key, flight: &Arc<Flight>) -> Option<Turn> {
        let permit = Arc::clone(&flight.turn).try_acquire_owned().ok()?;
        Some(self.turn(key, flight, permit))
    }

    fn turn(self: &Arc<Self>, key: &Key, flight: &Arc<Flight>, permit: OwnedSemaphorePermit) -> Turn {
        Turn { flights: Arc::clone(self), key: key.clone(), flight: Arc::clone(flight), permit: Some(permit), settled: false }
    }

    /// Forgets a question, unless another flight took its place.
    fn close(&self, key: &Key, flight: &Arc<Flight>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(key).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            open.remove(key);
        }
    }

    /// Questions under way.
    pub fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl Turn {
    /// The question.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Tells everybody.
    pub fn settle(mut self, how: Settled) {
        self.finish(how);
    }

    /// Whether anybody waits for the answer.
    pub fn is_awaited(&self) -> bool {
        self.flight.waiting.load(Ordering::SeqCst) > 0
    }

    /// Tells the same after the turn was handed on.
    pub fn witness(&self) -> Witness {
        Witness(Arc::clone(&self.flight))
    }

    fn finish(&mut self, how: Settled) {
        self.settled = true;
        // First, so that whoever comes now begins anew; who is in it already is told.
        self.flights.close(&self.key, &self.flight);
        self.flight.settled.send_replace(Some(how));
    }
}

/// Sees whether somebody waits for an answer.
pub struct Witness(Arc<Flight>);

impl Witness {
    pub fn is_awaited(&self) -> bool {
        self.0.waiting.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        // Given back before anybody is looked for, so that one who leaves meanwhile finds it and closes the flight.
        self.permit = None;
        let failures = self.flight.failures.fetch_add(1, Ordering::SeqCst) + 1;
        if failures > FAILURES || !self.is_awaited() {
            // Somebody may have joined just now; he is told to ask for himself.
            self.finish(Settled::Passed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::key::test_key;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    async fn waiter(flights: &Arc<Flights>, name: &str) -> tokio::task::JoinHandle<Part> {
        let (flights, key) = (Arc::clone(flights), test_key(name));
        let before = flights.flight(&key).waiting.load(Ordering::SeqCst);
        let task = {
            let (flights, key) = (Arc::clone(&flights), key.clone());
            tokio::spawn(async move { flights.join(&key, soon()).await })
        };
        while flights.flight(&key).waiting.load(Ordering::SeqCst) == before {
            tokio::task::yield_now().await;
        }
        task
    }

    #[tokio::test]
    async fn one_asks_and_all_are_told() {
        let flights = Arc::new(Flights::default());
        let Part::Ask(turn) = flights.join(&test_key("a"), soon()).await else { panic!("the first asks") };
        let mut waiters = Vec::new();
        for _ in 0..100 {
            waiters.push(waiter(&flights, "a").await);
        }
        assert!(turn.is_awaited() && flights.try_join(&test_key("a")).is_none() && flights.try_join(&test_key("b")).is_some());
        turn.settle(Settled::Private);
        for waiter in waiters {
            assert!(matches!(waiter.await.unwrap(), Part::Settled(Settled::Private)));
        }
        assert_eq!(flights.count(), 0);
    }

    #[tokio::test]
    async fn a_turn_that_is_dropped_goes_on_until_it_failed_too_often() {
        let flights = Arc::new(Flights::default());
        let Part::Ask(first) = flights.join(&test_key("a"), soon()).await else { panic!("the first asks") };
        let (second, third, fourth) = (waiter(&flights, "a").await, waiter(&flights, "a").await, waiter(&flights, "a").await);
        drop(first);
        let Part::Ask(turn) = second.await.unwrap() else { panic!("the next asks") };
        drop(turn);
        let Part::Ask(turn) = third.await.unwrap() else { panic!("and the next") };
        drop(turn);
        assert!(matches!(fourth.await.unwrap(), Part::Settled(Settled::Passed)), "after that nobody waits");
        assert_eq!(flights.count(), 0);
        drop(flights.try_join(&test_key("b")));
        assert_eq!(flights.count(), 0, "nobody waited");
    }

    #[tokio::test]
    async fn who_waits_does_not_wait_forever() {
        let flights = Arc::new(Flights::default());
        let _turn = flights.try_join(&test_key("a")).unwrap();
        assert!(matches!(flights.join(&test_key("a"), Instant::now() + Duration::from_millis(5)).await, Part::Late));
    }
}
