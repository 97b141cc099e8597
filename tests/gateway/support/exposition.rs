//! What `/metrics` says, taken apart.

use std::collections::{BTreeMap, HashMap};

use super::gateway::Gateway;
use super::http;

/// One line of it.
#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
    /// The type of its family.
    pub kind: String,
}

/// Everything the gateway shows, from whichever listener does.
pub async fn of(gateway: &Gateway) -> Vec<Series> {
    let answer = http().get(format!("{}/metrics", gateway.admin)).send().await.expect("metrics");
    parse(&answer.text().await.expect("text"))
}

pub fn parse(text: &str) -> Vec<Series> {
    let mut kinds = HashMap::new();
    let mut all = Vec::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kinds.insert(name.to_owned(), kind.to_owned());
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) =
                series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest.strip_suffix('}').expect("an end")));
            let family =
                ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|name| kinds.contains_key(*name));
            let kind = kinds.get(family.unwrap_or(name)).unwrap_or_else(|| panic!("{name} has no type")).clone();
            all.push(Series { name: name.to_owned(), labels: pairs(labels), value: value.parse().expect("a number"), kind });
        }
    }
    all
}

fn pairs(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let (mut value, mut chars) = (String::new(), after.char_indices());
        let end = loop {
            match chars.next().expect("a closing quote") {
                (_, '\\') => value.push(match chars.next().expect("an escape").1 {
                    'n' => '\n',
                    other => other,
                }),
                (at, '"') => break at + 1,
                (_, other) => value.push(other),
            }
        };
        found.insert(name.trim_start_matches(',').to_owned(), value);
        rest = &after[end..];
    }
    found
}

/// A count as the exposition shows it.
pub fn float(count: u64) -> f64 {
    f64::from(u32::try_from(count).expect("tests do not count that far"))
}
