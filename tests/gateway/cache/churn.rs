//! What the cache takes while questions come that nobody asked before.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream;
use serde_json::json;

use super::{caching, call};
use crate::support::http;
use crate::support::stub::Stub;

const LIMIT: u64 = 16 << 20;

/// How long it goes on after the cache was full; `CHURN_SECONDS=600` for the figures of the documentation.
fn length() -> Duration {
    Duration::from_secs(std::env::var("CHURN_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_takes_no_more_than_its_bound_whatever_is_asked() {
    let stub = Stub::start().await;
    let tools = "  memory: 16MiB\n  max_entry: 64KiB\n  tools: [ { tool: echo, ttl: 1h } ]\n";
    let gateway = caching(&stub, tools, "").await;
    let client = http();
    // Small ones, of which there are many, and large ones, which throw out many.
    let ask = async |n: u64| {
        let size = if n.is_multiple_of(8) { fastrand::usize(4_000..14_000) } else { fastrand::usize(10..600) };
        let body = call("echo", &json!({ "n": n, "text": "x".repeat(size) }));
        let answer = client.post(gateway.at("/api/mcp/stub")).json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
    };
    let numbers = std::sync::atomic::AtomicU64::new(0);
    let some = async |count: usize| {
        let next = || numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        stream::iter((0..count).map(|_| next())).for_each_concurrent(32, &ask).await;
    };
    let held = async || gateway.metric("cache_bytes{tier=\"memory\"}").await;
    // Its connections, buffers and metrics are there, and little is kept.
    some(200).await;
    let empty = gateway.resident();
    while gateway.metric("cache_evictions_total").await < 1_000 {
        some(500).await;
    }
    let (full, until, mut most, mut least) = (gateway.resident(), Instant::now() + length(), (0, 0), u64::MAX);
    while Instant::now() < until {
        some(500).await;
        let bytes = held().await;
        most = (bytes.max(most.0), gateway.resident().max(most.1));
        least = least.min(bytes);
        assert!(bytes <= LIMIT + LIMIT / 10, "{bytes}");
    }
    println!(
        "{} questions in {:?} after it was full: kept {least} to {} of {LIMIT} bytes; resident {empty} KiB when empty, {full} KiB when full, {} at most",
        numbers.into_inner(),
        length(),
        most.0,
        most.1
    );
    assert!(least > LIMIT - LIMIT / 10, "it is used: {least}");
    // The process as a whole grows no further once it is full, but for what an allocator and a busy machine hold at a moment.
    let grown = most.1.saturating_sub(full) << 10;
    assert!(grown <= LIMIT / 2, "grown by {grown} bytes");
    // And what it takes for what it keeps is what that is counted as, give or take the same.
    let taken = most.1.saturating_sub(empty) << 10;
    assert!((LIMIT / 2..=LIMIT + LIMIT / 2).contains(&taken), "{taken} bytes for what counts as {}", most.0);
}
