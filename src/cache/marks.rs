//! When what was kept stopped being true. Dropping is a number, not a search: every question takes one when it is asked
//! upstream, every invalidation takes the next, and what was asked before is not given any more. So an answer that is on
//! its way while its server changes is as void as one that was kept.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::mcp::method::{METHODS, Method};

/// Names of tools and resources that are remembered for one server; beyond that all of their method is dropped.
const NAMES: usize = 1024;

/// The marks of all servers.
#[derive(Default)]
pub struct Marks {
    clock: AtomicU64,
    servers: RwLock<HashMap<Box<str>, Arc<Mark>>>,
}

/// The marks of one server.
#[derive(Default)]
pub struct Mark {
    methods: [AtomicU64; METHODS.len()],
    /// By method and name.
    names: RwLock<HashMap<(usize, Box<str>), u64>>,
}

/// The place of a method in the table.
pub fn place(method: &Method) -> usize {
    METHODS.iter().position(|row| row.mcp == method.mcp).unwrap_or(0)
}

impl Marks {
    /// The marks of a server that exists.
    pub fn of(&self, server: &str) -> Arc<Mark> {
        if let Some(mark) = self.servers.read().unwrap_or_else(PoisonError::into_inner).get(server) {
            return Arc::clone(mark);
        }
        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(servers.entry(server.into()).or_default())
    }

    /// The moment.
    pub fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Voids what was asked so far of a server (`None` is all), of the methods that `which` says, by one name or any.
    pub fn void(&self, server: Option<&str>, which: impl Fn(&Method) -> bool, name: Option<&str>) {
        let now = self.now();
        let servers = self.servers.read().unwrap_or_else(PoisonError::into_inner);
        let concerned = servers.iter().filter(|(known, _)| server.is_none_or(|server| ***known == *server));
        for (_, mark) in concerned {
            for (at, _) in METHODS.iter().enumerate().filter(|(_, method)| which(method)) {
                mark.void(at, name, now);
            }
        }
    }
}

impl Mark {
    /// Whether an answer to what was asked at a moment still counts.
    pub fn holds(&self, asked: u64, method: usize, name: Option<&str>) -> bool {
        if self.methods[method].load(Ordering::SeqCst) >= asked {
            return false;
        }
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.is_empty() || name.and_then(|name| names.get(&(method, name.into()))).is_none_or(|void| *void < asked)
    }

    fn void(&self, method: usize, name: Option<&str>, now: u64) {
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = name.filter(|_| names.len() < NAMES) {
            names.insert((method, name.into()), now);
        } else {
            names.retain(|(known, _), _| *known != method);
            self.methods[method].fetch_max(now, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::method;

    #[test]
    fn what_was_asked_before_is_void_and_what_is_asked_after_is_not() {
        let marks = Marks::default();
        let (files, other) = (marks.of("files"), marks.of("other"));
        let at = |method| place(method::find(method).unwrap());
        let before = marks.now();
        marks.void(Some("files"), |method| method.mcp == "tools/call", Some("read"));
        assert!(!files.holds(before, at("tools/call"), Some("read")));
        assert!(files.holds(before, at("tools/call"), Some("stat")) && other.holds(before, at("tools/call"), Some("read")));
        assert!(files.holds(marks.now(), at("tools/call"), Some("read")));
        marks.void(Some("files"), |method| method.reads, None);
        assert!(!files.holds(before, at("tools/list"), None) && files.holds(before, at("tools/call"), Some("stat")));
        let later = marks.now();
        marks.void(None, |_| true, None);
        assert!(!files.holds(later, at("tools/call"), Some("stat")) && !other.holds(later, at("ping"), None));
    }

    #[test]
    fn too_many_names_drop_their_method_whole() {
        let marks = Marks::default();
        let mark = marks.of("files");
        let before = marks.now();
        (0..NAMES * 2).for_each(|i| marks.void(Some("files"), |method| method.mcp == "resources/read", Some(&i.to_string())));
        let at = place(method::find("resources/read").unwrap());
        assert!(mark.names.read().unwrap().len() <= NAMES && !mark.holds(before, at, Some("never named")));
    }
}
