//! The model of traffic control towards backends: how requests spread, what counts as failing, what is tried again.

use std::time::Duration;

use serde::Serialize;

use super::{Timespan, seconds};

/// How requests spread over a server's backends.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoadBalancer {
    pub strategy: Strategy,
    pub thresholds: Thresholds,
    /// How long a backend that came (back) takes to reach its whole share; zero is at once.
    #[serde(serialize_with = "seconds")]
    pub slow_start: Duration,
    /// Where this gateway stands: backends of the same zone are preferred.
    pub zone: Option<String>,
    /// The share of the own zone's weight that must be able to serve for all requests to stay there, 0 to 1.
    pub spill_below: f64,
    /// Below this share of healthy backends health is no longer believed; 0 believes it always.
    pub panic_threshold: f64,
    pub queue: Queue,
    pub retries: Retries,
    /// A second backend is asked when the first is slow, where the method only reads.
    pub hedge: Option<Timespan>,
    pub outlier: Option<Outlier>,
}

/// How often a health check must tell the same before it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Thresholds {
    /// Consecutive failed checks until a healthy backend counts as unhealthy.
    pub unhealthy: usize,
    /// Consecutive passed checks until an unhealthy backend counts as healthy.
    pub healthy: usize,
}

/// Whose turn it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    WeightedRoundRobin,
    /// The less busy of two chosen at random, busy by weight.
    LeastRequests,
    /// Always the same backend for the same caller, as long as it can serve.
    ConsistentHash(Affinity),
    Random,
}

/// What makes a caller the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Affinity {
    /// The MCP session, else the subject.
    Session,
    /// The caller; the client's address for the anonymous.
    Subject,
    Tenant,
    Header(String),
}

/// Waiting for a place at a backend that has all it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// Requests that may wait at the same time.
    pub length: usize,
    /// The longest wait. A queue that has not been empty for as long is too long, and lets new ones wait a tenth of it.
    #[serde(serialize_with = "seconds")]
    pub wait: Duration,
}

/// What is tried again at another backend.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Retries {
    /// Attempts beside the first.
    pub max: u32,
    /// Retries as a share of requests, 0 to 1; a few in a second are always allowed.
    pub budget: f64,
    pub repeat: Repeat,
    /// How long one attempt may take where another may follow; absent, the backend's `timeout`.
    pub per_try: Option<Timespan>,
}

/// What may be sent a second time although the first backend may have executed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Repeat {
    /// Nothing: another backend is tried only where nothing was sent.
    Never,
    /// Methods that only read: lists, reads, prompts, completions.
    Reads,
    /// Tools as well whose server declares them read-only or idempotent.
    Annotated,
}

/// Leaving out for a while a backend that fails more than the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outlier {
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Or this share of failures within `interval`, 0 to 1.
    pub failure_rate: f64,
    /// Requests within `interval` below which the share says nothing.
    pub min_requests: u32,
    #[serde(serialize_with = "seconds")]
    pub interval: Duration,
    /// The first time it is left out this long, the nth time n times as long.
    #[serde(serialize_with = "seconds")]
    pub ejection: Duration,
    /// The share of a server's backends that may be left out at the same time, 0 to 1.
    pub max_ejected: f64,
}

/// Circuit breaking: per backend, and per tool where listed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CircuitBreaker {
    /// `None`: switched off.
    pub backend: Option<Breaker>,
    pub tools: Vec<ToolBreaker>,
}

/// When a breaker opens and how it closes again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Breaker {
    /// Failures in a row that open it.
    pub failure_threshold: u32,
    /// Or this share of failures within `window`, 0 to 1.
    pub failure_rate: Option<f64>,
    #[serde(serialize_with = "seconds")]
    pub window: Duration,
    /// Requests within `window` below which the share says nothing.
    pub min_requests: u32,
    /// How long an open one lets nothing through.
    #[serde(serialize_with = "seconds")]
    pub recovery_timeout: Duration,
    /// Requests a half-open one lets through at the same time; as many must pass for it to close.
    pub probes: u32,
}

/// A breaker for single tools.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ToolBreaker {
    /// Globs.
    pub server: String,
    pub tool: String,
    #[serde(flatten)]
    pub breaker: Breaker,
}
