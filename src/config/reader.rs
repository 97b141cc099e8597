//! A cursor over the written YAML that never stops at the first fault: each accessor notes its problem with path and
//! line and goes on with a default, so that one `check` tells the operator everything. The keys asked for are the keys
//! known, hence `finish` can name an unknown one and its nearest neighbour without a second list to keep in step.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::env::Origin;
use super::lines::Lines;
use super::units;

/// One fault in what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file or `environment`.
    pub source: String,
    /// Line in that file, from 1.
    pub line: Option<usize>,
    /// YAML path such as `backends[1].url`, empty for the document.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Collects problems while the document is read.
pub struct Problems {
    source: String,
    lines: Lines,
    origins: Vec<Origin>,
    /// Whether secrets may be read from files.
    files: bool,
    found: RefCell<Vec<Problem>>,
}

impl Problems {
    pub fn new(source: &str, lines: Lines, origins: Vec<Origin>) -> Self {
        Self { source: source.to_owned(), lines, origins, files: true, found: RefCell::default() }
    }

    /// For what others than the configuration tell: they may not name our files.
    pub fn without_files(self) -> Self {
        Self { files: false, ..self }
    }

    pub fn add(&self, path: &str, message: impl Into<String>) {
        // A variable speaks for its own key and for the section it brought into being.
        let within =
            |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
        let by = |origin: &&Origin| within(path, &origin.path) || (!path.is_empty() && within(&origin.path, path));
        let (source, line) = match self.origins.iter().find(by) {
            Some(origin) => (format!("environment variable {}", origin.variable), None),
            None => (self.source.clone(), self.lines.of(path)),
        };
        self.found.borrow_mut().push(Problem { source, line, path: path.to_owned(), message: message.into() });
    }

    /// All problems in the order of the file.
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        found
    }
}

/// One mapping of the document with the keys asked for so far.
pub struct Section<'a> {
    map: Option<&'a Mapping>,
    path: String,
    problems: &'a Problems,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The whole document; `null` is an empty one.
    pub fn root(value: &'a Value, problems: &'a Problems) -> Self {
        Self::of(Some(value), String::new(), problems)
    }

    fn of(value: Option<&'a Value>, path: String, problems: &'a Problems) -> Self {
        let map = match value {
            Some(Value::Mapping(map)) => Some(map),
            None | Some(Value::Null) => None,
            Some(other) => {
                problems.add(&path, format!("expected a mapping, found {}", kind(other)));
                None
            }
        };
        Self { map, path, problems, known: RefCell::default() }
    }

    pub fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub fn problem(&self, key: &str, message: impl Into<String>) {
        self.problems.add(&self.path(key), message);
    }

    /// A problem of the mapping as a whole.
    pub fn problem_here(&self, message: impl Into<String>) {
        self.problems.add(&self.path, message);
    }

    pub fn value(&self, key: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().push(key);
        self.map?.get(key).filter(|value| !value.is_null())
    }

    pub fn has(&self, key: &'static str) -> bool {
        self.value(key).is_some()
    }

    pub fn section(&self, key: &'static str) -> Section<'a> {
        Section::of(self.value(key), self.path(key), self.problems)
    }

    /// The elements of a list of mappings.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'a>> {
        self.list(key)
            .iter()
            .enumerate()
            .map(|(i, value)| Section::of(Some(value), format!("{}[{i}]", self.path(key)), self.problems))
            // What is no mapping has been reported; its missing keys are no further news.
            .filter(|section| section.map.is_some())
            .collect()
    }

    /// The elements of a list of mappings, or the one mapping that stands for a list of one.
    pub fn one_or_more(&self, key: &'static str) -> Vec<Section<'a>> {
        if self.value(key).is_some_and(Value::is_mapping) { vec![self.section(key)] } else { self.sections(key) }
    }

    fn list(&self, key: &'static str) -> &'a [Value] {
        self.list_in(key, self.value(key))
    }

    fn list_in(&self, key: &str, value: Option<&'a Value>) -> &'a [Value] {
        match value {
            Some(Value::Sequence(items)) => items,
            Some(other) => {
                self.problem(key, format!("expected a list, found {}", kind(other)));
                &[]
            }
            None => &[],
        }
    }

    pub fn strings(&self, key: &'static str) -> Vec<String> {
        self.strings_in(key, self.value(key))
    }

    fn strings_in(&self, key: &str, value: Option<&'a Value>) -> Vec<String> {
        let path = self.path(key);
        let items = self.list_in(key, value).iter().enumerate();
        items
            .filter_map(|(i, value)| {
                scalar(value).or_else(|| {
                    self.problems.add(&format!("{path}[{i}]"), format!("expected text, found {}", kind(value)));
                    None
                })
            })
            .collect()
    }

    /// A mapping whose keys are the operator's own names, each with a list of texts.
    pub fn named_strings(&self) -> Vec<(String, Vec<String>)> {
        self.named().map(|(name, value)| (name.clone(), self.strings_in(&name, Some(value)))).collect()
    }

    /// A mapping whose keys are the operator's own names, each with a mapping.
    pub fn named_mappings(&self) -> Vec<(String, Section<'a>)> {
        self.named().map(|(name, value)| (name.clone(), Section::of(Some(value), self.path(&name), self.problems))).collect()
    }

    /// A mapping whose keys are the operator's own names, each with a list of mappings.
    pub fn named_sections(&self) -> Vec<(String, Vec<Section<'a>>)> {
        self.named()
            .map(|(name, value)| {
                let items = self.list_in(&name, Some(value)).iter().enumerate();
                let section = |(i, value)| Section::of(Some(value), format!("{}[{i}]", self.path(&name)), self.problems);
                let sections = items.map(section).filter(|section| section.map.is_some()).collect();
                (name, sections)
            })
            .collect()
    }

    /// A mapping whose keys are the operator's own names, each with a text.
    pub fn named_texts(&self) -> Vec<(String, String)> {
        let text = |(name, value): (String, &Value)| {
            let text = scalar(value);
            if text.is_none() {
                self.problem(&name, format!("expected text, found {}", kind(value)));
            }
            Some((name, text?))
        };
        self.named().filter_map(text).collect()
    }

    /// A mapping whose keys are the operator's own names, with whatever values.
    pub fn named_values(&self) -> Vec<(String, &'a Value)> {
        self.named().collect()
    }

    fn named(&self) -> impl Iterator<Item = (String, &'a Value)> {
        self.map.into_iter().flatten().filter_map(|(key, value)| Some((scalar(key)?, value)))
    }

    pub fn string(&self, key: &'static str) -> Option<String> {
        let value = self.value(key)?;
        scalar(value).or_else(|| {
            self.problem(key, format!("expected text, found {}", kind(value)));
            None
        })
    }

    /// A scalar read by `parse`, whose error becomes the problem.
    pub fn parse<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = self.string(key)?;
        parse(&text).map_err(|message| self.problem(key, message)).ok()
    }

    pub fn duration(&self, key: &'static str) -> Option<Duration> {
        self.parse(key, units::duration)
    }

    pub fn size(&self, key: &'static str) -> Option<usize> {
        self.parse(key, units::size)
    }

    pub fn bool(&self, key: &'static str) -> Option<bool> {
        self.parse(key, |text| match text {
            // `off` and `on` are what YAML 1.1 readers turned into booleans for years.
            "true" | "on" | "yes" | "1" => Ok(true),
            "false" | "off" | "no" | "0" => Ok(false),
            _ => Err(format!("`{text}` is neither true nor false")),
        })
    }

    /// A share written as `20%`, or as a number from 0 to 1.
    pub fn share(&self, key: &'static str) -> Option<f64> {
        self.parse(key, units::share)
    }

    /// A whole number within `range`.
    pub fn integer(&self, key: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        self.parse(key, |text| match text.parse::<u64>() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("`{text}` is not a whole number from {} to {}", range.start(), range.end())),
        })
    }

    /// One of the named choices.
    pub fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.parse(key, |text| {
            choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                format!("`{text}` is not one of {}{}", names.join(", "), suggestion(text, &names))
            })
        })
    }

    /// A secret given as `key` or, from a file, as `key_file`.
    pub fn secret(&self, key: &'static str, file_key: &'static str) -> Option<String> {
        let inline = self.string(key);
        let from_file = self.parse(file_key, |path| {
            if !self.problems.files {
                return Err(format!("files are read for the configuration only; give {key}"));
            }
            std::fs::read_to_string(path).map(|text| text.trim_end().to_owned()).map_err(|e| format!("cannot read {path}: {e}"))
        });
        if inline.is_some() && from_file.is_some() {
            self.problem(key, format!("give either {key} or {file_key}, not both"));
        }
        inline.or(from_file)
    }

    /// Refuses keys whose feature this version does not have: a setting must never be silently without effect.
    pub fn not_yet(&self, keys: &[&'static str]) {
        for key in keys {
            if self.has(key) {
                self.problem(key, "not supported yet");
            }
        }
    }

    /// Reports every key nobody asked for.
    pub fn finish(&self) {
        let known = self.known.borrow();
        for key in self.map.into_iter().flat_map(Mapping::keys) {
            let name = scalar(key).unwrap_or_else(|| kind(key).to_owned());
            if !known.contains(&name.as_str()) {
                self.problem(&name, format!("unknown key `{name}`{}", suggestion(&name, &known)));
            }
        }
    }
}

fn suggestion(word: &str, known: &[&str]) -> String {
    let near = known.iter().map(|name| (strsim::damerau_levenshtein(word, name), *name)).min();
    match near {
        Some((distance, name)) if distance <= 1 + word.len() / 3 => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a tagged value",
    }
}
