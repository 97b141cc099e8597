//! Where the circuit breakers stand, for `/health`, `GET /admin/breakers` and the metrics.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use crate::page::Page;
use crate::snapshot::{Snapshot, State};
use crate::upstream::backend::Backend;
use crate::upstream::breaker::State as Standing;

/// One backend's breakers as administrators see them.
#[derive(Serialize)]
struct Row {
    backend: String,
    state: &'static str,
    /// Those of single tools that are not closed.
    tools: Vec<OfTool>,
    /// Left out for failing more than the others, for so many seconds yet.
    ejected_for: Option<f64>,
    in_flight: i64,
}

#[derive(Serialize)]
struct OfTool {
    server: String,
    tool: String,
    state: &'static str,
}

/// State by backend.
pub fn by_backend(snapshot: &Snapshot) -> BTreeMap<String, &'static str> {
    let now = Instant::now();
    snapshot.upstream.backends.iter().map(|backend| (backend.name().to_owned(), state_of(snapshot, backend, now).name())).collect()
}

/// One that is switched off leaves nobody alone, however it stood before.
pub(super) fn state_of(snapshot: &Snapshot, backend: &Backend, now: Instant) -> Standing {
    if snapshot.config.circuit_breaker.backend.is_none() { Standing::Closed } else { backend.record.breaker.state(now) }
}

/// `GET /admin/breakers`.
pub fn page(snapshot: &Snapshot) -> Page {
    let now = Instant::now();
    let rows: Vec<Row> = snapshot.upstream.backends.iter().map(|backend| row(snapshot, backend, now)).collect();
    super::admin::json_page(&serde_json::json!({ "breakers": rows }))
}

fn row(snapshot: &Snapshot, backend: &Backend, now: Instant) -> Row {
    let tools = backend.record.tool_states(now).into_iter().map(|(server, tool, state)| OfTool { server, tool, state: state.name() });
    Row {
        backend: backend.name().to_owned(),
        state: state_of(snapshot, backend, now).name(),
        tools: tools.collect(),
        ejected_for: backend.record.outlier.until(now).map(|until| until.saturating_duration_since(now).as_secs_f64()),
        in_flight: backend.meter.in_flight.get(),
    }
}

/// Brings the metrics up to date.
pub fn note(state: &State) {
    let (snapshot, now) = (state.snapshot(), Instant::now());
    let backends = &snapshot.upstream.backends;
    let states = backends.iter().map(|backend| (backend.name(), state_of(&snapshot, backend, now).level()));
    let tools = backends.iter().flat_map(|backend| {
        let states = backend.record.tool_states(now).into_iter();
        states.map(|(server, tool, state)| ([backend.name().to_owned(), server, tool], state.level()))
    });
    state.shared.metrics.upstream.breakers(states, tools);
}
