//! `GET /admin/analytics`: what PostgreSQL knows of a window of time.

use std::time::Duration;

use super::admin::json_page;
use crate::analytics::question::{By, Question};
use crate::config;
use crate::page::Page;
use crate::reject::{Code, Reject, Verdict, clip};
use crate::snapshot::Snapshot;

/// Rows of the longest answer.
const MOST: u32 = 1000;

/// Answers an administrator.
///
/// # Errors
/// `invalid_params` naming what is wrong, `not_found` without analytics, `analytics_unavailable`.
pub async fn answer(snapshot: &Snapshot, query: Option<&str>) -> Verdict<Page> {
    let off = || Reject::new(Code::NotFound, "nothing is written down; set analytics.postgres");
    let analytics = snapshot.analytics.as_ref().ok_or_else(off)?;
    let question = read(query.unwrap_or_default(), analytics.retention())?;
    let answer = analytics.ask(&question).await.map_err(|cause| {
        log::warn!("analytics: PostgreSQL cannot be asked: {cause}");
        let detail = "PostgreSQL cannot be asked, or not in time; the log says why, and a smaller window may help";
        Reject::new(Code::AnalyticsUnavailable, detail).because(cause).retry_after(Duration::from_secs(1))
    })?;
    Ok(json_page(&answer))
}

fn read(query: &str, retention: Duration) -> Verdict<Question> {
    let wrong = |detail: String| Reject::new(Code::InvalidParams, detail);
    let mut question = Question { window: Duration::from_secs(3600), by: By::Tool, server: None, limit: 20 };
    let mut seen = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "window" => {
                let fits = |window: &Duration| (Duration::from_secs(1)..=retention).contains(window);
                let fault = || format!("window: `{}` is not a time such as 15m, 1h or 7d, from 1s to analytics.retention", clip(&value));
                question.window = config::duration(&value).ok().filter(fits).ok_or_else(|| wrong(fault()))?;
            }
            "by" => {
                let names = By::ALL.map(By::name).join(", ");
                let fault = || wrong(format!("by: `{}` is not one of {names}", clip(&value)));
                question.by = By::ALL.into_iter().find(|by| by.name() == value).ok_or_else(fault)?;
            }
            "server" => question.server = Some(config::label(&value, "server").map_err(|fault| wrong(format!("server: {fault}")))?),
            "limit" => {
                let fault = || wrong(format!("limit: `{}` is not a number from 1 to {MOST}", clip(&value)));
                question.limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit)).ok_or_else(fault)?;
            }
            _ => return Err(wrong(format!("`{}` is not known; there is window, by, server, limit", clip(&name)))),
        }
        if seen.contains(&name) {
            return Err(wrong(format!("{name}: stands twice")));
        }
        seen.push(name);
    }
    Ok(question)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_whole_or_what_is_wrong_is_named() {
        let day = Duration::from_secs(86_400);
        let question = read("window=15m&by=error&server=files&limit=5", day).unwrap();
        assert_eq!(question, Question { window: Duration::from_secs(900), by: By::Error, server: Some("files".into()), limit: 5 });
        assert_eq!(read("", day).unwrap().by, By::Tool);
        for (query, named) in [
            ("window=soon", "window"),
            ("window=2d", "window"),
            ("by=colour", "by"),
            ("server=a'b", "server"),
            ("limit=0", "limit"),
            ("limit=1&limit=2", "limit"),
            ("colour=red", "`colour`"),
        ] {
            let reject = read(query, day).unwrap_err();
            assert!(reject.code == Code::InvalidParams && reject.detail.starts_with(named), "{query}: {reject}");
        }
    }
}
