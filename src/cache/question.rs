//! A question as it is looked for: what the callers of fresh answers need, who are most, and no more. What it takes to
//! ask, or to wait for others who ask, is made of it where somebody must.

use std::sync::Arc;
use std::time::Instant;

use super::entry::Slot;
use super::key::{self, Asked, Key};
use super::marks;
use super::rules::Ruling;
use super::{Bypass, Cache, Hit, Series, Wanted, Wish, refuses};
use crate::config::cache::Vary;
use crate::observe::cache::{Looked, ServerMeter};
use crate::principal::Principal;

/// A question that may be answered from the cache.
pub struct Question<'a> {
    /// Where the answer is that all callers share.
    shared: Key,
    /// Whether it is each caller's own, whatever its server says of it.
    alone: bool,
    principal: &'a Principal,
    server: &'a Arc<str>,
    method: usize,
    name: Option<&'a str>,
    ruling: Ruling,
    meter: &'a Arc<ServerMeter>,
}

impl Question<'_> {
    /// Counts it as one that is not looked up after all.
    pub fn bypassed(&self, why: Bypass) {
        self.meter.bypassed(why);
    }
}

impl Cache {
    /// A question as the cache knows it; `None` if its answer is none that is kept. `series` are its server's.
    ///
    /// # Errors
    /// Why this one is not.
    pub fn question<'a>(&self, asked: &Asked<'a, '_>, server: &'a Arc<str>, series: &'a Series) -> Result<Option<Question<'a>>, Bypass> {
        let Some(ruling) = self.rules.of(asked.server, asked.method, asked.name) else { return Ok(None) };
        let meter = series.get_or_init(|| Arc::new(self.meter.server(server)));
        let shared = if refuses(asked.headers) { Err(Bypass::Caller) } else { key::shared(asked, &self.generation) };
        Ok(Some(Question {
            shared: shared.inspect_err(|why| meter.bypassed(*why))?,
            alone: asked.on_behalf || ruling.vary_by == Vary::Subject,
            principal: asked.principal,
            server,
            method: marks::place(asked.method),
            name: asked.name,
            ruling,
            meter,
        }))
    }

    /// The answer, where everybody's is there, fresh, and in no need of anything.
    pub fn fresh(&self, question: &Question<'_>, now: Instant) -> Option<Hit> {
        let found = if question.alone { None } else { self.kept.memory.find(&question.shared, now) };
        let Some(Slot::Kept(entry)) = found else { return None };
        let hit = Hit::at(entry, now);
        let counts = !hit.is_stale && hit.entry.counts() && !self.is_to_be_renewed(&hit);
        counts.then(|| hit.counted(question.meter, Looked::Hit))
    }

    /// What it takes to ask, or to wait for others.
    pub fn wish(&self, question: Question<'_>) -> Wish {
        let Question { shared, alone, principal, server, method, name, ruling, meter } = question;
        let is_anonymous = principal.binding().is_empty();
        let own = (alone || !is_anonymous).then(|| shared.of_caller(principal));
        Wish {
            first: own.clone().filter(|_| alone).unwrap_or(shared),
            own: own.filter(|_| !is_anonymous),
            server: Arc::clone(server),
            method,
            name: name.map(Into::into),
            wanted: Wanted { alone: ruling.wanted.alone && !self.all_are_anonymous, ..ruling.wanted },
            mark: self.kept.marks.of(server),
            meter: Arc::clone(meter),
        }
    }
}
