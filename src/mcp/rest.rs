//! The REST form and its translation: `{"method","params"}` in, JSON-RPC to the server, an envelope out. Whatever the
//! gateway does not need to understand is carried as the bytes it came in.

use std::borrow::Cow;
use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::members::{self, Members};
use super::message::{self, explain};
use super::method::{self, Method, Named};
use super::params;
use super::plain::Plain;
use super::rewrite;
use super::strict::Checked;
use crate::call::Call;
use crate::copy;
use crate::reject::{Code, Reject, Verdict, clip};
use crate::verbatim::Verbatim;

/// Requests one batch may hold.
pub const MAX_BATCH: usize = 100;

/// Members of an MCP result that concern the protocol, not the caller.
const BOOKKEEPING: &[&str] = &["nextCursor", "resultType", "ttlMs", "cacheScope"];

/// Which shape of answer the caller asked for by the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/api/mcp/…` and `/api/v1/mcp/…`: the content itself, whole lists.
    V1,
    /// `/api/v2/mcp/…`: the whole MCP result, one page at a time.
    V2,
}

#[derive(Deserialize)]
struct Written<'b> {
    #[serde(borrow)]
    method: Cow<'b, str>,
    #[serde(borrow, default)]
    params: Option<Members<'b>>,
}

impl<'b> Written<'b> {
    /// What was taken apart already; `None` where something is of another type than it must be.
    fn of(plain: Plain<'b>) -> Option<Self> {
        let is_told = plain.params.is_some_and(|params| params.get() != "null");
        let method = Cow::Borrowed(members::plain(plain.method?)?);
        (is_told == plain.members.is_some()).then_some(Self { method, params: plain.members })
    }
}

/// One REST request, understood.
#[derive(Debug, Clone)]
pub struct Request<'b> {
    pub method: &'static Method,
    /// The MCP params, `tool_name` already called `name`.
    pub params: Members<'b>,
    name: Option<Cow<'b, str>>,
}

/// What one REST POST carries. Each element of a batch stands or falls alone.
#[derive(Debug)]
pub enum Payload<'b> {
    One(Request<'b>),
    Batch(Vec<Verdict<Request<'b>>>),
}

impl<'b> Payload<'b> {
    /// Reads a REST body that was checked.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of(checked: Checked<'b>) -> Verdict<Self> {
        match checked.plain.and_then(|plain| Written::of(*plain)) {
            Some(written) => Request::of(written).map(Payload::One),
            None => Self::read(checked.body),
        }
    }

    /// Reads a REST body.
    ///
    /// # Errors
    /// `parse_error`, `invalid_request`, `unknown_method` or `invalid_params`, naming the member at fault.
    pub fn read(body: &'b [u8]) -> Verdict<Self> {
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'[') {
            return Request::read(body).map(Payload::One);
        }
        let elements: Vec<Verbatim<'b>> = serde_json::from_slice(body).map_err(|e| explain(&e))?;
        if elements.is_empty() || elements.len() > MAX_BATCH {
            return Err(Reject::new(Code::InvalidRequest, format!("a batch has 1 to {MAX_BATCH} requests")));
        }
        Ok(Self::Batch(elements.into_iter().map(|element| Request::read(element.get().as_bytes())).collect()))
    }
}

impl<'b> Request<'b> {
    /// A request without params.
    pub fn bare(method: &'static Method) -> Self {
        Self::with(method, Members::default())
    }

    /// A request of our own; it is not looked at what it names.
    pub fn with(method: &'static Method, params: Members<'b>) -> Self {
        Self { method, params, name: None }
    }

    fn read(body: &'b [u8]) -> Verdict<Self> {
        Self::of(serde_json::from_str(message::must_be_object(body)?).map_err(|e| explain(&e))?)
    }

    fn of(written: Written<'b>) -> Verdict<Self> {
        let Some(method) = method::find_rest(&written.method) else {
            return Err(Reject::new(Code::UnknownMethod, format!("unknown method `{}`", clip(&written.method))));
        };
        let mut params = written.params.unwrap_or_default();
        if method.mcp == "tools/call" {
            rename(&mut params, "tool_name", "name")?;
        }
        let name = named(method, &params, &written.method)?;
        Ok(Self { method, params, name })
    }

    /// What is asked.
    pub fn call(&self) -> Call<'b> {
        params::Params::of(&self.params).call(Cow::Borrowed(self.method.mcp))
    }

    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The JSON-RPC request for the server. `cursor` replaces the caller's; `meta` is laid over the caller's `_meta`.
    pub fn encode(&self, id: u64, cursor: Option<&str>, meta: &Meta<'_>) -> Vec<u8> {
        let body = Rpc { jsonrpc: "2.0", id, method: self.method.mcp, params: Params { request: self, cursor, meta } };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

fn rename(params: &mut Members<'_>, from: &str, to: &'static str) -> Verdict<()> {
    let both = params.get(from).is_some() && params.get(to).is_some();
    if both {
        return Err(Reject::new(Code::InvalidParams, format!("give either `params.{from}` or `params.{to}`, not both")));
    }
    if let Some((name, _)) = params.0.iter_mut().find(|(name, _)| name == from) {
        *name = Cow::Borrowed(to);
    }
    Ok(())
}

fn named<'b>(method: &Method, params: &Members<'b>, word: &str) -> Verdict<Option<Cow<'b, str>>> {
    let member = match method.named {
        Named::Nothing | Named::Reference => return Ok(None),
        Named::Name => "name",
        Named::Uri => "uri",
        Named::TaskId => "taskId",
    };
    let shown = if word == "call_tool" { "tool_name" } else { member };
    match params.text(member) {
        Some(text) if !text.is_empty() => Ok(Some(text)),
        _ => Err(Reject::new(Code::InvalidParams, format!("`params.{shown}` is missing or not text"))),
    }
}

/// What we add to `params._meta`.
#[derive(Debug, Default)]
pub struct Meta<'a> {
    /// Modern era: the revision, our name and client capabilities.
    pub modern: bool,
    /// Those, where they are not none.
    pub capabilities: Option<Verbatim<'a>>,
    /// Asks for progress notifications.
    pub progress_token: Option<u64>,
    /// Modern era: asks for log notifications.
    pub logs: bool,
    pub traceparent: Option<&'a str>,
}

#[derive(Serialize)]
struct Rpc<'a> {
    jsonrpc: &'static str,
    id: u64,
    method: &'static str,
    params: Params<'a>,
}

struct Params<'a> {
    request: &'a Request<'a>,
    cursor: Option<&'a str>,
    meta: &'a Meta<'a>,
}

impl Serialize for Params<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.request.params.0 {
            if name != "_meta" && !(name == "cursor" && self.cursor.is_some()) {
                map.serialize_entry(name, value)?;
            }
        }
        if let Some(cursor) = self.cursor {
            map.serialize_entry("cursor", cursor)?;
        }
        let callers = self.request.params.get("_meta");
        if callers.is_some() || !self.meta.is_empty() {
            map.serialize_entry("_meta", &MergedMeta { callers, ours: self.meta })?;
        }
        map.end()
    }
}

impl Meta<'_> {
    fn is_empty(&self) -> bool {
        !self.modern && self.progress_token.is_none() && !self.logs && self.traceparent.is_none()
    }
}

struct MergedMeta<'a> {
    callers: Option<Verbatim<'a>>,
    ours: &'a Meta<'a>,
}

/// Members of `_meta` that say who the client is; towards the server that is us.
const OURS: &str = "io.modelcontextprotocol/";

impl Serialize for MergedMeta<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let callers = self.callers.and_then(|raw| serde_json::from_str::<Members<'_>>(raw.get()).ok()).unwrap_or_default();
        let mut map = serializer.serialize_map(None)?;
        let replaced = |name: &str| name.starts_with(OURS) || name == "traceparent" || name == "progressToken";
        for (name, value) in callers.0.iter().filter(|(name, _)| !replaced(name)) {
            map.serialize_entry(name, value)?;
        }
        if self.ours.modern {
            map.serialize_entry("io.modelcontextprotocol/protocolVersion", super::MODERN)?;
            map.serialize_entry("io.modelcontextprotocol/clientInfo", &OurName::default())?;
            let name = "io.modelcontextprotocol/clientCapabilities";
            match self.ours.capabilities {
                Some(capabilities) => map.serialize_entry(name, &capabilities)?,
                None => map.serialize_entry(name, &Empty {})?,
            }
        }
        if self.ours.logs {
            map.serialize_entry("io.modelcontextprotocol/logLevel", "debug")?;
        }
        if let Some(token) = self.ours.progress_token {
            map.serialize_entry("progressToken", &token)?;
        }
        if let Some(traceparent) = self.ours.traceparent {
            map.serialize_entry("traceparent", traceparent)?;
        }
        map.end()
    }
}

/// How we introduce ourselves to servers.
#[derive(Serialize)]
pub struct OurName {
    name: &'static str,
    version: &'static str,
}

impl Default for OurName {
    fn default() -> Self {
        Self { name: "mcp-gateway", version: env!("CARGO_PKG_VERSION") }
    }
}

#[derive(Serialize)]
pub struct Empty {}

/// One page of a list result.
pub struct Page<'b> {
    /// The array as it was written.
    pub whole: &'b str,
    /// The items, without the brackets.
    pub items: &'b str,
    pub next: Option<Cow<'b, str>>,
}

/// Reads one page of a list result.
///
/// # Errors
/// `backend_failed` if the result is not a list result of this method.
pub fn page<'b>(method: &Method, result: &Members<'b>) -> Verdict<Page<'b>> {
    let broken = || Reject::new(Code::BackendFailed, format!("the MCP server's answer to {} is no list result", method.mcp));
    let whole = method.result.and_then(|name| result.get(name)).map(Verbatim::get).ok_or_else(broken)?;
    let items = whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or_else(broken)?;
    Ok(Page { whole, items: items.trim(), next: result.text("nextCursor") })
}

/// The facts of an answer that the envelope tells.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub backend: &'a str,
    pub elapsed: Duration,
    /// Whether it comes from the cache.
    pub cached: bool,
}

/// The answer to a REST caller for one whole MCP result.
///
/// # Errors
/// `input_required` if the result is not complete (MRTR).
pub fn envelope(form: Form, method: &Method, result: &Members<'_>, facts: Facts<'_>) -> Verdict<Vec<u8>> {
    if result.text("resultType").is_some_and(|kind| kind != "complete") {
        let detail = "the server asks for input before it can answer; use a native MCP client on /mcp/{server}";
        return Err(Reject::new(Code::InputRequired, detail));
    }
    let size: usize = result.0.iter().map(|(name, value)| name.len() + value.get().len() + 4).sum();
    let mut out = Vec::with_capacity(size + 128);
    out.extend_from_slice(b"{\"result\":");
    let main = method.result.filter(|_| form == Form::V1);
    match main {
        Some(name) => copy::append(&mut out, result.get(name).map_or("null", Verbatim::get).as_bytes()),
        None => rewrite::append(&mut out, result.0.iter().map(|(name, value)| (&**name, value.get()))),
    }
    tell(&mut out, facts);
    if main.is_some() {
        for (name, value) in &result.0 {
            if Some(name.as_ref()) != main && !BOOKKEEPING.contains(&name.as_ref()) && !ENVELOPE.contains(&name.as_ref()) {
                out.push(b',');
                member(&mut out, name, *value);
            }
        }
    }
    out.push(b'}');
    Ok(out)
}

/// Whether a tool reported failure.
pub fn is_tool_error(result: &Members<'_>) -> bool {
    result.get("isError").is_some_and(|flag| flag.get() == "true")
}

/// The names the envelope itself uses.
const ENVELOPE: &[&str] = &["result", "backend", "response_time", "cached"];

/// The answer for a list gathered from several pages, `items` being the pages' items joined by commas.
pub fn list_envelope(items: &str, facts: Facts<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(items.len() + 128);
    out.extend_from_slice(b"{\"result\":[");
    copy::append(&mut out, items.as_bytes());
    out.push(b']');
    tell(&mut out, facts);
    out.push(b'}');
    out
}

/// The envelope of a result that is already written, with whatever else its sender put beside it.
pub fn middleware_envelope(form: Form, method: &Method, answer: &Members<'_>, facts: Facts<'_>) -> Option<Vec<u8>> {
    let result = answer.get("result")?;
    // Their `result` is the content itself; v2 wants the MCP result around it.
    if let (Form::V2, Some(result)) = (form, middleware_result(method, answer)) {
        return envelope(form, method, &result, facts).ok();
    }
    let mut out = Vec::with_capacity(result.get().len() + 128);
    out.extend_from_slice(b"{\"result\":");
    copy::append(&mut out, result.get().as_bytes());
    tell(&mut out, facts);
    for (name, value) in others(answer) {
        out.push(b',');
        member(&mut out, name, *value);
    }
    out.push(b'}');
    Some(out)
}

fn others<'m, 'b>(answer: &'m Members<'b>) -> impl Iterator<Item = &'m (Cow<'b, str>, Verbatim<'b>)> {
    answer.0.iter().filter(|(name, _)| !ENVELOPE.contains(&name.as_ref()))
}

/// The MCP result that an envelope stands for, where the method has a content of its own.
pub fn middleware_result<'b>(method: &Method, answer: &Members<'b>) -> Option<Members<'b>> {
    let main = (Cow::Borrowed(method.result?), answer.get("result")?);
    Some(Members(std::iter::once(main).chain(others(answer).cloned()).collect()))
}

fn tell(out: &mut Vec<u8>, facts: Facts<'_>) {
    use std::io::Write as _;
    // Backend names are of a JSON-safe alphabet (checked with the configuration).
    let Facts { backend, elapsed, cached } = facts;
    let _ = write!(out, ",\"backend\":\"{backend}\",\"response_time\":{:.6},\"cached\":{cached}", elapsed.as_secs_f64());
}

fn member(out: &mut Vec<u8>, name: &str, value: Verbatim<'_>) {
    let _ = serde_json::to_writer(&mut *out, name);
    out.push(b':');
    copy::append(out, value.get().as_bytes());
}

#[cfg(test)]
mod tests;
