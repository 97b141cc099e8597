//! Configuration files: every one in `conf/` loads, and every fault in `tests/bad/` is told with its line.

use std::path::{Path, PathBuf};

use mcp_gateway::config;

fn files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let entries = std::fs::read_dir(dir).expect("readable").map(|entry| entry.expect("readable").path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect()
}

fn nothing(_: &str) -> Option<String> {
    None
}

#[test]
fn every_example_loads() {
    let lookup = |name: &str| (name == "DEMO_MCP_ADDRESS").then(|| "127.0.0.1:1".to_owned());
    let files: Vec<_> = files("conf").into_iter().chain(files("conf/examples")).collect();
    assert!(files.len() >= 5, "{files:?}");
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        let loaded = config::parse(&path.display().to_string(), &text, &lookup);
        assert!(loaded.is_ok(), "{:?}", loaded.err());
    }
}

/// A line `#: 7: path: message` in a file expects that problem; nothing else may be reported.
#[test]
fn every_fault_is_told_with_its_line_and_nothing_else_is() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad/everything.yaml")).expect("readable");
    let mut expected: Vec<String> = text.lines().filter_map(|line| line.strip_prefix("#: ").map(str::to_owned)).collect();
    let problems = config::parse("everything.yaml", &text, &nothing).expect_err("nothing but faults");
    let mut told: Vec<String> = problems.iter().map(|problem| problem.to_string().replace("everything.yaml:", "")).collect();
    expected.sort();
    told.sort();
    assert_eq!(told.join("\n"), expected.join("\n"));
}

#[test]
fn routes_to_backends_that_nobody_has_are_told_unless_they_may_come() {
    let text = "backends: [{ name: one, url: 'http://x' }]\nroutes:\n  - backends: [one, three]\n  - backends: { shard: eu }\n";
    let problems = config::parse("g.yaml", text, &nothing).expect_err("faults");
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "g.yaml:3: routes[0].backends: there is no backend `three` below backends",
            "g.yaml:4: routes[1].backends.shard: no backend has the shard `eu`"
        ]
    );
    let discovered = format!("{text}discovery: {{ etcd: {{ endpoints: ['http://etcd:2379'] }} }}\n");
    assert!(config::parse("g.yaml", &discovered, &nothing).is_ok(), "they may be discovered");
}

#[test]
fn what_is_no_yaml_is_told_with_its_line() {
    let problems = config::parse("syntax.yaml", "backends:\n  - name: [\n", &nothing).expect_err("a fault");
    assert_eq!((problems.len(), problems[0].line.is_some()), (1, true), "{problems:?}");
}

#[test]
fn variables_replace_the_file_and_are_blamed_for_their_own_faults() {
    let lookup = |name: &str| match name {
        "GATEWAY_PORT" => Some("9000".to_owned()),
        "GATEWAY_WORKERS" => Some("3".to_owned()),
        "LOG_LEVEL" => Some("debug".to_owned()),
        "TOKEN" => Some("t0ken".to_owned()),
        _ => None,
    };
    let text =
        "server: { listen: 10.0.0.1:80, workers: 9 }\nbackends: [{ name: a, url: 'http://x', credential: { bearer: '${TOKEN}' } }]\n";
    let config = config::parse("g.yaml", text, &lookup).expect("valid");
    assert_eq!(
        (config.server.listen.to_string().as_str(), config.server.workers, config.observability.log.level.as_str()),
        ("10.0.0.1:9000", 3, "debug")
    );
    assert_eq!(config.backends[0].credential.as_ref().map(config::Secret::expose), Some("t0ken"));
    assert!(!format!("{config:?}").contains("t0ken"));
    let wrong = |name: &str| (name == "GATEWAY_WORKERS").then(|| "lots".to_owned());
    let problems = config::parse("g.yaml", text.replace("${TOKEN}", "x").as_str(), &wrong).expect_err("a fault");
    assert!(problems[0].to_string().starts_with("environment variable GATEWAY_WORKERS: server.workers: `lots`"), "{}", problems[0]);
}

#[test]
fn faults_of_the_log_are_told_with_their_lines() {
    let text =
        "backends: [{ name: a, url: 'http://x' }]\nobservability:\n  log:\n    level: inof\n    sample: 2\n    slow: ever\n    sampel: 1\n";
    let problems = config::parse("g.yaml", text, &nothing).expect_err("faults");
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "g.yaml:4: observability.log.level: `inof` is not a log level: off, error, warn, info, debug, trace, or module=level",
            "g.yaml:5: observability.log.sample: `2` is not a share; write \"20%\" or 0.2, at most 100%",
            "g.yaml:6: observability.log.slow: `ever` is not a duration; write 30, \"250ms\", \"30s\" or \"5m\"",
            "g.yaml:7: observability.log.sampel: unknown key `sampel`; did you mean `sample`?"
        ]
    );
    let foreign = text.replace("inof", "info,pingora_proxy=debug");
    let problems = config::parse("g.yaml", &foreign, &nothing).expect_err("a fault");
    assert!(problems[0].message.contains("`pingora_proxy` may print secrets below info"), "{}", problems[0]);
}
