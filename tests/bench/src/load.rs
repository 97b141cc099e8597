//! The load: a fixed number of keep-alive connections, each sending its next call when the last is answered.
//!
//! A closed loop finds what a process can do without ever drowning it. Every latency is kept as a number and sorted at
//! the end: exact, and cheaper than a histogram at these counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Result;
use crate::call::Call;
use crate::cpu;
use crate::row::{Row, Size};
use crate::stand::Running;
use crate::wire::{Head, Wire};

/// Fills pools and caches and lets the clock of the core rise before anything counts.
const WARM: Duration = Duration::from_millis(500);
/// A call in flight when the time is up is still answered, and checked.
const LAST_ANSWER: Duration = Duration::from_secs(10);

pub struct Load {
    pub connections: u32,
    pub seconds: f64,
}

/// What one row did in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Requests per second
    pub rate: f64,
    /// Microseconds, all three
    pub p50: f64,
    pub p99: f64,
    pub cpu: f64,
    /// Share of the time that others used the core of the process under test
    pub foreign: f64,
    /// Share of the answers that came from a cache
    pub hits: f64,
}

/// What the connections and the clock tell each other.
#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    hits: AtomicU64,
    recording: AtomicBool,
    over: AtomicBool,
}

/// One look at everything that is divided later.
struct Mark {
    at: Instant,
    answered: u64,
    hits: u64,
    cpu: Duration,
    busy: Duration,
}

impl Load {
    pub async fn put_on(&self, running: &Running, row: Row, size: Size) -> Result<Sample> {
        let tally = Arc::new(Tally::default());
        let mut connections = JoinSet::new();
        let begin = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.subsec_nanos();
        for number in 0..self.connections {
            let call = Call::new(row.lane(), row.what(), size, running.addr, number, begin);
            connections.spawn(keep_calling(running.addr, call, tally.clone()));
        }
        sleep(WARM).await;
        tally.recording.store(true, Relaxed);
        let before = Mark::set(&tally, running)?;
        sleep(Duration::from_secs_f64(self.seconds)).await;
        let after = Mark::set(&tally, running)?;
        tally.over.store(true, Relaxed);
        let latencies = timeout(LAST_ANSWER, gather(connections)).await.map_err(|_| "an answer did not come")??;
        Sample::between(&before, &after, latencies)
    }
}

impl Mark {
    fn set(tally: &Tally, running: &Running) -> Result<Self> {
        let cpu = cpu::spent(running.process.group())?;
        let busy = cpu::busy(running.core)?;
        Ok(Self { at: Instant::now(), answered: tally.answered.load(Relaxed), hits: tally.hits.load(Relaxed), cpu, busy })
    }
}

impl Sample {
    fn between(before: &Mark, after: &Mark, mut latencies: Vec<u32>) -> Result<Self> {
        let answered = (after.answered - before.answered) as f64;
        if answered == 0.0 || latencies.is_empty() {
            return Err("no call was answered".into());
        }
        latencies.sort_unstable();
        let wall = (after.at - before.at).as_secs_f64();
        let cpu = after.cpu.saturating_sub(before.cpu);
        let foreign = (after.busy.saturating_sub(before.busy)).saturating_sub(cpu);
        Ok(Self {
            rate: answered / wall,
            p50: quantile(&latencies, 0.50),
            p99: quantile(&latencies, 0.99),
            cpu: cpu.as_secs_f64() * 1e6 / answered,
            foreign: foreign.as_secs_f64() / wall,
            hits: (after.hits - before.hits) as f64 / answered,
        })
    }
}

async fn keep_calling(addr: SocketAddr, mut call: Call, tally: Arc<Tally>) -> Result<Vec<u32>> {
    let mut wire = Wire::connect(addr).await?;
    let mut latencies = Vec::new();
    while !tally.over.load(Relaxed) {
        let recording = tally.recording.load(Relaxed);
        let started = Instant::now();
        let head = exchange(&mut wire, &mut call).await?;
        if head.text().contains("mcp-gateway; hit") {
            tally.hits.fetch_add(1, Relaxed);
        }
        if recording {
            latencies.push(u32::try_from(started.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
        tally.answered.fetch_add(1, Relaxed);
    }
    Ok(latencies)
}

/// One call and its checked answer; its header.
pub async fn exchange(wire: &mut Wire, call: &mut Call) -> Result<Head> {
    wire.send(call.next()).await?;
    let head = wire.head().await?.ok_or("the connection was closed instead of kept")?;
    let body = wire.body(head.framing()?).await?;
    call.check(&head, &body)?;
    Ok(head)
}

async fn gather(mut connections: JoinSet<Result<Vec<u32>>>) -> Result<Vec<u32>> {
    let mut latencies = Vec::new();
    while let Some(connection) = connections.join_next().await {
        latencies.extend(connection??);
    }
    Ok(latencies)
}

/// Microseconds below which that share of the sorted nanoseconds lies.
fn quantile(sorted: &[u32], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share) as usize;
    f64::from(sorted[index.min(sorted.len() - 1)]) / 1e3
}
