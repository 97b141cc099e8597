//! Whose turn it is among the tasks of one thread, where what they do together costs less than one after another.

use std::future::poll_fn;
use std::task::Poll;

/// Lets the tasks that are ready go first. What they read in the same turn is answered together then: a client that gets one
/// answer at a time is woken for each, which costs more than to make one from memory.
pub async fn others_first() {
    let mut is_behind = false;
    poll_fn(|task| {
        if is_behind {
            return Poll::Ready(());
        }
        is_behind = true;
        task.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn who_is_ready_goes_first_and_nobody_waits_for_more_than_that() {
        let order = std::sync::Mutex::new(Vec::new());
        let note = |who| order.lock().unwrap().push(who);
        let answers = |who| async move {
            note(who);
            others_first().await;
            note(who);
        };
        futures::future::join_all([answers(1), answers(2)]).await;
        assert_eq!(*order.lock().unwrap(), [1, 2, 1, 2]);
    }
}
