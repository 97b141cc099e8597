//! What is told of a request to a collector of traces: one span for the request, one for every time a backend was asked. It
//! is gathered while the request runs, and queued when it is over if its trace is sampled or it failed. The queue is
//! bounded and nobody waits for it.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus::IntCounter;
use smallvec::SmallVec;
use tokio::sync::{Notify, mpsc, watch};

use super::few::PerSecond;
use super::labels::Ending;
use super::object::spell;
use super::trace::{Context, Traceparent, span_id};

/// Requests that may wait to be told.
const QUEUE: usize = 4096;
/// Attempts that are told of one request.
const ATTEMPTS: usize = 64;
/// Failures of traces that are not sampled, told in a second at most.
const FAILURES: usize = 100;

/// The times that backends were asked for one request.
#[derive(Default)]
pub struct Attempts(Mutex<Few>);

/// Attempts, of which there is one mostly.
pub type Few = SmallVec<[Attempt; 1]>;

/// One time that a backend was asked.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub span: u64,
    /// The HTTP method.
    pub method: &'static str,
    pub backend: Arc<str>,
    pub began: Instant,
    /// When its answer began, or it failed, and how; `None`: it was given up.
    pub ended: Option<(Instant, Ending)>,
}

/// An attempt under way.
pub struct Begun {
    /// What the backend is told.
    pub traceparent: Traceparent,
    place: usize,
}

impl Attempts {
    /// Notes that a backend is asked now, of the first ones.
    pub fn begin(&self, mut context: Context, method: &'static str, backend: &Arc<str>) -> Begun {
        context.span = span_id();
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = attempts.len();
        if place < ATTEMPTS {
            attempts.push(Attempt { span: context.span, method, backend: Arc::clone(backend), began: Instant::now(), ended: None });
        }
        Begun { traceparent: context.traceparent(), place }
    }

    pub fn end(&self, begun: &Begun, ended: (Instant, Ending)) {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempt) = attempts.get_mut(begun.place) {
            attempt.ended = Some(ended);
        }
    }

    /// All of them, taken.
    pub fn take(&self) -> Few {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The value of an attribute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'v> {
    Text(&'v str),
    Number(i64),
}

impl<'v> From<&'v str> for Value<'v> {
    fn from(text: &'v str) -> Self {
        Self::Text(text)
    }
}

/// What is told of a request, by name. All texts are in one: they are freed by another thread than made them, which costs
/// the allocator more, and whoever allocates next.
#[derive(Debug)]
pub struct Attributes {
    texts: String,
    all: Vec<(&'static str, Written)>,
}

/// A value as it is kept.
#[derive(Debug)]
enum Written {
    /// Until where in the texts, from where the one before ended.
    Text(usize),
    Number(i64),
}

impl Attributes {
    /// With room for what most requests have.
    pub fn with_room() -> Self {
        Self { texts: String::with_capacity(400), all: Vec::with_capacity(24) }
    }

    pub fn add<'v>(&mut self, name: &'static str, value: impl Into<Value<'v>>) {
        let written = match value.into() {
            Value::Text(text) => {
                self.texts.push_str(text);
                Written::Text(self.texts.len())
            }
            Value::Number(number) => Written::Number(number),
        };
        self.all.push((name, written));
    }

    /// An address, without a text of its own.
    pub fn address(&mut self, name: &'static str, address: IpAddr) {
        spell(address, |part| self.texts.push_str(part));
        self.all.push((name, Written::Text(self.texts.len())));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Value<'_>)> {
        let mut from = 0;
        self.all.iter().map(move |(name, written)| match *written {
            Written::Text(to) => (*name, Value::Text(&self.texts[std::mem::replace(&mut from, to)..to])),
            Written::Number(number) => (*name, Value::Number(number)),
        })
    }
}

/// A request that is over.
#[derive(Debug)]
pub struct Finished {
    pub context: Context,
    pub name: String,
    pub began: Instant,
    pub ended: Instant,
    /// The wall clock when it ended.
    pub at: SystemTime,
    pub attributes: Attributes,
    /// What kind of failure it was, if it was one.
    pub failed: bool,
    pub attempts: Few,
}

/// Where requests are told; kept by whoever serves them.
pub struct Spans {
    failures: PerSecond,
    stop: Notify,
    done: watch::Sender<bool>,
    /// The share of traces begun here that are sampled.
    sample: f64,
    queue: mpsc::Sender<Finished>,
    waiting: Mutex<Option<mpsc::Receiver<Finished>>>,
    dropped: IntCounter,
}

impl Spans {
    pub fn new(sample: f64, dropped: IntCounter) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let (stop, done) = (Notify::new(), watch::Sender::new(false));
        Self { failures: PerSecond::new(FAILURES), stop, done, sample, queue, waiting: Mutex::new(Some(waiting)), dropped }
    }

    /// Whether a failure may be told though its trace is not sampled.
    pub fn spares(&self) -> bool {
        self.failures.takes()
    }

    /// Completes when the process is about to end.
    pub async fn stopping(&self) {
        self.stop.notified().await;
    }

    /// Says that everything was told.
    pub fn done(&self) {
        self.done.send_replace(true);
    }

    /// Has what is queued told, for so long.
    pub async fn finish(&self, most: Duration) {
        self.stop.notify_one();
        let _ = tokio::time::timeout(most, self.done.subscribe().wait_for(|done| *done)).await;
    }

    /// Whether a trace that begins here is sampled.
    pub fn chance(&self) -> bool {
        fastrand::f64() < self.sample
    }

    /// Queues a request, or counts it as lost.
    pub fn tell(&self, finished: Finished) {
        let spans = 1 + finished.attempts.len() as u64;
        if self.queue.try_send(finished).is_err() {
            self.dropped.inc_by(spans);
        }
    }

    /// The other end of the queue, once.
    pub fn waiting(&self) -> Option<mpsc::Receiver<Finished>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Finished {
    /// Nanoseconds since 1970 of a moment of it.
    pub fn nanos(&self, moment: Instant) -> u64 {
        let before: Duration = self.ended.saturating_duration_since(moment);
        let since = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(before);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(attempts: usize) -> Finished {
        let now = Instant::now();
        let all = Attempts::default();
        let context = Context::of(&http::HeaderMap::new(), || true);
        for _ in 0..attempts {
            let _ = all.begin(context, "POST", &"one".into());
        }
        Finished {
            context,
            name: "n".into(),
            began: now,
            ended: now,
            at: SystemTime::now(),
            attributes: Attributes::with_room(),
            failed: false,
            attempts: all.take(),
        }
    }

    #[test]
    fn what_finds_no_room_is_counted_and_nobody_waits() {
        let dropped = IntCounter::new("dropped", "d").unwrap();
        let spans = Spans::new(1.0, dropped.clone());
        (0..QUEUE).for_each(|_| spans.tell(finished(1)));
        assert_eq!(dropped.get(), 0);
        spans.tell(finished(2));
        assert_eq!(dropped.get(), 3);
        assert!(spans.waiting().is_some() && spans.waiting().is_none());
        assert!(spans.chance() && !Spans::new(0.0, dropped).chance());
        assert_eq!((0..2 * FAILURES).filter(|_| spans.spares()).count(), FAILURES);
    }

    #[test]
    fn attributes_are_told_as_they_were_added() {
        let mut all = Attributes::with_room();
        all.add("a", "é");
        all.add("n", Value::Number(-1));
        all.add("empty", "");
        all.address("address", [10, 0, 0, 1].into());
        all.add("b", "two");
        let expected =
            [("a", "é".into()), ("n", Value::Number(-1)), ("empty", "".into()), ("address", "10.0.0.1".into()), ("b", "two".into())];
        assert_eq!(all.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_attempt_tells_its_own_span_and_how_it_ended() {
        let (attempts, context) = (Attempts::default(), Context::of(&http::HeaderMap::new(), || false));
        let first = attempts.begin(context, "POST", &"one".into());
        attempts.end(&first, (Instant::now(), Ending::Status(503)));
        let second = attempts.begin(context, "POST", &"two".into());
        assert_ne!(first.traceparent, second.traceparent);
        let all = attempts.take();
        assert!(first.traceparent.as_str().contains(&format!("{:016x}", all[0].span)));
        assert!(matches!(all[0].ended, Some((_, Ending::Status(503)))) && all[1].ended.is_none() && *all[1].backend == *"two");
    }
}
