//! Which records of the log are written: by the configured level, or by one that an administrator set for a while instead.
//! There is one log for the process, so there is one of these.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use env_filter::Filter;
use jiff::Timestamp;
use log::{Level, LevelFilter, Metadata};

use crate::config::is_our_module;

/// What is written now, and why.
pub struct Levels {
    filter: ArcSwap<Filter>,
    /// Whether access records are written, which is asked for every request.
    access: AtomicBool,
    standing: Mutex<Standing>,
}

/// The levels in force. They are as [`crate::config::log_level`] made them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    pub configured: String,
    /// What holds instead of it.
    pub set: Option<Set>,
    /// Counts the levels that were set.
    count: u64,
}

/// A level that was set while running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub level: String,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
    number: u64,
}

impl Standing {
    /// The level that holds.
    pub fn level(&self) -> &str {
        self.set.as_ref().map_or(&self.configured, |set| &set.level)
    }
}

/// The levels of this process.
pub fn levels() -> &'static Levels {
    static LEVELS: LazyLock<Levels> = LazyLock::new(Levels::silent);
    &LEVELS
}

/// An access record.
fn access() -> Metadata<'static> {
    Metadata::builder().level(Level::Info).target("access").build()
}

impl Levels {
    fn silent() -> Self {
        Self { filter: ArcSwap::from_pointee(filter("off")), access: AtomicBool::new(false), standing: Mutex::default() }
    }

    /// Whether records like this are written. Below `info` other crates print what passes through them, secrets included.
    pub fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if *metadata == access() {
            return self.access.load(Ordering::Relaxed);
        }
        (metadata.level() <= Level::Info || is_our_module(metadata.target())) && self.filter.load().enabled(metadata)
    }

    /// Takes the configured level. One that was set instead of it holds on until the configured one changes.
    pub fn configure(&self, level: &str) {
        let mut standing = self.standing();
        if standing.configured != level {
            let is_start = standing.configured.is_empty();
            level.clone_into(&mut standing.configured);
            standing.set = None;
            self.apply(&standing, (!is_start).then_some("as configured"));
        }
    }

    /// Sets another level in place of the configured one, for a time or until [`Self::unset`]. The number it is given ends it.
    pub fn set(&self, level: &str, lasting: Option<Duration>) -> u64 {
        let mut standing = self.standing();
        standing.count += 1;
        let until = lasting.and_then(|lasting| Timestamp::now().checked_add(lasting).ok());
        standing.set = Some(Set { level: level.to_owned(), until, number: standing.count });
        self.apply(&standing, Some("by PUT /admin/log"));
        standing.count
    }

    /// Goes back to the configured level.
    pub fn unset(&self) {
        let mut standing = self.standing();
        if standing.set.take().is_some() {
            self.apply(&standing, Some("by DELETE /admin/log"));
        }
    }

    /// Goes back to the configured level if what holds is still the one of this number.
    pub fn expire(&self, number: u64) {
        let mut standing = self.standing();
        if standing.set.take_if(|set| set.number == number).is_some() {
            self.apply(&standing, Some("since the time of the one before is over"));
        }
    }

    /// What holds, and why.
    pub fn read(&self) -> Standing {
        self.standing().clone()
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, standing: &Standing, why: Option<&str>) {
        let (level, next) = (standing.level(), filter(standing.level()));
        let tell = |why| match standing.set.as_ref().and_then(|set| set.until) {
            Some(until) => log::info!("the log level is {level} until {until:.0}, {why}"),
            None => log::info!("the log level is {level}, {why}"),
        };
        // While it is still heard, or once it is.
        let before = log::log_enabled!(Level::Info);
        why.filter(|_| before).map(tell);
        log::set_max_level(next.filter());
        self.access.store(next.enabled(&access()), Ordering::Relaxed);
        self.filter.store(next.into());
        why.filter(|_| !before).map(tell);
    }
}

fn filter(level: &str) -> Filter {
    let mut builder = env_filter::Builder::new();
    // Pingora says at info what our access log already tells, and at error that a client hung up.
    for (noisy, most) in [
        ("pingora_core", LevelFilter::Warn),
        ("pingora_proxy", LevelFilter::Warn),
        ("pingora_load_balancing", LevelFilter::Error),
        ("rmcp", LevelFilter::Warn),
    ] {
        builder.filter_module(noisy, most.min(loudest(level)));
    }
    // What was written says more about any of them.
    let _ = builder.try_parse(level);
    builder.build()
}

/// The level for all of a level that may name modules.
fn loudest(level: &str) -> LevelFilter {
    level.split(',').find_map(|part| part.parse().ok()).unwrap_or(LevelFilter::Off)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enabled(levels: &Levels, level: Level, target: &str) -> bool {
        levels.enabled(&Metadata::builder().level(level).target(target).build())
    }

    #[test]
    fn a_level_holds_until_another_is_configured_or_it_ends() {
        let levels = Levels::silent();
        levels.configure("info");
        assert!(enabled(&levels, Level::Info, "mcp_gateway::x") && !enabled(&levels, Level::Debug, "mcp_gateway::x"));
        let first = levels.set("info,mcp_gateway::upstream=debug", Some(Duration::from_secs(60)));
        levels.configure("info");
        assert!(enabled(&levels, Level::Debug, "mcp_gateway::upstream::pool") && !enabled(&levels, Level::Debug, "mcp_gateway::x"));
        let second = levels.set("trace", None);
        levels.expire(first);
        assert!(enabled(&levels, Level::Trace, "mcp_gateway::x"), "the first is not the one that holds");
        assert_eq!(levels.read().set.map(|set| set.until), Some(None));
        levels.expire(second);
        assert_eq!(levels.read().level(), "info");
        levels.set("debug", None);
        levels.configure("warn");
        assert_eq!((levels.read().level(), levels.read().set), ("warn", None));
        levels.set("debug", None);
        levels.unset();
        assert!(!enabled(&levels, Level::Info, "access"));
    }

    #[test]
    fn others_are_never_heard_below_info() {
        let levels = Levels { filter: ArcSwap::from_pointee(filter("trace")), ..Levels::silent() };
        assert!(enabled(&levels, Level::Trace, "mcp_gateway") && enabled(&levels, Level::Info, "redis"));
        for target in
            ["pingora_core::protocols::http::v1::client", "pingora_proxy", "tokio_postgres::query", "h2", "rustls", "mcp_gatewayx"]
        {
            assert!(!enabled(&levels, Level::Debug, target) && enabled(&levels, Level::Error, target), "{target}");
        }
        assert!(!enabled(&levels, Level::Info, "pingora_core"), "it is noisy");
    }

    #[test]
    fn silence_is_silence_and_what_is_named_is_heard() {
        let named = filter("off,pingora_core=info");
        let of = |level, target| named.enabled(&Metadata::builder().level(level).target(target).build());
        assert!(of(Level::Info, "pingora_core") && !of(Level::Error, "pingora_proxy") && !of(Level::Error, "access"));
    }
}
