//! Written `observability.datadog:` → the agent that is told of metrics, and what they are called there. What the file
//! leaves open is taken from Datadog's own variables, which its tools give to every container (`super::env`); they alone
//! switch nothing on.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};
use url::Url;

use super::Timespan;
use super::collector::interval;
use super::reader::Section;

/// Where agents listen unless they are told otherwise.
const PORT: u16 = 8125;
/// Datadog takes metric names up to 200 characters; ours are no longer than 100.
const LONGEST_PREFIX: usize = 100;
/// Tags of all metrics: each is in every line of a datagram that has little room.
const MOST_TAGS: usize = 20;
/// Longest tag, with its name.
pub const LONGEST_TAG: usize = 200;

/// The agent that is told of metrics in the form of DogStatsD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Datadog {
    pub statsd: Statsd,
    /// From one telling to the next; agents add up 10 s.
    pub interval: Timespan,
    /// In front of every name.
    pub prefix: String,
    /// Of every metric; `env`, `service` and `version` tie it to what Datadog knows else of a service.
    pub tags: Vec<(String, String)>,
}

/// Where an agent listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statsd {
    /// A name or an address without brackets.
    Udp { host: String, port: u16 },
    /// A datagram socket.
    Unix(PathBuf),
}

impl fmt::Display for Statsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp { host, port } if host.contains(':') => write!(f, "udp://[{host}]:{port}"),
            Self::Udp { host, port } => write!(f, "udp://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

impl Serialize for Statsd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

pub(super) fn datadog(observability: &Section<'_>) -> Option<Datadog> {
    if !observability.has("datadog") {
        return None;
    }
    let section = observability.section("datadog");
    let default = || Statsd::Udp { host: "127.0.0.1".to_owned(), port: PORT };
    let datadog = Datadog {
        statsd: section.parse("statsd", statsd).unwrap_or_else(default),
        interval: interval(&section, 10),
        prefix: section.parse("prefix", prefix).unwrap_or_else(|| "mcp_gateway.".to_owned()),
        tags: tags(&section.section("tags")),
    };
    section.finish();
    Some(datadog)
}

/// `unix:///path`, `udp://host:port` or `host:port`.
fn statsd(text: &str) -> Result<Statsd, String> {
    let fault = |why: &str| format!("`{text}` {why}; write udp://127.0.0.1:8125, unix:///var/run/datadog/dsd.socket or host:port");
    let (scheme, rest) = text.split_once("://").unwrap_or(("udp", text));
    match scheme {
        "unix" | "unixgram" if Path::new(rest).is_absolute() => Ok(Statsd::Unix(rest.into())),
        "unix" | "unixgram" => Err(fault("has no absolute path")),
        "udp" => {
            let url = Url::parse(&format!("udp://{rest}")).map_err(|_| fault("is no address"))?;
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let named = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
            let more = !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some();
            if host.is_empty() || !host.chars().all(named) || more || !matches!(url.path(), "" | "/") {
                return Err(fault("is no address"));
            }
            Ok(Statsd::Udp { host, port: url.port().unwrap_or(PORT) })
        }
        _ => Err(fault("is no datagram socket")),
    }
}

/// "Metric names must start with a letter" and have ASCII letters, digits, underscores and periods.
fn prefix(text: &str) -> Result<String, String> {
    let begins = text.chars().next().is_none_or(|first| first.is_ascii_alphabetic());
    let fine = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
    if begins && fine && text.len() <= LONGEST_PREFIX {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not the beginning of a metric's name: a letter, then letters, digits, `_` and `.`, at most {LONGEST_PREFIX}"
        ))
    }
}

fn tags(section: &Section<'_>) -> Vec<(String, String)> {
    let mut tags = vec![("service".to_owned(), "mcp-gateway".to_owned()), ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    for (name, value) in section.named_texts() {
        let begins = name.chars().next().is_some_and(char::is_alphabetic);
        if !begins || !name.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c)) {
            section.problem(&name, "not the name of a tag: a letter, then letters, digits and `_-./`");
        } else if name.len() + value.len() >= LONGEST_TAG {
            section.problem(&name, format!("longer than the {LONGEST_TAG} characters that Datadog keeps"));
        }
        tags.retain(|(known, _)| *known != name);
        tags.push((name, value));
    }
    if tags.len() > MOST_TAGS {
        section.problem_here(format!("{} tags, more than the {MOST_TAGS} that every metric may carry", tags.len()));
    }
    // An empty one says that a default does not hold.
    tags.retain(|(_, value)| !value.is_empty());
    tags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_found_by_udp_or_by_a_datagram_socket() {
        let shown = |text: &str| statsd(text).map(|agent| agent.to_string());
        for (written, meant) in [
            ("udp://127.0.0.1:8125", "udp://127.0.0.1:8125"),
            ("10.0.0.7", "udp://10.0.0.7:8125"),
            ("agent.monitoring:9125", "udp://agent.monitoring:9125"),
            ("udp://[fd00::7]:8126", "udp://[fd00::7]:8126"),
            ("[::1]", "udp://[::1]:8125"),
            ("unix:///var/run/datadog/dsd.socket", "unix:///var/run/datadog/dsd.socket"),
            ("unixgram:///s", "unix:///s"),
        ] {
            assert_eq!(shown(written).as_deref(), Ok(meant), "{written}");
        }
        for wrong in ["", "http://x:8125", "unix://relative", "unixstream:///s", "udp://a:b", "udp://me@host", "host:8125/path", "a b:1"] {
            assert!(shown(wrong).is_err_and(|why| why.contains("udp://127.0.0.1:8125")), "{wrong}: {:?}", shown(wrong));
        }
    }
}
