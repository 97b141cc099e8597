//! A gateway before a backend that is read by all the readers, and the trial of a corpus.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use reqwest::Body;
use serde_json::{Value, json};

use super::corpus::Case;
use super::readers::{Execution, executions};
use crate::permissions::callers::{Caller, Guarded, key};
use crate::permissions::offers;
use crate::permissions::witness::Witness;
use crate::support::http;

/// How a body travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Rest,
    /// Native, without any `Mcp-*` header.
    Legacy,
    /// Native, with the version header of the stateless revision; what else it could tell is tried apart.
    Modern,
}

pub const ALL: &[Lane] = &[Lane::Rest, Lane::Legacy, Lane::Modern];

/// A caller, and what an execution may be for it to be permitted.
pub struct Permitted {
    pub rules: Value,
    pub permits: fn(&Execution) -> bool,
}

/// A role that may call one tool with a path below `/pub/`, and nothing else.
pub fn reader() -> Permitted {
    let rules = json!([{ "tools": ["read_ok"], "when": "arguments.path.startsWith('/pub/')" }]);
    Permitted { rules, permits: |execution| is_harmless(execution) || reads_public(execution) }
}

/// Shaking hands, and looking at a list that is filtered.
pub fn is_harmless(execution: &Execution) -> bool {
    let method = execution.method.as_str();
    let by_name = ["ping", "initialize", "server/discover", "logging/setLevel", "tools/list", "subscriptions/listen"].contains(&method);
    (by_name || method.starts_with("notifications/")) && execution.touches.is_empty()
}

fn reads_public(execution: &Execution) -> bool {
    let public = execution.path.as_ref().is_some_and(|path| path.starts_with("/pub/"));
    execution.method == "tools/call" && execution.name.as_deref() == Some("read_ok") && public
}

/// The trial.
pub struct Reading {
    witness: Witness,
    guarded: Guarded,
    client: reqwest::Client,
    permits: fn(&Execution) -> bool,
}

struct Told {
    status: u16,
    text: String,
}

impl Reading {
    pub async fn start(permitted: Permitted) -> Self {
        let witness = Witness::start(offers::answer).await;
        let callers = [Caller::new("reader", permitted.rules), Caller::new("whole", json!([{}]))];
        let guarded = Guarded::start(&callers, &witness.backend(&["main"], "modern"), "whole").await;
        Self { witness, guarded, client: http(), permits: permitted.permits }
    }

    /// Sends every body in every lane, whole and in chunks, and looks at what reached the backend. Of the honest ones at
    /// least `least` must, or nothing was tried.
    pub async fn withstands(&self, cases: &[Case], least: usize) {
        let (mut faults, mut reached, mut sent) = (String::new(), 0, 0);
        for case in cases {
            // What goes wrong alike in several lanes is told once.
            let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (lane, chunked) in case.lanes.iter().flat_map(|lane| [(*lane, false), (*lane, true)]) {
                sent += 1;
                match self.fault(case, lane, chunked).await {
                    Ok(arrived) => reached += usize::from(arrived && case.honest),
                    Err(fault) => wrong.entry(fault).or_default().push(format!("{lane:?}{}", if chunked { " chunked" } else { "" })),
                }
            }
            for (fault, lanes) in wrong {
                let _ = writeln!(faults, "{} ({}): {fault}\n    {}", case.name, lanes.join(", "), case.shown());
            }
        }
        assert!(reached >= least, "only {reached} honest requests of {sent} reached the backend:\n{faults}");
        assert!(faults.is_empty(), "{} faults in {sent} requests:\n{faults}", faults.lines().count() / 2);
    }

    /// Whether it reached the backend.
    async fn fault(&self, case: &Case, lane: Lane, chunked: bool) -> Result<bool, String> {
        let _before = self.witness.seen();
        let told = self.send(case, lane, chunked).await;
        let seen = self.witness.seen();
        for seen in &seen {
            let found = executions(seen)?;
            if let Some(evil) = found.iter().find(|execution| !(self.permits)(execution)) {
                return Err(format!("reached the backend, and {evil:?}"));
            }
        }
        let (status, text) = (told.status, &told.text);
        if case.honest && (seen.is_empty() || status != 200) {
            return Err(format!("honest, but {status} {text:.300}"));
        }
        if seen.is_empty() && !(400..500).contains(&status) && !is_refused_batch(text) {
            return Err(format!("neither sent nor refused: {status} {text:.300}"));
        }
        Ok(!seen.is_empty())
    }

    async fn send(&self, case: &Case, lane: Lane, chunked: bool) -> Told {
        let path = if lane == Lane::Rest { "/api/mcp/main" } else { "/mcp/main" };
        let request = self.client.post(self.guarded.gateway.at(path)).header("x-api-key", key("reader")).header("x-request-id", "ours");
        let mut request = request.header("accept", "application/json, text/event-stream");
        if !case.headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        if lane == Lane::Modern {
            request = request.header("mcp-protocol-version", "2026-07-28");
        }
        for (name, value) in &case.headers {
            request = request.header(*name, value.as_bytes());
        }
        let body = case.body.clone();
        let body = if chunked {
            let pieces: Vec<Result<Vec<u8>, std::io::Error>> = body.chunks(7.max(body.len() / 5)).map(|piece| Ok(piece.to_vec())).collect();
            Body::wrap_stream(futures::stream::iter(pieces))
        } else {
            Body::from(body)
        };
        let response = request.body(body).send().await.unwrap_or_else(|e| panic!("{}: {e}", case.name));
        Told { status: response.status().as_u16(), text: response.text().await.unwrap_or_default() }
    }
}

/// A REST batch none of whose elements was sent.
fn is_refused_batch(text: &str) -> bool {
    let answer: Value = serde_json::from_str(text).unwrap_or_default();
    let refused = |element: &Value| element["status"].as_u64().is_some_and(|status| (400..500).contains(&status));
    answer.as_array().is_some_and(|elements| !elements.is_empty() && elements.iter().all(refused))
}
