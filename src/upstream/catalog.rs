//! Learning what a backend is: its protocol and era, its servers and their tools. Runs in the background; requests
//! read the last facts, and ask for new ones only where a server says that the old ones mislead (`Mcp-Param-*`). What
//! cannot be learned now leaves the old facts in force.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use super::ask::{self, Question, Reply, Trouble};
use super::backend::Backend;
use super::facts::{Facts, Server, Speaks, Tool};
use crate::call::Era;
use crate::config::{EraChoice, Protocol};
use crate::egress::Client;
use crate::mcp::message::Answer;
use crate::mcp::method::{self, Method};
use crate::mcp::{self, error, headers, rest};
use crate::schema::Schema;
use crate::verbatim::Verbatim;

/// Deadline of one background question.
const WAIT: Duration = Duration::from_secs(10);
/// Pages of one list; more is a server that runs in circles.
pub const MAX_PAGES: usize = 100;

/// Learns protocol, era and servers, without their tools.
///
/// # Errors
/// Why the backend could not be asked; the old facts stand.
pub async fn identify(client: &Client, backend: &Backend) -> Result<Facts, String> {
    if backend.conf.protocol == Protocol::Middleware {
        return middleware(client, backend).await;
    }
    match era(client, backend).await {
        Ok((era, name)) => Ok(mcp_facts(backend, era, name)),
        Err(cause) if backend.conf.protocol == Protocol::Auto => {
            middleware(client, backend).await.map_err(|other| format!("neither MCP ({cause}) nor REST middleware ({other})"))
        }
        Err(cause) => Err(cause),
    }
}

fn mcp_facts(backend: &Backend, era: Era, introduction: Introduction) -> Facts {
    let old = backend.facts();
    let names = match backend.conf.capabilities.as_slice() {
        [] => vec![label(&introduction.name)],
        names => names.to_vec(),
    };
    let server = |name: &String| Server { version: introduction.version.clone(), ..old.servers.get(name).cloned().unwrap_or_default() };
    Facts { speaks: Some(Speaks::Mcp(era)), servers: names.iter().map(|name| (name.clone(), server(name))).collect() }
}

/// How a server introduced itself.
#[derive(Default)]
struct Introduction {
    name: String,
    version: Option<String>,
}

/// Asks for the era (FIELD: a success or a modern error code is modern, another refusal is legacy, 401, 403 and 5xx tell
/// nothing).
async fn era(client: &Client, backend: &Backend) -> Result<(Era, Introduction), String> {
    if backend.conf.era != EraChoice::Legacy {
        match question(client, backend, first_server(backend), "server/discover", Era::Modern).await {
            Ok(reply) => {
                if let Some(introduction) = discovered(&reply) {
                    return Ok((Era::Modern, introduction));
                }
            }
            Err(Trouble::Status(status)) if status.is_client_error() => {}
            // A server that answers the unknown with something that is not JSON-RPC may still speak the old era.
            Err(Trouble::Protocol(_)) => {}
            Err(trouble) => return Err(trouble.to_string()),
        }
        if backend.conf.era == EraChoice::Modern {
            return Err("does not answer server/discover as a 2026-07-28 server".to_owned());
        }
    }
    let target = backend.target().or_else(|| backend.any_target()).ok_or("not resolved")?;
    let encode = |_, _| Vec::new();
    let question = plain(first_server(backend), "initialize", &encode, WAIT);
    let session = ask::session(client, backend, &target, &question).await.map_err(|e| e.to_string())?;
    Ok((Era::Legacy, Introduction { name: session.server.clone(), version: Some(session.version.clone()) }))
}

fn first_server(backend: &Backend) -> &str {
    backend.conf.capabilities.first().map_or("", String::as_str)
}

#[derive(Deserialize, Default)]
struct Meta {
    #[serde(rename = "io.modelcontextprotocol/serverInfo")]
    info: Option<Info>,
}

#[derive(Deserialize)]
struct Info {
    name: String,
}

/// The introduction of a modern server; `None` if the answer shows a legacy one.
fn discovered(reply: &Reply) -> Option<Introduction> {
    let result = match Answer::read(&reply.body, reply.id)? {
        Answer::Error(refusal) => return error::is_modern(error::code(refusal)).then(Introduction::default),
        Answer::Result(result) => result,
    };
    let supported: Vec<String> = result.get("supportedVersions").and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let meta: Meta = result.get("_meta").and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let info = result.get("serverInfo").and_then(|raw| serde_json::from_str::<Info>(raw.get()).ok()).or(meta.info);
    let version = supported.into_iter().max().unwrap_or_else(|| mcp::MODERN.to_owned());
    Some(Introduction { name: info.map(|info| info.name).unwrap_or_default(), version: Some(version) })
}

/// A server's own name in the alphabet of server names.
fn label(name: &str) -> String {
    let name: String = name.chars().take(64).map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    if name.is_empty() { "server".to_owned() } else { name }
}

/// A request as the catalogue sends it.
pub fn request(method: &str, era: Era, id: u64, cursor: Option<&str>) -> Vec<u8> {
    let meta = rest::Meta { modern: era == Era::Modern, ..rest::Meta::default() };
    match method::find(method) {
        Some(row) => rest::Request::bare(row).encode(id, cursor, &meta),
        None => Vec::new(),
    }
}

async fn question(client: &Client, backend: &Backend, server: &str, method: &str, era: Era) -> Result<Reply, Trouble> {
    let target = backend.target().or_else(|| backend.any_target()).ok_or(Trouble::NotReady)?;
    let encode = |era, id| request(method, era, id, None);
    ask::ask_at(client, backend, &target, era, &plain(server, method, &encode, WAIT)).await
}

/// A question of our own, in nobody's name.
pub(super) fn plain<'q>(
    server: &'q str,
    method: &'q str,
    encode: &'q (dyn Fn(Era, u64) -> Vec<u8> + Sync),
    wait: Duration,
) -> Question<'q> {
    Question {
        server,
        owner: "",
        credential: None,
        method,
        name: None,
        params: &[],
        headers: &[],
        encode,
        trace: None,
        deadline: Instant::now() + wait,
        notices: None,
        heard: None,
    }
}

/// Learns the tools of every server of an MCP backend. A server that cannot be asked keeps its old tools.
pub async fn inventory(client: &Client, backend: &Backend) -> Facts {
    let mut facts = (*backend.facts()).clone();
    if !facts.speaks.is_some_and(Speaks::is_mcp) {
        return facts;
    }
    for (name, server) in &mut facts.servers {
        match tools(client, backend, name).await {
            Ok(tools) => server.tools = Some(Arc::new(tools)),
            Err(cause) => log::warn!("backend {}: cannot list the tools of {name}: {cause}", backend.name()),
        }
    }
    facts
}

#[derive(Deserialize)]
struct Listed<'b> {
    name: String,
    #[serde(borrow, rename = "inputSchema")]
    schema: Option<Verbatim<'b>>,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize, Default)]
struct Annotations {
    #[serde(rename = "readOnlyHint", default)]
    read_only: Option<bool>,
    #[serde(rename = "idempotentHint", default)]
    idempotent: Option<bool>,
}

async fn tools(client: &Client, backend: &Backend, server: &str) -> Result<BTreeMap<String, Tool>, String> {
    let method = method::find("tools/list").expect("a row of the table");
    let mut tools = BTreeMap::new();
    let mut cursor: Option<String> = None;
    for _ in 0..MAX_PAGES {
        let encode = |era, id| request(method.mcp, era, id, cursor.as_deref());
        let target = backend.target().ok_or("no healthy address")?;
        let reply = ask::ask(client, backend, &target, &plain(server, method.mcp, &encode, WAIT)).await.map_err(|e| e.to_string())?;
        let next = read_page(method, &reply, &mut tools)?;
        if next.is_none() || next == cursor {
            break;
        }
        cursor = next;
    }
    Ok(tools)
}

fn read_page(method: &Method, reply: &Reply, tools: &mut BTreeMap<String, Tool>) -> Result<Option<String>, String> {
    let result = match Answer::read(&reply.body, reply.id).ok_or("not an answer to our request")? {
        // A server without tools does not know the method; it has none.
        Answer::Error(refusal) if error::code(refusal) == error::METHOD_NOT_FOUND => return Ok(None),
        Answer::Error(refusal) => return Err(refusal.get().to_owned()),
        Answer::Result(result) => result,
    };
    let page = rest::page(method, &result).map_err(|e| e.to_string())?;
    let listed: Vec<Listed<'_>> = serde_json::from_str(page.whole).map_err(|e| e.to_string())?;
    let known = |tool: &Listed<'_>| Tool {
        params: tool.schema.map(headers::params).unwrap_or_default(),
        schema: tool.schema.map(|schema| Arc::new(Schema::new(schema))),
        read_only: tool.annotations.read_only == Some(true),
        idempotent: tool.annotations.idempotent == Some(true),
    };
    tools.extend(listed.into_iter().map(|tool| {
        let facts = known(&tool);
        (tool.name, facts)
    }));
    Ok(page.next.map(std::borrow::Cow::into_owned))
}

#[derive(Deserialize)]
struct Servers {
    servers: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    tools_count: Option<usize>,
}

/// `GET /api/servers` of a middleware backend.
async fn middleware(client: &Client, backend: &Backend) -> Result<Facts, String> {
    let target = backend.target().or_else(|| backend.any_target()).ok_or("not resolved")?;
    let head = backend.request("GET", &backend.path("/api/servers"), HeaderValue::from_static("application/json"));
    let incoming = client.send(&target, head, Bytes::new(), WAIT).await.map_err(|e| e.to_string())?;
    let status = incoming.status();
    let body = tokio::time::timeout(WAIT, incoming.collect(16 << 20)).await.map_err(|_| "no answer in time")?.map_err(|e| e.to_string())?;
    if status != StatusCode::OK {
        // A middleware whose servers are configured need not list them.
        let told = backend.conf.protocol == Protocol::Middleware && !backend.conf.capabilities.is_empty() && status.is_client_error();
        return if told { Ok(listed(backend, &[])) } else { Err(format!("GET /api/servers answered {status}")) };
    }
    let told: Servers = serde_json::from_slice(&body).map_err(|e| format!("GET /api/servers: {e}"))?;
    Ok(listed(backend, &told.servers))
}

fn listed(backend: &Backend, rows: &[Row]) -> Facts {
    let count = |name: &str| rows.iter().find(|row| row.name == name).and_then(|row| row.tools_count);
    let names: Vec<String> = match backend.conf.capabilities.as_slice() {
        [] => rows.iter().map(|row| label(&row.name)).collect(),
        names => names.to_vec(),
    };
    let servers = names.into_iter().map(|name| (name.clone(), Server { tools_count: count(&name), ..Server::default() }));
    Facts { speaks: Some(Speaks::Middleware), servers: servers.collect() }
}
