//! A server's backends, and the directory of all servers. Built anew whenever a backend told something new; whatever a
//! request needs by name is looked up here once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::balance::Balance;
use super::budget::Budget;
use super::facts::Tool;
use super::field::Field;
use super::policy::{Policy, ToolGuard};
use super::trial::Trial;
use crate::call::Call;
use crate::config::Among;
use crate::egress::Target;
use crate::mcp::method::METHODS;
use crate::observe::cache::ServerMeter;
use crate::observe::clock::Clock;
use crate::observe::metrics::{Meter, Metrics};
use crate::reject::Verdict;
use crate::room::Place;

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
    /// The tool that is called.
    pub tool: Option<&'a str>,
    /// What the caller is known by, where it should meet the same backend again.
    pub affinity: Option<u64>,
    /// Whether it stays open for as long as the caller likes, and so takes no place from others.
    pub stays: bool,
    /// Where its time is kept.
    pub clock: Option<&'a Clock>,
}

/// The attempts of one request that came to nothing.
#[derive(Debug, Clone, Default)]
pub struct Tried(Vec<usize>);

impl Tried {
    pub fn note(&mut self, index: usize) {
        self.0.push(index);
    }

    /// Whether every healthy address of a member was tried; they are dialled in turn.
    pub(super) fn all_of(&self, index: usize, member: &Member) -> bool {
        self.0.iter().filter(|tried| **tried == index).count() >= member.backend.ready().max(1)
    }
}

/// Why nobody was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoChoice {
    /// Nobody is healthy, or everybody was tried.
    Nobody,
    /// Whoever could serve is left alone by a circuit breaker, for this long.
    Open(Duration),
    /// Whoever could serve has all it may have.
    Full,
}

/// One backend as a member of a pool.
pub struct Member {
    pub backend: Arc<Backend>,
    /// The path of this server's MCP endpoint on it.
    pub path: String,
    /// The tools it told, by name; `None` while unknown.
    pub tools: Option<Arc<BTreeMap<String, Tool>>>,
    /// The breakers of single tools.
    guards: HashMap<String, Arc<ToolGuard>>,
}

/// Who is to be asked.
struct Chosen {
    index: usize,
    /// All who could be asked, where it is full and so are they.
    full: Vec<usize>,
    panics: bool,
}

/// One MCP server and the backends that serve it.
pub struct Pool {
    pub server: Arc<str>,
    pub members: Vec<Member>,
    pub policy: Arc<Policy>,
    pub budget: Budget,
    /// What the cache counts of the server.
    pub cached: OnceLock<Arc<ServerMeter>>,
    balance: Balance,
    meters: Meters,
}

impl Pool {
    fn new(server: &str, members: Vec<Member>, policy: &Arc<Policy>) -> Self {
        let tools = members.iter().filter_map(|member| member.tools.as_deref()).flat_map(BTreeMap::keys).cloned();
        let meters =
            Meters { methods: Default::default(), tools: tools.map(|tool| (tool, OnceLock::new())).collect(), other: OnceLock::new() };
        let (balance, policy) = (Balance::new(members.len()), Arc::clone(policy));
        Self { server: server.into(), members, policy, budget: Budget::default(), cached: OnceLock::new(), balance, meters }
    }

    /// Chooses a member and begins a request at it, waiting for a place where all have what they may have.
    ///
    /// # Errors
    /// Why nobody can be asked.
    pub async fn choose(&self, ask: Ask<'_>, tried: &Tried) -> Result<(usize, Trial), NoChoice> {
        let mut tried = tried.clone();
        loop {
            let chosen = self.pick(ask, &tried)?;
            let (index, place) = match self.members[chosen.index].place_now(ask) {
                Ok(place) => (chosen.index, place),
                // Taken just now, while others may be free: choose again.
                Err(_) if chosen.full.is_empty() => continue,
                Err(_) => Box::pin(Clock::queued(ask.clock, self.wait_for_place(&chosen.full, ask))).await?,
            };
            // A breaker that was asked just now may have let somebody else through meanwhile; then choose again.
            match self.members[index].begin(ask, &self.policy, chosen.panics, place) {
                Some(trial) => return Ok((index, trial)),
                None => tried.note(index),
            }
        }
    }

    /// As [`Self::choose`], but only among those with a place free: for whoever is not to wait.
    pub fn choose_free(&self, ask: Ask<'_>, tried: &Tried) -> Option<(usize, Trial)> {
        let mut tried = tried.clone();
        loop {
            let chosen = self.pick(ask, &tried).ok().filter(|chosen| chosen.full.is_empty())?;
            let place = self.members[chosen.index].place_now(ask).ok();
            match place.and_then(|place| self.members[chosen.index].begin(ask, &self.policy, chosen.panics, place)) {
                Some(trial) => return Some((chosen.index, trial)),
                None => tried.note(chosen.index),
            }
        }
    }

    fn pick(&self, ask: Ask<'_>, tried: &Tried) -> Result<Chosen, NoChoice> {
        let mut field = Field::new(self, ask, tried);
        let index = field.choose(&self.balance).ok_or_else(|| field.why_nobody())?;
        let full = if self.members[index].is_full(ask) { field.eligible() } else { Vec::new() };
        Ok(Chosen { index, full, panics: field.panics })
    }

    /// Waits at all who are full for the first place at any: one that is stuck must not hold up what another could do.
    async fn wait_for_place(&self, full: &[usize], ask: Ask<'_>) -> Result<(usize, Option<Place>), NoChoice> {
        let waiting = full.iter().map(|index| {
            let place = self.members[*index].place(ask, &self.policy);
            Box::pin(async move { place.await.map(|place| (*index, place)) })
        });
        futures::future::select_ok(waiting).await.map(|(first, _)| first)
    }

    /// Begins a request at a member that nobody else can stand in for.
    ///
    /// # Errors
    /// Why it cannot be asked.
    pub async fn resume(&self, member: &Member, target: Arc<Target>, ask: Ask<'_>) -> Result<Trial, NoChoice> {
        let place = match member.place_now(ask) {
            Ok(place) => place,
            Err(_) => Box::pin(Clock::queued(ask.clock, member.place(ask, &self.policy))).await?,
        };
        let begun = Trial::begin(&member.backend, target, &self.policy, member.guard(ask), place);
        begun.ok_or_else(|| NoChoice::Open(member.wait(ask, &self.policy, Instant::now()).unwrap_or_default()))
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
    pub(super) fn can(&self, ask: Ask<'_>) -> bool {
        let speaks = match ask.want {
            Want::Native => self.backend.takes_native(),
            Want::Rest => self.backend.speaks().is_some(),
        };
        speaks && ask.among.is_none_or(|among| among.admits(&self.backend.conf))
    }

    /// Whether it did not say yet, or not to be understood, what it speaks.
    pub(super) fn is_stranger(&self) -> bool {
        self.backend.speaks().is_none()
    }

    /// What is known of one of its tools.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.as_ref()?.get(name)
    }

    fn guard(&self, ask: Ask<'_>) -> Option<&Arc<ToolGuard>> {
        self.guards.get(ask.tool?)
    }

    /// How long its breakers let nothing through; `None` if they do now.
    pub(super) fn wait(&self, ask: Ask<'_>, policy: &Policy, now: Instant) -> Option<Duration> {
        let own = policy.breaker.backend.as_ref().and_then(|conf| self.backend.record.breaker.wait(now, conf));
        let tool = self.guard(ask).and_then(|guard| guard.breaker.wait(now, &guard.conf));
        own.max(tool)
    }

    pub(super) fn is_full(&self, ask: Ask<'_>) -> bool {
        !ask.stays && self.backend.room.as_ref().is_some_and(|room| room.is_full())
    }

    async fn place(&self, ask: Ask<'_>, policy: &Policy) -> Result<Option<Place>, NoChoice> {
        match self.backend.room.as_ref().filter(|_| !ask.stays) {
            None => Ok(None),
            Some(room) => room.enter(&policy.balancer.queue).await.map(Some).map_err(|_| NoChoice::Full),
        }
    }

    /// A place without waiting, which is none at all where they are not counted.
    fn place_now(&self, ask: Ask<'_>) -> Result<Option<Place>, NoChoice> {
        match self.backend.room.as_ref().filter(|_| !ask.stays) {
            None => Ok(None),
            Some(room) => room.enter_now().map(Some).ok_or(NoChoice::Full),
        }
    }

    /// `None` if it cannot be asked after all.
    fn begin(&self, ask: Ask<'_>, policy: &Arc<Policy>, panics: bool, place: Option<Place>) -> Option<Trial> {
        let target = self.backend.target().or_else(|| if panics { self.backend.any_target() } else { None })?;
        Trial::begin(&self.backend, target, policy, self.guard(ask), place)
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
    pub fn gather(backends: &[Arc<Backend>], policy: &Arc<Policy>, old: &Self) -> Self {
        let mut members: BTreeMap<String, Vec<Member>> = BTreeMap::new();
        for backend in backends {
            for (name, server) in &backend.facts().servers {
                let guards = policy.guards(backend, name, server.tools.iter().flat_map(|tools| tools.keys()));
                let (path, tools) = (backend.mcp_path(name), server.tools.clone());
                let member = Member { backend: Arc::clone(backend), path, tools, guards };
                members.entry(name.clone()).or_default().push(member);
            }
        }
        let pools = members.into_iter().map(|(name, members)| {
            let kept = old.pools.get(&name).filter(|pool| Arc::ptr_eq(&pool.policy, policy) && same(&pool.members, &members)).cloned();
            let pool = kept.unwrap_or_else(|| Arc::new(Pool::new(&name, members, policy)));
            (name, pool)
        });
        Self { pools: pools.collect() }
    }
}

fn same(old: &[Member], new: &[Member]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(a, b)| Arc::ptr_eq(&a.backend, &b.backend) && a.tools == b.tools)
}
