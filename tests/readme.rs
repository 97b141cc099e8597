//! The README's table of refusals is the table the code runs on, and the page on troubleshooting leaves out no refusal and no
//! alert, and names nothing that does not exist.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use mcp_gateway::reject::Code;

fn table() -> String {
    let mut table = String::from("| code | status | when |\n|---|---|---|\n");
    for code in Code::ALL {
        let _ = writeln!(table, "| `{}` | {} [{}] | {} |", code.name(), code.status(), code.rpc(), code.meaning().trim());
    }
    table
}

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

const TROUBLE: &str = "conf/troubleshoot/README.md";

/// What stands in the first cell of the rows below a mark.
fn rows<'t>(page: &'t str, mark: &str) -> Vec<&'t str> {
    let (_, rest) = page.split_once(mark).unwrap_or_else(|| panic!("{TROUBLE} has no {mark}"));
    let (table, _) = rest.split_once("<!-- end -->").expect("the mark behind it");
    table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

/// The pages of documentation, by path.
fn pages() -> Vec<String> {
    let conf = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")).expect("conf");
    let conf = conf.map(|entry| format!("conf/{}/README.md", entry.expect("readable").file_name().display()));
    let there = conf.filter(|path| Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists());
    there.chain(["README.md", "k8s/README.md", "CONTRIBUTING.md"].map(str::to_owned)).collect()
}

/// The address of a heading within its page, as GitHub makes it.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The headings of a page, outside of code.
fn headings(page: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let told = page.lines().filter(|line| {
        is_code ^= line.starts_with("```");
        !is_code && line.starts_with('#')
    });
    told.map(|line| slug(line.trim_start_matches('#'))).collect()
}

#[test]
fn every_refusal_has_a_row_in_troubleshooting() {
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(rows(&text(TROUBLE), "<!-- codes"), codes);
}

#[test]
fn every_alert_has_a_row_in_troubleshooting() {
    let alerts = text("conf/prometheus/alerts.yaml");
    let alerts: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "the rules are found: {alerts:?}");
    assert_eq!(rows(&text(TROUBLE), "<!-- alerts"), alerts);
}

#[test]
fn metrics_that_pages_name_exist() {
    const ENDS: &[&str] = &["_total", "_seconds", "_bytes", "_up", "_state", "_queued", "_streams", "_connections", "_fds", "_successful"];
    let documented = text("conf/prometheus/README.md");
    let known: BTreeSet<_> = documented.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for path in [TROUBLE, "conf/scale/README.md", "conf/upgrade/README.md"] {
        let page = text(path);
        let words = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(|word| word.trim_end_matches("_bucket"));
        let named: BTreeSet<_> = words.filter(|word| ENDS.iter().any(|end| word.ends_with(end) && word.len() > end.len())).collect();
        // There where traces are told, and so in no table of what a gateway without them shows.
        let unknown: Vec<_> = named.into_iter().filter(|name| !known.contains(name) && *name != "trace_spans_total").collect();
        assert!(unknown.is_empty(), "{path} names {unknown:?}, which conf/prometheus/README.md does not have");
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    for path in pages() {
        let page = text(&path);
        let links = page.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.contains("://"));
        for link in links {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = Path::new(env!("CARGO_MANIFEST_DIR")).join(&path).parent().expect("a folder").join(file);
            let target = if file.is_empty() { Path::new(env!("CARGO_MANIFEST_DIR")).join(&path) } else { target };
            assert!(target.exists(), "{path}: {link} leads nowhere");
            let named = if target.is_dir() { target.join("README.md") } else { target };
            let is_there = anchor.is_empty() || headings(&std::fs::read_to_string(named).expect("a page")).contains(anchor);
            assert!(is_there, "{path}: {link}: no such heading");
        }
    }
}

/// The blocks of a language in a page.
fn blocks<'t>(page: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("```{language}\n");
    page.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// What the pages' sections of a configuration leave to the rest of it.
const REST: &[(&str, &str)] = &[
    ("backends:", "backends: [ { name: primary, url: \"http://10.0.0.1\" }, { name: gpu-1, url: \"http://10.0.0.2\", shard: eu } ]\n"),
    ("redis:", "redis: { url: \"redis://redis:6379/0\" }\n"),
];

fn gateway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-gateway"));
    command.env_clear().env("SESSION_SECRET", "0123456789abcdef0123456789abcdef").env("HOSTNAME", "gw-1").env("ZONE", "a");
    command
}

#[test]
fn configuration_in_pages_loads() {
    let dir = std::env::temp_dir().join(format!("mcp-gateway-pages-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let mut tried = 0;
    for path in pages() {
        let page = text(&path);
        // Those that are indented are parts of a Deployment.
        for block in blocks(&page, "yaml").into_iter().filter(|block| !block.starts_with(' ')) {
            let has = |key: &str| block.lines().any(|line| line.starts_with(key));
            let rest: String = REST.iter().filter(|(key, _)| !has(key)).map(|(_, rest)| *rest).collect();
            let file = dir.join("gateway.yaml");
            std::fs::write(&file, format!("{block}{rest}")).expect("written");
            let output = gateway().args(["check", "--config"]).arg(&file).output().expect("runs");
            assert!(output.status.success(), "{path}: {}\n{block}", String::from_utf8_lossy(&output.stderr));
            tried += 1;
        }
    }
    std::fs::remove_dir_all(&dir).expect("removed");
    assert!(tried > 8, "{tried} blocks were found");
}

#[test]
fn commands_in_pages_are_commands_and_their_bodies_json() {
    let known = String::from_utf8(gateway().arg("--help").output().expect("runs").stdout).expect("text");
    let known: BTreeSet<_> = known.lines().filter_map(|line| line.strip_prefix("  ")?.split("  ").next()).collect();
    for path in pages() {
        let page = text(&path);
        for rest in page.split("mcp-gateway ").skip(1) {
            let word = rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or("");
            // In sentences of words, the gateway's name is followed by others.
            let is_command = rest.strip_prefix(word).is_some_and(|tail| tail.starts_with(" --"));
            assert!(!is_command || word.is_empty() || known.contains(word), "{path}: mcp-gateway {word}: no such command in {known:?}");
        }
        for body in page.split(" -d '").skip(1).filter_map(|rest| rest.split('\'').next()) {
            let told: Result<serde_json::Value, _> = serde_json::from_str(body);
            assert!(told.is_ok(), "{path}: {body}: {told:?}");
        }
    }
}

#[test]
fn the_table_of_refusals_is_true() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("README.md");
    let (_, rest) = readme.split_once("held true by a test -->\n").expect("the mark before the table");
    let (written, _) = rest.split_once("<!-- end -->").expect("the mark behind it");
    assert_eq!(written, table(), "the table as it should be:\n{}", table());
}
