//! Where each YAML path stands in the file. `serde_yaml` values carry no positions, so a second, event-level pass
//! over the same text maps `backends[1].url` to its line; it decides nothing, it only tells the reader where to look.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser};

/// Line numbers (from 1) by YAML path.
#[derive(Default)]
pub struct Lines(HashMap<String, usize>);

enum Open {
    Mapping { path: String, key: Option<String> },
    Sequence { path: String, next: usize },
}

impl Lines {
    /// Scans `text`; text that does not parse gives the positions up to the fault.
    pub fn scan(text: &str) -> Self {
        let mut lines = HashMap::new();
        let mut stack: Vec<Open> = Vec::new();
        for item in Parser::new_from_str(text) {
            let Ok((event, span)) = item else { break };
            visit(&event, span.start.line(), &mut stack, &mut lines);
        }
        Self(lines)
    }

    /// The line of `path`, or of its nearest ancestor that is written down.
    pub fn of(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return Some(*line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

fn visit(event: &Event<'_>, line: usize, stack: &mut Vec<Open>, lines: &mut HashMap<String, usize>) {
    match event {
        Event::Scalar(value, ..) => {
            if let Some(Open::Mapping { path, key: key @ None }) = stack.last_mut() {
                lines.insert(join(path, value), line);
                *key = Some(value.to_string());
            } else {
                place(stack, line, lines);
            }
        }
        Event::Alias(_) => {
            place(stack, line, lines);
        }
        Event::MappingStart(..) => {
            let path = place(stack, line, lines);
            stack.push(Open::Mapping { path, key: None });
        }
        Event::SequenceStart(..) => {
            let path = place(stack, line, lines);
            stack.push(Open::Sequence { path, next: 0 });
        }
        Event::MappingEnd | Event::SequenceEnd => {
            stack.pop();
        }
        _ => {}
    }
}

/// The path of the value that starts here; consumes the pending key or counts the element.
fn place(stack: &mut [Open], line: usize, lines: &mut HashMap<String, usize>) -> String {
    let path = match stack.last_mut() {
        None => return String::new(),
        Some(Open::Mapping { path, key }) => return key.take().map_or_else(|| path.clone(), |key| join(path, &key)),
        Some(Open::Sequence { path, next }) => {
            *next += 1;
            format!("{path}[{}]", *next - 1)
        }
    };
    lines.insert(path.clone(), line);
    path
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn paths_lead_to_their_lines() {
        let lines = Lines::scan("server:\n  listen: x\nbackends:\n  - name: a\n    url: b\n  - { name: c,\n      url: d }\n");
        assert_eq!(lines.of("server"), Some(1));
        assert_eq!(lines.of("server.listen"), Some(2));
        assert_eq!(lines.of("backends[0].url"), Some(5));
        assert_eq!(lines.of("backends[1].url"), Some(7));
        assert_eq!(lines.of("backends[1].weight"), Some(6), "a missing key is reported at its parent");
        assert_eq!(lines.of("nowhere"), None);
    }
}
