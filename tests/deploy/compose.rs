//! docker-compose.yml: valid by the compose specification, pinned, and in step with what it mounts and with the gateway.

use std::collections::BTreeSet;

use mcp_gateway::config::Config;
use serde_json::Value;

use crate::written::{is_pinned, loaded, part, root, text, yaml};

fn services() -> serde_json::Map<String, Value> {
    yaml("docker-compose.yml")["services"].as_object().expect("services").clone()
}

fn config() -> Config {
    loaded(&root().join("conf/compose/gateway/gateway.yaml"))
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|item| Some(item.as_str()?.to_owned())).collect()
}

#[test]
fn it_is_valid_by_the_compose_specification() {
    let schema = std::fs::read(part("npm/node_modules/dclint/schemas/compose.schema.json")).expect("the schema");
    let schema: Value = serde_json::from_slice(&schema).expect("JSON");
    let schema = jsonschema::draft7::new(&schema).expect("a schema");
    let compose = yaml("docker-compose.yml");
    let faults: Vec<String> = schema.iter_errors(&compose).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let mut wrong = compose;
    wrong["services"]["gateway"]["read_onyl"] = true.into();
    assert!(!schema.is_valid(&wrong), "it would see a misspelt key");
}

#[test]
fn images_are_pinned_and_what_is_mounted_exists() {
    let (services, volumes) = (services(), yaml("docker-compose.yml")["volumes"].clone());
    for (name, service) in &services {
        let image = service["image"].as_str().unwrap_or_else(|| panic!("{name} has no image"));
        assert!(is_pinned(image), "{name}: {image}");
        for volume in strings(&service["volumes"]) {
            let source = volume.split(':').next().unwrap_or_default();
            if let Some(path) = source.strip_prefix("./") {
                assert!(root().join(path).exists(), "{name} mounts {path}");
                assert!(volume.ends_with(":ro"), "{name} must not write {path}");
            } else {
                assert!(volumes.get(source).is_some(), "{name}: no volume {source}");
            }
        }
        let listed = strings(&service["depends_on"]);
        for dependency in service["depends_on"].as_object().into_iter().flat_map(serde_json::Map::keys).chain(&listed) {
            assert!(services.contains_key(dependency), "{name} waits for {dependency}");
        }
    }
}

#[test]
fn the_gateway_is_as_its_configuration_says() {
    let (gateway, config) = (&services()["gateway"], config());
    let ports = strings(&gateway["ports"]);
    assert!(
        config.auth.is_some() || ports.iter().all(|port| port.starts_with("127.0.0.1:")),
        "everyone is let in, so on loopback only: {ports:?}"
    );
    assert!(ports.iter().all(|port| port.ends_with(&format!(":{}", config.server.listen.port()))), "{ports:?}");
    assert!(config.server.admin.is_some_and(|admin| admin.ip().is_loopback()), "the admin listener is not published");
    let stop = gateway["stop_grace_period"].as_str().and_then(|text| text.trim_end_matches('s').parse::<u64>().ok()).expect("seconds");
    assert!(stop > config.server.grace_period.as_secs() + 3, "the drain and the last words of streams end before it is killed");
    assert_eq!((gateway["read_only"].as_bool(), strings(&gateway["cap_drop"])), (Some(true), vec!["ALL".to_owned()]));
    let volumes = strings(&gateway["volumes"]);
    let state = format!(":{}", config.server.state_dir.display());
    assert!(volumes.iter().any(|volume| volume.ends_with(&state)), "the state has a place to be written: {volumes:?}");
    let file = gateway["environment"]["MCP_GATEWAY_CONFIG"].as_str().expect("a configuration");
    let mounted = volumes.iter().find_map(|volume| volume.strip_prefix("./conf/compose/gateway:")?.strip_suffix(":ro")).expect("mounted");
    assert_eq!(file, format!("{mounted}/gateway.yaml"));
}

#[test]
fn names_in_configurations_are_those_of_services() {
    let (services, config) = (services(), config());
    assert!(config.backends.len() >= 2);
    for backend in &config.backends {
        let host = backend.url.host_str().expect("a host");
        let service = services.get(host).unwrap_or_else(|| panic!("no service {host}"));
        let port = backend.url.port().expect("a port").to_string();
        let told = format!("{} {}", service["environment"], service["command"]);
        assert!(told.contains(&port), "{host} listens on {port}: {told}");
    }
    let prometheus = yaml("conf/compose/prometheus.yaml");
    let targets = strings(&prometheus["scrape_configs"][0]["static_configs"][0]["targets"]);
    assert_eq!(targets, [format!("gateway:{}", config.server.listen.port())]);
    let grafana = yaml("conf/compose/grafana/datasources.yaml");
    assert_eq!(grafana["datasources"][0]["url"], "http://prometheus:9090");
    assert!(text("docker-compose.yml").contains("redis://redis:6379"));
}

/// The names in `${NAME…}`.
fn variables(text: &str) -> BTreeSet<String> {
    let names = text.split("${").skip(1).map(|rest| rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect());
    names.collect()
}

#[test]
fn variables_are_known_and_documented() {
    let documented: BTreeSet<String> = text(".env.example")
        .lines()
        .filter_map(|line| line.trim_start_matches("# ").split_once('='))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    let unknown: Vec<_> = variables(&text("docker-compose.yml")).difference(&documented).cloned().collect();
    assert!(unknown.is_empty(), ".env.example does not tell of {unknown:?}");
    let gateway = text("src/config/env.rs");
    let environment = services()["gateway"]["environment"].as_object().expect("an environment").clone();
    for name in environment.keys().filter(|name| *name != "MCP_GATEWAY_CONFIG") {
        assert!(gateway.contains(&format!("\"{name}\"")), "the gateway does not know {name}");
    }
}
