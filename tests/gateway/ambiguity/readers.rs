//! The ways in which parsers read one text: which of two members with one name they take, and which names they take for
//! one. All of them are lenient, because a body that a strict parser refuses is executed by another.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use crate::permissions::witness::Seen;

/// JSON with every member kept, in order.
#[derive(Debug, Clone)]
pub enum Tree {
    Object(Vec<(String, Tree)>),
    Array(Vec<Tree>),
    Text(String),
    /// A number, a truth value or nothing.
    Other,
}

/// What one reader would execute because of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Execution {
    pub reader: &'static str,
    pub method: String,
    /// `params.name`.
    pub name: Option<String>,
    /// `arguments.path`.
    pub path: Option<String>,
    /// `arguments.target.path`.
    pub target: Option<String>,
    /// Whether there is `arguments.force`.
    pub force: bool,
    /// Whatever resources and prompts it names: `uri`, and what is in `ref` and `notifications`.
    pub touches: Vec<String>,
}

/// A way to find a member.
struct Reader {
    name: &'static str,
    folds: fn(&str) -> String,
    last: bool,
}

const READERS: [Reader; 7] = [
    Reader { name: "serde_json: the last one", folds: exact, last: true },
    Reader { name: "the first one", folds: exact, last: false },
    Reader { name: "Go: any case, the last one", folds: folded, last: true },
    Reader { name: "cJSON: any case, the first one", folds: folded, last: false },
    Reader { name: "C: to the first NUL, the last one", folds: cut, last: true },
    Reader { name: "C: to the first NUL, the first one", folds: cut, last: false },
    Reader { name: "Unicode: lower case, the last one", folds: lower, last: true },
];

fn exact(name: &str) -> String {
    name.to_owned()
}

/// Go's `encoding/json`: simple folding, by which two letters beyond ASCII are ASCII letters.
fn folded(name: &str) -> String {
    name.replace('ſ', "s").replace('\u{212a}', "k").to_ascii_lowercase()
}

fn cut(name: &str) -> String {
    name.split('\0').next().unwrap_or_default().to_owned()
}

fn lower(name: &str) -> String {
    name.to_lowercase()
}

impl Reader {
    fn find<'t>(&self, tree: Option<&'t Tree>, name: &str) -> Option<&'t Tree> {
        let Some(Tree::Object(members)) = tree else { return None };
        let mut found = members.iter().filter(|(key, _)| (self.folds)(key) == (self.folds)(name)).map(|(_, value)| value);
        if self.last { found.next_back() } else { found.next() }
    }

    fn text(&self, tree: Option<&Tree>, name: &str) -> Option<String> {
        match self.find(tree, name) {
            Some(Tree::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    fn executes(&self, message: &Tree) -> Option<Execution> {
        if let Tree::Array(parts) = message {
            return self.positional(parts);
        }
        let method = self.text(Some(message), "method")?;
        let params = self.find(Some(message), "params");
        if let Some(Tree::Array(parts)) = params {
            return Some(self.by_position(method, parts));
        }
        let arguments = self.find(params, "arguments");
        let reference = self.find(params, "ref");
        let mut touches: Vec<String> = ["uri", "name"].iter().filter_map(|name| self.text(reference, name)).collect();
        touches.extend(self.text(params, "uri"));
        if let Some(Tree::Array(uris)) = self.find(self.find(params, "notifications"), "resourceSubscriptions") {
            touches.extend(uris.iter().filter_map(Tree::text));
        }
        Some(Execution {
            reader: self.name,
            method,
            name: self.text(params, "name"),
            path: self.text(arguments, "path"),
            target: self.text(self.find(arguments, "target"), "path"),
            force: self.find(arguments, "force").is_some(),
            touches,
        })
    }

    /// A message read member by member, as parsers do that take an array for an object.
    fn positional(&self, parts: &[Tree]) -> Option<Execution> {
        let method = parts.iter().filter_map(Tree::text).find(|text| text.contains('/'))?;
        let params = parts.iter().rfind(|part| matches!(part, Tree::Object(_) | Tree::Array(_)))?;
        let message = Tree::Object(vec![("method".into(), Tree::Text(method)), ("params".into(), params.clone())]);
        self.executes(&message)
    }

    fn by_position(&self, method: String, parts: &[Tree]) -> Execution {
        let arguments = parts.iter().find(|part| matches!(part, Tree::Object(_)));
        let name = parts.iter().find_map(Tree::text);
        Execution { reader: self.name, method, name, path: self.text(arguments, "path"), ..Execution::default() }
    }
}

impl Tree {
    fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

/// What any of the readers would execute.
///
/// # Errors
/// What cannot be read, and why.
pub fn executions(seen: &Seen) -> Result<Vec<Execution>, String> {
    let text = String::from_utf8_lossy(&seen.body);
    let text = text.trim_start_matches('\u{feff}');
    let documents = serde_json::Deserializer::from_str(text).into_iter::<Tree>().collect::<Result<Vec<Tree>, _>>();
    let documents = documents.map_err(|e| format!("unreadable ({e}): {text:.300}"))?;
    let mut found = Vec::new();
    for document in &documents {
        // A batch, or one message.
        let is_batch = matches!(document, Tree::Array(items) if items.iter().any(|item| !matches!(item, Tree::Text(_))));
        match document {
            Tree::Array(items) if is_batch => {
                found.extend(items.iter().flat_map(|item| READERS.iter().filter_map(|reader| reader.executes(item))));
                found.extend(READERS.iter().filter_map(|reader| reader.positional(items)));
            }
            message => found.extend(READERS.iter().filter_map(|reader| reader.executes(message))),
        }
    }
    found.extend(by_headers(seen, &found));
    Ok(found)
}

/// What stands in front of modern servers and routes by the headers; whether a request is modern, such a one asks any of
/// the version headers and, failing that, the body.
fn by_headers(seen: &Seen, found: &[Execution]) -> Vec<Execution> {
    let versions = seen.headers.get_all("mcp-protocol-version").iter().filter_map(|value| value.to_str().ok());
    let told = versions.flat_map(|value| value.split(',')).any(|version| version.trim() >= "2026-07-28");
    let in_body = String::from_utf8_lossy(&seen.body).contains("\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"");
    if !told && !in_body {
        return Vec::new();
    }
    let values = |name: &str| -> Vec<String> {
        seen.headers.get_all(name).iter().flat_map(|value| [Some(plain(value.as_bytes())), decoded(value.as_bytes())]).flatten().collect()
    };
    let (methods, names) = (values("mcp-method"), values("mcp-name"));
    let Some(body) = found.first() else { return Vec::new() };
    let by_method = methods.into_iter().map(|method| Execution { reader: "Mcp-Method", method, ..body.clone() });
    // One that cannot decode sees the coded text, which is no name of a tool.
    let by_name = names.into_iter().filter(|name| !name.starts_with("=?")).map(|name| Execution {
        reader: "Mcp-Name",
        name: Some(name),
        ..body.clone()
    });
    by_method.chain(by_name).collect()
}

fn plain(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim().to_owned()
}

fn decoded(value: &[u8]) -> Option<String> {
    let text = plain(value);
    let inner = text.get(..9).filter(|start| start.eq_ignore_ascii_case("=?base64?")).and_then(|_| text[9..].strip_suffix("?="))?;
    Some(String::from_utf8_lossy(&STANDARD.decode(inner).ok()?).into_owned())
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Tree;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
                Ok(Tree::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
                Ok(Tree::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
                Ok(Tree::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
                Ok(Tree::Other)
            }

            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Text(text.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(Tree::Array(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = members.next_entry()? {
                    all.push(member);
                }
                Ok(Tree::Object(all))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
