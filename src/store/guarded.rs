//! A Redis on the request path: no question takes longer than a moment, and one that failed leaves the store alone for a
//! while, then one at a time finds out whether it answers again. Users say what they do meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::redis::Redis;
use crate::config;
use crate::observe::metrics::redis_error;

/// How long a store that failed is left alone.
pub const PAUSE: Duration = Duration::from_millis(500);

/// A Redis that may be down.
pub struct Guarded {
    redis: Arc<Redis>,
    /// Microseconds that a question may take (`redis.timeout`).
    timeout: AtomicU64,
    /// Whose it is, and what that does without it, for the log.
    owner: &'static str,
    meanwhile: &'static str,
    origin: Instant,
    /// Milliseconds after `origin` until which it is left alone; 0 while it answers.
    down_until: AtomicU64,
    /// Somebody is finding out whether it answers again.
    probing: AtomicBool,
    /// The reason last told.
    told: Mutex<String>,
}

impl Guarded {
    /// # Errors
    /// When the URL is not one, without quoting it.
    pub fn new(conf: &config::Redis, owner: &'static str, meanwhile: &'static str) -> Result<Self, String> {
        let guarded = Self {
            // The time of a question is ours to keep, as it may change.
            redis: Arc::new(Redis::new(conf)?.within(config::Redis::LONGEST)),
            timeout: AtomicU64::default(),
            owner,
            meanwhile,
            origin: Instant::now(),
            down_until: AtomicU64::new(0),
            probing: AtomicBool::new(false),
            told: Mutex::default(),
        };
        guarded.set_timeout(conf.timeout.0);
        Ok(guarded)
    }

    /// Has the questions from now on take so long at most.
    pub fn set_timeout(&self, timeout: Duration) {
        self.timeout.store(u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn redis(&self) -> &Arc<Redis> {
        &self.redis
    }

    /// Has it connected beside everything else, if it is not.
    pub fn connect(&self) {
        self.redis.connect_beside();
    }

    /// Whether it answered when it was last asked.
    pub fn is_up(&self) -> bool {
        self.down_until.load(Ordering::Relaxed) == 0
    }

    /// Asks within bounds; `None` if that failed, or is not tried now.
    pub async fn ask<T>(&self, question: impl Future<Output = Result<T, String>>) -> Option<T> {
        let down_until = self.down_until.load(Ordering::Relaxed);
        let _probe = if down_until == 0 {
            None
        } else {
            let mine = self.now() >= down_until && !self.probing.swap(true, Ordering::Relaxed);
            Some(mine.then(|| Probe(&self.probing))?)
        };
        self.connect();
        let longest = Duration::from_micros(self.timeout.load(Ordering::Relaxed));
        // Around the question, since connecting and asking each have a time of their own.
        let answer = tokio::time::timeout(longest, question).await.unwrap_or_else(|_| {
            redis_error();
            Err("no answer in time".to_owned())
        });
        self.note(answer.as_ref().err());
        answer.ok()
    }

    /// Notes how a question went, and tells each reason once.
    fn note(&self, fault: Option<&String>) {
        let pause = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
        let until = if fault.is_some() { self.now() + pause } else { 0 };
        let was_up = self.down_until.swap(until, Ordering::Relaxed) == 0;
        if fault.is_none() && was_up {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (owner, meanwhile) = (self.owner, self.meanwhile);
        match fault {
            None => {
                told.clear();
                log::warn!("{owner}: Redis answers again");
            }
            Some(cause) if *told != *cause => {
                log::error!("{owner}: Redis cannot be asked: {cause}; {meanwhile}");
                cause.clone_into(&mut told);
            }
            Some(_) => {}
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Finds out whether the store answers again; given up also when who asks has gone.
struct Probe<'p>(&'p AtomicBool);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
