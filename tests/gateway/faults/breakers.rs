//! The circuit breaker in the running gateway: when it opens, who notices, and how it closes.

use super::*;

/// Opens after two failures, and stays so for longer than any test.
const STAYS_OPEN: &str = "circuit_breaker: { failure_threshold: 2, recovery_timeout: 10m }\n";
/// Opens with the first failure, and soon lets somebody try.
const RECOVERS: &str = "circuit_breaker: { failure_threshold: 1, recovery_timeout: 200ms }\n";

async fn fail(gateway: &Gateway, times: usize) {
    for _ in 0..times {
        let told = ask(gateway, Lane::Rest, WRITE).await;
        assert_eq!(told.status, 502, "{told:?}");
    }
}

#[tokio::test]
async fn an_open_breaker_refuses_without_asking_and_says_so_everywhere() {
    let faulty = Faulty::start();
    let gateway = gateway(&[faulty.backend("one", "")], STAYS_OPEN).await;
    faulty.commit(Fault::ResetAfterAll);
    fail(&gateway, 1).await;
    assert_eq!(breaker(&gateway, "one").await, "closed", "below the threshold");
    fail(&gateway, 1).await;
    // Whoever is let through now would hang until the test gives up.
    faulty.commit(Fault::Hang);
    for lane in [Lane::Rest, Lane::Native] {
        for kind in [WRITE, Kind::List] {
            let told = ask(&gateway, lane, kind).await;
            assert_eq!((told.status, told.code.as_str()), (503, "circuit_open"), "{lane:?} {kind:?}");
            assert!(told.retry_after.is_some_and(|wait| (500..=600).contains(&wait)), "as long as it stays open: {told:?}");
            assert_eq!(faulty.received(&told.id), 0);
        }
    }
    assert_eq!(breaker(&gateway, "one").await, "open");
    assert_eq!(gateway.metric("circuit_breaker_state{backend=\"one\"}").await, 2);
    let told: Value = http().get(format!("{}/admin/breakers", gateway.admin)).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!((&told["breakers"][0]["backend"], &told["breakers"][0]["state"]), (&json!("one"), &json!("open")));
}

#[tokio::test]
async fn while_one_is_open_the_others_take_over_unnoticed() {
    let all: Vec<_> = (0..3).map(|_| Faulty::start()).collect();
    let backends: Vec<_> = all.iter().enumerate().map(|(i, faulty)| faulty.backend(&format!("b{i}"), "")).collect();
    let gateway = gateway(&backends, STAYS_OPEN).await;
    all[1].commit(Fault::Status(500));
    let statuses = statuses(&gateway, 30, Lane::Native, Kind::List).await;
    assert_eq!(statuses, [200; 30], "lists are asked elsewhere meanwhile");
    eventually("it opened", async || (breaker(&gateway, "b1").await == "open").then_some(())).await;
    let before = all[1].lists();
    for _ in 0..9 {
        assert_eq!(ask(&gateway, Lane::Rest, WRITE).await.status, 200);
    }
    assert_eq!((all[1].lists(), all[1].calls()), (before, 0));
    // All of them: told so at once, by whichever opens first again.
    commit_all(&all, Fault::Status(500));
    for _ in 0..20 {
        ask(&gateway, Lane::Rest, WRITE).await;
    }
    commit_all(&all, Fault::Hang);
    let told = ask(&gateway, Lane::Rest, WRITE).await;
    assert_eq!((told.status, told.code.as_str(), told.retry_after.is_some()), (503, "circuit_open", true));
}

#[tokio::test]
async fn half_open_lets_so_many_try_and_closes_when_as_many_passed() {
    let faulty = Faulty::start();
    let gateway =
        gateway(&[faulty.backend("one", "")], "circuit_breaker: { failure_threshold: 1, recovery_timeout: 200ms, probes: 2 }\n").await;
    faulty.commit(Fault::ResetAfterAll);
    fail(&gateway, 1).await;
    until_half_open(&gateway, "one").await;
    faulty.commit(Fault::Hang);
    let probes = [begin(&gateway, Lane::Rest, WRITE), begin(&gateway, Lane::Native, WRITE)];
    until_hanging(&faulty, 2).await;
    for lane in [Lane::Rest, Lane::Native] {
        let told = ask(&gateway, lane, WRITE).await;
        assert_eq!((told.status, told.code.as_str(), told.retry_after), (503, "circuit_open", Some(1)), "{lane:?}: two try already");
    }
    // Their clients leave, which says nothing and frees their places.
    probes.iter().for_each(tokio::task::JoinHandle::abort);
    until_hanging(&faulty, 0).await;
    faulty.commit(None);
    eventually("a place is free", async || (ask(&gateway, Lane::Rest, WRITE).await.status == 200).then_some(())).await;
    assert_eq!(breaker(&gateway, "one").await, "half-open", "one of two passed");
    assert_eq!(ask(&gateway, Lane::Native, WRITE).await.status, 200);
    assert_eq!(breaker(&gateway, "one").await, "closed");
    assert_eq!(openings(&gateway).await, 1);
}

#[tokio::test]
async fn a_failure_while_half_open_opens_it_again() {
    let faulty = Faulty::start();
    let gateway = gateway(&[faulty.backend("one", "")], RECOVERS).await;
    faulty.commit(Fault::ResetAfterAll);
    fail(&gateway, 1).await;
    for times in 2..4 {
        until_half_open(&gateway, "one").await;
        fail(&gateway, 1).await;
        assert_eq!(openings(&gateway).await, times);
    }
    faulty.commit(None);
    until_half_open(&gateway, "one").await;
    assert_eq!(ask(&gateway, Lane::Native, Kind::List).await.status, 200, "one probe is enough");
    assert_eq!(breaker(&gateway, "one").await, "closed");
}

#[tokio::test]
async fn a_probe_that_streams_for_long_keeps_nobody_out() {
    let faulty = Faulty::start();
    let gateway = gateway(&[faulty.backend("one", "")], RECOVERS).await;
    faulty.commit(Fault::ResetAfterAll);
    fail(&gateway, 1).await;
    until_half_open(&gateway, "one").await;
    faulty.commit(Fault::OpenStream);
    let response = request(&gateway.url, Lane::Native, WRITE).send().await.expect("an answer");
    assert_eq!(response.status(), 200);
    faulty.commit(None);
    eventually("others pass", async || (ask(&gateway, Lane::Rest, WRITE).await.status == 200).then_some(())).await;
    drop(response);
}

#[tokio::test]
async fn the_breaker_of_one_tool_leaves_the_others_alone() {
    let faulty = Faulty::start();
    let more = "circuit_breaker: { failure_threshold: 3, recovery_timeout: 10m, tools: [ { server: stub, tool: \"wri*\", failure_threshold: 2, recovery_timeout: 200ms } ] }\n";
    let gateway = gateway(&[faulty.backend("one", "")], more).await;
    faulty.commit_for("write", Fault::Status(500));
    fail(&gateway, 2).await;
    let told = ask(&gateway, Lane::Native, WRITE).await;
    assert_eq!((told.status, told.code.as_str()), (503, "circuit_open"));
    let told: Value = http().get(format!("{}/admin/breakers", gateway.admin)).send().await.expect("an answer").json().await.expect("JSON");
    assert_eq!(told["breakers"][0]["tools"][0]["tool"], "write", "{told}");
    // However often its probes fail, the tool is all that is left alone.
    for _ in 0..4 {
        eventually("it is tried again", async || (ask(&gateway, Lane::Rest, WRITE).await.code != "circuit_open").then_some(())).await;
    }
    assert_eq!(breaker(&gateway, "one").await, "closed");
    for lane in [Lane::Rest, Lane::Native] {
        assert_eq!(ask(&gateway, lane, Kind::Call("read")).await.status, 200);
        assert_eq!(ask(&gateway, lane, Kind::List).await.status, 200);
    }
    faulty.commit(None);
    eventually("it recovers", async || (ask(&gateway, Lane::Rest, WRITE).await.status == 200).then_some(())).await;
    // A backend that cannot be reached at all is another matter.
    faulty.refuse().await;
    for _ in 0..4 {
        eventually("it is tried", async || {
            (ask(&gateway, Lane::Rest, WRITE).await.code != "circuit_open" || breaker(&gateway, "one").await == "open").then_some(())
        })
        .await;
    }
    assert_eq!(breaker(&gateway, "one").await, "open");
}

#[tokio::test]
async fn an_open_breaker_survives_a_reload_and_a_switched_off_one_is_closed() {
    let faulty = Faulty::start();
    let entry = [faulty.backend("one", "")];
    let gateway = gateway(&entry, STAYS_OPEN).await;
    faulty.commit(Fault::ResetAfterAll);
    fail(&gateway, 2).await;
    faulty.commit(None);
    gateway.load(&yaml("request_timeout: 7s", &entry, STAYS_OPEN)).await;
    assert_eq!(ask(&gateway, Lane::Rest, WRITE).await.code, "circuit_open");
    gateway.load(&yaml("", &entry, "circuit_breaker: { enabled: false }\n")).await;
    assert_eq!(ask(&gateway, Lane::Rest, WRITE).await.status, 200);
    assert_eq!(breaker(&gateway, "one").await, "closed", "nothing is left alone any more");
    assert_eq!(gateway.metric("circuit_breaker_state{backend=\"one\"}").await, 0);
}

#[tokio::test]
async fn a_share_of_failures_opens_it_also_when_never_many_in_a_row() {
    let faulty = Faulty::start();
    let more = "circuit_breaker: { failure_threshold: 1000, failure_rate: 50%, min_requests: 10, window: 10m, recovery_timeout: 10m }\n";
    let gateway = gateway(&[faulty.backend("one", "")], more).await;
    for i in 0..9 {
        faulty.commit((i % 2 == 0).then_some(Fault::Status(500)));
        ask(&gateway, Lane::Rest, WRITE).await;
    }
    assert_eq!(breaker(&gateway, "one").await, "closed", "too few to say");
    faulty.burst(1, Fault::Status(500));
    ask(&gateway, Lane::Native, WRITE).await;
    assert_eq!(breaker(&gateway, "one").await, "open");
}

#[tokio::test]
async fn a_backend_that_was_down_and_is_back_is_tried_at_once() {
    let faulty = Faulty::start();
    let soon = ", health_check: {path: /health, interval: 50ms}";
    let balancer = "load_balancer: { unhealthy_threshold: 1, healthy_threshold: 1, outlier: { consecutive_failures: 2, ejection: 10m, max_ejected: 100% } }\n";
    let gateway = gateway(&[faulty.backend("one", soon)], &format!("{STAYS_OPEN}{balancer}")).await;
    faulty.commit(Fault::ResetAfterAll);
    fail(&gateway, 2).await;
    assert_eq!(ask(&gateway, Lane::Rest, WRITE).await.status, 503);
    faulty.sicken(true);
    is_up(&gateway, "one", false).await;
    faulty.commit(None);
    faulty.sicken(false);
    is_up(&gateway, "one", true).await;
    assert_eq!(ask(&gateway, Lane::Rest, WRITE).await.status, 200, "not only when its ten minutes are over");
    assert_eq!(breaker(&gateway, "one").await, "closed");
}
