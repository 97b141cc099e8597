//! The dashboard and the rules, asked in a real Prometheus that scrapes a gateway with traffic.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{World, names, read, rules};
use crate::support::eventually;
use crate::support::prometheus::Prometheus;

const DASHBOARD: &str = "conf/grafana/mcp-gateway.json";

/// What does not happen in the world of this test, and is 0.
const QUIET: &[&str] =
    &["Retries A", "Discovered and draining B", "Discovered and draining D", "Overload A", "Overload B", "Dropped A", "Dropped C"];
/// What happens once Redis is gone.
const OUTAGE: &[&str] = &["Decisions without the store A", "Redis errors A"];

/// An expression as Grafana would send it, with everything chosen.
fn substituted(expression: &str) -> String {
    let text = expression.replace("$__rate_interval", "10s");
    let text = ["job", "instance", "server", "backend"].iter().fold(text, |text, name| text.replace(&format!("\"${name}\""), "\".*\""));
    assert!(!text.contains('$'), "an unknown variable: {text}");
    text
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().expect("panels")
}

/// Every expression of the dashboard, by where it stands.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let targets = |panel: &Value| {
        let title = text(&panel["title"]);
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| (format!("{title} {}", text(&target["refId"])), text(&target["expr"]))).collect::<Vec<_>>()
    };
    let annotations = dashboard["annotations"]["list"].as_array().expect("annotations").iter();
    let annotations = annotations.map(|annotation| (text(&annotation["name"]), text(&annotation["expr"])));
    panels(dashboard).iter().flat_map(targets).chain(annotations).collect()
}

#[test]
fn the_dashboard_takes_its_data_source_from_a_variable_and_has_no_two_panels_with_one_id() {
    let dashboard = read(DASHBOARD);
    assert!(dashboard.get("uid").is_none() && dashboard.get("id").is_none(), "Grafana gives these");
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 39));
    let ids: BTreeSet<u64> = panels(&dashboard).iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels(&dashboard).len(), "each has an id of its own");
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard) {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
        assert!(x + w <= 24 && (x..x + w).all(|x| (y..y + h).all(|y| taken.insert((x, y)))), "{} lies on another", panel["title"]);
        if panel["type"] != "row" {
            assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{} asks nothing", panel["title"]);
        }
    }
    let text = dashboard.to_string();
    assert_eq!(text.matches("\"uid\":").count(), text.matches("\"uid\":\"${datasource}\"").count(), "no data source by its own id");
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
    assert_eq!(dashboard["templating"]["list"][0]["name"], "datasource");
}

/// Waits until every expression gives something, and where something happens, something else than zeros.
async fn all_speak(prometheus: &Prometheus, asked: &[(String, String)]) {
    for (place, expression) in asked {
        let speaks = async || {
            let series = prometheus.since_start(expression).await;
            let happens = series.iter().flat_map(|(_, values)| values).any(|value| *value != 0.0);
            (!series.is_empty() && (happens || QUIET.contains(&place.as_str()))).then_some(())
        };
        eventually(&format!("{place} shows something: {expression}"), speaks).await;
    }
}

/// The alerts that fire or are about to.
async fn alerts(prometheus: &Prometheus) -> BTreeSet<String> {
    let rules = prometheus.rules().await;
    assert!(rules.len() > 30 && rules.iter().all(|rule| rule["health"] == "ok"), "{rules:?}");
    let active = rules.iter().filter(|rule| rule["type"] == "alerting" && rule["state"] != "inactive");
    active.map(|rule| rule["name"].as_str().expect("a name").to_owned()).collect()
}

/// What the variables of the dashboard offer: `label_values(series, label)`.
async fn choices(prometheus: &Prometheus, dashboard: &Value) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for variable in dashboard["templating"]["list"].as_array().expect("variables").iter().filter(|variable| variable["type"] == "query") {
        let query = substituted(variable["query"]["query"].as_str().expect("a query"));
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).expect("label_values");
        let (series, label) = inside.rsplit_once(", ").expect("a series and a label");
        found.push((label.to_owned(), prometheus.label(label, Some(series)).await));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_and_every_rule_finds_data_in_a_running_prometheus() {
    let world = World::start().await;
    let prometheus = Prometheus::scraping(world.gateway.url.trim_start_matches("http://")).await;
    let _stream = world.stream().await;
    tokio::select! {
        () = world.live() => unreachable!("it goes on"),
        () = judge(&world, &prometheus) => {}
    }
}

async fn judge(world: &World, prometheus: &Prometheus) {
    let scraped = async || prometheus.since_start("mcp_gateway_build_info").await.first().map(drop);
    eventually("the gateway is scraped", scraped).await;
    world.gateway.load(&world.yaml).await;

    let dashboard = read(DASHBOARD);
    let mut asked: Vec<_> = expressions(&dashboard).into_iter().map(|(place, text)| (place, substituted(&text))).collect();
    assert!(asked.len() > 60, "{}", asked.len());
    let recorded = rules("conf/prometheus/recording.yaml").into_iter().map(|rule| rule["record"].as_str().expect("a name").to_owned());
    asked.extend(recorded.map(|name| ("recorded".to_owned(), name)));
    let (outage, usual): (Vec<_>, Vec<_>) = asked.iter().cloned().partition(|(place, _)| OUTAGE.contains(&place.as_str()));
    all_speak(prometheus, &usual).await;
    for (label, found) in choices(prometheus, &dashboard).await {
        assert!(!found.is_empty(), "nothing to choose from for {label}");
    }

    // One backend is not there, another fails and is left alone; so are PostgreSQL and the Datadog agent. The one that is drained is not looked for. On a busy machine
    // Redis may be slow for a moment, or a scrape.
    let quiet =
        ["GatewayDown", "GatewayRestarting", "NoHealthyBackend", "RateLimitStoreDown", "AuthenticationUnavailable", "DiscoveryDown"];
    let quiet = [&quiet[..], &["ConfigReloadFailed", "CertificateExpiring", "CertificateAboutToExpire", "FileDescriptorsLow"]].concat();
    let told = async || {
        let active = alerts(prometheus).await;
        let wrong = ["BackendUnhealthy", "BreakerOpen", "HighErrorRate", "AnalyticsDropped", "MetricsNotTold"];
        let seen = wrong.iter().all(|name| active.contains(*name));
        (seen && !quiet.iter().any(|name| active.contains(*name))).then_some(())
    };
    eventually("what is wrong is told, and nothing else", told).await;
    world.redis.hang();
    all_speak(prometheus, &outage).await;
    eventually("the outage is seen", async || alerts(prometheus).await.contains("RateLimitStoreDown").then_some(())).await;

    let known: BTreeSet<String> = prometheus.label("__name__", None).await.into_iter().collect();
    let of_rules = ["alerts", "recording"].into_iter().flat_map(|file| rules(&format!("conf/prometheus/{file}.yaml")));
    let of_rules = of_rules.map(|rule| rule["expr"].as_str().expect("an expression").to_owned());
    for expression in of_rules.chain(asked.into_iter().map(|(_, expression)| expression)) {
        let unknown: Vec<_> = names(&expression).into_iter().filter(|name| !known.contains(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?} exist in no exposition: {expression}");
    }
}
