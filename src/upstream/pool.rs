//! A server's backends, and the directory of all servers. Built anew whenever a backend told something new; whatever a
//! request needs by name is looked up here once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use super::backend::Backend;
use super::balance::{Balance, Standing};
use super::facts::Tool;
use crate::call::Call;
use crate::config::Among;
use crate::mcp::method::METHODS;
use crate::observe::metrics::{Meter, Metrics};
use crate::reject::Verdict;

/// What a request demands of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Streamable HTTP, passed through.
    Native,
    /// An answer to a REST call, in whatever way the backend speaks.
    Rest,
}

/// What a request asks of a pool.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub want: Want,
    /// The backends a routing rule names; `None` is all of the pool.
    pub among: Option<&'a Among>,
}

/// The attempts of one request that never reached a backend.
#[derive(Default)]
pub struct Tried(Vec<usize>);

impl Tried {
    pub fn note(&mut self, index: usize) {
        self.0.push(index);
    }

    /// Whether every healthy address of a member was tried; they are dialled in turn.
    fn all_of(&self, index: usize, member: &Member) -> bool {
        self.0.iter().filter(|tried| **tried == index).count() >= member.backend.ready()
    }
}

/// One backend as a member of a pool.
pub struct Member {
    pub backend: Arc<Backend>,
    /// The path of this server's MCP endpoint on it.
    pub path: String,
    /// The tools it told, by name; `None` while unknown.
    pub tools: Option<Arc<BTreeMap<String, Tool>>>,
}

/// One MCP server and the backends that serve it.
pub struct Pool {
    pub server: Arc<str>,
    pub members: Vec<Member>,
    balance: Balance,
    meters: Meters,
}

impl Pool {
    fn new(server: &str, members: Vec<Member>) -> Self {
        let weights = members.iter().map(|member| member.backend.conf.weight).collect();
        let tools = members.iter().filter_map(|member| member.tools.as_deref()).flat_map(BTreeMap::keys).cloned();
        let meters =
            Meters { methods: Default::default(), tools: tools.map(|tool| (tool, OnceLock::new())).collect(), other: OnceLock::new() };
        Self { server: server.into(), members, balance: Balance::new(weights), meters }
    }

    /// The next member in turn that is healthy, can do what is wanted and is not in `tried`.
    pub fn pick(&self, ask: Ask<'_>, tried: &Tried) -> Option<(usize, &Member)> {
        let chosen = self.balance.pick(|i| match &self.members[i] {
            member if !member.backend.is_healthy() || member.backend.is_draining() => Standing::Out,
            member if tried.all_of(i, member) || !member.can(ask) => Standing::Passed,
            _ => Standing::Good,
        })?;
        Some((chosen, &self.members[chosen]))
    }

    /// The member that is the named backend.
    pub fn member(&self, backend: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.backend.name() == backend)
    }

    /// Whether any member, healthy or not, could ever take native requests.
    pub fn takes_native(&self) -> bool {
        self.members.iter().any(|member| member.backend.takes_native())
    }

    /// Whether the catalogue knows the tool; `true` while no member has told its tools.
    pub fn knows_tool(&self, tool: &str) -> bool {
        self.meters.tools.contains_key(tool) || self.members.iter().all(|member| member.tools.is_none())
    }

    /// Checks the arguments of a tool call against the schema its server published, where that is wished and known.
    ///
    /// # Errors
    /// `invalid_params` naming the places at fault as JSON pointers.
    pub fn check_arguments(&self, call: &Call<'_>) -> Verdict<()> {
        if call.method != "tools/call" {
            return Ok(());
        }
        let name = call.name.as_deref().unwrap_or_default();
        let schema = self.members.iter().find_map(|member| member.tool(name)?.schema.as_ref());
        schema.map_or(Ok(()), |schema| schema.check(call.arguments))
    }

    /// The metric handles for a call. Names outside the catalogue share one series.
    pub fn meter(&self, metrics: &Metrics, call: &Call<'_>) -> &Meter {
        let Some(row) = METHODS.iter().position(|row| row.mcp == call.method) else {
            return self.meters.other.get_or_init(|| metrics.meter(&self.server, "other", ""));
        };
        if METHODS[row].mcp != "tools/call" {
            return self.meters.methods[row].get_or_init(|| metrics.meter(&self.server, METHODS[row].mcp, ""));
        }
        match call.name.as_deref().and_then(|name| self.meters.tools.get_key_value(name)) {
            Some((tool, series)) => series.get_or_init(|| metrics.meter(&self.server, "tools/call", tool)),
            None => self.meters.methods[row].get_or_init(|| metrics.meter(&self.server, "tools/call", "other")),
        }
    }
}

impl Member {
    fn can(&self, ask: Ask<'_>) -> bool {
        let speaks = match ask.want {
            Want::Native => self.backend.takes_native(),
            Want::Rest => self.backend.speaks().is_some(),
        };
        speaks && ask.among.is_none_or(|among| among.admits(&self.backend.conf))
    }

    /// The headers that the arguments of a tool call must also travel in.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.as_ref()?.get(name)
    }
}

/// Metric handles, made when first used so that the exposition lists what happened and nothing else.
struct Meters {
    methods: [OnceLock<Meter>; METHODS.len()],
    tools: HashMap<String, OnceLock<Meter>>,
    other: OnceLock<Meter>,
}

/// All servers by name.
#[derive(Default)]
pub struct Directory {
    pub pools: BTreeMap<String, Arc<Pool>>,
}

impl Directory {
    /// Gathers what the backends told. A pool of `old` whose members are the same goes on, with its turn and handles.
    pub fn gather(backends: &[Arc<Backend>], old: &Self) -> Self {
        let mut members: BTreeMap<String, Vec<Member>> = BTreeMap::new();
        for backend in backends {
            for (name, server) in &backend.facts().servers {
                let member = Member { backend: Arc::clone(backend), path: backend.mcp_path(name), tools: server.tools.clone() };
                members.entry(name.clone()).or_default().push(member);
            }
        }
        let pools = members.into_iter().map(|(name, members)| {
            let kept = old.pools.get(&name).filter(|pool| same(&pool.members, &members)).cloned();
            let pool = kept.unwrap_or_else(|| Arc::new(Pool::new(&name, members)));
            (name, pool)
        });
        Self { pools: pools.collect() }
    }
}

fn same(old: &[Member], new: &[Member]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(a, b)| Arc::ptr_eq(&a.backend, &b.backend) && a.tools == b.tools)
}
