//! Written `discovery:` → the checked model, and one backend as etcd or the admin listener tells it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_yaml::Value;
use url::Url;

use super::check::{address, backend_url, label, positive, readable};
use super::lines::Lines;
use super::reader::{Problem, Problems, Section};
use super::{Backend, Secret, Timespan, backends, check};

/// Bytes of the longest description of a backend that is read.
const LONGEST: usize = 64 << 10;
/// Characters of the name of a DNS entry: what an IPv4 address and a port add must fit into a backend's name.
const LONGEST_NAME: usize = 32;

/// Where backends beside the configured ones come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Discovery {
    /// For backends that do not say their own.
    #[serde(serialize_with = "super::seconds")]
    pub health_check_interval: Duration,
    pub etcd: Option<Etcd>,
    pub dns: Vec<Arc<Dns>>,
}

/// Backends that are keys in etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Etcd {
    /// Asked in turn until one answers.
    pub endpoints: Vec<Url>,
    /// Every key that begins so is a backend.
    pub prefix: String,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// Instead of the system's authorities.
    pub ca: Option<PathBuf>,
    /// For each question.
    pub timeout: Timespan,
}

/// Backends that are DNS records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dns {
    /// The names of its backends begin so.
    pub name: String,
    pub host: String,
    pub records: Records,
    /// Instead of the system's.
    pub nameserver: Option<SocketAddr>,
    /// What every backend found is like; its URL has the address and port of the record instead of these.
    pub template: Backend,
}

/// Which records say where backends are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Records {
    /// A and AAAA.
    A,
    /// SRV, which tell ports and weights as well.
    Srv,
}

pub(super) fn discovery(section: &Section<'_>, health_check_interval: Duration) -> Discovery {
    let etcd = section.has("etcd").then(|| etcd(&section.section("etcd")));
    let (mut names, mut list) = (HashSet::new(), Vec::new());
    for entry in section.one_or_more("dns") {
        if let Some(name) = entry.string("name").filter(|name| !names.insert(name.clone())) {
            entry.problem("name", format!("`{name}` is already the name of another entry"));
        }
        list.push(Arc::new(dns(&entry, health_check_interval)));
    }
    section.finish();
    Discovery { health_check_interval, etcd, dns: list }
}

fn etcd(section: &Section<'_>) -> Etcd {
    let endpoints = section.strings("endpoints");
    if endpoints.is_empty() {
        section.problem("endpoints", "missing; list at least one, such as http://etcd:2379");
    }
    let url = |text: &String| {
        let url = backend_url(text).map_err(|message| message.replace("credential.bearer_file", "username and password"));
        url.map_err(|message| section.problem("endpoints", message)).ok()
    };
    let endpoints = endpoints.iter().filter_map(url).collect();
    let prefix = section.string("prefix").unwrap_or_else(|| "/backends/".to_owned());
    if prefix.is_empty() {
        section.problem("prefix", "empty, which would take every key of etcd for a backend");
    }
    let (username, password) = (section.string("username"), section.secret("password", "password_file"));
    if username.is_some() != password.is_some() {
        let missing = if username.is_some() { "password" } else { "username" };
        section.problem(missing, "missing; give username and password, or neither");
    }
    let (ca, timeout) = (section.parse("ca", readable), Timespan(positive(section, "timeout", 2)));
    section.finish();
    Etcd { endpoints, prefix, username, password: password.map(Secret::new), ca, timeout }
}

fn dns(section: &Section<'_>, interval: Duration) -> Dns {
    let records = section.choice("type", &[("a", Records::A), ("srv", Records::Srv)]).unwrap_or(Records::A);
    let name = section.parse("name", |text| match label(text, "name")? {
        name if name.len() > LONGEST_NAME => Err(format!("`{name}` is longer than {LONGEST_NAME} characters; address and port follow it")),
        name => Ok(name),
    });
    let host = section.parse("host", host);
    let port = section.integer("port", 1..=65_535);
    for key in ["name", "host", "port"] {
        match (key, records) {
            ("port", Records::Srv) if section.has("port") => section.problem("port", "the port of an SRV record is in it"),
            ("port", Records::Srv) => {}
            _ if !section.has(key) => section.problem(key, "missing"),
            _ => {}
        }
    }
    if records == Records::Srv && section.has("weight") {
        section.problem("weight", "the weight of an SRV record is in it");
    }
    let scheme = section.choice("scheme", &[("http", "http"), ("https", "https")]).unwrap_or("http");
    let path = section.parse("path", backends::path).unwrap_or_default();
    let nameserver = section.parse("nameserver", address);
    let (name, host) = (name.unwrap_or_default(), host.unwrap_or_default());
    let url = Url::parse(&format!("{scheme}://{}:{}{path}", host.trim_end_matches('.'), port.unwrap_or(80)));
    // One that cannot be made was reported as what its host is.
    let url = url.unwrap_or_else(|_| Url::parse("http://127.0.0.1").expect("a constant"));
    let mut template = backends::template(section, name.clone(), url, interval);
    if scheme == "https" && template.tls.sni.is_none() {
        if records == Records::Srv {
            section.problem("tls.sni", "missing: the name that certificates must hold, which DNS cannot be trusted to say");
        }
        // It is dialled by address, and asked for by name.
        template.tls.sni = Some(host.trim_end_matches('.').to_owned());
    }
    section.finish();
    Dns { name, host, records, nameserver, template }
}

fn host(text: &str) -> Result<String, String> {
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let fits = text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label);
    if fits { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a DNS name, such as tools.default.svc.cluster.local")) }
}

/// Reads one backend, in YAML or JSON, that somebody beside the configuration tells of: strictly as in the configuration,
/// but no variables expand and no secrets are read from files, or whoever writes there could have ours sent to himself.
/// `source` is how problems call the text, `name` the backend's name where the text has none.
///
/// # Errors
/// Every problem found, in the order of the text.
pub fn backend(source: &str, text: &str, name: &str, interval: Duration) -> Result<Backend, Vec<Problem>> {
    let whole = |message: String| vec![Problem { source: source.to_owned(), line: None, path: String::new(), message }];
    if text.len() > LONGEST {
        return Err(whole(format!("longer than {} KiB", LONGEST >> 10)));
    }
    // Almost all JSON is YAML; what its own reader takes is not left to the difference.
    let document = match serde_json::from_str::<Value>(text) {
        Ok(document) => document,
        Err(_) => serde_yaml::from_str(text).map_err(|error| vec![check::syntax(source, &error)])?,
    };
    let problems = Problems::new(source, Lines::scan(text), Vec::new()).without_files();
    let backend = backends::backend(&Section::root(&document, &problems), Some(name), interval);
    match problems.into_sorted() {
        found if found.is_empty() => Ok(backend),
        found => Err(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Backend, String> {
        let told = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        backend("key", text, "fallback", Duration::from_secs(7)).map_err(told)
    }

    #[test]
    fn a_backend_may_be_yaml_or_json_and_has_a_name_by_itself() {
        let yaml = read("url: http://10.0.0.1:80\nweight: 3\n").unwrap();
        let json = read(r#"{"url":"http://10.0.0.1:80","weight":3}"#).unwrap();
        assert_eq!((yaml.name.as_str(), yaml.weight, yaml.health_check.interval), ("fallback", 3, Duration::from_secs(7)));
        assert_eq!(yaml, json);
        assert_eq!(read("{\n\t\"url\": \"http://10.0.0.1:80\",\n\t\"weight\": 3 }").unwrap(), json, "tabs are JSON's");
        assert_eq!(read("{ name: own, url: 'http://x' }").unwrap().name, "own");
    }

    #[test]
    fn what_is_wrong_is_named_and_secrets_are_not() {
        assert!(read("{ url: 'http://x', wieght: 3 }").unwrap_err().contains("wieght: unknown key `wieght`; did you mean `weight`?"));
        for text in
            ["s3cret", "[s3cret", "{ url: 'http://u:s3cret@x' }", "{ url: 'http://x', credential: s3cret }", "{ a: s3cret, a: s3cret }"]
        {
            let told = read(text).unwrap_err();
            assert!(!told.contains("s3cret"), "{told}");
        }
        assert!(read(&format!("url: http://{}", "x".repeat(70_000))).is_err());
        assert!(read("").unwrap_err().contains("url: missing"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_there_is_read_or_refused(text in "[\\[{}\\]:, \n\t\"'&*!|>%@a-z0-9-]{0,200}", bytes in ".{0,200}") {
            for text in [&text, &bytes, &format!("url: http://x\n{text}"), &format!("{{ url: 'http://x', credential: {bytes} }}")] {
                let _ = read(text);
            }
        }
    }

    #[test]
    fn nobody_beside_the_configuration_has_our_files_or_variables_sent_to_him() {
        let told = read("{ url: 'http://x', credential: { bearer_file: /proc/self/environ } }").unwrap_err();
        assert!(told.contains("credential.bearer_file"), "{told}");
        let literal = read("{ url: 'http://x', credential: { bearer: '${HOME}' } }").unwrap();
        assert_eq!(literal.credential.unwrap().expose(), "${HOME}");
    }
}
