//! What the gateway tells about itself: `metrics` (Prometheus), `trace` (request ids and W3C trace context), `log`.

pub mod cache;
pub mod labels;
pub mod log;
pub mod metrics;
pub mod trace;
