//! The permission matrix: every method in every lane for every kind of role. What is expected is said here anew, in the
//! words of the README, and not taken from the gateway.

use std::fmt::Write as _;

use mcp_gateway::mcp::method::{METHODS, Named};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::callers::{Caller, Guarded, key};
use super::offers;
use super::witness::{Seen, Witness};
use crate::support::http;

/// A role, and what the README lets it do.
pub struct Role {
    name: &'static str,
    rules: Value,
    permits: fn(&Ask) -> bool,
}

/// One thing to ask for.
pub struct Ask {
    method: &'static str,
    params: Value,
    /// The tool, prompt, URI or task it names, if it names one.
    name: &'static str,
    /// What a subscription wants to hear of.
    uris: Vec<&'static str>,
    /// Whether the REST form has it.
    rest: bool,
}

/// How it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Rest,
    RestBatch,
    Legacy,
    LegacyBatch,
    Modern,
}

const LANES: [Lane; 5] = [Lane::Rest, Lane::RestBatch, Lane::Legacy, Lane::LegacyBatch, Lane::Modern];
const SERVER: &str = "main";

impl Ask {
    /// `initialize`, `ping`, streams: what belongs to shaking hands.
    fn is_handshake(&self) -> bool {
        let by_name = ["initialize", "ping", "server/discover", "logging/setLevel", "subscriptions/listen"].contains(&self.method);
        (by_name || self.method.starts_with("notifications/")) && self.uris.is_empty()
    }

    fn is(&self, methods: &[&str]) -> bool {
        methods.contains(&self.method)
    }

    /// `completion/complete` for a prompt or a resource.
    fn completes(&self, kind: &str) -> bool {
        self.method == "completion/complete" && self.params["ref"]["type"] == kind
    }

    fn reads_public(&self) -> bool {
        self.params["arguments"]["path"].as_str().is_some_and(|path| path.starts_with("/pub/"))
    }

    fn is_list(&self) -> bool {
        self.method.ends_with("/list")
    }
}

fn role(name: &'static str, rules: Value, permits: fn(&Ask) -> bool) -> Role {
    Role { name, rules, permits }
}

/// Tasks come from tools, and their ids do not tell of which.
const TASKS: &[&str] = &["tasks/get", "tasks/result", "tasks/update", "tasks/cancel"];

/// One role of each kind.
pub fn roles() -> Vec<Role> {
    vec![
        role("nothing", json!([]), |_| false),
        role("reader", json!([{ "tools": ["read_*"] }]), |ask| {
            let reads = ask.method == "tools/call" && ask.name.starts_with("read_");
            ask.is_handshake() || ask.method == "tools/list" || reads || ask.is(TASKS)
        }),
        role("prompter", json!([{ "prompts": ["review"] }]), |ask| {
            let its_own = ask.method == "prompts/get" || ask.completes("ref/prompt");
            ask.is_handshake() || ask.method == "prompts/list" || (its_own && ask.name == "review")
        }),
        role("librarian", json!([{ "resources": ["file:///srv/*"] }]), |ask| {
            let reads = ask.is(&["resources/read", "resources/subscribe", "resources/unsubscribe"]) || ask.completes("ref/resource");
            let hears = ask.method == "subscriptions/listen" && ask.uris.iter().all(|uri| uri.starts_with("file:///srv/"));
            let its_own = reads && ask.name.starts_with("file:///srv/");
            ask.is_handshake() || ask.is(&["resources/list", "resources/templates/list"]) || its_own || hears
        }),
        role("lister", json!([{ "methods": ["tools/list"] }]), |ask| ask.is_handshake() || ask.method == "tools/list"),
        role("whole", json!([{ "servers": [SERVER] }]), |_| true),
        role("stranger", json!([{ "servers": ["elsewhere"] }]), |_| false),
        role("careful", json!([{ "tools": ["read_*"], "when": "arguments.path.startsWith('/pub/')" }]), |ask| {
            let reads = ask.method == "tools/call" && ask.name.starts_with("read_") && ask.reads_public();
            ask.is_handshake() || ask.method == "tools/list" || reads
        }),
    ]
}

/// Roles whose rules say nothing but a condition.
pub fn conditions() -> Vec<Role> {
    vec![
        role("whole", json!([{}]), |_| true),
        // Whoever may use nothing of a server may not shake hands with it either.
        role("elsewhere", json!([{ "when": "principal.tenant == 'elsewhere'" }]), |_| false),
        role("here", json!([{ "when": "principal.tenant == 'acme' && server == 'main'" }]), |_| true),
        role("public", json!([{ "when": "arguments.path.startsWith('/pub/')" }]), |ask| {
            ask.is_handshake() || ask.is_list() || ask.reads_public()
        }),
        role("named", json!([{ "when": "name.startsWith('read_')" }]), |ask| {
            ask.is_handshake() || ask.is_list() || ask.name.starts_with("read_")
        }),
        role("method", json!([{ "when": "method == 'tools/call'" }]), |ask| {
            ask.is_handshake() || ask.is_list() || ask.method == "tools/call"
        }),
    ]
}

/// Everything there is to ask for: each method with something each role may use, and something it may not.
fn asks() -> Vec<Ask> {
    let mut asks = Vec::new();
    for row in METHODS {
        let mut add = |name: &'static str, params: Value| asks.push(Ask { name, params, uris: vec![], ..ask(row.mcp, row.rest.is_some()) });
        match row.named {
            Named::Name if row.mcp == "tools/call" => {
                for (name, path) in [("read_file", "/pub/a"), ("read_file", "/etc/passwd"), ("write_file", "/pub/a")] {
                    add(name, json!({ "name": name, "arguments": { "path": path } }));
                }
                add("read_file", json!({ "name": "read_file" }));
            }
            Named::Name => {
                for name in ["review", "deploy"] {
                    add(name, json!({ "name": name, "arguments": { "path": "/pub/a" } }));
                }
            }
            Named::Uri => {
                for uri in ["file:///srv/a", "file:///etc/passwd"] {
                    add(uri, json!({ "uri": uri }));
                }
            }
            Named::TaskId => add("t1", json!({ "taskId": "t1" })),
            Named::Reference => {
                for name in ["review", "deploy"] {
                    add(name, completion(json!({ "type": "ref/prompt", "name": name })));
                }
                for uri in ["file:///srv/a", "file:///etc/passwd"] {
                    add(uri, completion(json!({ "type": "ref/resource", "uri": uri })));
                }
            }
            Named::Nothing => add("", json!({})),
        }
    }
    for uris in [vec!["file:///srv/a"], vec!["file:///srv/a", "file:///etc/passwd"], vec!["file:///etc/passwd"]] {
        let params = json!({ "notifications": { "toolsListChanged": true, "resourceSubscriptions": uris } });
        asks.push(Ask { params, uris, ..ask("subscriptions/listen", false) });
    }
    for params in [json!({}), json!({ "name": "read_file", "arguments": { "path": "/pub/a" } }), json!({ "arguments": { "path": "/etc" } })]
    {
        asks.push(Ask { params, ..ask("vendor/secret", false) });
    }
    asks.push(ask("notifications/roots/list_changed", false));
    asks
}

fn ask(method: &'static str, rest: bool) -> Ask {
    Ask { method, params: json!({}), name: "", uris: vec![], rest }
}

fn completion(reference: Value) -> Value {
    json!({ "ref": reference, "argument": { "name": "a", "value": "b" } })
}

impl Lane {
    fn carries(self, ask: &Ask) -> bool {
        ask.rest || !matches!(self, Self::Rest | Self::RestBatch)
    }

    /// Whether `ping` stands before it, so that a part of a batch could be taken for the whole.
    fn is_batch(self) -> bool {
        matches!(self, Self::RestBatch | Self::LegacyBatch)
    }

    fn message(self, ask: &Ask) -> Value {
        let mut message = json!({ "method": ask.method, "params": ask.params });
        if matches!(self, Self::Rest | Self::RestBatch) {
            return message;
        }
        message["jsonrpc"] = json!("2.0");
        if !ask.method.starts_with("notifications/") {
            message["id"] = json!(2);
        }
        if self == Self::Modern {
            message["params"]["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
        }
        message
    }

    fn request(self, world: &Matrix, ask: &Ask) -> RequestBuilder {
        let message = self.message(ask);
        let path = if matches!(self, Self::Rest | Self::RestBatch) { "/api/mcp/main" } else { "/mcp/main" };
        let request = world.client.post(world.guarded.gateway.at(path)).header("accept", "application/json, text/event-stream");
        match self {
            Self::Rest => request.json(&message),
            Self::RestBatch => request.json(&json!([{ "method": "ping" }, message])),
            Self::Legacy => request.header("mcp-protocol-version", "2025-11-25").json(&message),
            Self::LegacyBatch => request.json(&json!([{ "jsonrpc": "2.0", "id": 1, "method": "ping" }, message])),
            Self::Modern => {
                let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", ask.method);
                // A completion's name is in its reference, which no header tells.
                let named = !ask.name.is_empty() && ask.method != "completion/complete";
                if named { request.header("mcp-name", ask.name).json(&message) } else { request.json(&message) }
            }
        }
    }
}

/// Whether our refusal for want of permission stands in an answer.
fn is_forbidden(answer: &Value) -> bool {
    answer["code"] == "forbidden" || answer["error"]["data"]["code"] == "forbidden"
}

/// A gateway with the callers of a table before a witness.
pub struct Matrix {
    roles: Vec<Role>,
    witness: Witness,
    guarded: Guarded,
    client: reqwest::Client,
}

impl Matrix {
    pub async fn start(roles: Vec<Role>) -> Self {
        let witness = Witness::start(offers::answer).await;
        let callers: Vec<Caller> = roles.iter().map(|role| Caller::new(role.name, role.rules.clone())).collect();
        let guarded = Guarded::start(&callers, &witness.backend(&[SERVER], "modern"), "whole").await;
        Self { roles, witness, guarded, client: http() }
    }

    /// Asks everything of everyone and compares.
    pub async fn agrees(&self) {
        let asks = asks();
        let (mut faults, mut count, mut admitted) = (String::new(), 0, 0);
        for role in &self.roles {
            for ask in &asks {
                let expected = (role.permits)(ask);
                for lane in LANES.into_iter().filter(|lane| lane.carries(ask)) {
                    count += 1;
                    admitted += usize::from(expected);
                    if let Some(fault) = self.fault(role, ask, lane, expected).await {
                        let _ = writeln!(faults, "{} {lane:?} {} {}: {fault}", role.name, ask.method, ask.params);
                    }
                }
            }
        }
        assert!(count > 500 && admitted > 100 && count - admitted > 100, "{admitted} of {count}");
        assert!(faults.is_empty(), "{} of {count}:\n{faults}", faults.lines().count());
    }

    async fn fault(&self, role: &Role, ask: &Ask, lane: Lane, expected: bool) -> Option<String> {
        let _before = self.witness.seen();
        let request = lane.request(self, ask).header("x-api-key", key(role.name)).header("x-request-id", "ours");
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let answer: Value = response.json().await.unwrap_or_default();
        // A REST batch stands or falls request by request; everything else as a whole.
        let judged = if lane == Lane::RestBatch && status == 200 { &answer[1] } else { &answer };
        let admitted = !is_forbidden(judged);
        if !admitted && status != 403 && lane != Lane::RestBatch {
            return Some(format!("forbidden with {status}"));
        }
        if admitted != expected {
            return Some(format!("{} instead of {}", verdict(admitted), verdict(expected)));
        }
        let entered = lane.is_batch() && (admitted || (lane == Lane::RestBatch && status == 200));
        let mut due: Vec<String> = Vec::new();
        due.extend(entered.then(|| "ping".to_owned()));
        due.extend(expected.then(|| ask.method.to_owned()));
        let mut reached: Vec<String> = self.witness.seen().iter().flat_map(|seen| executed(seen, ask)).collect();
        // The elements of a REST batch go out side by side.
        reached.sort_by_key(|method| method != "ping");
        (reached != due).then(|| format!("{due:?} should have reached the backend, {reached:?} did: {status} {answer}"))
    }
}

fn verdict(admitted: bool) -> &'static str {
    if admitted { "admitted" } else { "forbidden" }
}

/// The methods a request brought; of the asked one, with whatever it acts on.
fn executed(seen: &Seen, ask: &Ask) -> Vec<String> {
    let body = seen.json();
    let messages = if body.is_array() { body.as_array().cloned().unwrap_or_default() } else { vec![body] };
    let tell = |message: &Value| {
        let method = message["method"].as_str().unwrap_or("?").to_owned();
        let same = ask.params.as_object().is_none_or(|params| params.iter().all(|(name, value)| message["params"][name] == *value));
        if method == ask.method && !same { format!("{method} with {}", message["params"]) } else { method }
    };
    messages.iter().map(tell).collect()
}
