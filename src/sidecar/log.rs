//! `/admin/log`: how much is written of what goes on, changed while running. A level set here holds for a time, until it is
//! taken back, or until another one is configured; a restart forgets it.

use std::time::Duration;

use http::Method;
use pingora::protocols::http::ServerSession;
use serde::{Deserialize, Serialize};

use super::admin::json_page;
use super::body::{parse, read};
use crate::config::{self, Log};
use crate::observe::levels::levels;
use crate::page::Page;
use crate::reject::{Code, Reject, Verdict};
use crate::snapshot::Snapshot;

/// The longest that a level may hold by itself.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// `PUT /admin/log`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    level: String,
    /// How long it holds, as `5m`; absent: until it is taken back.
    r#for: Option<String>,
}

/// What is written, as administrators see it.
#[derive(Serialize)]
struct Told<'t> {
    /// What holds now.
    level: &'t str,
    configured: &'t str,
    /// Whether what holds was set here.
    is_set: bool,
    /// When it ends by itself (RFC 3339).
    until: Option<String>,
    format: &'static str,
    sample: f64,
    slow: config::Timespan,
}

/// Answers an administrator.
///
/// # Errors
/// The refusal for the administrator.
pub async fn answer(snapshot: &Snapshot, client: &mut ServerSession, method: &Method) -> Verdict<Page> {
    match *method {
        Method::GET => {}
        Method::PUT => set(&read(client).await?)?,
        Method::DELETE => levels().unset(),
        _ => return Err(Reject::method_not_allowed("GET, PUT, DELETE")),
    }
    Ok(page(&snapshot.config.observability.log))
}

fn set(body: &[u8]) -> Verdict<()> {
    let Wish { level, r#for: lasting } = parse(body)?;
    let wrong = |member: &str, why: String| Reject::new(Code::InvalidParams, format!("`{member}`: {why}"));
    let level = config::log_level(&level).map_err(|why| wrong("level", why))?;
    let lasting = lasting.map(|text| config::duration(&text)).transpose().map_err(|why| wrong("for", why))?;
    if lasting.is_some_and(|lasting| lasting.is_zero() || lasting > LONGEST) {
        return Err(wrong("for", "longer than 0 and 7d at most".to_owned()));
    }
    let number = levels().set(&level, lasting);
    if let Some(lasting) = lasting {
        tokio::spawn(async move {
            tokio::time::sleep(lasting).await;
            levels().expire(number);
        });
    }
    Ok(())
}

fn page(conf: &Log) -> Page {
    let standing = levels().read();
    json_page(&Told {
        level: standing.level(),
        configured: &standing.configured,
        is_set: standing.set.is_some(),
        until: standing.set.as_ref().and_then(|set| set.until).map(|until| format!("{until:.0}")),
        format: if conf.json { "json" } else { "text" },
        sample: conf.sample,
        slow: conf.slow,
    })
}
