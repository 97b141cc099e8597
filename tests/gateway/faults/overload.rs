//! More than a backend can do: what is done in time stays near the most it can, because what would be late is refused.

use super::*;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The backend: so many requests at a time, each this long.
const SERVERS: usize = 2;
const SERVICE: Duration = Duration::from_millis(50);
/// An answer that comes later is of no use to anybody.
const DEADLINE: Duration = Duration::from_secs(1);
const WATCHED: Duration = Duration::from_secs(4);

/// Calls for a while at a rate, whatever becomes of them; tells how many were answered in time, and the process's
/// memory half-way and at the end.
async fn open_loop(gateway: &Gateway, each: Duration) -> (usize, [u64; 2]) {
    let good = Arc::new(AtomicUsize::new(0));
    let client = client();
    let (began, mut pace, mut memory) = (Instant::now(), tokio::time::interval(each), [0, 0]);
    while began.elapsed() < WATCHED {
        pace.tick().await;
        let (good, client, url) = (Arc::clone(&good), client.clone(), gateway.at("/api/mcp/stub"));
        let body = json!({ "method": "call_tool", "params": { "tool_name": "write", "arguments": { "text": "x".repeat(10_000) } } });
        tokio::spawn(async move {
            let asked = Instant::now();
            let status = client.post(url).json(&body).send().await.map_or(0, |response| response.status().as_u16());
            good.fetch_add(usize::from(status == 200 && asked.elapsed() < DEADLINE), Ordering::SeqCst);
        });
        if memory[0] == 0 && began.elapsed() > WATCHED / 2 {
            memory[0] = gateway.resident();
        }
    }
    memory[1] = gateway.resident();
    (good.load(Ordering::SeqCst), memory)
}

/// One caller more than the backend has servers, so that it is never idle: the most it can do.
async fn closed_loop(gateway: &Gateway) -> usize {
    let (done, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let caller = async || {
        while !stop.load(Ordering::SeqCst) {
            let told = ask(gateway, Lane::Rest, WRITE).await;
            done.fetch_add(usize::from(told.status == 200), Ordering::SeqCst);
        }
    };
    let clock = async {
        tokio::time::sleep(WATCHED).await;
        stop.store(true, Ordering::SeqCst);
    };
    futures::join!(caller(), caller(), caller(), clock);
    done.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn four_times_what_a_backend_can_do_leaves_it_doing_what_it_can() {
    let busy = || {
        let faulty = Faulty::start();
        faulty.work(SERVERS, SERVICE);
        faulty
    };
    let (guarded, bare) = (busy(), busy());
    let queue = "load_balancer: { queue: { length: 20, wait: 200ms } }\n";
    let with = gateway(&[guarded.backend("one", &format!(", max_in_flight: {SERVERS}"))], queue).await;
    let without = gateway(&[bare.backend("one", "")], "").await;
    // A machine that is busy with other things can only make it less; three in a row it is the gateway.
    for attempt in 1..=3 {
        let most = closed_loop(&with).await;
        let four_times = WATCHED / u32::try_from(4 * most.max(1)).expect("few");
        let ((kept, memory), (collapsed, _)) = futures::join!(open_loop(&with, four_times), open_loop(&without, four_times));
        println!("at most {most}, under four times the load {kept}, without a bound {collapsed}; {memory:?} KiB");
        assert!(memory[1] < memory[0] + (16 << 10), "KiB half-way and at the end: {memory:?}");
        // The control shows that there was something to survive.
        if kept * 100 >= most * 85 && collapsed * 2 < kept {
            return;
        }
        assert!(attempt < 3, "{kept} of {most}, without a bound {collapsed}");
    }
}

#[tokio::test]
async fn streams_that_stay_take_no_place_from_requests() {
    let faulty = Faulty::start();
    let limits = "in_flight: 1, queue: { length: 0 }";
    let gateway = gateway_with(limits, &[faulty.backend("one", ", max_in_flight: 1")], "load_balancer: { queue: { length: 0 } }\n").await;
    faulty.commit(Fault::OpenStream);
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": { "notifications": {} } });
    let request = http().post(gateway.at("/mcp/stub")).header("accept", "application/json, text/event-stream").json(&body);
    let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "subscriptions/listen");
    let stream = request.send().await.expect("an answer");
    assert_eq!(stream.status(), 200);
    faulty.commit(None);
    assert_eq!(ask(&gateway, Lane::Rest, WRITE).await.status, 200);
    drop(stream);
}
