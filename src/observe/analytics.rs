//! The metrics of analytics. Every event is counted once when it comes about and once when it is stored or dropped;
//! `analytics_queued` counts those in between on its own, so that the numbers prove each other. Series come into being
//! with the first use, so that a gateway without analytics shows none.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use super::metrics::{counter, counters, gauge};

/// Why an event was not stored, as the `reason` label says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// The queue was full.
    QueueFull,
    /// Too many were refused before their caller was known.
    Strangers,
    /// PostgreSQL will not have it.
    Rejected,
    /// Its queue ended, by a reload or with the process, before it could be stored.
    Closed,
}

impl Dropped {
    const ALL: [Self; 4] = [Self::QueueFull, Self::Strangers, Self::Rejected, Self::Closed];

    const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Strangers => "strangers",
            Self::Rejected => "rejected",
            Self::Closed => "closed",
        }
    }
}

/// Everything counted of analytics.
pub struct AnalyticsMeter {
    registry: Registry,
    handles: OnceLock<Handles>,
}

struct Handles {
    events: IntCounter,
    stored: IntCounter,
    dropped: [IntCounter; 4],
    queued: IntGauge,
}

impl Handles {
    fn new(r: &Registry) -> Self {
        let dropped: IntCounterVec = counters(r, "analytics_dropped_total", "Events that were not stored, by why.", &["reason"]);
        Self {
            events: counter(r, "analytics_events_total", "Events that came about: requests to MCP servers."),
            stored: counter(r, "analytics_stored_total", "Events that are in PostgreSQL."),
            dropped: Dropped::ALL.map(|reason| dropped.with_label_values(&[reason.name()])),
            queued: gauge(r, "analytics_queued", "Events that wait to be stored."),
        }
    }
}

impl AnalyticsMeter {
    pub(super) fn new(registry: &Registry) -> Self {
        Self { registry: registry.clone(), handles: OnceLock::new() }
    }

    fn handles(&self) -> &Handles {
        self.handles.get_or_init(|| Handles::new(&self.registry))
    }

    /// Shows the series.
    pub fn show(&self) {
        self.handles();
    }

    /// Counts an event that came about and waits.
    pub fn queue(&self) {
        let handles = self.handles();
        handles.events.inc();
        handles.queued.inc();
    }

    /// Counts events that wait no more, and are in PostgreSQL.
    pub fn store(&self, count: usize) {
        self.handles().stored.inc_by(count as u64);
        self.leave(count);
    }

    /// Counts events that wait no more, and are lost.
    pub fn lose(&self, reason: Dropped, count: usize) {
        self.handles().dropped[reason as usize].inc_by(count as u64);
        self.leave(count);
    }

    pub fn queued(&self) -> i64 {
        self.handles().queued.get()
    }

    fn leave(&self, count: usize) {
        self.handles().queued.sub(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
