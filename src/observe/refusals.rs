//! The refusals of the last time, for the operator's page: so many of each code, so that a flood of one kind does not push
//! out the others, and what repeats itself is counted once. No arguments, no credentials.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

/// Refusals kept of one code.
const OF_EACH: usize = 20;

/// One refusal, or several alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The last time.
    pub at: Timestamp,
    pub times: u64,
    pub code: &'static str,
    pub status: u16,
    /// What the caller was told.
    pub detail: String,
    /// What the log was told.
    pub cause: Option<String>,
    /// Of the last one.
    pub request_id: String,
    pub principal: Option<String>,
    pub tenant: Option<String>,
    pub client: Option<IpAddr>,
    pub server: Option<String>,
    pub method: Option<String>,
    /// The tool, prompt or resource.
    pub name: Option<String>,
    /// The rate limit that refused it.
    pub limit: Option<String>,
}

impl Refusal {
    fn is_like(&self, other: &Self) -> bool {
        fn who(it: &Refusal) -> (Option<&str>, Option<&str>, Option<IpAddr>) {
            (it.principal.as_deref(), it.tenant.as_deref(), it.client)
        }
        fn what(it: &Refusal) -> [Option<&str>; 6] {
            [Some(&it.detail), it.cause.as_deref(), it.server.as_deref(), it.method.as_deref(), it.name.as_deref(), it.limit.as_deref()]
        }
        who(self) == who(other) && what(self) == what(other)
    }
}

/// The refusals kept, by code, the latest of each first.
#[derive(Default)]
pub struct Refusals(Mutex<BTreeMap<&'static str, VecDeque<Refusal>>>);

impl Refusals {
    pub fn note(&self, mut refusal: Refusal) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let alike = all.entry(refusal.code).or_default();
        if let Some(place) = alike.iter().position(|known| known.is_like(&refusal)) {
            refusal.times += alike.remove(place).map_or(0, |known| known.times);
        }
        alike.push_front(refusal);
        alike.truncate(OF_EACH);
    }

    /// The latest first.
    pub fn latest(&self) -> Vec<Refusal> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<Refusal> = all.values().flatten().cloned().collect();
        list.sort_by_key(|refusal| std::cmp::Reverse(refusal.at));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: &'static str, name: &str) -> Refusal {
        Refusal {
            at: Timestamp::now(),
            times: 1,
            code,
            status: 429,
            detail: "too often".into(),
            cause: None,
            request_id: name.into(),
            principal: Some("ann".into()),
            tenant: None,
            client: None,
            server: None,
            method: None,
            name: Some(name.into()),
            limit: None,
        }
    }

    #[test]
    fn a_flood_of_one_kind_leaves_the_others_and_repeats_are_counted() {
        let refusals = Refusals::default();
        refusals.note(refusal("circuit_open", "rare"));
        for number in 0..1000 {
            refusals.note(refusal("rate_limited", &format!("tool-{number}")));
            refusals.note(refusal("rate_limited", "same"));
        }
        let latest = refusals.latest();
        assert_eq!(latest.len(), OF_EACH + 1);
        let times = |name: &str| latest.iter().find(|refusal| refusal.request_id == name).map(|refusal| refusal.times);
        assert_eq!((times("rare"), times("same"), times("tool-0")), (Some(1), Some(1000), None));
        assert_eq!(latest[0].request_id, "same");
    }
}
