//! What of the configuration governs how requests meet backends, compiled once and shared by all pools.

use std::collections::HashMap;
use std::sync::Arc;

use globset::{Glob, GlobMatcher};

use super::backend::Backend;
use super::breaker::Breaker;
use crate::config::Config;
use crate::config::traffic::{Breaker as Conf, CircuitBreaker, LoadBalancer};

/// The rules of one configuration.
#[derive(Debug)]
pub struct Policy {
    pub balancer: LoadBalancer,
    pub breaker: CircuitBreaker,
    tools: Vec<(GlobMatcher, GlobMatcher, Conf)>,
}

/// The breaker of one tool of one server on one backend.
#[derive(Debug)]
pub struct ToolGuard {
    pub breaker: Arc<Breaker>,
    pub conf: Conf,
    /// `server/tool`, for the log.
    pub name: String,
}

impl Policy {
    pub fn new(config: &Config) -> Self {
        // Globs that do not compile were refused with the configuration.
        let glob = |text: &str| Glob::new(text).map(|glob| glob.compile_matcher()).ok();
        let tools = config.circuit_breaker.tools.iter();
        let tools = tools.filter_map(|tool| Some((glob(&tool.server)?, glob(&tool.tool)?, tool.breaker)));
        Self { balancer: config.load_balancer.clone(), breaker: config.circuit_breaker.clone(), tools: tools.collect() }
    }

    /// Whether a configuration says the same.
    pub fn is_of(&self, config: &Config) -> bool {
        self.balancer == config.load_balancer && self.breaker == config.circuit_breaker
    }

    /// The breakers of a server's tools on a backend: of those it told, and of those named outright.
    pub fn guards<'t>(
        &'t self,
        backend: &Backend,
        server: &str,
        tools: impl Iterator<Item = &'t String>,
    ) -> HashMap<String, Arc<ToolGuard>> {
        if self.tools.is_empty() {
            return HashMap::new();
        }
        let named = self.breaker.tools.iter().map(|tool| &tool.tool).filter(|tool| !tool.contains(['*', '?', '[', '{', '\\']));
        let guard = |tool: &String| {
            let (.., conf) = self.tools.iter().find(|(servers, tools, _)| servers.is_match(server) && tools.is_match(tool))?;
            let guard = ToolGuard { breaker: backend.record.tool_breaker(server, tool), conf: *conf, name: format!("{server}/{tool}") };
            Some((tool.clone(), Arc::new(guard)))
        };
        tools.chain(named).filter_map(guard).collect()
    }
}
