//! Versions of the REST API: which form an answer has, which backends serve it, and what its callers are told of its end.

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue, LINK};

use super::rule::Choice;
use crate::config::routing;
use crate::mcp::rest::Form;

/// One version, ready to serve.
#[derive(Debug)]
pub struct Version {
    pub name: Box<str>,
    pub form: Form,
    /// `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and the `Link`s that explain them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Where its requests go unless a rule says otherwise.
    pub choice: Arc<Choice>,
}

/// All versions; there are few, so they are looked through.
#[derive(Debug, Default)]
pub struct Versions(Vec<Arc<Version>>);

impl Versions {
    pub fn new(versions: &[routing::Version]) -> Self {
        Self(versions.iter().map(|version| Arc::new(Version::new(version))).collect())
    }

    pub fn find(&self, name: &str) -> Option<&Arc<Version>> {
        self.0.iter().find(|version| &*version.name == name)
    }

    /// Their names, for who asked for another.
    pub fn names(&self) -> String {
        self.0.iter().map(|version| &*version.name).collect::<Vec<_>>().join(", ")
    }
}

impl Version {
    fn new(version: &routing::Version) -> Self {
        let choice = Choice { among: version.among.clone(), ..Choice::default() };
        Self { name: version.name.as_str().into(), form: version.form, headers: headers(version), choice: Arc::new(choice) }
    }
}

fn headers(version: &routing::Version) -> Vec<(HeaderName, HeaderValue)> {
    let value = |text: String| HeaderValue::from_str(&text).ok();
    let link = |rel| version.docs.as_ref().and_then(|docs| value(format!("<{docs}>; rel=\"{rel}\"; type=\"text/html\"")));
    let deprecation = version.deprecated.and_then(|time| value(format!("@{time}")));
    let sunset = version.sunset.and_then(|time| value(http_date(time)?));
    let mut headers = Vec::new();
    for (name, told, rel) in [("deprecation", deprecation, "deprecation"), ("sunset", sunset, "sunset")] {
        let Some(told) = told else { continue };
        headers.push((HeaderName::from_static(name), told));
        headers.extend(link(rel).map(|link| (LINK, link)));
    }
    headers
}

/// A time as HTTP writes it (RFC 9110 §5.6.7).
fn http_date(seconds: i64) -> Option<String> {
    let time = jiff::Timestamp::from_second(seconds).ok()?;
    Some(time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_tells_of_its_end() {
        let version = routing::Version {
            name: "v1".into(),
            form: Form::V1,
            deprecated: Some(1_767_225_600),
            sunset: Some(1_814_313_600),
            docs: Some("https://docs.example.com/v2".parse().unwrap()),
            among: None,
        };
        let told: Vec<String> = headers(&version).into_iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        assert_eq!(
            told,
            [
                "deprecation: @1767225600",
                "link: <https://docs.example.com/v2>; rel=\"deprecation\"; type=\"text/html\"",
                "sunset: Wed, 30 Jun 2027 00:00:00 GMT",
                "link: <https://docs.example.com/v2>; rel=\"sunset\"; type=\"text/html\"",
            ]
        );
    }
}
