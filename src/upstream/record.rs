//! What requests to a backend leave behind: its breakers, its failures, our sessions with it. It belongs to the instance and
//! not to the words that describe it, so it outlives a changed weight, label or timeout.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::breaker::{Breaker, State};
use super::outlier::Outlier;
use super::session_pool::SessionPool;

/// The past of one instance.
#[derive(Default)]
pub struct Record {
    pub breaker: Breaker,
    /// Those of single tools, by server and tool.
    tool_breakers: Mutex<HashMap<(String, String), Arc<Breaker>>>,
    pub outlier: Outlier,
    pub sessions: SessionPool,
    /// Why it could not be learned what it is, as last told.
    told: Mutex<String>,
}

impl Record {
    /// Whether a reason is another one than was told last; the empty one is that all is well.
    pub fn is_news(&self, reason: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *told != reason;
        reason.clone_into(&mut told);
        news
    }

    /// The breaker of one tool of one server, made when first asked for.
    pub fn tool_breaker(&self, server: &str, tool: &str) -> Arc<Breaker> {
        let mut breakers = self.tool_breakers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(breakers.entry((server.to_owned(), tool.to_owned())).or_default())
    }

    /// Where the breakers of tools stand that somebody still looks at, those that are closed left out.
    pub fn tool_states(&self, now: Instant) -> Vec<(String, String, State)> {
        let mut breakers = self.tool_breakers.lock().unwrap_or_else(PoisonError::into_inner);
        // One that only we hold is of a tool that is gone, or watched no more.
        breakers.retain(|_, breaker| Arc::strong_count(breaker) > 1);
        let states = breakers.iter().map(|((server, tool), breaker)| (server.clone(), tool.clone(), breaker.state(now)));
        states.filter(|(.., state)| *state != State::Closed).collect()
    }
}
