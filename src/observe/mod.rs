//! What the gateway tells about itself: `metrics` (Prometheus; `cache`, `instance` and `upstream` are parts of it), `trace` (request ids
//! and W3C trace context), `log`.

pub mod cache;
pub mod instance;
pub mod labels;
pub mod log;
pub mod metrics;
pub mod trace;
pub mod upstream;
