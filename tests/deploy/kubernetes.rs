//! `k8s/`: rendered by kustomize, valid by Kubernetes' schemas, each part pointing at parts that exist, and the gateway's own
//! configuration in it one that the gateway takes.

use std::path::Path;
use std::process::Command;

use mcp_gateway::config::Config;
use serde_json::{Value, json};

use crate::written::{documents, files, is_pinned, loaded, part, paths, root, run, text, yaml};

/// The version whose schemas are asked; APIs in use are older than the oldest that is maintained.
const KUBERNETES: &str = "1.37.0";
const FOLDERS: &[&str] = &["k8s/base", "k8s/example", "k8s/prometheus-operator", "k8s/datadog"];

fn rendered(folder: &str) -> String {
    let (passed, said) = run(Command::new(part("bin/kubectl")).arg("kustomize").arg(root().join(folder)));
    assert!(passed, "{folder}: {said}");
    said
}

/// Whether documents are valid, and what was said of them. Resources of operators have no schema there.
fn judged(documents: &[Value]) -> (bool, String) {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().expect("a file");
    let list: Vec<String> = documents.iter().map(ToString::to_string).collect();
    std::fs::write(file.path(), list.join("\n---\n")).expect("writable");
    run(Command::new(part("venv/bin/kubernetes-validate")).args(["--strict", "-k", KUBERNETES]).arg(file.path()))
}

/// The one resource of a kind in the base.
fn base(kind: &str) -> Value {
    let found: Vec<_> = documents(&rendered("k8s/base")).into_iter().filter(|document| document["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind} once");
    found.into_iter().next().expect("one")
}

fn container() -> Value {
    base("Deployment")["spec"]["template"]["spec"]["containers"][0].clone()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Whether all of a selector's labels are among these.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().expect("labels");
    !wanted.is_empty() && wanted.iter().all(|(name, value)| labels[name] == *value)
}

/// The configuration of the ConfigMap with the files of the Secret's example.
fn config() -> Config {
    let dir = tempfile::tempdir().expect("a folder");
    for (key, value) in yaml("k8s/base/secret.example.yaml")["stringData"].as_object().expect("secrets") {
        std::fs::write(dir.path().join(key), value.as_str().expect("text")).expect("writable");
    }
    let written = base("ConfigMap")["data"]["gateway.yaml"].as_str().expect("a file").to_owned();
    let mounts = list(&container()["volumeMounts"]).to_vec();
    let secret = mounts.iter().find(|mount| mount["name"] == "secret").expect("a mount")["mountPath"].as_str().expect("a path").to_owned();
    assert!(written.contains(&secret), "{secret} is where the configuration looks for secrets");
    let here = written.replace(&secret, &dir.path().display().to_string());
    std::fs::write(dir.path().join("gateway.yaml"), here).expect("writable");
    loaded(&dir.path().join("gateway.yaml"))
}

#[test]
fn everything_rendered_and_every_example_is_valid() {
    let mut all: Vec<Value> = FOLDERS.iter().flat_map(|folder| documents(&rendered(folder))).collect();
    all.retain(|document| document["kind"] != "ServiceMonitor");
    assert!(all.len() > 15, "{}", all.len());
    let examples = files("k8s/base").into_iter().filter(|file| file.ends_with(".example.yaml"));
    all.extend(examples.map(|file| yaml(&file)));
    let (valid, said) = judged(&all);
    assert!(valid && !said.contains("Couldn't find schema"), "{said}");
    let mut wrong = base("Deployment");
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = json!({});
    assert!(!judged(&[wrong]).0, "it would see a misspelt key");
}

#[test]
fn every_file_is_rendered_or_an_example() {
    for folder in FOLDERS {
        let kustomization = yaml(&format!("{folder}/kustomization.yaml"));
        let resources: Vec<_> = list(&kustomization["resources"]).iter().filter_map(Value::as_str).collect();
        for file in files(folder) {
            let name = file.rsplit('/').next().expect("a name");
            let known = resources.contains(&name) || name == "kustomization.yaml" || name.ends_with(".example.yaml");
            assert!(known, "{file} is in no kustomization");
        }
    }
}

#[test]
fn images_are_pinned_and_nothing_runs_as_root_or_writes_where_it_should_not() {
    for document in documents(&rendered("k8s/example")).iter().filter(|document| document["kind"] == "Deployment") {
        let (name, pod) = (&document["metadata"]["name"], &document["spec"]["template"]["spec"]);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert!(pod["securityContext"]["runAsUser"].as_u64().is_some_and(|id| id > 0), "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        assert_eq!((&pod["automountServiceAccountToken"], &pod["enableServiceLinks"]), (&json!(false), &json!(false)), "{name}");
        for container in list(&pod["containers"]) {
            let security = &container["securityContext"];
            assert!(is_pinned(container["image"].as_str().unwrap_or_default()), "{name}: {}", container["image"]);
            assert_eq!(
                (&security["readOnlyRootFilesystem"], &security["allowPrivilegeEscalation"]),
                (&json!(true), &json!(false)),
                "{name}"
            );
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]), "{name}");
            assert!(
                container["resources"]["requests"]["cpu"].is_string() && container["resources"]["limits"]["memory"].is_string(),
                "{name}"
            );
        }
    }
}

#[test]
fn the_user_is_the_images() {
    let user = &base("Deployment")["spec"]["template"]["spec"]["securityContext"];
    let (uid, gid) = (&user["runAsUser"], &user["runAsGroup"]);
    assert!(text("Dockerfile").lines().any(|line| line == format!("USER {uid}:{gid}")), "USER {uid}:{gid}");
    assert_eq!(&user["fsGroup"], gid, "the volumes are its own");
}

#[test]
fn ports_and_probes_are_the_gateways() {
    let (container, config, paths) = (container(), config(), paths());
    assert_eq!(
        container["ports"],
        json!([{ "name": "http", "containerPort": config.server.listen.port() }]),
        "the admin listener is no port"
    );
    assert!(config.server.admin.is_some_and(|admin| admin.ip().is_loopback()));
    // A plain request would take one that is full for a dead one.
    assert_eq!(container["livenessProbe"]["exec"], json!({ "command": ["/usr/local/bin/mcp-gateway", "health"] }));
    for (probe, path) in [("startupProbe", "/health"), ("readinessProbe", "/ready")] {
        assert_eq!(container[probe]["httpGet"], json!({ "path": path, "port": "http" }), "{probe}");
        assert!(paths.iter().any(|known| known == path), "{path}");
    }
    let service = base("Service");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], "http");
    for rule in list(&yaml("k8s/base/ingress.example.yaml")["spec"]["rules"][0]["http"]["paths"]) {
        let path = rule["path"].as_str().expect("a path");
        assert!(paths.iter().any(|known| known.starts_with(path)), "{path}");
        assert_eq!(rule["backend"]["service"], json!({ "name": service["metadata"]["name"], "port": { "name": "http" } }));
    }
}

#[test]
fn it_has_the_time_to_drain() {
    let (pod, config) = (base("Deployment")["spec"]["template"]["spec"].clone(), config());
    let slept = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().expect("seconds");
    let given = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds");
    assert!(given > slept + config.server.grace_period.as_secs() + 3, "{given} s for {slept} s, the drain and the last words of streams");
    let strategy = &base("Deployment")["spec"]["strategy"]["rollingUpdate"];
    assert_eq!(strategy["maxUnavailable"], 0);
}

#[test]
fn the_state_is_written_below_the_one_volume_that_may_be() {
    let (container, config) = (container(), config());
    let mut writable = list(&container["volumeMounts"]).iter().filter(|mount| mount["readOnly"] != true);
    let mount = writable.next().expect("a volume for the state")["mountPath"].as_str().expect("a path").to_owned();
    assert!(writable.next().is_none(), "and no other");
    // The root of a volume belongs to root, and the gateway wants a folder of its own.
    assert!(config.server.state_dir.starts_with(&mount) && config.server.state_dir != Path::new(&mount), "{mount}");
    assert!(list(&container["volumeMounts"]).iter().all(|mount| mount.get("subPath").is_none()), "changes would not arrive");
    assert_eq!(container["env"][0], json!({ "name": "MCP_GATEWAY_CONFIG", "value": "/etc/mcp-gateway/gateway.yaml" }));
    assert!(config.server.session_secret.is_some() && config.redis.is_some(), "what replicas share");
}

#[test]
fn selectors_find_what_they_are_for() {
    let (deployment, service) = (base("Deployment"), base("Service"));
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    for (who, selector) in [
        ("Deployment", &deployment["spec"]["selector"]["matchLabels"]),
        ("Service", &service["spec"]["selector"]),
        ("PodDisruptionBudget", &base("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]),
        ("NetworkPolicy", &base("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]),
    ] {
        assert!(selects(selector, labels), "{who}: {selector} of {labels}");
    }
    for spread in list(&deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]) {
        assert!(selects(&spread["labelSelector"]["matchLabels"], labels), "{spread}");
    }
    let target = &base("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"];
    assert_eq!(target, &json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"] }));
}

/// The backend and the Redis of the example can be reached by the policy, and are where the configuration says.
#[test]
fn the_example_is_whole() {
    let all = documents(&rendered("k8s/example"));
    let of = |name: &str| all.iter().find(|document| document["kind"] == "NetworkPolicy" && document["metadata"]["name"] == name);
    let policy = of("mcp-gateway").expect("a policy");
    let open = |labels: &Value| {
        let peers = list(&policy["spec"]["egress"]).iter().flat_map(|rule| list(&rule["to"]));
        peers.filter_map(|peer| peer["podSelector"].get("matchLabels")).any(|selector| selects(selector, labels))
    };
    let config = config();
    let backends = config.backends.iter().map(|backend| (backend.url.host_str().expect("a host"), backend.url.port()));
    for (name, port) in backends.chain([("redis", Some(6379))]) {
        let named = |kind: &str| all.iter().find(|document| document["kind"] == kind && document["metadata"]["name"] == name);
        let service = named("Service").unwrap_or_else(|| panic!("no Service {name}"));
        assert_eq!(service["spec"]["ports"][0]["port"].as_u64(), port.map(u64::from), "{name}");
        let labels = &named("Deployment").expect("pods")["spec"]["template"]["metadata"]["labels"];
        assert!(selects(&service["spec"]["selector"], labels) && open(labels), "{name}");
    }
    // It has no password, and what it holds lets callers in.
    let redis = of("redis").expect("a policy");
    let only = json!([{
        "from": [{ "podSelector": policy["spec"]["podSelector"] }],
        "ports": [{ "protocol": "TCP", "port": "redis" }],
    }]);
    assert!(redis["spec"]["ingress"] == only && redis["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "redis");
}

#[test]
fn the_autoscaler_asks_for_a_metric_that_the_adapter_makes_of_one_the_gateway_has() {
    let adapter = yaml("k8s/prometheus-adapter.yaml");
    let rules = list(&adapter["rules"]["custom"]);
    let metrics = base("HorizontalPodAutoscaler")["spec"]["metrics"].clone();
    assert_eq!(metrics[0]["resource"]["name"], "cpu");
    let asked = metrics[1]["pods"]["metric"]["name"].as_str().expect("a name").to_owned();
    let rule = rules.iter().find(|rule| rule["name"]["as"] == asked).unwrap_or_else(|| panic!("no rule makes {asked}"));
    // The fields of a rule: kubernetes-sigs/prometheus-adapter, docs/config.md.
    for key in rule.as_object().expect("a rule").keys() {
        assert!(["seriesQuery", "seriesFilters", "resources", "name", "metricsQuery"].contains(&key.as_str()), "{key}");
    }
    let series = rule["seriesQuery"].as_str().expect("a query");
    let name = series.split('{').next().expect("a name");
    assert!(text("src/observe/metrics.rs").contains(&format!("\"{name}\"")), "the gateway has no {name}");
    let query = rule["metricsQuery"].as_str().expect("a query");
    for placeholder in ["<<.Series>>", "<<.LabelMatchers>>", "<<.GroupBy>>"] {
        assert!(query.contains(placeholder), "{placeholder}");
    }
}

/// No schema of it can be had; its fields: prometheus-operator, Documentation/api-reference, ServiceMonitorSpec and Endpoint.
#[test]
fn the_service_monitor_has_known_fields_and_finds_the_service() {
    let monitor = documents(&rendered("k8s/prometheus-operator")).swap_remove(0);
    assert_eq!((&monitor["apiVersion"], &monitor["kind"]), (&json!("monitoring.coreos.com/v1"), &json!("ServiceMonitor")));
    let known = |value: &Value, fields: &[&str]| {
        for key in value.as_object().expect("an object").keys() {
            assert!(fields.contains(&key.as_str()), "ServiceMonitor has no {key}");
        }
    };
    let spec = &monitor["spec"];
    known(
        spec,
        &["jobLabel", "targetLabels", "podTargetLabels", "endpoints", "selector", "namespaceSelector", "sampleLimit", "labelLimit"],
    );
    known(&spec["namespaceSelector"], &["any", "matchNames"]);
    known(&spec["selector"], &["matchLabels", "matchExpressions"]);
    let service = base("Service");
    assert!(selects(&spec["selector"]["matchLabels"], &service["metadata"]["labels"]));
    assert_eq!(spec["namespaceSelector"]["matchNames"], json!([service["metadata"]["namespace"]]));
    for endpoint in list(&spec["endpoints"]) {
        known(
            endpoint,
            &[
                "port",
                "targetPort",
                "path",
                "scheme",
                "interval",
                "scrapeTimeout",
                "authorization",
                "tlsConfig",
                "honorLabels",
                "relabelings",
                "metricRelabelings",
            ],
        );
        assert!(list(&service["spec"]["ports"]).iter().any(|port| port["name"] == endpoint["port"]), "{endpoint}");
        assert_eq!(endpoint["path"], "/metrics");
    }
    assert!(config().observability.metrics, "the public listener has /metrics");
}
