//! Lists against calls: what a caller is shown must be exactly what it may use, in every form a list comes in.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::callers::{Caller, Guarded, key};
use super::offers::{self, PROMPTS, REPLAYED, RESOURCES, TEMPLATES, TOOLS};
use super::witness::Witness;
use crate::support::http;

/// Something that is listed: how to list it, how to use it.
struct Kind {
    list: &'static str,
    member: &'static str,
    naming: &'static str,
    uses: &'static str,
    by: &'static str,
    all: &'static [&'static str],
}

const fn kind(
    list: &'static str,
    member: &'static str,
    naming: &'static str,
    uses: &'static str,
    by: &'static str,
    all: &'static [&'static str],
) -> Kind {
    Kind { list, member, naming, uses, by, all }
}

const KINDS: [Kind; 4] = [
    kind("tools/list", "tools", "name", "tools/call", "name", TOOLS),
    kind("prompts/list", "prompts", "name", "prompts/get", "name", PROMPTS),
    kind("resources/list", "resources", "uri", "resources/read", "uri", RESOURCES),
    kind("resources/templates/list", "resourceTemplates", "uriTemplate", "resources/read", "uri", TEMPLATES),
];

/// The forms a list comes in.
const FORMS: [&str; 6] = ["v1", "v2", "events", "json", "sse", "batch"];

/// Roles with their rules, and what they may see, so that lists and calls cannot be wrong together.
fn table() -> Vec<(&'static str, Value, Vec<&'static str>)> {
    let reads = ["read_a", "read_b", "read_c", "read_ab"];
    let all = [TOOLS, PROMPTS, RESOURCES, TEMPLATES].concat();
    vec![
        ("whole", json!([{}]), all.clone()),
        ("star", json!([{ "tools": ["*"], "prompts": ["*"], "resources": ["*"] }]), all),
        ("empty", json!([{ "tools": [], "prompts": [], "resources": [] }]), vec![]),
        ("question", json!([{ "tools": ["read_?"] }]), vec!["read_a", "read_b", "read_c"]),
        ("class", json!([{ "tools": ["read_[ab]"], "prompts": ["[!r]*"] }]), vec!["read_a", "read_b", "deploy", "a*b"]),
        ("choice", json!([{ "tools": ["{read,list}_a"], "prompts": ["{review,deploy}"] }]), vec!["read_a", "list_a", "review", "deploy"]),
        ("escaped", json!([{ "tools": ["[[]ab]", "weird [*][?]"], "prompts": ["a[*]b"] }]), vec!["[ab]", "weird *?", "a*b"]),
        ("odd", json!([{ "tools": ["n??me", "a?b"] }]), vec!["näme", "a\nb"]),
        ("librarian", json!([{ "resources": ["file:///srv/*"] }]), vec!["file:///srv/a", "file:///srv/deep/b", "file:///srv/{path}"]),
        ("methods", json!([{ "methods": ["tools/*"] }]), TOOLS.to_vec()),
        ("lister", json!([{ "methods": ["*/list"] }]), vec![]),
        ("reader", json!([{ "methods": ["resources/*", "prompts/*"] }]), [PROMPTS, RESOURCES, TEMPLATES].concat()),
        ("sum", json!([{ "tools": ["read_*"] }, { "tools": ["write_*"], "prompts": ["review"] }]), {
            [&reads[..], &["write_a", "review"]].concat()
        }),
        ("named", json!([{ "when": "name.endsWith('_a') || name == 'review'" }]), vec!["read_a", "Read_a", "list_a", "write_a", "review"]),
        ("careful", json!([{ "tools": ["read_*"], "when": "arguments.path.startsWith('/pub/')" }]), reads.to_vec()),
        ("elsewhere", json!([{ "servers": ["else*"] }]), vec![]),
        ("abroad", json!([{ "when": "principal.tenant == 'abroad'" }]), vec![]),
        ("nobody", json!([]), vec![]),
    ]
}

/// A gateway with all of them, before a witness that serves two servers.
pub struct World {
    guarded: Guarded,
    _witness: Witness,
    client: reqwest::Client,
}

type Names = BTreeSet<String>;

impl World {
    pub async fn start() -> Self {
        let witness = Witness::start(offers::answer).await;
        let callers: Vec<Caller> = table().into_iter().map(|(name, rules, _)| Caller::new(name, rules)).collect();
        let guarded = Guarded::start(&callers, &witness.backend(&["main", "elsewhere"], "modern"), "whole").await;
        Self { guarded, _witness: witness, client: http() }
    }

    fn post(&self, role: &str, path: &str, body: &Value) -> reqwest::RequestBuilder {
        let request = self.client.post(self.guarded.gateway.at(path)).header("x-api-key", key(role));
        request.header("accept", "application/json, text/event-stream").json(body)
    }

    /// A REST request for events alone, which gives every answer as one.
    fn events(&self, role: &str, body: &Value) -> reqwest::RequestBuilder {
        let request = self.client.post(self.guarded.gateway.at("/api/mcp/main")).header("x-api-key", key(role));
        request.header("accept", "text/event-stream").json(body)
    }

    /// What of a kind a caller may use.
    async fn usable(&self, role: &str, kind: &Kind) -> Names {
        let mut names = Names::new();
        for name in kind.all {
            let params = json!({ kind.by: name, "arguments": { "path": "/pub/a" } });
            let body = json!({ "jsonrpc": "2.0", "id": 1, "method": kind.uses, "params": params });
            let status = self.post(role, "/mcp/main", &body).send().await.expect("an answer").status().as_u16();
            assert!([200, 403].contains(&status), "{role} {name}: {status}");
            names.extend((status == 200).then(|| (*name).to_owned()));
        }
        names
    }

    /// What a caller is shown of a kind; nothing where the list itself is refused.
    async fn shown(&self, role: &str, kind: &Kind, form: &str) -> Names {
        let native = json!({ "jsonrpc": "2.0", "id": 1, "method": kind.list, "params": {} });
        let rest = json!({ "method": kind.list });
        let request = match form {
            "v1" => self.post(role, "/api/mcp/main", &rest),
            "events" => self.events(role, &rest),
            "v2" => self.post(role, "/api/v2/mcp/main", &rest),
            "batch" => self.post(role, "/mcp/main", &json!([{ "jsonrpc": "2.0", "id": 7, "method": "ping" }, native])),
            form => self.post(role, "/mcp/main", &native).header("mcp-dress", form),
        };
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("text");
        if status == 403 {
            return Names::new();
        }
        assert_eq!(status, 200, "{role} {} {form}: {text}", kind.list);
        let message = if ["sse", "events"].contains(&form) { last_event(&text) } else { serde_json::from_str(&text).expect("JSON") };
        let list = match form {
            "v1" | "events" => &message["result"],
            "batch" => &message[1]["result"][kind.member],
            _ => &message["result"][kind.member],
        };
        names(list, kind)
    }

    pub async fn lists_tell_the_truth(&self) {
        let mut faults = String::new();
        for (role, _, expected) in table() {
            for kind in &KINDS {
                let expected: Names = kind.all.iter().filter(|name| expected.contains(name)).map(|name| (*name).to_owned()).collect();
                let usable = self.usable(role, kind).await;
                if usable != expected {
                    let _ = writeln!(faults, "{role} may use {usable:?} of {}, not {expected:?}", kind.member);
                }
                for form in FORMS {
                    let shown = self.shown(role, kind, form).await;
                    if shown != usable {
                        let _ = writeln!(faults, "{role} {} {form}: shows {shown:?}, may use {usable:?}", kind.list);
                    }
                }
            }
        }
        assert!(faults.is_empty(), "{faults}");
    }

    pub async fn replays_tell_the_truth(&self) {
        let mut faults = String::new();
        for (role, ..) in table() {
            for kind in &KINDS {
                let request = self.client.get(self.guarded.gateway.at("/mcp/main")).header("x-api-key", key(role));
                let request = request.header("accept", "text/event-stream").header("last-event-id", kind.list);
                let response = request.send().await.expect("an answer");
                let status = response.status().as_u16();
                let text = response.text().await.expect("text");
                let usable = self.usable(role, kind).await;
                if status == 403 && usable.is_empty() {
                    continue;
                }
                let message = last_event(&text);
                let shown = names(&message["result"][kind.member], kind);
                if (status, &message["id"], &shown) != (200, &json!(REPLAYED), &usable) {
                    let _ = writeln!(faults, "{role} {}: {status} shows {shown:?}, may use {usable:?}", kind.list);
                }
                if !text.contains("notifications/message") || !text.starts_with("id: 1\n") {
                    let _ = writeln!(faults, "{role}: what is no list passes as it is: {text}");
                }
            }
        }
        assert!(faults.is_empty(), "{faults}");
    }

    pub async fn catalogues_tell_the_truth(&self) {
        let mut faults = String::new();
        for (role, ..) in table() {
            let rows = self.guarded.servers(&key(role)).await;
            for server in ["main", "elsewhere"] {
                let ping = self.post(role, &format!("/api/mcp/{server}"), &json!({ "method": "ping" }));
                let enters = ping.send().await.expect("an answer").status() != 403;
                let row = rows.iter().find(|row| row["name"] == server);
                if row.is_some() != enters {
                    let _ = writeln!(faults, "{role} {server}: enters: {enters}, listed as {row:?}");
                }
                if let Some(row) = row.filter(|_| server == "main") {
                    let usable = self.usable(role, &KINDS[0]).await.len();
                    if row["tools_count"] != usable {
                        let _ = writeln!(faults, "{role}: tools_count {} for {usable}", row["tools_count"]);
                    }
                }
            }
        }
        assert_eq!(self.guarded.servers(&key("nobody")).await, Vec::<Value>::new());
        let abroad = self.guarded.servers(&key("abroad")).await;
        if !abroad.is_empty() {
            let _ = writeln!(faults, "abroad may use nothing of a server and is told of {}", json!(abroad));
        }
        assert!(faults.is_empty(), "{faults}");
    }

    pub async fn scopes_tell_the_truth(&self) {
        for (role, scope) in [("whole", "public"), ("question", "private"), ("careful", "private"), ("methods", "private")] {
            let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {} });
            for dress in ["json", "sse"] {
                let response = self.post(role, "/mcp/main", &body).header("mcp-dress", dress).send().await.expect("an answer");
                let text = response.text().await.expect("text");
                assert!(text.contains(&format!(r#""cacheScope":"{scope}""#)), "{role} {dress}: {text}");
                assert_eq!(text.matches("cacheScope").count(), 1);
            }
            let page = self.post(role, "/api/v2/mcp/main", &json!({ "method": "list_tools" })).send().await.expect("an answer");
            let page: Value = page.json().await.expect("JSON");
            assert_eq!(page["result"]["cacheScope"], scope, "{role} v2");
        }
    }

    pub async fn hidden_lists_stay_hidden(&self) {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {} });
        let mut faults = String::new();
        for dress in ["gzip", "bom", "utf-16"] {
            let whole = self.post("whole", "/mcp/main", &body).header("mcp-dress", dress).send().await.expect("an answer");
            assert_eq!(whole.status(), 200, "{dress}: who sees everything gets it as it is");
            assert!(reads(&whole.bytes().await.expect("bytes")).contains("write_a"), "{dress}");
            let part = self.post("question", "/mcp/main", &body).header("mcp-dress", dress).send().await.expect("an answer");
            let status = part.status().as_u16();
            let text = reads(&part.bytes().await.expect("bytes"));
            if text.contains("write_a") || (dress == "gzip" && status != 502) {
                let _ = writeln!(faults, "{dress}: {status} {text}");
            }
        }
        assert!(faults.is_empty(), "{faults}");
    }
}

/// The text without what its coding puts between.
fn reads(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "")
}

fn names(list: &Value, kind: &Kind) -> Names {
    let items = list.as_array().unwrap_or_else(|| panic!("{} is no list: {list}", kind.list));
    items.iter().map(|item| item[kind.naming].as_str().expect("a name").to_owned()).collect()
}

/// The message of the last event.
fn last_event(text: &str) -> Value {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
    data.and_then(|data| serde_json::from_str(data).ok()).unwrap_or_else(|| panic!("no event in {text}"))
}
