//! Where the lanes meet the cache: it is asked once a request was judged, before a backend is. `rest` and `native` are what
//! the lanes do with what it says, `serve` is a native request from end to end, `warm`
//! asks before anybody does.

pub mod native;
pub mod rest;
pub mod serve;
pub mod warm;

use std::time::Duration;

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::ctx::Ctx;
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
    status: HeaderValue,
    age: Option<u64>,
}

impl Cached {
    fn hit(hit: &Hit) -> Self {
        let (entry, age) = (&hit.entry, hit.age);
        // What is past its time has less than none left.
        let (ttl, over) = (entry.ttl.saturating_sub(age).as_secs(), age.saturating_sub(entry.ttl));
        let (word, status) = if hit.is_stale {
            ("stale", status(&["hit; ttl=-", itoa::Buffer::new().format(whole_seconds(over)), "; detail=stale"]))
        } else {
            ("hit", status(&["hit; ttl=", itoa::Buffer::new().format(ttl)]))
        };
        Self { word, status, age: Some(age.as_secs()) }
    }

    fn miss(stored: bool) -> Self {
        Self { word: "miss", status: status(&["fwd=miss", if stored { "; stored" } else { "" }]), age: None }
    }

    fn bypass(why: Bypass) -> Self {
        Self { word: "bypass", status: status(&["fwd=bypass; detail=", why.name()]), age: None }
    }

    /// Adds the headers.
    pub fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(STATUS, self.status.clone());
        if let Some(age) = self.age {
            headers.insert(header::AGE, HeaderValue::from(age));
        }
    }
}

/// Words and numbers of our own as a member of `Cache-Status`.
fn status(words: &[&str]) -> HeaderValue {
    let mut text = String::with_capacity(48);
    text.push_str("mcp-gateway; ");
    text.extend(words.iter().copied());
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("mcp-gateway"))
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
