//! Written `analytics:` → the checked model: where what was asked is written down, and for how long it stays.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio_postgres::config::{Host, SslMode};

use super::check::readable;
use super::reader::Section;
use super::{Secret, Timespan};

const DAY: Duration = Duration::from_secs(86_400);

/// Where events go; there are none unless it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Analytics {
    pub postgres: Postgres,
    /// How long events stay at least, a day or longer; they go day by day.
    pub retention: Timespan,
    /// Events that may wait to be written; what comes on top is dropped and counted.
    pub queue: usize,
    /// Events that are written together.
    pub batch: usize,
    /// The longest an event waits for others to be written with.
    pub flush: Timespan,
}

/// A PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Postgres {
    /// Holds the password.
    pub url: Secret,
    /// Who must have signed its certificate, instead of the system's authorities.
    pub ca: Option<PathBuf>,
}

impl Postgres {
    /// What the URL says. With a `ca` there is no connection without TLS.
    ///
    /// # Errors
    /// When it is no URL of PostgreSQL, without quoting it.
    pub fn address(&self) -> Result<tokio_postgres::Config, &'static str> {
        let mut address = parse(self.url.expose())?;
        if self.ca.is_some() {
            address.ssl_mode(SslMode::Require);
        }
        Ok(address)
    }
}

impl Postgres {
    /// The hosts that are talked to without TLS being asked for.
    pub fn in_the_clear(&self) -> Vec<String> {
        let Some(address) = self.address().ok().filter(|address| address.get_ssl_mode() != SslMode::Require) else { return Vec::new() };
        let named = |host: &Host| if let Host::Tcp(name) = host { Some(name.clone()) } else { None };
        address.get_hosts().iter().filter_map(named).collect()
    }
}

fn parse(url: &str) -> Result<tokio_postgres::Config, &'static str> {
    // What `require` of ours does already.
    let url = url.replace("sslmode=verify-full", "sslmode=require");
    let fault = "not a PostgreSQL URL, such as postgres://user:password@host:5432/name?sslmode=require";
    let address: tokio_postgres::Config = url.parse().map_err(|_| fault)?;
    if address.get_hosts().is_empty() || address.get_user().is_none() { Err(fault) } else { Ok(address) }
}

/// Reads `analytics:`.
pub fn analytics(root: &Section<'_>) -> Option<Analytics> {
    if !root.has("analytics") {
        return None;
    }
    let section = root.section("analytics");
    let count = |key, range, default| section.integer(key, range).map_or(default, |n| usize::try_from(n).unwrap_or(default));
    let least = |key, least: Duration, default| {
        let found = section.duration(key);
        if found.is_some_and(|found| found < least) {
            section.problem(key, format!("less than {}", if least == DAY { "1d" } else { "10ms" }));
        }
        Timespan(found.unwrap_or(default))
    };
    let (queue, batch) = (count("queue", 1..=1_000_000, 10_000), count("batch", 1..=10_000, 500));
    let (retention, flush) = (least("retention", DAY, 30 * DAY), least("flush", Duration::from_millis(10), Duration::from_secs(1)));
    let postgres = postgres(&section);
    section.finish();
    Some(Analytics { postgres: postgres?, retention, queue, batch, flush })
}

/// A URL, or a mapping with more about it.
fn postgres(section: &Section<'_>) -> Option<Postgres> {
    let is_mapping = section.value("postgres").is_some_and(serde_yaml::Value::is_mapping);
    if !is_mapping {
        let url = section.secret("postgres", "postgres_file");
        if !section.has("postgres") && !section.has("postgres_file") {
            section.problem("postgres", "missing, such as ${DATABASE_URL}");
        }
        let url = url?;
        return parse(&url).map_err(|fault| section.problem("postgres", fault)).ok().map(|_| Postgres { url: Secret::new(url), ca: None });
    }
    let section = section.section("postgres");
    let (url, ca) = (section.secret("url", "url_file"), section.parse("ca", readable));
    if !section.has("url") && !section.has("url_file") {
        section.problem("url", "missing, such as ${DATABASE_URL}");
    }
    section.finish();
    let url = url?;
    match parse(&url) {
        Err(fault) => section.problem("url", fault),
        Ok(address) if ca.is_some() && address.get_ssl_mode() == SslMode::Disable => {
            section.problem("ca", "the URL says sslmode=disable");
        }
        Ok(_) => return Some(Postgres { url: Secret::new(url), ca }),
    }
    None
}
