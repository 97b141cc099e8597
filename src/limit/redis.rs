//! Counts in Redis, shared by replicas and not paid for with each request: a replica takes a few permits at once, as many
//! as it uses in some tens of milliseconds, and gives back what it did not use. Every permit comes out of the shared
//! count before it is used, so replicas together never admit more than the limit.
//!
//! Each count is one key and each question one script on it, which is atomic and works on a cluster. Time is Redis' own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use redis::Script;

use super::meter::{Left, Meter};
use crate::config;
use crate::digest::{hex, sha256};
use crate::store::guarded::Guarded;

/// Counts that permits are held of.
const MOST: u64 = 100_000;
/// A count that is not used is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// Permits that last less than this are too few to ask for, more than the other too many.
const TOO_SOON: Duration = Duration::from_millis(25);
const TOO_LONG: Duration = Duration::from_millis(100);
/// Permits not used within this go back.
const UNUSED: Duration = Duration::from_secs(1);
/// The part of a burst that one replica may hold.
const PART: u64 = 16;
/// After getting fewer than were asked for there is no use in asking at once again.
const SCARCE: Duration = Duration::from_millis(5);

/// `rate`: ARGV are interval and tolerance in microseconds, permits wanted, and those at least. Answers: permits granted,
/// microseconds to wait for the least, permits left, microseconds until all are there again.
const TAKE_RATE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, tolerance = tonumber(ARGV[1]), tonumber(ARGV[2])
local at = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local room = math.floor((tolerance - (at - now)) / interval + 0.0001)
local least = tonumber(ARGV[4])
if room < least then
  return {0, math.ceil((at - now) + least * interval - tolerance), math.max(room, 0), math.ceil(at - now)}
end
local granted = math.min(room, tonumber(ARGV[3]))
at = at + granted * interval
redis.call('SET', KEYS[1], string.format('%.3f', at), 'PX', math.ceil((at - now) / 1000) + 1000)
return {granted, 0, room - granted, math.ceil(at - now)}";

/// `quota`: ARGV are window in microseconds, count, permits wanted, and those at least. The window's number stands in the value.
const TAKE_QUOTA: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window, count, least = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local number = math.floor(now / window)
local ends = math.ceil((number + 1) * window - now)
local known, used = string.match(redis.call('GET', KEYS[1]) or '', '(%d+):(%d+)')
used = tonumber(known) == number and tonumber(used) or 0
local room = count - used
if room < least then return {0, ends, math.max(room, 0), ends} end
local granted = math.min(room, tonumber(ARGV[3]))
redis.call('SET', KEYS[1], string.format('%.0f:%.0f', number, used + granted), 'PX', math.ceil(ends / 1000) + 1000)
return {granted, 0, room - granted, ends}";

/// Gives back: ARGV are interval or window in microseconds, permits, and 1 for a rate.
const GIVE_BACK: &str = r"
local value = redis.call('GET', KEYS[1])
if not value then return 0 end
if ARGV[3] == '1' then
  redis.call('SET', KEYS[1], string.format('%.3f', tonumber(value) - ARGV[2] * ARGV[1]), 'KEEPTTL')
  return 1
end
local time = redis.call('TIME')
local number = math.floor((time[1] * 1000000 + time[2]) / ARGV[1])
local known, used = string.match(value, '(%d+):(%d+)')
if tonumber(known) ~= number then return 0 end
redis.call('SET', KEYS[1], string.format('%.0f:%.0f', number, math.max(tonumber(used) - ARGV[2], 0)), 'KEEPTTL')
return 1";

/// The store cannot be asked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Down;

/// The counts of all replicas.
pub struct Shared {
    redis: Guarded,
    scripts: Scripts,
    leases: Cache<Vec<u8>, Arc<Lease>>,
}

struct Scripts {
    rate: Script,
    quota: Script,
    give_back: Script,
}

/// The permits held of one count.
#[derive(Default)]
struct Lease {
    held: Mutex<Held>,
    filling: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    permits: u64,
    /// How many to ask for next.
    size: u64,
    /// When they were granted.
    since: Option<Instant>,
    /// Until when they may be used: the count they came from goes on meanwhile.
    until: Option<Instant>,
    /// Those not used until then, to be given back.
    surplus: u64,
    /// Until when what costs so much is refused without asking.
    closed: Option<(Instant, u64)>,
    /// What was left in the store.
    left: u64,
    reset: Duration,
    meter: Option<Meter>,
}

/// What the store said.
struct Granted {
    permits: u64,
    wait: Duration,
    left: u64,
    reset: Duration,
}

impl Shared {
    /// # Errors
    /// When the URL of the store is not one.
    pub fn new(conf: &config::Redis) -> Result<Self, String> {
        let scripts = Scripts { rate: Script::new(TAKE_RATE), quota: Script::new(TAKE_QUOTA), give_back: Script::new(GIVE_BACK) };
        Ok(Self {
            redis: Guarded::new(conf, "rate limits", "until it answers, rate_limits.on_store_failure decides")?,
            scripts,
            leases: Cache::builder().max_capacity(MOST).time_to_idle(IDLE).build(),
        })
    }

    /// Has it wait for the store no longer than this.
    pub fn set_timeout(&self, timeout: Duration) {
        self.redis.set_timeout(timeout);
    }

    /// Whether it answered when it was last asked.
    pub fn is_up(&self) -> bool {
        self.redis.is_up()
    }

    /// What is known of the count of `key` without asking: from the permits held, or from the last refusal.
    pub fn take_held(&self, key: &[u8], meter: &Meter, cost: u32) -> Option<Result<Left, Duration>> {
        self.leases.get(key)?.decide(u64::from(cost).min(meter.most()))
    }

    /// Takes `cost` requests from the count of `key`; the inner error is after how long they would be admitted.
    ///
    /// # Errors
    /// [`Down`] if the store cannot be asked.
    pub async fn take(&self, key: &[u8], meter: &Meter, cost: u32) -> Result<Result<Left, Duration>, Down> {
        // What costs more than can ever be there takes all of it.
        let cost = u64::from(cost).min(meter.most());
        let lease = match self.leases.get(key) {
            Some(lease) => lease,
            None => self.leases.get_with(key.to_vec(), Arc::default),
        };
        if let Some(decided) = lease.decide(cost) {
            return Ok(decided);
        }
        let _filling = match lease.filling.try_lock() {
            Ok(filling) => filling,
            // Whoever holds it finds out whether the store answers again, which others need not wait for.
            Err(_) if !self.redis.is_up() => return Err(Down),
            Err(_) => lease.filling.lock().await,
        };
        if let Some(decided) = lease.decide(cost) {
            return Ok(decided);
        }
        let granted = self.fill(key, meter, lease.want(meter).max(cost), cost).await?;
        Ok(lease.fill(meter, granted, cost))
    }

    /// Gives back what was taken a moment ago.
    pub fn give_back(&self, key: &[u8], meter: &Meter, cost: u32) {
        if let Some(lease) = self.leases.get(key) {
            lease.held().permits += u64::from(cost).min(meter.most());
        }
    }

    /// Has it connected, if it is not.
    pub fn connect(&self) {
        self.redis.connect();
    }

    /// Gives permits back that nobody used.
    pub async fn tidy(&self) {
        for (key, lease) in &self.leases {
            let unused = lease.take_unused();
            if let Some((permits, meter)) = unused.filter(|(permits, _)| *permits > 0) {
                // One that cannot be asked forgets them in time.
                self.give_back_to_store(&key, &meter, permits).await;
            }
        }
    }

    async fn fill(&self, key: &[u8], meter: &Meter, want: u64, least: u64) -> Result<Granted, Down> {
        self.redis.ask(self.ask(key, meter, want, least)).await.ok_or(Down)
    }

    async fn ask(&self, key: &[u8], meter: &Meter, wanted: u64, least: u64) -> Result<Granted, String> {
        let (script, unit, size) = match meter {
            Meter::Rate(gcra) => (&self.scripts.rate, micros(gcra.interval), micros(gcra.tolerance)),
            #[expect(clippy::cast_precision_loss, reason = "counts are below 2^32")]
            Meter::Quota { count, window } => (&self.scripts.quota, micros(*window), *count as f64),
        };
        let mut call = script.key(name(key));
        call.arg(unit).arg(size).arg(wanted).arg(least);
        let (permits, wait, left, reset) = self.redis.redis().invoke::<(u64, u64, u64, u64)>(&call).await?;
        Ok(Granted { permits, wait: Duration::from_micros(wait), left, reset: Duration::from_micros(reset) })
    }

    async fn give_back_to_store(&self, key: &[u8], meter: &Meter, permits: u64) {
        let (unit, is_rate) = match meter {
            Meter::Rate(gcra) => (gcra.interval, 1),
            Meter::Quota { window, .. } => (*window, 0),
        };
        let mut call = self.scripts.give_back.key(name(key));
        call.arg(micros(unit)).arg(permits).arg(is_rate);
        let _ = self.redis.ask(self.redis.redis().invoke::<u64>(&call)).await;
    }
}

/// What a count is called in Redis. A digest, because keys may hold what callers would not see stored.
fn name(key: &[u8]) -> String {
    format!("mcp-gateway:limit:{}", hex(&sha256(key)))
}

#[expect(clippy::cast_precision_loss, reason = "a nanosecond in a hundred days is of no account")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

impl Lease {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known without asking.
    fn decide(&self, cost: u64) -> Option<Result<Left, Duration>> {
        let mut held = self.held();
        let now = Instant::now();
        held.expire(now);
        if held.permits >= cost && held.meter.is_some() {
            held.permits -= cost;
            return Some(Ok(held.left()));
        }
        let (until, least) = held.closed?;
        (cost >= least && now < until).then(|| Err(until - now))
    }

    /// How many to ask for: about what is used in the time between too soon and too long.
    fn want(&self, meter: &Meter) -> u64 {
        let mut held = self.held();
        let lasted = held.since.map(|since| since.elapsed());
        let size = match lasted {
            Some(lasted) if lasted < TOO_SOON => held.size * 2,
            Some(lasted) if lasted > TOO_LONG => held.size / 2,
            _ => held.size,
        };
        held.size = size.clamp(1, (meter.most() / PART).max(1));
        held.size
    }

    fn fill(&self, meter: &Meter, granted: Granted, cost: u64) -> Result<Left, Duration> {
        let mut held = self.held();
        let now = Instant::now();
        held.expire(now);
        if held.meter != Some(*meter) {
            (held.permits, held.surplus) = (0, 0);
        }
        let wanted = held.size;
        held.permits += granted.permits;
        (held.left, held.reset, held.meter) = (granted.left, granted.reset, Some(*meter));
        if granted.permits < cost {
            let wait = granted.wait.max(Duration::from_micros(100));
            held.closed = Some((now + wait, cost));
            return Err(wait);
        }
        // Of a quota, no longer than its window.
        let life = if meter.is_rate() { UNUSED } else { UNUSED.min(granted.reset) };
        (held.since, held.until) = (Some(now), Some(now + life));
        held.closed = (granted.permits < wanted).then(|| (now + scarcity(meter), 1));
        held.permits -= cost;
        Ok(held.left())
    }

    fn take_unused(&self) -> Option<(u64, Meter)> {
        let mut held = self.held();
        held.expire(Instant::now());
        Some((std::mem::take(&mut held.surplus), held.meter?))
    }
}

impl Held {
    /// Sets apart what was not used in time.
    fn expire(&mut self, now: Instant) {
        if self.until.is_some_and(|until| now >= until) {
            self.surplus += std::mem::take(&mut self.permits);
        }
    }

    fn left(&self) -> Left {
        Left { requests: self.permits + self.left, reset: self.reset }
    }
}

/// How long not to ask after the store gave all it had: not so long that what comes back meanwhile would overflow.
fn scarcity(meter: &Meter) -> Duration {
    match meter {
        Meter::Rate(gcra) => Duration::from_nanos(gcra.tolerance / 4).min(SCARCE).max(Duration::from_nanos(gcra.interval).min(SCARCE)),
        Meter::Quota { .. } => SCARCE,
    }
}
