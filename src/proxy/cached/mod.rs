//! Where the lanes meet the cache: it is asked once a request was judged, before a backend is. `rest` and `native` are what
//! the lanes do with what it says, `serve` is a native request from end to end, `warm`
//! asks before anybody does.

pub mod native;
pub mod rest;
pub mod serve;
pub mod warm;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::ctx::Ctx;
use super::reply::number;
use crate::cache::{Bypass, Hit};
use crate::call::Call;
use crate::mcp::method;
use crate::observe::metrics::Outcome;
use crate::reject::{Code, Reject};
use crate::upstream::pool::Pool;

const STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What the cache had to do with an answer, as `Cache-Status` (RFC 9211) and `Age` tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// For the access log.
    pub word: &'static str,
    told: Told,
    age: Option<u64>,
}

/// What `Cache-Status` says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Seconds it has left.
    Fresh(u64),
    /// Seconds it is past its time.
    Stale(u64),
    Miss {
        stored: bool,
    },
    Bypass(Bypass),
    /// Every request of a batch was answered from the cache.
    All,
    /// Some were, and others asked.
    Some,
}

impl Told {
    /// As a member of the list (RFC 9211 §2): words and numbers of our own.
    fn written(self) -> HeaderValue {
        let mut digits = itoa::Buffer::new();
        let words = match self {
            Self::Fresh(left) => ["hit; ttl=", digits.format(left), ""],
            Self::Stale(over) => ["hit; ttl=-", digits.format(over), "; detail=stale"],
            Self::Miss { stored } => ["fwd=miss", if stored { "; stored" } else { "" }, ""],
            Self::Bypass(why) => ["fwd=bypass; detail=", why.name(), ""],
            Self::All => ["hit", "", ""],
            Self::Some => ["fwd=partial", "", ""],
        };
        let [a, b, c] = words;
        let whole = HeaderValue::try_from(["mcp-gateway; ", a, b, c].concat());
        whole.unwrap_or_else(|_| HeaderValue::from_static("mcp-gateway"))
    }
}

impl Cached {
    fn hit(hit: &Hit) -> Self {
        let (entry, age) = (&hit.entry, hit.age);
        // What is past its time has less than none left.
        let (ttl, over) = (entry.ttl.saturating_sub(age).as_secs(), age.saturating_sub(entry.ttl));
        let (word, told) = if hit.is_stale { ("stale", Told::Stale(whole_seconds(over))) } else { ("hit", Told::Fresh(ttl)) };
        Self { word, told, age: Some(age.as_secs()) }
    }

    fn miss(stored: bool) -> Self {
        Self { word: "miss", told: Told::Miss { stored }, age: None }
    }

    fn bypass(why: Bypass) -> Self {
        Self { word: "bypass", told: Told::Bypass(why), age: None }
    }

    /// Adds the headers.
    pub fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(STATUS, self.told.written());
        if let Some(age) = self.age {
            headers.insert(header::AGE, number(age));
        }
    }
}

/// What the cache had to do with the answers to a batch.
#[derive(Default)]
pub struct Several {
    /// Given from the cache.
    given: AtomicUsize,
    /// Asked for.
    asked: AtomicUsize,
    /// Some of these were not there.
    is_missed: AtomicBool,
    /// Some were kept.
    is_stored: AtomicBool,
    /// Why the first was not looked up that was not.
    bypassed: OnceLock<Bypass>,
}

impl Several {
    pub fn note(&self, one: Option<&Cached>) {
        let told = one.map(|cached| cached.told);
        let is_given = matches!(told, Some(Told::Fresh(_) | Told::Stale(_)));
        let count = if is_given { &self.given } else { &self.asked };
        count.fetch_add(1, Ordering::Relaxed);
        match told {
            Some(Told::Miss { stored }) => {
                self.is_missed.store(true, Ordering::Relaxed);
                self.is_stored.fetch_or(stored, Ordering::Relaxed);
            }
            Some(Told::Bypass(why)) => drop(self.bypassed.set(why)),
            _ => {}
        }
    }

    /// All of it in one word; nothing where none is of a kind that is kept.
    pub fn told(self) -> Option<Cached> {
        match (self.given.into_inner(), self.asked.into_inner()) {
            (0, _) if self.is_missed.into_inner() => Some(Cached::miss(self.is_stored.into_inner())),
            (0, _) => self.bypassed.into_inner().map(Cached::bypass),
            (_, 0) => Some(Cached { word: "hit", told: Told::All, age: None }),
            _ => Some(Cached { word: "partial", told: Told::Some, age: None }),
        }
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// What a caller is told who waited for an answer that somebody else had asked for.
fn late() -> Reject {
    Reject::new(Code::BackendTimeout, "another caller asked the same, and no answer came in time")
}

/// Drops what a call may have made untrue: whatever was kept of its server's reads and calls, if it may have written.
pub fn settle(ctx: &Ctx, pool: &Pool, call: &Call<'_>, outcome: Outcome) {
    let Some(cache) = ctx.snapshot.cache.as_ref().filter(|cache| cache.conf.invalidate_on_write) else { return };
    // One that failed or was left may have written before.
    if call.method != "tools/call" || matches!(outcome, Outcome::Refused | Outcome::ServerError) {
        return;
    }
    let (Some(row), Some(tool)) = (method::find("tools/call"), call.name.as_deref()) else { return };
    let reads = pool.members.iter().all(|member| member.tool(tool).is_some_and(|tool| tool.read_only));
    if !reads && !cache.keeps_calls(&pool.server, row, tool) {
        cache.void(Some(&pool.server), |row| matches!(row.mcp, "resources/read" | "prompts/get" | "tools/call"), None);
    }
}
