//! The demo's folder: a few files compiled into the binary, addressed like a file system whose root nobody can leave.

/// Path and text of every file.
const FILES: &[(&str, &str)] = &[
    ("/README.md", include_str!("../../conf/demo/README.md")),
    ("/etc/hosts", include_str!("../../conf/demo/etc/hosts")),
    ("/notes/protocol.md", include_str!("../../conf/demo/notes/protocol.md")),
    ("/notes/todo.txt", include_str!("../../conf/demo/notes/todo.txt")),
];

/// Resolves `path` against the root: `.` and `..` are followed, and a path that leads out is refused rather than
/// clamped, so that a caller learns of its mistake.
///
/// # Errors
/// What is wrong with the path.
pub fn resolve(path: &str) -> Result<String, String> {
    if path.contains(['\\', '\0']) {
        return Err(format!("`{path}` is not a path of this folder"));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(|| format!("`{path}` leads out of the folder"))?;
            }
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

/// The text of a file.
///
/// # Errors
/// When there is no such file, or the path is refused.
pub fn read(path: &str) -> Result<&'static str, String> {
    let path = resolve(path)?;
    FILES.iter().find(|(name, _)| *name == path).map(|(_, text)| *text).ok_or_else(|| format!("no such file: {path}"))
}

/// The entries of a directory, directories with a trailing slash.
///
/// # Errors
/// When there is no such directory, or the path is refused.
pub fn list(path: &str) -> Result<Vec<String>, String> {
    let path = resolve(path)?;
    let prefix = if path == "/" { path.clone() } else { format!("{path}/") };
    let below = FILES.iter().filter_map(|(name, _)| name.strip_prefix(&prefix));
    let mut entries: Vec<String> =
        below.map(|rest| rest.split_once('/').map_or_else(|| rest.to_owned(), |(dir, _)| format!("{dir}/"))).collect();
    entries.dedup();
    if entries.is_empty() { Err(format!("no such directory: {path}")) } else { Ok(entries) }
}

/// Lines that contain `text`, as `path:line: text`.
pub fn search(text: &str) -> Vec<String> {
    let lines = FILES.iter().flat_map(|(name, content)| content.lines().enumerate().map(move |(i, line)| (name, i + 1, line)));
    lines
        .filter(|(_, _, line)| line.to_lowercase().contains(&text.to_lowercase()))
        .map(|(name, i, line)| format!("{name}:{i}: {line}"))
        .collect()
}

/// Every path.
pub fn paths() -> Vec<&'static str> {
    FILES.iter().map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out() {
        for path in ["../etc/passwd", "/..", "/notes/../../x", "..", "notes/../..", "a\\..\\b", "/x\0"] {
            assert!(read(path).is_err(), "{path}");
        }
        assert!(read("/notes/../etc/./hosts").unwrap().contains("localhost"));
        assert_eq!(list("/").unwrap(), ["README.md", "etc/", "notes/"]);
        assert!(list("/etc/hosts").is_err());
    }
}
