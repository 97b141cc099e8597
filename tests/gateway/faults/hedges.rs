//! Asking a second backend while the first takes its time.

use super::*;

use std::time::Duration;

async fn pair(balancer: &str) -> (Faulty, Faulty, Gateway) {
    let (one, two) = (Faulty::start(), Faulty::start());
    let more = format!("load_balancer: {{ {balancer} }}\ncircuit_breaker: {{ enabled: false }}\n");
    let gateway = gateway(&[one.backend("one", ", timeout: 600"), two.backend("two", ", timeout: 600")], &more).await;
    (one, two, gateway)
}

#[tokio::test]
async fn the_second_answers_while_the_first_hangs_and_the_first_is_let_go() {
    let (hangs, answers, gateway) = pair("hedge: { after: 50ms }, retries: { repeat: annotated }").await;
    hangs.commit(Fault::Hang);
    let mut hedged = 0;
    for lane in [Lane::Rest, Lane::Native] {
        for kind in [Kind::List, Kind::List, Kind::Call("read"), Kind::Call("read")] {
            let told = ask(&gateway, lane, kind).await;
            assert_eq!((told.status, answers.received(&told.id)), (200, 1), "{lane:?} {kind:?}");
            hedged += hangs.received(&told.id);
            until_hanging(&hangs, 0).await;
        }
    }
    assert!(hedged >= 3, "every other one at least met the one that hangs: {hedged}");
    assert_eq!(gateway.metric("backend_retries_total{kind=\"hedge\"}").await, u64::try_from(hedged).expect("few"));
}

#[tokio::test]
async fn a_call_that_must_not_run_twice_is_never_hedged() {
    let (one, two, gateway) = pair("hedge: { after: 20ms }, retries: { repeat: annotated }").await;
    for faulty in [&one, &two] {
        faulty.work(10, Duration::from_millis(300));
    }
    for lane in [Lane::Rest, Lane::Native] {
        let told = ask(&gateway, lane, WRITE).await;
        assert_eq!((told.status, one.received(&told.id) + two.received(&told.id)), (200, 1), "{lane:?}");
        let told = ask(&gateway, lane, Kind::Call("put")).await;
        assert_eq!((told.status, one.received(&told.id) + two.received(&told.id)), (200, 2), "{lane:?}: this one may");
    }
}

#[tokio::test]
async fn who_fails_with_nobody_left_to_ask_is_told_at_once() {
    let faulty = Faulty::start();
    let gateway = gateway(&[faulty.backend("one", "")], "load_balancer: { hedge: { after: 10m } }\n").await;
    faulty.commit(Fault::ResetAfterAll);
    for lane in [Lane::Rest, Lane::Native] {
        assert_eq!(ask(&gateway, lane, Kind::List).await.status, 502, "{lane:?}");
    }
}

#[tokio::test]
async fn a_hedge_that_finds_no_place_does_not_hold_up_the_first() {
    let (slow, full) = (Faulty::start(), Faulty::start());
    let more = "load_balancer: { hedge: { after: 50ms }, queue: { length: 10, wait: 10m } }\n";
    let gateway = gateway(&[slow.backend("slow", ""), full.backend("full", ", max_in_flight: 1, timeout: 600")], more).await;
    full.commit(Fault::Hang);
    let mut held = Vec::new();
    while full.hanging() == 0 {
        held.push(begin(&gateway, Lane::Native, WRITE));
        let settled = || full.hanging() == 1 || held.iter().all(tokio::task::JoinHandle::is_finished);
        eventually("it hangs or is done", async || settled().then_some(())).await;
    }
    slow.work(10, Duration::from_millis(300));
    for lane in [Lane::Rest, Lane::Native] {
        let told = ask(&gateway, lane, Kind::List).await;
        assert_eq!((told.status, slow.received(&told.id)), (200, 1), "{lane:?}");
    }
    assert_eq!(full.hanging(), 1, "it was full all the time");
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_failure_of_one_does_not_end_what_another_is_still_answering() {
    let (fails, slow, gateway) = pair("strategy: consistent_hash, hash_by: \"header:X-Steer\", hedge: { after: 50ms }").await;
    slow.work(10, Duration::from_millis(600));
    for caller in 0.. {
        let told = send(request(&gateway.url, Lane::Rest, WRITE).header("x-steer", caller)).await;
        if fails.received(&told.id) == 1 {
            // Late enough to be hedged, and then in words that are no answer.
            fails.commit(Fault::LateStatus(404));
            let told = send(request(&gateway.url, Lane::Rest, Kind::List).header("x-steer", caller)).await;
            assert_eq!((told.status, fails.received(&told.id), slow.received(&told.id)), (200, 1, 1));
            return;
        }
    }
}
