//! The circuit breaker: a backend (or one of its tools) that fails is left alone for a while, then tried with a few
//! requests. Pure state over a clock it is given; what counts as a failure is decided where the request is sent.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::window::Window;
use crate::config::traffic::Breaker as Conf;

/// A probe that takes this long is waited for no longer by the next.
const SLOW_PROBE: Duration = Duration::from_secs(5);

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything passes.
    Closed,
    /// A few requests may try.
    HalfOpen,
    /// Nothing passes.
    Open,
}

impl State {
    /// The word for it in `/health` and the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }

    /// The value of `circuit_breaker_state`.
    pub const fn level(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// How a request that was let through ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Failed,
    /// It says nothing: the caller left, or the fault was ours.
    Void,
}

/// The right to one request, good for the state it was given in: what began before a change has no say after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    period: u64,
}

#[derive(Debug, Default)]
struct Inner {
    /// When an open breaker becomes half-open; `None` while closed or half-open.
    until: Option<Instant>,
    half_open: bool,
    /// Counts the changes of state.
    period: u64,
    /// Failures in a row.
    failures: u32,
    window: Window,
    /// Half-open: requests under way.
    probing: u32,
    /// Half-open: requests that passed.
    passed: u32,
    /// Half-open: when the last one was let through.
    probed: Option<Instant>,
}

/// A breaker.
#[derive(Debug, Default)]
pub struct Breaker {
    inner: Mutex<Inner>,
    /// Twice the period, and one more while there is anything to look at: a closed breaker without a failure is passed
    /// without a lock, which is what nearly every request finds.
    hint: AtomicU64,
}

impl Breaker {
    fn inner(&self) -> Held<'_> {
        Held { inner: self.inner.lock().unwrap_or_else(PoisonError::into_inner), hint: &self.hint }
    }

    /// The period of a closed breaker that has seen no failure since it last saw a success.
    fn calm(&self) -> Option<u64> {
        let hint = self.hint.load(Ordering::Acquire);
        (hint & 1 == 0).then_some(hint / 2)
    }

    /// Where it stands. An open one whose time is up is half-open, though nobody tried yet.
    pub fn state(&self, now: Instant) -> State {
        if self.calm().is_some() {
            return State::Closed;
        }
        let inner = self.inner();
        match inner.until {
            Some(until) if now < until => State::Open,
            Some(_) => State::HalfOpen,
            None if inner.half_open => State::HalfOpen,
            None => State::Closed,
        }
    }

    /// How long until it lets something through; `None` if it does now.
    pub fn wait(&self, now: Instant, conf: &Conf) -> Option<Duration> {
        if self.calm().is_some() {
            return None;
        }
        let inner = self.inner();
        match inner.until {
            Some(until) if now < until => Some(until - now),
            None if inner.half_open && !inner.has_room(now, conf) => Some(Duration::ZERO),
            _ => None,
        }
    }

    /// Asks for one request.
    pub fn enter(&self, now: Instant, conf: &Conf) -> Option<Ticket> {
        if let Some(period) = self.calm() {
            return Some(Ticket { period });
        }
        let mut inner = self.inner();
        match inner.until {
            Some(until) if now < until => return None,
            Some(_) => inner.become_half_open(),
            None => {}
        }
        if inner.half_open {
            if !inner.has_room(now, conf) {
                return None;
            }
            inner.probing += 1;
            inner.probed = Some(now);
        }
        Some(Ticket { period: inner.period })
    }

    /// Lets it be tried from now on, since what failed shows other signs of being back.
    pub fn hasten(&self, now: Instant) {
        let mut inner = self.inner();
        inner.until = inner.until.map(|until| until.min(now));
    }

    /// Tells how a request ended; returns the state it brought about, if that is another.
    pub fn settle(&self, now: Instant, conf: &Conf, ticket: Ticket, verdict: Verdict) -> Option<State> {
        // A share of failures needs the successes counted as well.
        if verdict != Verdict::Failed && conf.failure_rate.is_none() && self.calm().is_some() {
            return None;
        }
        let mut inner = self.inner();
        if inner.period != ticket.period {
            return None;
        }
        if inner.half_open {
            inner.probing = inner.probing.saturating_sub(1);
        }
        match verdict {
            Verdict::Void => None,
            Verdict::Passed => inner.pass(now, conf),
            Verdict::Failed => inner.fail(now, conf),
        }
    }
}

/// The state under its lock; the hint follows when it is let go.
struct Held<'b> {
    inner: MutexGuard<'b, Inner>,
    hint: &'b AtomicU64,
}

impl Deref for Held<'_> {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let inner = &self.inner;
        let stirred = inner.until.is_some() || inner.half_open || inner.failures > 0;
        self.hint.store(inner.period * 2 + u64::from(stirred), Ordering::Release);
    }
}

impl Inner {
    /// One that takes long is no reason to let nobody else try: it may be a tool that is just slow.
    fn has_room(&self, now: Instant, conf: &Conf) -> bool {
        let is_slow = self.probed.is_some_and(|at| now >= at + conf.recovery_timeout.min(SLOW_PROBE));
        is_slow || self.probing + self.passed < conf.probes
    }

    fn become_half_open(&mut self) {
        *self = Self { half_open: true, period: self.period + 1, ..Self::default() };
    }

    fn pass(&mut self, now: Instant, conf: &Conf) -> Option<State> {
        self.failures = 0;
        if !self.half_open {
            if conf.failure_rate.is_some() {
                self.window.count(now, conf.window, false);
            }
            return None;
        }
        self.passed += 1;
        if self.passed < conf.probes {
            return None;
        }
        *self = Self { period: self.period + 1, ..Self::default() };
        Some(State::Closed)
    }

    fn fail(&mut self, now: Instant, conf: &Conf) -> Option<State> {
        self.failures += 1;
        let too_many = |share| {
            self.window.count(now, conf.window, true);
            self.window.exceeds(now, conf.window, share, conf.min_requests)
        };
        let by_rate = !self.half_open && conf.failure_rate.is_some_and(too_many);
        if !self.half_open && !by_rate && self.failures < conf.failure_threshold {
            return None;
        }
        *self = Self { until: Some(now + conf.recovery_timeout), period: self.period + 1, ..Self::default() };
        Some(State::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What happens to a breaker.
    #[derive(Debug, Clone)]
    enum Event {
        Enter,
        Settle(usize, Verdict),
        Wait(u64),
        /// The backend is back.
        Hasten,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let verdict = prop_oneof![Just(Verdict::Passed), Just(Verdict::Failed), Just(Verdict::Failed), Just(Verdict::Void)];
        let event = prop_oneof![
            Just(Event::Enter),
            (0usize..8, verdict).prop_map(|(i, v)| Event::Settle(i, v)),
            (1u64..700).prop_map(Event::Wait),
            Just(Event::Hasten)
        ];
        proptest::collection::vec(event, 1..200)
    }

    /// The same machine, written as its description reads: a log of what happened since the last change.
    struct Reference {
        state: State,
        changes: u64,
        /// When an open one lets somebody try.
        due: u64,
        log: Vec<(u64, Verdict)>,
        out: u32,
        /// When the last one was let through.
        last: Option<u64>,
    }

    impl Reference {
        fn change(&mut self, state: State, now: u64) {
            *self = Self { state, changes: self.changes + 1, due: now + 500, log: Vec::new(), out: 0, last: None };
        }

        fn has_room(&self, now: u64, conf: &Conf) -> bool {
            self.last.is_some_and(|last| now >= last + 500) || self.out + self.count(Verdict::Passed) < conf.probes
        }

        fn count(&self, verdict: Verdict) -> u32 {
            u32::try_from(self.log.iter().filter(|(_, v)| *v == verdict).count()).unwrap()
        }

        fn enter(&mut self, now: u64, conf: &Conf) -> bool {
            if self.state == State::Open && now >= self.due {
                self.change(State::HalfOpen, now);
            }
            let lets = match self.state {
                State::Closed => true,
                State::HalfOpen => self.has_room(now, conf),
                State::Open => false,
            };
            self.out += u32::from(lets);
            self.last = if lets { Some(now) } else { self.last };
            lets
        }

        fn settle(&mut self, now: u64, conf: &Conf, verdict: Verdict) {
            self.out -= 1;
            self.log.push((now, verdict));
            let decided: Vec<Verdict> = self.log.iter().map(|(_, v)| *v).filter(|v| *v != Verdict::Void).collect();
            let in_a_row = decided.iter().rev().take_while(|v| **v == Verdict::Failed).count();
            match (self.state, verdict) {
                (State::Closed, Verdict::Failed) if in_a_row >= conf.failure_threshold as usize => self.change(State::Open, now),
                (State::HalfOpen, Verdict::Failed) => self.change(State::Open, now),
                (State::HalfOpen, Verdict::Passed) if self.count(Verdict::Passed) >= conf.probes => self.change(State::Closed, now),
                _ => {}
            }
        }
    }

    proptest! {
        #[test]
        fn it_does_what_the_reference_does(events in events(), threshold in 1u32..4, probes in 1u32..3) {
            let conf = Conf { failure_threshold: threshold, probes, failure_rate: None, window: Duration::from_secs(1), min_requests: 1, recovery_timeout: Duration::from_millis(500) };
            let (breaker, origin) = (Breaker::default(), Instant::now());
            let mut reference = Reference { state: State::Closed, changes: 0, due: 0, log: Vec::new(), out: 0, last: None };
            let (mut at, mut under_way) = (0, Vec::new());
            for event in events {
                let now = origin + Duration::from_millis(at);
                match event {
                    Event::Wait(ms) => at += ms,
                    Event::Hasten => {
                        breaker.hasten(now);
                        reference.due = reference.due.min(at);
                    }
                    Event::Enter => {
                        let ticket = breaker.enter(now, &conf);
                        prop_assert_eq!(ticket.is_some(), reference.enter(at, &conf));
                        under_way.extend(ticket.map(|ticket| (ticket, reference.changes)));
                    }
                    Event::Settle(i, verdict) if !under_way.is_empty() => {
                        let (ticket, period) = under_way.remove(i % under_way.len());
                        let told = breaker.settle(now, &conf, ticket, verdict);
                        if period == reference.changes {
                            let before = reference.state;
                            reference.settle(at, &conf, verdict);
                            prop_assert_eq!(told, (reference.state != before).then_some(reference.state));
                        } else {
                            prop_assert_eq!(told, None, "what began before a change has no say after it");
                        }
                    }
                    Event::Settle(..) => {}
                }
                let now = origin + Duration::from_millis(at);
                let due = reference.state == State::Open && at >= reference.due;
                prop_assert_eq!(breaker.state(now), if due { State::HalfOpen } else { reference.state });
                prop_assert_eq!(breaker.wait(now, &conf).is_none(), due || reference.state == State::Closed || (reference.state == State::HalfOpen && reference.has_room(at, &conf)));
            }
        }
    }

    #[test]
    fn a_share_of_failures_opens_it_once_there_are_enough() {
        let conf = Conf {
            failure_threshold: 1000,
            probes: 1,
            failure_rate: Some(0.5),
            window: Duration::from_secs(10),
            min_requests: 10,
            recovery_timeout: Duration::from_secs(1),
        };
        let (breaker, now) = (Breaker::default(), Instant::now());
        let end = |at: u64, verdict| {
            let now = now + Duration::from_secs(at);
            let ticket = breaker.enter(now, &conf).unwrap();
            breaker.settle(now, &conf, ticket, verdict)
        };
        for _ in 0..8 {
            assert_eq!(end(0, Verdict::Failed), None, "too few to say");
        }
        assert_eq!(end(12, Verdict::Failed), None, "the old ones fell out");
        let ends: Vec<_> = (0..9).map(|i| end(13, if i % 2 == 0 { Verdict::Passed } else { Verdict::Failed })).collect();
        assert!(ends.iter().all(Option::is_none), "{ends:?}");
        assert_eq!(end(13, Verdict::Failed), Some(State::Open), "6 of 11");
    }
}
