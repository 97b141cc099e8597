//! Whether an answer may be kept, for whom, and how long. What the server says decides (`ttlMs`, `cacheScope`, MCP
//! 2026-07-28); the operator decides where it says nothing.

use std::time::Duration;

use crate::mcp::members::Members;
use crate::verbatim::Verbatim;

/// The longest that anything is fresh, whatever a server says.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What is to be done with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Kept for everybody the key stands for.
    Shared(Duration),
    /// Kept for the caller.
    Private(Duration),
    /// Not kept.
    Passed,
}

/// What the operator says of the answers to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// By a rule of its own.
    pub ruled: Option<Duration>,
    /// For legacy servers.
    pub legacy: Duration,
    /// Whether a rule is about it at all, and so lets it be shared where the server names no scope.
    pub is_ruled: bool,
    /// Whether it is the caller's alone where nobody says otherwise.
    pub alone: bool,
}

/// Judges an answer of a modern or a legacy server.
pub fn judge(result: &Members<'_>, is_modern: bool, wanted: Wanted) -> Fate {
    if !is_whole(result) || wanted.ruled.is_some_and(|ttl| ttl.is_zero()) {
        return Fate::Passed;
    }
    let hint = match result.get("ttlMs") {
        None => None,
        Some(raw) => match millis(raw) {
            Some(hint) => Some(hint),
            None => return Fate::Passed,
        },
    };
    let unhinted = wanted.ruled.or((!is_modern).then_some(wanted.legacy));
    let Some(ttl) = hint.or(unhinted).map(|ttl| ttl.min(LONGEST)).filter(|ttl| !ttl.is_zero()) else { return Fate::Passed };
    match result.get("cacheScope") {
        Some(_) if result.text("cacheScope").as_deref() == Some("public") => Fate::Shared(ttl),
        // What it means by another word nobody but it can know.
        Some(_) => Fate::Private(ttl),
        None if (hint.is_some() && !wanted.is_ruled) || wanted.alone => Fate::Private(ttl),
        None => Fate::Shared(ttl),
    }
}

/// What the pages of one list say of themselves, taken together: as short-lived as the shortest, private if any is.
#[derive(Default)]
pub struct Hints {
    pages: usize,
    ttls: Vec<f64>,
    scopes: Vec<bool>,
}

impl Hints {
    pub fn add(&mut self, page: &Members<'_>) {
        self.pages += 1;
        self.ttls.extend(page.get("ttlMs").map(|raw| raw.get().parse().unwrap_or(-1.0)));
        self.scopes.extend(page.get("cacheScope").map(|_| page.text("cacheScope").as_deref() == Some("public")));
    }

    /// As members behind others.
    pub fn written(&self) -> String {
        let least = self.ttls.iter().copied().reduce(f64::min).filter(|_| self.ttls.len() == self.pages);
        let ttl = least.map(|ttl| format!(",\"ttlMs\":{ttl}")).unwrap_or_default();
        let scope = match self.scopes.iter().all(|public| *public) {
            true if self.scopes.len() == self.pages => ",\"cacheScope\":\"public\"",
            true => "",
            false => ",\"cacheScope\":\"private\"",
        };
        format!("{ttl}{scope}")
    }
}

/// Whether it is the answer, and one that another caller would get as well: no failure, no question back, no task.
fn is_whole(result: &Members<'_>) -> bool {
    let is_false = |raw: Verbatim<'_>| matches!(raw.get(), "false" | "null");
    let complete = result.get("resultType").is_none() || result.text("resultType").as_deref() == Some("complete");
    let asks = ["inputRequests", "requestState", "task"].iter().any(|name| result.get(name).is_some());
    complete && !asks && result.get("isError").is_none_or(is_false)
}

/// A number of milliseconds, also as `6e4`.
fn millis(raw: Verbatim<'_>) -> Option<Duration> {
    let number: f64 = raw.get().parse().ok()?;
    Duration::try_from_secs_f64(number.clamp(-1.0, 1e12) / 1000.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Wanted = Wanted { ruled: None, legacy: Duration::from_secs(300), is_ruled: false, alone: false };

    fn fate(result: &str, is_modern: bool, wanted: Wanted) -> Fate {
        judge(&serde_json::from_str(result).unwrap(), is_modern, wanted)
    }

    #[test]
    fn what_the_server_says_decides() {
        let minute = Duration::from_secs(60);
        assert_eq!(fate(r#"{"ttlMs":60000,"cacheScope":"public"}"#, true, NOTHING), Fate::Shared(minute));
        assert_eq!(fate(r#"{"ttlMs":6.0e4,"cacheScope":"private"}"#, true, NOTHING), Fate::Private(minute));
        assert_eq!(fate(r#"{"ttlMs":60000,"cacheScope":"other"}"#, true, NOTHING), Fate::Private(minute));
        assert_eq!(fate(r#"{"ttlMs":60000}"#, true, NOTHING), Fate::Private(minute));
        assert_eq!(fate(r#"{"ttlMs":60000,"cacheScope":"public"}"#, false, NOTHING), Fate::Shared(minute));
        assert_eq!(fate(r#"{"ttlMs":9e99,"cacheScope":"public"}"#, true, NOTHING), Fate::Shared(LONGEST));
        for never in [r#"{"ttlMs":0,"cacheScope":"public"}"#, r#"{"ttlMs":-5}"#, r#"{"ttlMs":"60000"}"#, "{}", r#"{"cacheScope":"public"}"#]
        {
            assert_eq!(fate(never, true, NOTHING), Fate::Passed, "{never}");
        }
    }

    #[test]
    fn the_operator_decides_where_it_says_nothing() {
        let ruled = |seconds| Wanted { ruled: Some(Duration::from_secs(seconds)), is_ruled: true, ..NOTHING };
        assert_eq!(fate("{}", false, NOTHING), Fate::Shared(NOTHING.legacy));
        assert_eq!(fate("{}", true, ruled(5)), Fate::Shared(Duration::from_secs(5)));
        assert_eq!(fate(r#"{"cacheScope":"private"}"#, true, ruled(5)), Fate::Private(Duration::from_secs(5)));
        assert_eq!(fate(r#"{"ttlMs":1000}"#, true, ruled(5)), Fate::Shared(Duration::from_secs(1)));
        assert_eq!(fate(r#"{"ttlMs":1000,"cacheScope":"public"}"#, true, ruled(0)), Fate::Passed);
        let alone = Wanted { alone: true, ..NOTHING };
        assert_eq!(fate("{}", false, alone), Fate::Private(NOTHING.legacy));
        assert_eq!(fate(r#"{"ttlMs":1000,"cacheScope":"public"}"#, false, alone), Fate::Shared(Duration::from_secs(1)));
        assert_eq!(fate("{}", false, Wanted { legacy: Duration::ZERO, ..NOTHING }), Fate::Passed);
    }

    #[test]
    fn pages_are_as_private_and_as_short_lived_as_any_of_them() {
        let hints = |pages: &[&str]| {
            let mut hints = Hints::default();
            for page in pages {
                hints.add(&serde_json::from_str(page).unwrap());
            }
            hints.written()
        };
        let public = r#"{"ttlMs":5000,"cacheScope":"public"}"#;
        assert_eq!(hints(&[public, r#"{"ttlMs":2000,"cacheScope":"public"}"#]), r#","ttlMs":2000,"cacheScope":"public""#);
        assert_eq!(hints(&[public, r#"{"ttlMs":9000,"cacheScope":"private"}"#]), r#","ttlMs":5000,"cacheScope":"private""#);
        assert_eq!(hints(&[public, "{}"]), "");
        assert_eq!(hints(&["{}"]), "");
    }

    #[test]
    fn failures_questions_and_tasks_are_never_kept() {
        for result in [
            r#"{"isError":true}"#,
            r#"{"isError":1}"#,
            r#"{"resultType":"input_required"}"#,
            r#"{"resultType":"task"}"#,
            r#"{"resultType":7}"#,
            r#"{"task":{"taskId":"x"}}"#,
            r#"{"requestState":"x"}"#,
        ] {
            assert_eq!(fate(result, false, NOTHING), Fate::Passed, "{result}");
        }
        assert_ne!(fate(r#"{"isError":false,"resultType":"complete"}"#, false, NOTHING), Fate::Passed);
    }
}
