//! The rules of `conf/prometheus`: right by promtool, each tried with numbers, each telling what to do.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{read, rules};
use crate::support::prometheus::promtool;
use crate::support::root;

const ALERTS: &str = "conf/prometheus/alerts.yaml";
const RECORDING: &str = "conf/prometheus/recording.yaml";
const TESTS: [&str; 2] = ["conf/prometheus/tests/alerts.yaml", "conf/prometheus/tests/recording.yaml"];

#[tokio::test]
async fn promtool_accepts_the_configuration_and_the_rules_do_what_their_tests_say() {
    let (fine, said) = promtool(&["check", "config", "conf/prometheus/prometheus.yaml"], "").await;
    assert!(fine && said.contains("2 rule files found"), "{said}");
    let (fine, said) = promtool(&["check", "rules", "--lint=all", "--lint-fatal", ALERTS, RECORDING], "").await;
    assert!(fine, "{said}");
    let (fine, said) = promtool(&["test", "rules", TESTS[0], TESTS[1]], "").await;
    assert!(fine, "{said}");
}

/// What a case of promtool asks for one alert, and whether it expects it to fire.
struct Case {
    at: u64,
    labels: Option<BTreeSet<String>>,
}

/// The cases of each alert, by the test they belong to.
fn cases(tests: &Value) -> BTreeMap<String, Vec<Vec<Case>>> {
    let mut found: BTreeMap<String, Vec<Vec<Case>>> = BTreeMap::new();
    for test in tests["tests"].as_array().expect("tests") {
        let mut own: BTreeMap<String, Vec<Case>> = BTreeMap::new();
        for asked in test["promql_expr_test"].as_array().expect("cases") {
            let expression = asked["expr"].as_str().expect("an expression");
            let Some(name) = expression.strip_prefix("ALERTS{alertname=\"").and_then(|rest| rest.strip_suffix("\",alertstate=\"firing\"}"))
            else {
                continue;
            };
            let at = asked["eval_time"].as_str().and_then(|time| time.strip_suffix('m')?.parse().ok()).expect("minutes");
            let expected = asked["exp_samples"].as_array().expect("samples").first().map(|sample| labels(&sample["labels"]));
            own.entry(name.to_owned()).or_default().push(Case { at, labels: expected });
        }
        for (name, cases) in own {
            found.entry(name).or_default().push(cases);
        }
    }
    found
}

/// The names of the labels of a series.
fn labels(series: &Value) -> BTreeSet<String> {
    let inside = series.as_str().and_then(|text| text.split_once('{')?.1.strip_suffix('}')).expect("a series");
    inside.split(',').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name.to_owned()).collect()
}

/// What a test of an alert lacks: in one course of events it is quiet, fires, and clears.
fn lacks(courses: Option<&Vec<Vec<Case>>>) -> Option<&'static str> {
    let fires = |cases: &&Vec<Case>| cases.iter().any(|case| case.labels.is_some());
    let Some(course) = courses.and_then(|courses| courses.iter().find(fires)) else { return Some("no case in which it fires") };
    let moments: Vec<u64> = course.iter().filter(|case| case.labels.is_some()).map(|case| case.at).collect();
    let quiet = |when: &dyn Fn(u64) -> bool| course.iter().any(|case| case.labels.is_none() && when(case.at));
    if !quiet(&|at| moments.iter().all(|moment| at < *moment)) {
        Some("no case before it fires")
    } else if !quiet(&|at| moments.iter().all(|moment| at > *moment)) {
        Some("no case in which it has cleared")
    } else {
        None
    }
}

#[test]
fn every_alert_has_cases_in_which_it_is_quiet_fires_and_clears() {
    let cases = cases(&read(TESTS[0]));
    let mut faults = Vec::new();
    for rule in rules(ALERTS) {
        let name = rule["alert"].as_str().expect("a name");
        faults.extend(lacks(cases.get(name)).map(|lack| format!("{name}: {lack}")));
    }
    assert!(faults.is_empty(), "{faults:?}");
    let promised = ["HighErrorRate", "BackendUnhealthy", "BreakerOpen", "HighLatency", "RateLimitStoreDown", "CacheHitRateLow"];
    for name in promised.into_iter().chain(["ConfigReloadFailed", "CertificateExpiring"]) {
        assert!(rules(ALERTS).iter().any(|rule| rule["alert"] == name), "{name}");
    }
}

#[test]
fn an_alert_without_its_cases_is_noticed() {
    let case = |at: u64, fires: bool| {
        let samples = if fires { json!([{ "labels": "ALERTS{alertname=\"A\"}", "value": 1 }]) } else { json!([]) };
        json!({ "expr": "ALERTS{alertname=\"A\",alertstate=\"firing\"}", "eval_time": format!("{at}m"), "exp_samples": samples })
    };
    for (course, lack) in [
        (vec![], Some("no case in which it fires")),
        (vec![case(1, false)], Some("no case in which it fires")),
        (vec![case(5, true), case(9, false)], Some("no case before it fires")),
        (vec![case(1, false), case(5, true)], Some("no case in which it has cleared")),
        (vec![case(1, false), case(5, true), case(9, false)], None),
    ] {
        assert_eq!(lacks(cases(&json!({ "tests": [{ "promql_expr_test": course }] })).get("A")), lack);
    }
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_to_do_in_words_that_it_has() {
    let cases = cases(&read(TESTS[0]));
    for rule in rules(ALERTS) {
        let name = rule["alert"].as_str().expect("a name");
        assert!(["critical", "warning", "info"].map(Value::from).contains(&rule["labels"]["severity"]), "{name}");
        let annotations = rule["annotations"].as_object().expect("annotations");
        assert!(["summary", "description"].iter().all(|key| annotations[*key].as_str().is_some_and(|text| text.len() > 20)), "{name}");
        let known = cases[name].iter().flatten().find_map(|case| case.labels.as_ref()).expect("a case in which it fires");
        for text in annotations.values().filter_map(Value::as_str) {
            for used in text.split("$labels.").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                assert!(known.contains(&used), "{name}: has no label {used} to speak of, but {known:?}");
            }
        }
        if let Some(runbook) = annotations.get("runbook_url").and_then(Value::as_str) {
            assert!(root().join(runbook.split('#').next().unwrap_or_default()).is_file(), "{name}: {runbook} leads nowhere");
        }
    }
}

#[test]
fn every_recording_rule_is_named_as_is_usual_and_tried() {
    let tests = read(TESTS[1]);
    let tried: Vec<&str> = tests["tests"]
        .as_array()
        .expect("tests")
        .iter()
        .flat_map(|test| test["promql_expr_test"].as_array().expect("cases"))
        .filter_map(|case| case["expr"].as_str())
        .collect();
    for rule in rules(RECORDING) {
        let name = rule["record"].as_str().expect("a name");
        let [level, metric, operation] = name.split(':').collect::<Vec<_>>()[..] else { panic!("{name}: level:metric:operation") };
        assert!(level.split('_').next() == Some("job") && !metric.ends_with("_total") && operation.contains("rate"), "{name}");
        assert!(tried.iter().any(|expression| super::names(expression).contains(name)), "{name} is never tried");
    }
}
