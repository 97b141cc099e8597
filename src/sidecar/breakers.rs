//! Where the circuit breakers stand, for `/health`, `GET /admin/breakers` and the metrics.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use crate::page::Page;
use crate::snapshot::{Snapshot, State};
use crate::upstream::backend::Backend;

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
    snapshot.upstream.backends.iter().map(|backend| (backend.name().to_owned(), backend.breaker.state(now).name())).collect()
}

/// `GET /admin/breakers`.
pub fn page(snapshot: &Snapshot) -> Page {
    let now = Instant::now();
    let rows: Vec<Row> = snapshot.upstream.backends.iter().map(|backend| row(backend, now)).collect();
    super::admin::json_page(&serde_json::json!({ "breakers": rows }))
}

fn row(backend: &Backend, now: Instant) -> Row {
    let tools = backend.tool_states(now).into_iter().map(|(server, tool, state)| OfTool { server, tool, state: state.name() });
    Row {
        backend: backend.name().to_owned(),
        state: backend.breaker.state(now).name(),
        tools: tools.collect(),
        ejected_for: backend.outlier.until(now).map(|until| until.saturating_duration_since(now).as_secs_f64()),
        in_flight: backend.meter.in_flight.get(),
    }
}

/// Brings the metrics up to date.
pub fn note(state: &State) {
    let (snapshot, now) = (state.snapshot(), Instant::now());
    let backends = &snapshot.upstream.backends;
    let states = backends.iter().map(|backend| (backend.name(), backend.breaker.state(now).level()));
    let tools = backends.iter().flat_map(|backend| {
        let states = backend.tool_states(now).into_iter();
        states.map(|(server, tool, state)| ([backend.name().to_owned(), server, tool], state.level()))
    });
    state.shared.metrics.breakers(states, tools);
}
