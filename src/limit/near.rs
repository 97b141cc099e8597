//! Who is near the end of a limit, or beyond it: a few of them, for the operator's page. Looked at only where little is left,
//! and never waited for.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::rule::Asked;
use crate::config::quota::Key;
use crate::digest::{hex, sha256};
use crate::principal::Way;
use crate::reject::clip;

/// Counts that are remembered.
const MOST: usize = 64;
/// Less than one in so many left is near.
const SHARE: u64 = 5;

/// A count with little left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    pub rule: String,
    /// What its rule counts by.
    pub who: String,
    pub left: u64,
    pub most: u64,
    /// Requests refused since it came near.
    pub refused: u64,
    /// Until all is there again.
    pub resets: Instant,
}

/// The counts with little left, by their keys.
#[derive(Default)]
pub struct Nearest(Mutex<HashMap<Vec<u8>, Near>>);

impl Nearest {
    /// Whether so little is left that it is to be noted.
    pub const fn is_near(left: u64, most: u64) -> bool {
        left * SHARE <= most
    }

    /// Notes a count; `left` is `None` where a request was refused. `describe` tells its rule and who it is.
    pub fn note(&self, key: &[u8], left: Option<u64>, most: u64, reset: Duration, describe: impl FnOnce() -> (String, String)) {
        // Somebody else is noted just now: this one comes again.
        let Ok(mut table) = self.0.try_lock() else { return };
        let now = Instant::now();
        if !table.contains_key(key) && table.len() >= MOST {
            table.retain(|_, near| near.resets > now);
            let soonest = table.iter().min_by_key(|(_, near)| near.resets).map(|(key, _)| key.clone());
            if table.len() >= MOST
                && let Some(soonest) = soonest
            {
                table.remove(&soonest);
            }
        }
        let near = table.entry(key.to_vec()).or_insert_with(|| {
            let (rule, who) = describe();
            Near { rule, who, left: 0, most, refused: 0, resets: now }
        });
        if near.resets < now {
            near.refused = 0;
        }
        near.refused += u64::from(left.is_none());
        // A refusal tells when one more is admitted, which is sooner.
        near.resets = if left.is_none() { near.resets.max(now + reset) } else { now + reset };
        (near.left, near.most) = (left.unwrap_or_default(), most);
    }

    /// Those that are near still, those that were refused most first.
    pub fn list(&self) -> Vec<Near> {
        let now = Instant::now();
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.retain(|_, near| near.resets > now);
        let mut list: Vec<Near> = table.values().cloned().collect();
        list.sort_by(|a, b| b.refused.cmp(&a.refused).then_with(|| (&a.rule, &a.who).cmp(&(&b.rule, &b.who))));
        list
    }
}

/// Whom a rule counts a request for, in words. Headers may be credentials: of these a digest.
pub fn who(by: &[Key], asked: &Asked<'_>) -> String {
    let identity = &asked.principal.identity;
    let mut text = String::new();
    let mut say = |what: &str, value: Option<&str>| {
        let gap = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{gap}{what} {}", clip(value.unwrap_or("none")));
    };
    let address = asked.client.map(|address| address.to_canonical().to_string());
    for key in by {
        match key {
            Key::Tenant => say("tenant", identity.tenant.as_deref()),
            Key::Subject if asked.principal.way == Way::Anonymous => say("address", address.as_deref()),
            Key::Subject => say("subject", Some(&identity.subject)),
            Key::Key => say("key", Some(identity.subject.as_str()).filter(|_| asked.principal.way == Way::ApiKey)),
            Key::Ip => say("address", address.as_deref()),
            Key::Server => say("server", Some(asked.server)),
            Key::Method => say("method", Some(&asked.call.method)),
            Key::Tool => say("tool", asked.tool()),
            Key::Header(name) => {
                let digest = asked.headers.get(name).map(|value| format!("{name} #{}", hex(&sha256(value.as_bytes())[..4])));
                say("header", Some(digest.as_deref().unwrap_or(name)));
            }
        }
    }
    if text.is_empty() { "everybody together".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded_and_forgets_what_is_whole_again() {
        let nearest = Nearest::default();
        let hour = Duration::from_secs(3600);
        for number in 0..1000_u32 {
            nearest.note(&number.to_le_bytes(), None, 10, hour, || ("rule".into(), format!("subject {number}")));
        }
        assert_eq!(nearest.list().len(), MOST);
        let nearest = Nearest::default();
        let note = |left, reset| nearest.note(b"key", left, 10, reset, || ("rule".into(), "subject ann".into()));
        note(Some(1), hour);
        note(None, Duration::ZERO);
        let list = nearest.list();
        assert_eq!((list.len(), list[0].left, list[0].refused, list[0].who.as_str()), (1, 0, 1, "subject ann"));
        note(Some(1), Duration::ZERO);
        assert!(nearest.list().is_empty());
        assert!(Nearest::is_near(2, 10) && !Nearest::is_near(3, 10));
    }
}
