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
fn what_a_request_waits_for_redis_is_bounded() {
    for (timeout, told) in [("0", false), ("500us", false), ("6s", false), ("1ms", true), ("5s", true)] {
        let text = format!("backends: [{{ name: one, url: 'http://x' }}]\nredis: {{ url: 'redis://x', timeout: {timeout} }}\n");
        assert_eq!(config::parse("g.yaml", &text, &nothing).is_ok(), told, "{timeout}");
    }
    let text = "backends: [{ name: one, url: 'http://x' }]\nredis:\n  url: redis://x\n  timeout: 6s\n";
    let problems = config::parse("g.yaml", text, &nothing).expect_err("too long");
    assert_eq!(problems[0].to_string(), "g.yaml:4: redis.timeout: not from 1ms to 5s");
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
fn what_the_file_leaves_open_of_a_datadog_agent_is_taken_from_datadogs_own_variables() {
    let lookup = |name: &str| match name {
        "DD_AGENT_HOST" => Some("fd00::7".to_owned()),
        "DD_DOGSTATSD_PORT" => Some("9125".to_owned()),
        "DD_ENV" => Some("prod".to_owned()),
        "DD_SERVICE" => Some("edge".to_owned()),
        "DD_ENTITY_ID" => Some("pod-uid".to_owned()),
        _ => None,
    };
    let told = |datadog: &str, lookup: &dyn Fn(&str) -> Option<String>| {
        let text = format!("backends: [{{ name: one, url: 'http://x' }}]\nobservability: {{ {datadog} }}\n");
        config::parse("g.yaml", &text, lookup).expect("valid").observability.datadog.map(|datadog| {
            let tags = datadog.tags.iter().map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>().join(",");
            (datadog.statsd.to_string(), tags)
        })
    };
    assert_eq!(told("", &lookup), None, "they alone turn nothing on");
    let version = env!("CARGO_PKG_VERSION");
    let plain = |statsd: &str, tags: String| Some((statsd.to_owned(), tags));
    assert_eq!(told("datadog: {}", &nothing), plain("udp://127.0.0.1:8125", format!("service:mcp-gateway,version:{version}")));
    assert_eq!(
        told("datadog: {}", &lookup),
        plain("udp://[fd00::7]:9125", format!("version:{version},env:prod,service:edge,dd.internal.entity_id:pod-uid"))
    );
    assert_eq!(
        told("datadog: { statsd: 'unix:///dsd', tags: { env: staging, version: '' } }", &lookup),
        plain("unix:///dsd", "env:staging,service:edge,dd.internal.entity_id:pod-uid".to_owned()),
        "what the file says holds"
    );
    let url = |name: &str| (name == "DD_DOGSTATSD_URL").then(|| "unix:///var/run/datadog/dsd.socket".to_owned()).or_else(|| lookup(name));
    assert_eq!(told("datadog: {}", &url).map(|(statsd, _)| statsd).as_deref(), Some("unix:///var/run/datadog/dsd.socket"));
    let wrong = |name: &str| (name == "DD_DOGSTATSD_URL").then(|| "unixstream:///s".to_owned());
    let text = "backends: [{ name: one, url: 'http://x' }]\nobservability: { datadog: {} }\n";
    let problems = config::parse("g.yaml", text, &wrong).expect_err("a fault");
    assert!(problems[0].to_string().starts_with("environment variable DD_DOGSTATSD_URL: observability.datadog.statsd: `unixstream"));
}

/// What each risk takes: a name, a configuration that has it, and one that is nearly the same and has not.
const RISKS: &[(&str, &str, &str)] = &[
    ("no_auth", "", "server: { listen: 127.0.0.1:1 }"),
    ("no_auth", "server: { listen: 127.0.0.1:1, h2c: 0.0.0.0:2 }", "server: { listen: 127.0.0.1:1, h2c: 127.0.0.1:2 }"),
    ("no_auth", "server: { listen: '[::]:1' }", "auth: { api_keys: {} }"),
    ("no_auth_on_loopback", "server: { listen: 127.0.0.1:1 }", "server: { listen: 127.0.0.1:1 }\nauth: { api_keys: {} }"),
    ("auth_not_required", "auth: { required: false, api_keys: {} }", "auth: { required: true, api_keys: {} }"),
    ("every_proxy_trusted", "server: { trusted_proxies: [10.0.0.0/8, 0.0.0.0/0] }", "server: { trusted_proxies: [10.0.0.0/8] }"),
    ("every_proxy_trusted", "server: { trusted_proxies: ['::/0'] }", "server: { trusted_proxies: ['::1'] }"),
    ("secrets_in_readable_file", "server: { session_secret: written-out-for-all }", "server: { session_secret: '${PATH}', state_dir: x }"),
    ("secrets_in_readable_file", "redis: { url: 'redis://:word@r:1' }", "redis: { url: 'redis://r:1' }"),
    ("credentials_over_http", "auth: { api_keys: {} }", "auth: { api_keys: {} }\nserver: { trusted_proxies: [10.0.0.1] }"),
    ("credentials_over_http", "auth: { api_keys: {} }", "auth: { api_keys: {} }\nserver: { listen: 127.0.0.1:1 }"),
    (
        "no_client_certificates_over_http",
        "server: { tls: { cert: Cargo.toml, key: Cargo.toml, client_ca: Cargo.toml } }",
        "server: { tls: { cert: Cargo.toml, key: Cargo.toml, client_ca: Cargo.toml }, listen: 127.0.0.1:1 }",
    ),
    ("admin_beyond_loopback", "server: { admin: 0.0.0.0:1, admin_token: x }", "server: { admin: 127.0.0.1:1, admin_token: x }"),
    ("origin_over_http", "access: { origins: ['http://a.example'] }", "access: { origins: ['https://a.example', 'http://localhost:1'] }"),
    (
        "identity_over_http",
        "auth: { jwt: [ { issuer: a, algorithms: [ES256], jwks_url: 'http://idp/k', insecure_http: true, audience: [x] } ] }",
        "auth: { jwt: [ { issuer: a, algorithms: [ES256], jwks_url: 'http://127.0.0.1/k', audience: [x] } ] }",
    ),
    (
        "identity_over_http",
        "auth: { external: { url: 'http://authn/', headers: [X-A] } }",
        "auth: { external: { url: 'https://authn/', headers: [X-A] } }",
    ),
    (
        "backend_credential_over_http",
        "backends: [ { name: a, url: 'http://a', credential: { bearer: x } } ]",
        "backends: [ { name: a, url: 'https://a', credential: { bearer: x } }, { name: b, url: 'http://b' } ]",
    ),
    (
        "collector_credential_over_http",
        "observability: { tracing: { otlp: 'http://c:4318', headers: { x-api-key: x } } }",
        "observability: { tracing: { otlp: 'http://c:4318' }, metrics: { otlp: { endpoint: 'https://c', headers: { x-api-key: x } } } }",
    ),
    ("stores_in_the_clear", "redis: { url: 'redis://r' }", "redis: { url: 'rediss://r' }"),
    ("stores_in_the_clear", "redis: { url: 'valkey://r' }", "redis: { url: 'valkeys://r' }"),
    ("stores_in_the_clear", "redis: { url: 'redis://10.0.0.1' }", "redis: { url: 'redis://127.0.0.1' }"),
    ("stores_in_the_clear", "analytics: { postgres: 'postgres://u@db/n' }", "analytics: { postgres: 'postgres://u@db/n?sslmode=require' }"),
    (
        "stores_in_the_clear",
        "analytics: { postgres: 'postgres://u@db/n?sslmode=prefer' }",
        "analytics: { postgres: 'postgres://u@localhost/n' }",
    ),
    (
        "stores_in_the_clear",
        "discovery: { etcd: { endpoints: ['http://etcd:2379'] } }",
        "discovery: { etcd: { endpoints: ['http://127.0.0.1:2379'] } }",
    ),
    (
        "limits_fail_open",
        "redis: { url: 'redis://r' }\nrate_limits: { store: redis, on_store_failure: allow }",
        "redis: { url: 'redis://r' }\nrate_limits: { store: redis, on_store_failure: deny }",
    ),
    ("no_rate_limits", "auth: { api_keys: {} }", "auth: { api_keys: {} }\nrate_limits: { tiers: { default: { rate: 1/s } } }"),
    ("no_roles", "auth: { api_keys: {} }", "auth: { api_keys: {} }\nroles: { all: [ {} ] }"),
    (
        "cached_calls_by_pattern",
        "cache: { enabled: true, tools: [ { tool: read }, { tool: 're*' } ] }",
        "cache: { enabled: true, tools: [ { tool: read } ] }",
    ),
    (
        "verbose_log",
        "observability: { log: { level: 'info,mcp_gateway::route=trace' } }",
        "observability: { log: { level: 'info,audit=warn' } }",
    ),
    ("verbose_log", "observability: { log: { level: debug } }", ""),
    ("every_trace", "observability: { tracing: { sample: 1 } }", "observability: { tracing: { sample: 0.9 } }"),
];

/// The risks of a configuration in a file that everybody can read, or only its owner.
fn risks_of(yaml: &str, mode: u32) -> Vec<config::risk::Risk> {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("g.yaml");
    let backends = if yaml.contains("backends:") { "" } else { "backends: [ { name: a, url: 'http://a' } ]\n" };
    std::fs::write(&path, format!("{backends}{yaml}\n")).expect("writable");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
    let source = config::Source::File(Some(path));
    let config = source.load().unwrap_or_else(|problems| panic!("{yaml}: {problems:?}"));
    config::risk::risks(&config, &source)
}

#[test]
fn every_risk_comes_with_its_setting_and_goes_with_it() {
    for (name, with, without) in RISKS {
        let has = |yaml: &str| risks_of(yaml, 0o644).into_iter().find(|risk| risk.name == *name);
        let risk = has(with).unwrap_or_else(|| panic!("{name} in {with}"));
        let line = risk.line.is_some() || !with.contains(risk.path.split(['.', '[']).next().expect("a key"));
        assert!(line && !risk.path.is_empty() && risk.source.ends_with("g.yaml"), "{risk}");
        assert_eq!(has(without), None, "{name} in {without}");
    }
    let tried: std::collections::BTreeSet<&str> = RISKS.iter().map(|(name, _, _)| *name).collect();
    let all: std::collections::BTreeSet<&str> = config::risk::KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(tried, all);
    let secret = "server: { session_secret: written-out-for-all }";
    let told = |mode| risks_of(secret, mode).iter().any(|risk| risk.name == "secrets_in_readable_file");
    assert!(told(0o604) && !told(0o640) && !told(0o600));
    assert!(risks_of(secret, 0o644).iter().all(|risk| !risk.to_string().contains("written-out")), "and none is repeated");
}

#[test]
fn the_table_of_risks_is_true() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/log/README.md")).expect("readable");
    let (_, table) = text.split_once("<!-- risks: this table is held true by a test -->").expect("the mark before the table");
    let (table, _) = table.split_once("<!-- end -->").expect("the mark behind it");
    let rows: Vec<(&str, bool)> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, rest)| (name, !rest.starts_with(" * |")))
        .collect();
    let all: Vec<(&str, bool)> = config::risk::KINDS.iter().map(|kind| (kind.name, kind.is_grave)).collect();
    assert_eq!(rows, all);
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
