//! Who is asked, and who is left out.

use super::*;

use std::time::Duration;

const NO_BREAKER: &str = "circuit_breaker: { enabled: false }\n";

async fn crowd(count: usize, mores: &[&str], balancer: &str) -> (Vec<Faulty>, Gateway) {
    let all: Vec<_> = (0..count).map(|_| Faulty::start()).collect();
    let more = |i: usize| mores.get(i).copied().unwrap_or_default();
    let backends: Vec<_> = all.iter().enumerate().map(|(i, faulty)| faulty.backend(&format!("b{i}"), more(i))).collect();
    let gateway = gateway(&backends, &format!("{NO_BREAKER}load_balancer: {{ {balancer} }}\n")).await;
    (all, gateway)
}

/// How many of `count` calls, one after the other, each is given.
async fn shares(all: &[Faulty], gateway: &Gateway, count: usize) -> Vec<usize> {
    let before: Vec<_> = all.iter().map(Faulty::calls).collect();
    for _ in 0..count {
        ask(gateway, Lane::Native, WRITE).await;
    }
    all.iter().zip(before).map(|(faulty, before)| faulty.calls() - before).collect()
}

#[tokio::test]
async fn who_fails_is_ejected_after_the_threshold_but_never_too_many() {
    let outlier = "outlier: { consecutive_failures: 3, ejection: 10m, max_ejected: 50% }";
    let (all, gateway) = crowd(3, &[], outlier).await;
    all[0].commit(Fault::Status(500));
    assert_eq!(shares(&all, &gateway, 9).await, [3, 3, 3]);
    assert_eq!(shares(&all, &gateway, 10).await, [0, 5, 5], "it failed three times");
    all[1].commit(Fault::Status(500));
    shares(&all, &gateway, 8).await;
    let shares = shares(&all, &gateway, 10).await;
    assert_eq!((shares[0], shares[1]), (0, 5), "half of three is one: {shares:?}");
    let told: Value = http().get(format!("{}/admin/breakers", gateway.admin)).send().await.expect("an answer").json().await.expect("JSON");
    assert!(told["breakers"][0]["ejected_for"].as_f64().is_some(), "{told}");
}

#[tokio::test]
async fn the_last_that_lives_is_never_ejected() {
    let outlier = "unhealthy_threshold: 1, outlier: { consecutive_failures: 2, ejection: 10m, max_ejected: 50% }";
    let soon = ", health_check: {path: /health, interval: 50ms}";
    let (all, gateway) = crowd(2, &[soon, soon], outlier).await;
    all[0].sicken(true);
    is_up(&gateway, "b0", false).await;
    all[1].burst(2, Fault::Status(500));
    for _ in 0..2 {
        assert_eq!(ask(&gateway, Lane::Native, WRITE).await.status, 500);
    }
    assert_eq!(ask(&gateway, Lane::Native, WRITE).await.status, 200, "half of those that live is none");
}

#[tokio::test]
async fn an_ejection_ends_by_itself() {
    let (all, gateway) = crowd(2, &[], "outlier: { consecutive_failures: 2, ejection: 300ms }").await;
    all[0].burst(2, Fault::ResetAfterAll);
    shares(&all, &gateway, 4).await;
    assert_eq!(shares(&all, &gateway, 1).await, [0, 1]);
    eventually("it is asked again", async || (shares(&all, &gateway, 2).await[0] == 1).then_some(())).await;
}

#[tokio::test]
async fn who_comes_back_starts_slowly() {
    const SLOW: Duration = Duration::from_secs(4);
    let soon = ", health_check: {path: /health, interval: 50ms}";
    let slow = format!("unhealthy_threshold: 1, healthy_threshold: 1, slow_start: {}s", SLOW.as_secs());
    let (all, gateway) = crowd(2, &[soon, soon], &slow).await;
    all[1].sicken(true);
    is_up(&gateway, "b1", false).await;
    // The first must have had its own start behind it; time is what is tested.
    tokio::time::sleep(SLOW).await;
    all[1].sicken(false);
    is_up(&gateway, "b1", true).await;
    let calls = all[1].calls();
    let before = all[0].calls();
    assert_eq!(statuses(&gateway, 60, Lane::Native, WRITE).await, [200; 60]);
    let shares = [all[0].calls() - before, all[1].calls() - calls];
    assert!(shares[1] >= 1 && shares[0] >= 2 * shares[1], "{shares:?}");
}

#[tokio::test]
async fn the_own_zone_is_preferred_and_spills_over_in_proportion() {
    let soon = |zone: &str| format!(", zone: {zone}, health_check: {{path: /health, interval: 50ms}}");
    let (near, far) = (soon("here"), soon("there"));
    let (all, gateway) = crowd(3, &[&near, &near, &far], "unhealthy_threshold: 1, zone: here, spill_below: 70%").await;
    assert_eq!(shares(&all, &gateway, 20).await, [10, 10, 0]);
    all[0].sicken(true);
    is_up(&gateway, "b0", false).await;
    let spilled = shares(&all, &gateway, 200).await;
    assert!(spilled[0] == 0 && spilled[2] > 0 && spilled[2] < spilled[1], "half of the zone lives, 70 % are wished: {spilled:?}");
    all[1].sicken(true);
    is_up(&gateway, "b1", false).await;
    assert_eq!(shares(&all, &gateway, 10).await, [0, 0, 10]);
}

#[tokio::test]
async fn an_own_zone_that_is_only_left_alone_is_left_as_well() {
    let all = [Faulty::start(), Faulty::start()];
    let backends = [all[0].backend("near", ", zone: here"), all[1].backend("far", ", zone: there")];
    let more = "load_balancer: { zone: here }\ncircuit_breaker: { failure_threshold: 1, recovery_timeout: 10m }\n";
    let gateway = gateway(&backends, more).await;
    all[0].commit(Fault::Status(500));
    assert_eq!(ask(&gateway, Lane::Native, WRITE).await.status, 500);
    assert_eq!(shares(&all, &gateway, 5).await, [0, 5]);
}

#[tokio::test]
async fn the_same_caller_meets_the_same_backend_and_only_the_callers_of_the_dead_move() {
    let soon = ", health_check: {path: /health, interval: 50ms}";
    let (all, gateway) =
        crowd(3, &[soon, soon, soon], "unhealthy_threshold: 1, strategy: consistent_hash, hash_by: \"header:X-Caller\"").await;
    let homes = async || {
        let mut homes = Vec::new();
        for caller in 0..30 {
            let told = send(request(&gateway.url, Lane::Native, WRITE).header("x-caller", caller)).await;
            homes.push(all.iter().position(|faulty| faulty.received(&told.id) == 1).expect("somebody"));
        }
        homes
    };
    let before = homes().await;
    assert!((0..3).all(|i| before.contains(&i)), "spread over all: {before:?}");
    assert_eq!(homes().await, before);
    all[1].sicken(true);
    is_up(&gateway, "b1", false).await;
    for (before, after) in before.iter().zip(homes().await) {
        assert!(if *before == 1 { after != 1 } else { after == *before }, "{before} {after}");
    }
}

#[tokio::test]
async fn a_caller_is_also_known_by_who_it_is() {
    let all: Vec<_> = (0..3).map(|_| Faulty::start()).collect();
    let backends: Vec<_> = all.iter().enumerate().map(|(i, faulty)| faulty.backend(&format!("b{i}"), "")).collect();
    let hash = |secret: &str| mcp_gateway::digest::hex(&mcp_gateway::digest::sha256(secret.as_bytes()));
    let keys: Vec<_> = (0..20).map(|i| format!("      - {{ id: k{i}, hash: \"sha256:{}\" }}\n", hash(&i.to_string()))).collect();
    let auth = format!("auth:\n  required: false\n  api_keys:\n    keys:\n{}", keys.concat());
    let gateway = gateway(&backends, &format!("load_balancer: {{ strategy: consistent_hash, hash_by: subject }}\n{auth}")).await;
    let mut seen = std::collections::HashSet::new();
    for key in 0..20 {
        let before: Vec<_> = all.iter().map(Faulty::calls).collect();
        for _ in 0..3 {
            assert_eq!(send(request(&gateway.url, Lane::Rest, WRITE).header("x-api-key", key)).await.status, 200);
        }
        let home = all.iter().zip(before).position(|(faulty, before)| faulty.calls() == before + 3);
        seen.insert(home.expect("all three at one"));
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn the_less_busy_is_asked_while_the_other_is_held_up() {
    let (all, gateway) = crowd(2, &[], "strategy: least_requests").await;
    all[0].commit(Fault::Hang);
    let mut held = Vec::new();
    while all[0].hanging() == 0 {
        held.push(begin(&gateway, Lane::Native, WRITE));
        let settled = || all[0].hanging() == 1 || held.iter().all(tokio::task::JoinHandle::is_finished);
        eventually("it hangs or is done", async || settled().then_some(())).await;
    }
    assert_eq!(shares(&all, &gateway, 20).await, [0, 20]);
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn when_too_few_are_healthy_health_is_not_believed() {
    let soon = ", health_check: {path: /health, interval: 50ms}";
    for (threshold, expected) in [("60%", 200), ("0%", 503)] {
        let (all, gateway) = crowd(2, &[soon, soon], &format!("unhealthy_threshold: 1, panic_threshold: {threshold}")).await;
        for (i, faulty) in all.iter().enumerate() {
            faulty.sicken(true);
            is_up(&gateway, &format!("b{i}"), false).await;
        }
        for lane in [Lane::Rest, Lane::Native] {
            assert_eq!(ask(&gateway, lane, WRITE).await.status, expected, "{threshold} {lane:?}");
        }
    }
}

#[tokio::test]
async fn nobody_is_asked_then_who_never_was_healthy() {
    let faulty = Faulty::start();
    faulty.sicken(true);
    let backend = faulty.backend("b0", ", health_check: {path: /health, interval: 50ms}");
    let balancer = "load_balancer: { unhealthy_threshold: 1, panic_threshold: 100% }\n";
    let gateway = Gateway::start_unready(&super::yaml("", &[backend], &format!("{NO_BREAKER}{balancer}"))).await;
    assert_eq!((ask(&gateway, Lane::Native, WRITE).await.status, faulty.calls()), (503, 0));
    for (up, answered) in [(true, 1), (false, 2)] {
        faulty.sicken(!up);
        is_up(&gateway, "b0", up).await;
        assert_eq!((ask(&gateway, Lane::Native, WRITE).await.status, faulty.calls()), (200, answered), "{up}");
    }
}
