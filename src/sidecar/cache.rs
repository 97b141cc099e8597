//! `/admin/cache`: what is kept, without what it says, and how to let go of it.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Method;
use pingora::protocols::http::ServerSession;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::admin::json_page;
use super::body::read;
use crate::cache::Cache;
use crate::cache::entry::Entry;
use crate::mcp::message::{explain, must_be_object};
use crate::mcp::method::{self, Named};
use crate::page::Page;
use crate::reject::{Code, Reject, Verdict};
use crate::snapshot::Snapshot;

/// Entries that are shown.
const HOTTEST: usize = 50;

/// Answers an administrator.
///
/// # Errors
/// The refusal for the administrator.
pub async fn answer(snapshot: &Snapshot, client: &mut ServerSession, method: &Method, path: &str) -> Verdict<Page> {
    match (method, path) {
        (&Method::GET, "/admin/cache") => Ok(snapshot.cache.as_deref().map_or_else(|| json_page(&json!({ "enabled": false })), page)),
        (&Method::POST, "/admin/cache/purge") => purge(snapshot, &read(client).await?),
        (_, "/admin/cache") => Err(Reject::method_not_allowed("GET")),
        (_, "/admin/cache/purge") => Err(Reject::method_not_allowed("POST")),
        _ => Err(Reject::new(Code::NotFound, "no such path on the admin listener")),
    }
}

/// One entry; the params of its question and its answer are its callers'.
#[derive(Serialize)]
pub(super) struct Row<'e> {
    pub server: &'e str,
    pub method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<&'e str>,
    backend: &'e str,
    pub scope: &'static str,
    pub bytes: usize,
    pub hits: u64,
    pub age: f64,
    pub ttl: f64,
}

impl<'e> Row<'e> {
    pub fn of(entry: &'e Arc<Entry>) -> Self {
        // The URI of a resource may be a secret of its own.
        let is_named = method::find(entry.method_name()).is_some_and(|method| method.named == Named::Name);
        Self {
            server: &entry.server,
            method: entry.method_name(),
            tool: entry.name.as_deref().filter(|_| is_named),
            backend: &entry.backend,
            scope: if entry.is_private { "private" } else { "shared" },
            bytes: entry.result.len(),
            hits: entry.hits.load(Ordering::Relaxed),
            age: entry.age().as_secs_f64(),
            ttl: entry.ttl.as_secs_f64(),
        }
    }
}

fn page(cache: &Cache) -> Page {
    let mut entries = cache.entries();
    entries.sort_by_cached_key(|entry| Reverse(entry.hits.load(Ordering::Relaxed)));
    let hottest: Vec<Row<'_>> = entries.iter().take(HOTTEST).map(Row::of).collect();
    json_page(&json!({
        "enabled": true,
        "entries": entries.len(),
        "bytes": cache.bytes(),
        "limit": cache.conf.memory,
        "filling": cache.under_way(),
        "hottest": hottest,
    }))
}

/// What is to be let go; without a member it is everything.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    server: Option<String>,
    method: Option<String>,
    tool: Option<String>,
    /// Of rules, instead of the others.
    tag: Option<String>,
}

fn purge(snapshot: &Snapshot, body: &[u8]) -> Verdict<Page> {
    let wish = if body.trim_ascii().is_empty() {
        Purge::default()
    } else {
        must_be_object(body)?;
        serde_json::from_slice::<Purge>(body).map_err(|e| explain(&e))?
    };
    let cache = snapshot.cache.as_ref().ok_or_else(|| Reject::new(Code::NotFound, "there is no cache (cache.enabled)"))?;
    if let Some(tag) = &wish.tag {
        if wish.server.is_some() || wish.method.is_some() || wish.tool.is_some() {
            return Err(Reject::new(Code::InvalidParams, "`tag` stands alone"));
        }
        let unknown =
            |tags: Vec<&str>| Reject::new(Code::InvalidParams, format!("no rule of cache has this `tag`; there are: {}", tags.join(", ")));
        // Also those that nobody asked here: other replicas were.
        let directory = Arc::clone(&snapshot.upstream.directory());
        let purged = cache.purge_tag(tag, directory.pools.keys().map(String::as_str)).map_err(unknown)?;
        return Ok(json_page(&json!({ "purged": purged })));
    }
    // The REST form's own word will do.
    let method = match (&wish.method, &wish.tool) {
        (Some(word), _) => {
            let row = method::find(word).or_else(|| method::find_rest(word));
            Some(row.ok_or_else(|| Reject::new(Code::InvalidParams, "`method` is no method of MCP"))?.mcp)
        }
        (None, Some(_)) => Some("tools/call"),
        (None, None) => None,
    };
    let purged = cache.purge(wish.server.as_deref(), method, wish.tool.as_deref());
    Ok(json_page(&json!({ "purged": purged })))
}
