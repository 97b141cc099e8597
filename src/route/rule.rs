//! Routing rules: the first whose condition holds says which backends a request may go to and how long it may take.

use std::sync::Arc;
use std::time::Duration;

use crate::condition::{Condition, Question, Unclear};
use crate::config::{Among, routing};
use crate::reject::{Code, Reject, Verdict};

/// Where a request may go, by rule, by API version, or by code compiled in.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// `None` is every backend that serves the server.
    pub among: Option<Among>,
    /// Instead of the backend's own timeout.
    pub timeout: Option<Duration>,
    /// The rule that chose.
    pub route: Option<Arc<str>>,
}

impl Choice {
    /// A refusal, naming the rule it comes of.
    pub fn explain(choice: Option<&Self>, reject: Reject) -> Reject {
        let Some((choice, route)) = choice.and_then(|choice| Some((choice, choice.route.as_ref()?))) else { return reject };
        let detail = match (reject.code, choice.timeout) {
            (Code::NoHealthyBackend, _) => format!("{} (route {route})", reject.detail),
            (Code::BackendTimeout, Some(timeout)) => format!("no answer in time (route {route}, timeout {} s)", timeout.as_secs_f64()),
            _ => return reject,
        };
        Reject { detail: detail.into(), ..reject }
    }
}

/// The compiled rules.
#[derive(Default)]
pub struct Rules(Vec<Rule>);

struct Rule {
    when: Option<Condition>,
    choice: Arc<Choice>,
}

impl Rules {
    pub fn new(rules: &[routing::Rule]) -> Self {
        Self(rules.iter().map(Rule::new).collect())
    }

    /// Whether there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the first rule that matches chooses.
    ///
    /// # Errors
    /// `invalid_params` for arguments that a rule looks at and that others may read otherwise: that they do not match would
    /// be for the caller to choose.
    pub fn choose(&self, question: &Question<'_>) -> Verdict<Option<Arc<Choice>>> {
        for rule in &self.0 {
            if rule.matches(question)? {
                return Ok(Some(Arc::clone(&rule.choice)));
            }
        }
        Ok(None)
    }
}

impl Rule {
    fn new(rule: &routing::Rule) -> Self {
        let choice =
            Choice { among: rule.among.clone(), timeout: rule.timeout.map(|timespan| timespan.0), route: Some(rule.name.as_str().into()) };
        // One that cannot be compiled never holds; checking the configuration ruled it out.
        let when = rule.when.as_deref().map(|text| Condition::new(text).or_else(|| Condition::new("false")).expect("CEL"));
        Self { when, choice: Arc::new(choice) }
    }

    fn matches(&self, question: &Question<'_>) -> Verdict<bool> {
        let Some(when) = &self.when else { return Ok(true) };
        let route = self.choice.route.as_deref().unwrap_or_default();
        match when.evaluate(question) {
            Ok(matches) => Ok(matches),
            Err(unclear @ Unclear::Twofold(_)) => Err(Reject::new(Code::InvalidParams, format!("{unclear} (route {route})"))),
            Err(unclear) => {
                log::debug!("route {route}: {unclear}; it does not match");
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::Request;
    use crate::principal::{Identity, Principal, Way};

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rule = |name: &str, when: Option<&str>| routing::Rule {
            name: name.into(),
            when: when.map(str::to_owned),
            among: Some(Among::Shard(name.into())),
            timeout: None,
        };
        let rules = Rules::new(&[
            rule("broken", Some("arguments.gone == 1 || true && arguments.gone == 2")),
            rule("posts", Some(r#"request.method == "POST" && server == "database""#)),
            rule("rest", None),
        ]);
        let principal = Principal::new(Way::Anonymous, Identity::default());
        let headers = http::HeaderMap::new();
        let chosen = |server| {
            let request = Request { method: "POST", path: "/", headers: &headers, client: None, version: "v1" };
            let question =
                Question { principal: &principal, server, method: "tools/call", name: None, arguments: None, request: Some(request) };
            rules.choose(&question).unwrap().and_then(|choice| choice.route.clone())
        };
        assert_eq!((chosen("database").as_deref(), chosen("files").as_deref()), (Some("posts"), Some("rest")));
    }
}
