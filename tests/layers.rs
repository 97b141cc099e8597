//! The house rules that a compiler does not know: imports point down only, files stay short, every file says what it is.

use std::path::{Path, PathBuf};

/// The layers from the top; a module may use what stands below it, and what stands beside it except in the layer of
/// policies, whose members do not know each other.
const LAYERS: &[&[&str]] = &[
    &["bootstrap", "demo"],
    &["proxy", "sidecar"],
    &["exchange"],
    &["snapshot"],
    &["access", "analytics", "auth", "cache", "limit", "overload", "route", "transform", "upstream"],
    &[
        "call",
        "coding",
        "copy",
        "condition",
        "digest",
        "pattern",
        "principal",
        "reject",
        "page",
        "room",
        "schema",
        "turn",
        "verbatim",
        "config",
        "egress",
        "store",
        "extend",
        "observe",
        "mcp",
    ],
];
const POLICIES: usize = 4;
/// What `mcp` may use: it is sans-I/O.
const MCP: &[&str] = &["call", "copy", "reject", "verbatim"];
const LONGEST_FILE: usize = 400;

fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

fn module(path: &Path) -> String {
    let relative = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("below src");
    let first = relative.components().next().expect("a name").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// The modules a file names as `crate::x` or in a `use crate::{x, y}` list.
fn uses(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default().split(',').collect(),
            None => vec![rest],
        };
        found.extend(names.iter().map(|name| name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()));
    }
    found
}

/// Why `module` may not use `used`, if it may not.
fn forbidden(module: &str, used: &str) -> Option<&'static str> {
    let (from, to) = (layer(module)?, layer(used)?);
    if module == used {
        None
    } else if module == "mcp" && !MCP.contains(&used) {
        Some("mcp is sans-I/O and uses call, copy, reject and verbatim only")
    } else if to < from {
        Some("imports point down only")
    } else if to == from && from == POLICIES {
        Some("policies do not know each other")
    } else {
        None
    }
}

#[test]
fn imports_point_down() {
    let mut faults = Vec::new();
    let mut edges = 0;
    for path in sources() {
        let module = module(&path);
        if ["main", "lib"].contains(&module.as_str()) {
            continue;
        }
        assert!(layer(&module).is_some(), "{module} is in no layer");
        let text = std::fs::read_to_string(&path).expect("readable");
        for used in uses(&text) {
            edges += 1;
            faults.extend(forbidden(&module, &used).map(|why| format!("{} uses {used}: {why}", path.display())));
        }
    }
    assert!(edges > 100, "the scan sees imports: {edges}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_scan_would_see_a_forbidden_import() {
    assert_eq!(uses("use crate::{access, proxy::ctx};"), ["access", "proxy"]);
    assert_eq!(uses("let x = crate::snapshot::State::new();"), ["snapshot"]);
    assert!(forbidden("upstream", "proxy").is_some());
    assert!(forbidden("access", "upstream").is_some());
    assert!(forbidden("mcp", "config").is_some());
    assert!(forbidden("proxy", "sidecar").is_none());
}

#[test]
fn files_are_short_and_open_with_what_they_are() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with("//! "), "{} does not say what it is", path.display());
        let production = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        assert!(production <= LONGEST_FILE, "{} has {production} lines", path.display());
    }
}

/// Bodies are carried as the bytes they came in: nothing on the request path builds a tree of one.
#[test]
fn the_request_path_builds_no_json_trees() {
    let path = ["proxy", "exchange", "mcp", "upstream", "egress"];
    for file in sources().iter().filter(|file| path.contains(&module(file).as_str())) {
        let text = std::fs::read_to_string(file).expect("readable");
        let production = text.split("#[cfg(test)]").next().unwrap_or_default();
        let tree = production
            .lines()
            .find(|line| line.contains("json!") || (line.contains("Value") && line.contains("serde_json::") && !line.contains("RawValue")));
        assert!(tree.is_none(), "{}: {}", file.display(), tree.unwrap_or_default());
    }
}
