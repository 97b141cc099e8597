//! The Dockerfile: linted, pinned, without rights, and in step with the gateway's defaults and command line.

use std::path::{Component, Path, PathBuf};
use std::process::Command;

use mcp_gateway::config;

use crate::written::{gateway, is_pinned, part, root, run, text};

/// The instructions of the Dockerfile, comments left out and continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let dockerfile = text("Dockerfile");
    let code: Vec<_> = dockerfile.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    let joined = code.join("\n").replace("\\\n", " ");
    let lines = joined.lines().filter_map(|line| line.trim().split_once(' '));
    lines.map(|(name, rest)| (name.to_owned(), rest.trim().to_owned())).collect()
}

/// Those of the image itself, after the last FROM.
fn last_stage() -> Vec<(String, String)> {
    let all = instructions();
    let from = all.iter().rposition(|(name, _)| name == "FROM").expect("a base image");
    all[from..].to_vec()
}

fn of(stage: &[(String, String)], name: &str) -> String {
    let found: Vec<_> = stage.iter().filter(|(instruction, _)| instruction == name).collect();
    assert_eq!(found.len(), 1, "{name} once: {found:?}");
    found[0].1.clone()
}

#[test]
fn the_dockerfile_passes_hadolint() {
    let (passed, said) = run(Command::new(part("venv/bin/hadolint")).arg(root().join("Dockerfile")));
    assert!(passed, "{said}");
    let wrong = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(wrong.path(), "FROM debian\nRUN cd /tmp && apt-get install curl\n").expect("writable");
    assert!(!run(Command::new(part("venv/bin/hadolint")).arg(wrong.path())).0, "it would see faults");
}

#[test]
fn base_images_are_pinned_and_the_compiler_is_new_enough() {
    let bases: Vec<_> = instructions().into_iter().filter(|(name, _)| name == "FROM").map(|(_, base)| base).collect();
    let images: Vec<_> = bases.iter().map(|base| base.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(images.len(), 2, "one to build, one to run: {images:?}");
    assert!(images.iter().all(|image| is_pinned(image)), "{images:?}");
    let compiler = images[0].strip_prefix("rust:").and_then(|tag| tag.split('-').next()).expect("the official image of Rust");
    let manifest = text("Cargo.toml");
    let needed = manifest.split("rust-version = \"").nth(1).and_then(|rest| rest.split('"').next()).expect("rust-version");
    let numbers = |version: &str| version.split('.').map(|part| part.parse().expect("a number")).collect::<Vec<u32>>();
    assert!(numbers(compiler) >= numbers(needed), "{compiler} builds what needs {needed}");
}

#[test]
fn what_is_built_is_what_is_locked() {
    let builds: Vec<_> = instructions().into_iter().filter(|(name, run)| name == "RUN" && run.contains("cargo build")).collect();
    assert_eq!(builds.len(), 1);
    assert!(builds[0].1.contains("--locked") && builds[0].1.contains("--release"), "{}", builds[0].1);
}

#[test]
fn it_runs_without_rights_and_is_asked_how_it_is_by_itself() {
    let stage = last_stage();
    let user = of(&stage, "USER");
    let (uid, gid) = user.split_once(':').expect("user and group");
    assert!([uid, gid].iter().all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "USER {user}: numbers other than root's");
    assert_eq!(of(&stage, "STOPSIGNAL"), "SIGTERM");
    let check = of(&stage, "HEALTHCHECK");
    let asked: Vec<String> = serde_json::from_str(check.split_once("CMD ").expect("a command").1).expect("a list, since there is no shell");
    let entrypoint: Vec<String> = serde_json::from_str(&of(&stage, "ENTRYPOINT")).expect("a list");
    assert_eq!(asked, [entrypoint[0].as_str(), "health"]);
    let (known, said) = run(gateway().args(&asked[1..]).arg("--help"));
    assert!(known && said.contains("--ready"), "{said}");
}

#[test]
fn its_port_and_volume_are_those_of_the_gateways_defaults() {
    let lookup = |name: &str| (name == "MCP_BACKENDS").then(|| "one:http://10.0.0.1:8000".to_owned());
    let config = config::parse("environment", "", &lookup).expect("valid");
    let stage = last_stage();
    assert_eq!(of(&stage, "EXPOSE"), config.server.listen.port().to_string());
    assert_eq!(Path::new(&of(&stage, "VOLUME")), config.server.state_dir);
    // With another owner or mode the gateway would keep no secret in it.
    let user = of(&stage, "USER");
    let (uid, gid) = user.split_once(':').expect("user and group");
    assert_eq!(of(&stage, "RUN"), format!("install -d -m 0700 -o {uid} -g {gid} {}", config.server.state_dir.display()));
}

/// `a/../b` as `b`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
        plain
    })
}

/// What the sources bundle, as paths in the repository.
fn bundled(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            bundled(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        for mark in ["include_str!(\"", "include_bytes!(\""] {
            let names = text.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(names.map(|name| plain(&path.parent().expect("a folder").join(name))));
        }
    }
}

#[test]
fn every_file_the_build_reads_is_in_its_context() {
    let ignore = text(".dockerignore");
    assert!(ignore.lines().any(|line| line == "*"), "nothing is sent but what is listed");
    let sent: Vec<_> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let mut read = Vec::new();
    bundled(&root().join("src"), &mut read);
    assert!(read.len() >= 4, "{read:?}");
    let manifest = text("Cargo.toml");
    let named = manifest.lines().filter_map(|line| line.strip_prefix("path = \"")?.strip_suffix('"')).map(|path| root().join(path));
    read.extend(named);
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).expect("a workspace");
    read.extend(members.split('"').skip(1).step_by(2).map(|member| root().join(member).join("Cargo.toml")).map(|path| plain(&path)));
    for path in read {
        let inside = path.strip_prefix(root()).expect("in the repository");
        assert!(path.exists(), "{}", inside.display());
        assert!(
            sent.iter().any(|sent| inside.starts_with(sent)) || inside == Path::new("./Cargo.toml"),
            "{} is not sent",
            inside.display()
        );
    }
}
