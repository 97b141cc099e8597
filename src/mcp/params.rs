//! The params of a request: what routing and policy find in them, and what a method means with them.

use std::borrow::Cow;

use serde::Deserialize;

use super::members::{self, Members, Text, borrowed};
use super::method::{self, Named};
use crate::call::{Call, Kind};
use crate::verbatim::Verbatim;

/// The member of `_meta` that claims a revision (MCP 2026-07-28).
const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The members of `params`, and those that say what is acted on.
#[derive(Debug, Default)]
pub struct Params<'b> {
    pub members: Members<'b>,
    /// `_meta`
    pub meta: Option<Members<'b>>,
    name: Option<Cow<'b, str>>,
    uri: Option<Cow<'b, str>>,
    task_id: Option<Cow<'b, str>>,
    arguments: Option<Verbatim<'b>>,
    reference: Option<Verbatim<'b>>,
    notifications: Option<Verbatim<'b>>,
    /// The revision claimed.
    version: Option<Cow<'b, str>>,
}

/// What a completion is for.
#[derive(Debug, Default, Deserialize)]
struct Reference<'b> {
    #[serde(borrow, default, deserialize_with = "borrowed")]
    name: Option<Cow<'b, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    uri: Option<Cow<'b, str>>,
}

/// What a subscription asks for (MCP 2026-07-28).
#[derive(Debug, Default, Deserialize)]
struct Subscriptions<'b> {
    #[serde(borrow, rename = "resourceSubscriptions", default)]
    resources: Vec<Text<'b>>,
}

fn text<'b>(name: &str, raw: Verbatim<'b>) -> Result<Cow<'b, str>, String> {
    members::text(raw).ok_or_else(|| format!("`{name}` must be text"))
}

impl<'b> Params<'b> {
    /// The members of a REST request that say the same.
    pub fn of(members: &Members<'b>) -> Self {
        Self {
            name: members.text("name"),
            uri: members.text("uri"),
            task_id: members.text("taskId"),
            arguments: members.get("arguments"),
            reference: members.get("ref"),
            notifications: members.get("notifications"),
            ..Self::default()
        }
    }

    /// Those of a native request; an explicit `null` is none.
    ///
    /// # Errors
    /// What is of another type than it must be.
    pub(super) fn read(members: Members<'b>) -> Result<Self, String> {
        let meta = members.get("_meta").filter(|raw| raw.get() != "null");
        let meta = meta.map(|raw| serde_json::from_str(raw.get()).map_err(|_| "`_meta` must be an object".to_owned())).transpose()?;
        Self::with(members, meta)
    }

    /// `None` for what is to be read with care.
    pub(super) fn of_plain(members: Members<'b>, meta: Option<Members<'b>>) -> Option<Self> {
        let is_told = members.get("_meta").is_some_and(|raw| raw.get() != "null");
        if is_told != meta.is_some() {
            return None;
        }
        Self::with(members, meta).ok()
    }

    fn with(members: Members<'b>, meta: Option<Members<'b>>) -> Result<Self, String> {
        let version = meta.as_ref().and_then(|meta| meta.get(VERSION)).filter(|raw| raw.get() != "null");
        let version = version.map(|raw| text(VERSION, raw)).transpose()?;
        let mut params = Self { members, meta, version, ..Self::default() };
        for (name, raw) in params.members.0.iter().map(|(name, raw)| (name, *raw)).filter(|(_, raw)| raw.get() != "null") {
            match &**name {
                "name" => params.name = Some(text(name, raw)?),
                "uri" => params.uri = Some(text(name, raw)?),
                "taskId" => params.task_id = Some(text(name, raw)?),
                "arguments" => params.arguments = Some(raw),
                "ref" => params.reference = Some(raw),
                "notifications" => params.notifications = Some(raw),
                _ => {}
            }
        }
        Ok(params)
    }

    /// The revision that they claim (MCP 2026-07-28).
    pub(super) fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// What `method` asks with these params.
    pub fn call(&self, method: Cow<'b, str>) -> Call<'b> {
        // Only these have arguments; elsewhere they would satisfy conditions and mean nothing.
        let arguments = self.arguments.filter(|_| matches!(method.as_ref(), "tools/call" | "prompts/get"));
        let call = |name, kind, is_named| Call { method: method.clone(), name, kind, is_named, arguments, also: Vec::new() };
        let Some(row) = method::find(&method) else {
            let kind = if method.starts_with("notifications/") { Kind::Protocol } else { Kind::Unknown };
            // What it does with arguments we do not know, so conditions see them.
            return Call { arguments: self.arguments, ..call(None, kind, false) };
        };
        match row.named {
            Named::Nothing if row.mcp == "subscriptions/listen" => match self.subscribed() {
                Some(also) => Call { also, ..call(None, row.kind, false) },
                // A reader more lenient than ours would subscribe to what we cannot judge.
                None => call(None, row.kind, true),
            },
            Named::Nothing => call(None, row.kind, false),
            Named::Name => call(self.name.clone(), row.kind, true),
            Named::Uri => call(self.uri.clone(), row.kind, true),
            Named::TaskId => call(self.task_id.clone(), row.kind, true),
            Named::Reference => {
                let reference = self.reference.and_then(|raw| serde_json::from_str::<Reference<'b>>(raw.get()).ok()).unwrap_or_default();
                match reference {
                    // Both would be judged as one and executed as the other.
                    Reference { name: Some(_), uri: Some(_) } => call(None, row.kind, true),
                    Reference { uri: Some(uri), .. } => call(Some(uri), Kind::Resource, true),
                    Reference { name, .. } => call(name, Kind::Prompt, true),
                }
            }
        }
    }

    /// The resources a subscription asks about; `None` if that cannot be read.
    fn subscribed(&self) -> Option<Vec<Cow<'b, str>>> {
        let Some(written) = self.notifications else { return Some(Vec::new()) };
        let subscriptions: Subscriptions<'b> = serde_json::from_str(written.get()).ok()?;
        Some(subscriptions.resources.into_iter().map(|text| text.0).collect())
    }
}
