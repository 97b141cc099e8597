//! Whose turn it is among the tasks of one thread, where what they do together costs less than one after another.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Answers of a thread that follow each other sooner than this come from a queue of them. Where they do not, there is
/// nobody to wait for, and going last may wake a thread that looks in vain for something to do.
const BUSY: Duration = Duration::from_micros(50);

thread_local! {
    /// When this thread answered last.
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets the tasks that are ready go first, where this thread has many. What they read in the same turn is answered together
/// then: a client that gets one answer at a time is woken for each, which costs more than to make one from memory.
pub async fn others_first(now: Instant) {
    let last = LAST.replace(Some(now));
    let mut is_turn = last.is_none_or(|last| now.saturating_duration_since(last) > BUSY);
    poll_fn(|task| {
        if is_turn {
            return Poll::Ready(());
        }
        is_turn = true;
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn who_is_ready_goes_first_where_answers_follow_each_other() {
        let order = std::sync::Mutex::new(Vec::new());
        let note = |who| order.lock().unwrap().push(who);
        let begun = Instant::now();
        let answers = |who, after| async move {
            note(who);
            others_first(begun + Duration::from_millis(after)).await;
            note(who);
        };
        futures::future::join_all([answers(1, 0), answers(2, 0), answers(3, 0), answers(4, 1)]).await;
        assert_eq!(*order.lock().unwrap(), [1, 1, 2, 3, 4, 4, 2, 3]);
    }
}
