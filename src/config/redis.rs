//! `redis:`, the store that replicas share.

use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::{Secret, Timespan};

/// What a question may take where nothing else is said.
const TIMEOUT: Duration = Duration::from_millis(50);

/// The Redis that replicas share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Redis {
    /// Holds the password.
    pub url: Secret,
    /// The longest a request waits for one question, 1 ms to 5 s: what a store that hangs costs each of those that find it out.
    pub timeout: Timespan,
}

impl Redis {
    /// The longest that may be configured.
    pub const LONGEST: Duration = Duration::from_secs(5);

    /// Whether both are the same Redis, however long it is waited for: what is kept there goes on.
    pub fn is_same(one: Option<&Self>, other: Option<&Self>) -> bool {
        one.map(|redis| &redis.url) == other.map(|redis| &redis.url)
    }
}

/// Reads `redis:`.
pub(super) fn redis(root: &Section<'_>) -> Option<Redis> {
    if !root.has("redis") {
        return None;
    }
    let section = root.section("redis");
    let url = section.secret("url", "url_file");
    match &url {
        None => section.problem("url", "missing, such as redis://redis:6379/0"),
        // What is wrong with it is not repeated: the message may quote the password.
        Some(text) if ::redis::IntoConnectionInfo::into_connection_info(text.as_str()).is_err() => {
            section.problem("url", "not a Redis URL, such as redis://redis:6379/0 or rediss://…");
        }
        Some(_) => {}
    }
    let timeout = section.duration("timeout").unwrap_or(TIMEOUT);
    if !(Duration::from_millis(1)..=Redis::LONGEST).contains(&timeout) {
        section.problem("timeout", "not from 1ms to 5s");
    }
    section.finish();
    Some(Redis { url: Secret::new(url?), timeout: Timespan(timeout) })
}
