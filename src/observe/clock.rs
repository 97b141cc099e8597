//! Where the time of a request goes: it is in one stage after another, so that together they are all of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a request is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Being judged: who, where to, may they, how often.
    Admit,
    /// The caller, who sends its body.
    Body,
    /// A place, among what is under way in all or at a backend.
    Queue,
    /// The cache, and whoever asks the same.
    Cache,
    /// Backends, until an answer begins; over REST until it is there.
    Upstream,
    /// The answer being written, and what of it still comes.
    Answer,
}

/// How many stages there are.
const STAGES: usize = 6;

/// The clock of a request.
#[derive(Debug)]
pub struct Clock(Mutex<Course>);

/// What it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    stage: Stage,
    since: Instant,
    spent: [Duration; STAGES],
    /// Opening connections to backends; `None`: there were some already.
    pub connect: Option<Duration>,
    /// Requests to backends.
    pub attempts: u32,
}

impl Clock {
    /// Starts with the first stage.
    pub fn start(at: Instant) -> Self {
        let spent = [Duration::ZERO; STAGES];
        Self(Mutex::new(Course { stage: Stage::Admit, since: at, spent, connect: None, attempts: 0 }))
    }

    /// The next stage begins, whatever was before; when that is.
    pub fn enter(&self, stage: Stage) -> Instant {
        let now = Instant::now();
        self.enter_at(stage, now);
        now
    }

    /// The next stage begins at a moment that is now.
    pub fn enter_at(&self, stage: Stage, now: Instant) {
        let mut course = self.course();
        course.turn(now);
        course.stage = stage;
    }

    /// The time until `waited` is there is spent in a queue, and what comes then on backends.
    pub async fn queued<T>(clock: Option<&Self>, waited: impl Future<Output = T>) -> T {
        let enter = |stage| clock.iter().for_each(|clock| _ = clock.enter(stage));
        enter(Stage::Queue);
        let done = waited.await;
        enter(Stage::Upstream);
        done
    }

    /// Notes a request to a backend, and what connecting took if that was needed.
    pub fn asked(&self, connect: Option<Duration>) {
        let mut course = self.course();
        course.attempts += 1;
        course.connect = connect.map(|more| course.connect.unwrap_or_default() + more).or(course.connect);
    }

    /// What it was until now.
    pub fn read(&self) -> Course {
        let mut course = self.course();
        course.turn(Instant::now());
        *course
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Course {
    fn turn(&mut self, now: Instant) {
        self.spent[self.stage as usize] += now.saturating_duration_since(self.since);
        self.since = now;
    }

    /// The time in one stage; `None` if it was never in it.
    pub fn spent(&self, stage: Stage) -> Option<Duration> {
        Some(self.spent[stage as usize]).filter(|spent| !spent.is_zero())
    }

    /// The time in all.
    pub fn whole(&self) -> Duration {
        self.spent.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_all_of_the_time_and_each_its_own() {
        let mut course = *Clock::start(Instant::now()).course();
        let at = |ms| course.since + Duration::from_millis(ms);
        let (first, second, third) = (at(5), at(25), at(30));
        course.turn(first);
        course.stage = Stage::Upstream;
        course.turn(second);
        course.stage = Stage::Admit;
        course.turn(third);
        let ms = |stage| course.spent(stage).map(|spent| spent.as_millis());
        assert_eq!((ms(Stage::Admit), ms(Stage::Upstream), ms(Stage::Queue)), (Some(10), Some(20), None));
        assert_eq!(course.whole().as_millis(), 30);
    }

    #[test]
    fn connecting_adds_up_where_it_was_needed() {
        let clock = Clock::start(Instant::now());
        clock.asked(None);
        assert_eq!((clock.read().connect, clock.read().attempts), (None, 1));
        clock.asked(Some(Duration::from_millis(2)));
        clock.asked(None);
        clock.asked(Some(Duration::from_millis(3)));
        assert_eq!((clock.read().connect, clock.read().attempts), (Some(Duration::from_millis(5)), 4));
    }
}
