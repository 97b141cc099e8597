//! `/admin/keys`: keys made, listed, rotated and revoked while running. A key is shown once, when it is made; what is
//! listed are its properties.

use http::Method;
use pingora::protocols::http::ServerSession;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::admin::json_page;
use super::body::{parse, read};
use crate::auth::keys::{Managed, Record, Wish};
use crate::config::{self, identity::Standing};
use crate::page::Page;
use crate::reject::{Code, Reject, Verdict, clip};
use crate::snapshot::Snapshot;

/// Seconds the old key stays good after a rotation that does not say.
const OVERLAP: i64 = 24 * 3600;

/// `POST /admin/keys`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    id: String,
    tenant: Option<String>,
    #[serde(default)]
    roles: Vec<String>,
    tier: Option<String>,
    /// A day or an RFC 3339 time.
    expires: Option<String>,
}

/// `POST /admin/keys/{id}/rotate`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Rotate {
    /// How long the old key stays good, as `24h`.
    overlap: Option<String>,
}

/// One key as it is listed.
#[derive(Serialize)]
struct Listed {
    id: String,
    #[serde(flatten)]
    standing: Standing,
    created: String,
    expires: Option<String>,
    last_used: Option<String>,
    /// How many secrets are good now: 2 while a rotation overlaps.
    secrets: usize,
}

/// Answers a request below `/admin/keys`.
///
/// # Errors
/// The refusal for the administrator.
pub async fn answer(snapshot: &Snapshot, client: &mut ServerSession, method: &Method, path: &str) -> Verdict<Page> {
    let managed = snapshot.auth.managed();
    let managed = managed.ok_or_else(|| Reject::new(Code::NotFound, "managed keys need auth.api_keys in the configuration"))?;
    let place = path.strip_prefix("/admin/keys").unwrap_or_default().trim_start_matches('/');
    match (method, place.split_once('/').map_or((place, None), |(id, action)| (id, Some(action)))) {
        (&Method::GET, ("", None)) => Ok(json_page(&json!({ "keys": listed(managed) }))),
        (&Method::POST, ("", None)) => {
            let made = managed.wish(create(snapshot, &read(client).await?)?).await?;
            Ok(Page { status: 201, ..json_page(&made) })
        }
        (&Method::DELETE, (id, None)) if !id.is_empty() => Ok(json_page(&managed.wish(Wish::Revoke(id.to_owned())).await?)),
        (&Method::POST, (id, Some("rotate"))) => {
            let overlap = overlap(&read(client).await?)?;
            Ok(json_page(&managed.wish(Wish::Rotate(id.to_owned(), overlap)).await?))
        }
        (_, ("", None)) => Err(Reject::method_not_allowed("GET, POST")),
        (_, (_, None)) => Err(Reject::method_not_allowed("DELETE")),
        (_, (_, Some("rotate"))) => Err(Reject::method_not_allowed("POST")),
        _ => Err(Reject::new(Code::NotFound, "no such path on the admin listener")),
    }
}

fn create(snapshot: &Snapshot, body: &[u8]) -> Verdict<Wish> {
    let Create { id, tenant, roles, tier, expires } = parse(body)?;
    let wrong = |what: String| Reject::new(Code::InvalidParams, what);
    config::label(&id, "key id").map_err(wrong)?;
    let configured = snapshot.config.auth.iter().filter_map(|auth| auth.api_keys.as_ref()).flat_map(|keys| &keys.keys);
    if configured.into_iter().any(|key| key.id == id) {
        return Err(Reject::new(Code::Conflict, "a key of this id is in the configuration"));
    }
    for (member, value) in [("tenant", &tenant), ("tier", &tier)] {
        let fits = value.as_deref().map_or(Ok(String::new()), |text| config::label(text, member));
        fits.map_err(|e| wrong(format!("`{member}`: {e}")))?;
    }
    for role in &roles {
        // A misspelt role would only be noticed by the one who is refused for it.
        if !snapshot.config.roles.contains_key(role) {
            return Err(wrong(format!("`roles`: there is no role `{}`", clip(role))));
        }
    }
    let expires = expires.map(|text| config::instant(&text)).transpose().map_err(|e| wrong(format!("`expires`: {e}")))?;
    Ok(Wish::Create(Standing { tenant, roles, tier }, id, expires))
}

fn overlap(body: &[u8]) -> Verdict<i64> {
    let Rotate { overlap } = if body.is_empty() { Rotate::default() } else { parse(body)? };
    let Some(text) = overlap else { return Ok(OVERLAP) };
    let duration = config::duration(&text).map_err(|e| Reject::new(Code::InvalidParams, format!("`overlap`: {e}")))?;
    Ok(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX))
}

fn listed(managed: &Managed) -> Vec<Listed> {
    let now = jiff::Timestamp::now().as_second();
    let time = |at: i64| jiff::Timestamp::from_second(at).map(|time| format!("{time:.0}")).unwrap_or_default();
    let show = |record: Record| Listed {
        secrets: record.secrets.iter().filter(|secret| secret.until.is_none_or(|until| until > now)).count(),
        id: record.id,
        standing: record.standing,
        created: time(record.created),
        expires: record.expires.map(time),
        last_used: record.last_used.map(time),
    };
    managed.list().into_iter().map(show).collect()
}
