//! Three gateways and one real Redis.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::support::gateway::{Gateway, server};
use crate::support::redis::Redis;
use crate::support::stub::Stub;
use crate::support::{eventually, http};

use super::call;

const RATE: f64 = 50.0;
const BURST: f64 = 40.0;

/// How long the limit is watched; `LIMIT_SECONDS=60` for the figures of the documentation.
fn watched() -> Duration {
    Duration::from_secs(std::env::var("LIMIT_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(6))
}

async fn replicas(stub: &Stub, redis: &Redis) -> Vec<Gateway> {
    let limits = format!("rate_limits:\n  store: redis\n  rules: [ {{ name: all, rate: {RATE}/s, burst: {BURST} }} ]\n");
    let server = server("  session_secret: 0123456789abcdef\n");
    let yaml = format!("{server}{}backends:\n{}{limits}", redis.section(), stub.backend("one", ""));
    join_all((0..3).map(|_| Gateway::start(&yaml))).await
}

/// What came of a load.
#[derive(Default)]
struct Seen {
    admitted: AtomicUsize,
    refused: AtomicUsize,
    failed: AtomicUsize,
}

impl Seen {
    fn count(&self, status: u16) {
        let counter = match status {
            200 => &self.admitted,
            429 => &self.refused,
            _ => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Sends three times the limit, spread over the gateways, until `until`; returns when all are answered.
async fn load(gateways: &[Gateway], seen: &Seen, until: Instant) {
    let client = http();
    let caller = async |gateway: &Gateway| {
        let mut pace = tokio::time::interval(Duration::from_secs_f64(4.0 / RATE));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        while Instant::now() < until {
            pace.tick().await;
            let answer = client.post(gateway.at("/api/mcp/stub")).json(&call()).send().await;
            seen.count(answer.map_or(0, |response| response.status().as_u16()));
        }
    };
    join_all(gateways.iter().flat_map(|gateway| (0..4).map(move |_| gateway)).map(caller)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_gateways_admit_what_one_would() {
    let (stub, redis) = (Stub::start().await, Redis::start().await);
    let gateways = replicas(&stub, &redis).await;
    let seen = Seen::default();
    let begun = Instant::now();
    load(&gateways, &seen, begun + watched()).await;
    let expected = RATE.mul_add(begun.elapsed().as_secs_f64(), BURST);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let admitted = seen.admitted.load(Ordering::Relaxed) as f64;
    println!("admitted {admitted} of {expected:.0} allowed, {} refused", seen.refused.load(Ordering::Relaxed));
    assert_eq!(seen.failed(), 0);
    assert!(seen.refused.load(Ordering::Relaxed) > 0, "more was asked for than allowed");
    assert!(admitted <= expected * 1.01, "{admitted} of {expected}");
    assert!(admitted >= expected * 0.98 - 3.0, "{admitted} of {expected}: at most what each may still hold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_or_hangs_fails_nobody_and_is_shared_again_when_it_is_back() {
    let (stub, mut redis) = (Stub::start().await, Redis::start().await);
    let gateways = replicas(&stub, &redis).await;
    let seen = Seen::default();
    let store_up = async |up: u64| {
        for gateway in &gateways {
            eventually("the metric tells", async || (gateway.metric("rate_limit_store_up").await == up).then_some(())).await;
        }
    };
    let (done, finish) = tokio::sync::oneshot::channel::<()>();
    let loading = async {
        let mut finish = finish;
        while finish.try_recv().is_err() {
            load(&gateways, &seen, Instant::now() + Duration::from_millis(300)).await;
        }
    };
    let disturbing = async {
        store_up(1).await;
        redis.stop().await;
        store_up(0).await;
        redis.resume().await;
        store_up(1).await;
        redis.hang();
        store_up(0).await;
        redis.wake();
        store_up(1).await;
        done.send(()).expect("somebody listens");
    };
    futures::join!(loading, disturbing);
    assert_eq!(seen.failed(), 0, "{} admitted", seen.admitted.load(Ordering::Relaxed));
    let fallbacks = gateways[0].metric("rate_limit_fallbacks_total{by=\"local\"}").await;
    assert!(fallbacks > 0);
    // Shared again: together they admit what one would, from an empty bucket on.
    let seen = Seen::default();
    let begun = Instant::now();
    load(&gateways, &seen, begun + Duration::from_secs(2)).await;
    let most = RATE.mul_add(begun.elapsed().as_secs_f64(), BURST) + 1.0;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let admitted = seen.admitted.load(Ordering::Relaxed) as f64;
    assert!(admitted <= most, "{admitted} of {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_one_request_finds_out_whether_redis_answers_again_others_do_not_wait() {
    let (stub, redis) = (Stub::start().await, Redis::start().await);
    let limits = "rate_limits:\n  store: redis\n  rules: [ { name: all, rate: 1000000/s } ]\n";
    let yaml = |timeout: &str| format!("{}{}backends:\n{}{limits}", server(""), redis.waited_for(timeout), stub.backend("one", ""));
    let gateway = Gateway::start(&yaml("10ms")).await;
    redis.hang();
    eventually("it is known to be away", async || {
        gateway.rest("stub", call()).await;
        (gateway.metric("rate_limit_store_up").await == 0).then_some(())
    })
    .await;
    // From now on whoever asks waits for long; the counts stay, as the others show.
    gateway.load(&yaml("5s")).await;
    let url = gateway.at("/api/mcp/stub");
    let ask = || tokio::spawn(http().post(&url).json(&call()).send());
    let mut asking = ask();
    eventually("somebody asks Redis", async || {
        let waits = tokio::time::timeout(Duration::from_millis(200), &mut asking).await.is_err();
        if !waits {
            asking = ask();
        }
        waits.then_some(())
    })
    .await;
    for _ in 0..3 {
        assert_eq!(gateway.rest("stub", call()).await.0, 200);
    }
    assert!(!asking.is_finished(), "they were answered before it was");
    assert_eq!(asking.await.expect("no panic").expect("an answer").status(), 200);
}

#[tokio::test]
async fn without_the_store_what_the_operator_chose_is_done() {
    let stub = Stub::start().await;
    for (choice, statuses) in [("local", [200, 429]), ("allow", [200, 200]), ("deny", [503, 503])] {
        // Nobody listens there.
        let nowhere = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let limits = format!("rate_limits:\n  store: redis\n  on_store_failure: {choice}\n  rules: [ {{ rate: 1/hour }} ]\n");
        let yaml = format!("{}redis: {{ url: \"redis://{nowhere}\" }}\nbackends:\n{}{limits}", server(""), stub.backend("one", ""));
        let gateway = Gateway::start(&yaml).await;
        let mut told = Vec::new();
        for _ in 0..2 {
            told.push(gateway.rest("stub", call()).await.0);
        }
        assert_eq!(told, statuses, "{choice}");
        assert_eq!(gateway.metric(&format!("rate_limit_fallbacks_total{{by=\"{choice}\"}}")).await, 2, "{choice}");
    }
}
