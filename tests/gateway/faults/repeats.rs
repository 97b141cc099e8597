//! What is tried again, where, and how often.

use super::*;

const NO_BREAKER: &str = "circuit_breaker: { enabled: false }\n";

#[tokio::test]
async fn only_what_the_configuration_says_is_asked_twice() {
    for (repeat, twice) in
        [("never", &[][..]), ("reads", &[Kind::List]), ("annotated", &[Kind::List, Kind::Call("read"), Kind::Call("put")])]
    {
        let (one, two) = (Faulty::start(), Faulty::start());
        let retries = format!("{NO_BREAKER}load_balancer: {{ retries: {{ repeat: {repeat}, budget: 100% }} }}\n");
        let gateway = gateway(&[one.backend("one", ""), two.backend("two", "")], &retries).await;
        for lane in [Lane::Rest, Lane::Native] {
            for kind in [Kind::List, Kind::Call("read"), Kind::Call("put"), WRITE] {
                for fault in [Fault::ResetAfterAll, Fault::Status(500)] {
                    one.commit(fault);
                    two.commit(fault);
                    let told = ask(&gateway, lane, kind).await;
                    let received = (one.received(&told.id), two.received(&told.id));
                    let expected = if twice.contains(&kind) { 2 } else { 1 };
                    assert_eq!(received.0 + received.1, expected, "{repeat} {lane:?} {kind:?} {fault:?}");
                    assert!(received.0 <= 1 && received.1 <= 1, "at another backend: {received:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn no_more_backends_are_asked_than_the_most() {
    let all: Vec<_> = (0..4).map(|_| Faulty::start()).collect();
    let backends: Vec<_> = all.iter().enumerate().map(|(i, faulty)| faulty.backend(&format!("b{i}"), "")).collect();
    let gateway = gateway(&backends, &format!("{NO_BREAKER}load_balancer: {{ retries: {{ max: 2 }} }}\n")).await;
    commit_all(&all, Fault::Status(500));
    let told = ask(&gateway, Lane::Rest, Kind::List).await;
    assert_eq!(all.iter().map(|faulty| faulty.received(&told.id)).sum::<usize>(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_fail_retries_add_a_fifth_and_a_reserve_of_ten() {
    let all: Vec<_> = (0..3).map(|_| Faulty::start()).collect();
    let backends: Vec<_> = all.iter().enumerate().map(|(i, faulty)| faulty.backend(&format!("b{i}"), "")).collect();
    let gateway = gateway(&backends, NO_BREAKER).await;
    commit_all(&all, Fault::ResetAfterAll);
    let began = std::time::Instant::now();
    for _ in 0..10 {
        let statuses = statuses(&gateway, 50, Lane::Rest, Kind::List).await;
        assert!(statuses.iter().all(|status| *status == 502), "{statuses:?}");
    }
    let received: usize = all.iter().map(Faulty::lists).sum();
    let most = 500 + 100 + 10 + usize::try_from(began.elapsed().as_secs() + 1).expect("few");
    assert!((600..=most).contains(&received), "{received} of at most {most}");
    assert!(gateway.metric("backend_retries_total{kind=\"over_budget\"}").await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_meets_a_backend_that_refuses_connections_is_served_by_the_other() {
    let (gone, here) = (Faulty::start(), Faulty::start());
    // The worst case: nothing but trying tells that it is gone.
    let gateway = gateway(&[gone.backend("gone", ""), here.backend("here", "")], NO_BREAKER).await;
    gone.refuse().await;
    let statuses = statuses(&gateway, 100, Lane::Rest, WRITE).await;
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(served, 100, "nothing was sent, so nothing is added to anybody's load: {statuses:?}");
    assert_eq!(here.calls(), 100);
}

#[tokio::test]
async fn an_attempt_is_cut_short_only_where_another_may_follow() {
    let (slow, quick) = (Faulty::start(), Faulty::start());
    let more = "load_balancer: { strategy: consistent_hash, hash_by: \"header:X-Steer\", retries: { per_try: 300ms } }\n";
    let gateway = gateway(&[slow.backend("slow", ", timeout: 600"), quick.backend("quick", "")], more).await;
    slow.work(10, std::time::Duration::from_millis(900));
    for lane in [Lane::Rest, Lane::Native] {
        let mut met = 0;
        for caller in 0..20 {
            let told = send(request(&gateway.url, lane, Kind::List).header("x-steer", caller)).await;
            assert_eq!(told.status, 200, "a list goes on to the other");
            if slow.received(&told.id) == 1 {
                assert_eq!(quick.received(&told.id), 1);
                let told = send(request(&gateway.url, lane, WRITE).header("x-steer", caller)).await;
                assert_eq!(
                    (told.status, slow.received(&told.id)),
                    (200, 1),
                    "{lane:?}: a call has nowhere else to go and may take its time"
                );
                met += 1;
                break;
            }
        }
        assert_eq!(met, 1);
    }
}

#[tokio::test]
async fn who_waits_for_a_place_takes_the_first_that_is_free_anywhere() {
    let (stuck, works) = (Faulty::start(), Faulty::start());
    let more = "load_balancer: { queue: { length: 100, wait: 3s } }\n";
    let gateway = gateway(&[stuck.backend("stuck", ", max_in_flight: 1"), works.backend("works", ", max_in_flight: 1")], more).await;
    stuck.commit(Fault::Hang);
    works.work(1, std::time::Duration::from_millis(50));
    let mut held = Vec::new();
    while stuck.hanging() == 0 {
        held.push(begin(&gateway, Lane::Rest, WRITE));
        tokio::task::yield_now().await;
        eventually("it is under way or done", async || {
            (stuck.hanging() == 1 || held.iter().all(tokio::task::JoinHandle::is_finished)).then_some(())
        })
        .await;
    }
    let statuses = statuses(&gateway, 8, Lane::Rest, WRITE).await;
    assert_eq!(statuses, [200; 8], "one backend is stuck and the other is not");
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_call_whose_session_cannot_be_opened_was_not_sent_and_goes_elsewhere() {
    let (fails, opens) = (Faulty::start(), Faulty::start());
    let legacy = ", protocol: mcp, era: legacy";
    // Somebody with sessions of their own: those the gateway learned the tools by are open already.
    let hash = mcp_gateway::digest::hex(&mcp_gateway::digest::sha256(b"k"));
    let auth = format!("auth:\n  required: false\n  api_keys:\n    keys: [ {{ id: k, hash: \"sha256:{hash}\" }} ]\n");
    let gateway = gateway(&[fails.backend("fails", legacy), opens.backend("opens", legacy)], &format!("{NO_BREAKER}{auth}")).await;
    fails.commit(Fault::NoSession);
    for _ in 0..4 {
        let told = send(request(&gateway.url, Lane::Rest, WRITE).header("x-api-key", "k")).await;
        assert_eq!((told.status, fails.received(&told.id), opens.received(&told.id)), (200, 0, 1));
    }
    assert_eq!(gateway.metric("backend_retries_total{kind=\"unsent\"}").await, 2);
}
