//! Written `server.compression:` → the checked model: which content codings answers are put into.

use serde::Serialize;

use super::reader::Section;
use crate::coding::{Coding, Level};

/// How answers are compressed for callers who take it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Compression {
    /// Bytes of the shortest answer that is.
    pub min_size: usize,
    /// Those offered; of what a caller likes equally the first.
    pub algorithms: Vec<Coding>,
    pub level: Level,
}

/// `None`: answers go as they are. Whoever writes the section wants it, unless it says otherwise.
pub fn compression(server: &Section<'_>) -> Option<Compression> {
    if !server.has("compression") {
        return None;
    }
    let section = server.section("compression");
    let enabled = section.bool("enabled").unwrap_or(true);
    let compression = Compression {
        min_size: section.size("min_size").unwrap_or(1 << 10),
        algorithms: algorithms(&section),
        level: section
            .choice("level", &[("fast", Level::Fast), ("default", Level::Default), ("best", Level::Best)])
            .unwrap_or(Level::Default),
    };
    section.finish();
    enabled.then_some(compression)
}

fn algorithms(section: &Section<'_>) -> Vec<Coding> {
    if !section.has("algorithms") {
        return Coding::ALL.to_vec();
    }
    let names = section.strings("algorithms");
    if names.is_empty() {
        section.problem("algorithms", "names none; leave it out for all, or set enabled: false");
    }
    let mut found: Vec<Coding> = Vec::new();
    for name in &names {
        match Coding::ALL.into_iter().find(|coding| coding.name() == name) {
            None => section.problem("algorithms", format!("`{name}` is none of zstd, br, gzip")),
            Some(coding) if found.contains(&coding) => section.problem("algorithms", format!("`{name}` stands twice")),
            Some(coding) => found.push(coding),
        }
    }
    found
}
