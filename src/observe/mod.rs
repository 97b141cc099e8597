//! What the gateway tells about itself: `metrics` (Prometheus; `cache`, `instance` and `upstream` are parts of it), `trace`
//! (request ids and W3C trace context), `spans` (what is told of a request), `otlp` and `statsd` (who is
//! told, how), `export` (telling them of metrics), `log` (`levels`: how much of it, `object`: the records that every request
//! has), `clock` (where the time of a request goes), `few` (how much of crowds), `pulse` and `refusals` (what the operator's
//! page remembers).

use std::sync::LazyLock;

pub mod analytics;
pub mod cache;
pub mod clock;
pub mod export;
pub mod few;
pub mod instance;
pub mod labels;
pub mod levels;
pub mod log;
pub mod metrics;
pub mod object;
pub mod otlp;
pub mod pulse;
pub mod refusals;
pub mod spans;
pub mod statsd;
pub mod trace;
pub mod upstream;

/// A name for this process that no other has.
pub fn instance() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| uuid::Uuid::new_v4().to_string());
    &NAME
}
