//! What a request is served by. `Snapshot` is one configuration, built whole and swapped whole; a request holds the one
//! it began with. `Shared` outlives reloads. `State` holds both and is what every service is given.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use crate::access::Access;
use crate::analytics::Analytics;
use crate::auth::Auth;
use crate::auth::permit::Permits;
use crate::cache::Cache;
use crate::config::Config;
use crate::config::risk::Risk;
use crate::digest::number;
use crate::egress::Client;
use crate::extend::Extensions;
use crate::limit::Limits;
use crate::limit::coarse::Coarse;
use crate::mcp::session::Sealer;
use crate::observe::metrics::Metrics;
use crate::observe::pulse::{Pulse, Tally};
use crate::observe::refusals::Refusals;
use crate::observe::spans::Spans;
use crate::overload::{Gate, Lag};
use crate::route::rule::Rules;
use crate::route::version::Versions;
use crate::transform::Transforms;
use crate::upstream::Upstream;
use crate::upstream::backend::Backend;
use crate::upstream::discovery::{Merged, Registry, Sources};

/// How long a reload waits for new backends to show themselves before it publishes all the same.
const ACQUAINT: Duration = Duration::from_secs(5);
/// The same where discovered backends changed, which may be often.
const GLANCE: Duration = Duration::from_secs(1);
/// Idle upstream connections kept for each worker; a pool smaller than the concurrency costs 1.6× the CPU.
const IDLE_PER_WORKER: usize = 1024;

/// One configuration, ready to serve.
pub struct Snapshot {
    /// Counts up from 1 with every published configuration.
    pub revision: u64,
    /// As it was written.
    pub configured: Arc<Config>,
    /// With the backends that were discovered.
    pub config: Arc<Config>,
    /// Where those come from.
    pub sources: Sources,
    pub access: Access,
    pub auth: Arc<Auth>,
    pub permits: Permits,
    pub limits: Arc<Limits>,
    /// `None`: nothing is kept.
    pub cache: Option<Arc<Cache>>,
    /// `None`: nothing is written down.
    pub analytics: Option<Arc<Analytics>>,
    pub gate: Gate,
    pub routes: Rules,
    pub versions: Versions,
    pub transforms: Transforms,
    pub upstream: Arc<Upstream>,
}

impl Snapshot {
    /// How many backends are healthy.
    pub fn healthy(&self) -> usize {
        self.upstream.backends.iter().filter(|backend| backend.is_healthy()).count()
    }

    /// Whether anything can be served.
    pub fn is_ready(&self) -> bool {
        self.healthy() > 0
    }
}

/// What outlives a reload.
pub struct Shared {
    pub metrics: Metrics,
    /// For requests of clients.
    pub client: Client,
    /// For questions of our own; used by the background service only, since connections belong to the runtime that made
    /// them.
    pub probes: Arc<Client>,
    pub sealer: Sealer,
    /// By which the access records that are written are drawn; replicas with one secret have one.
    pub lot: u64,
    /// The look before the door (`server.limits.requests_per_ip`).
    pub coarse: Coarse,
    pub lag: Arc<Lag>,
    pub life: Life,
    /// Where requests are told to a collector of traces, if there is one.
    pub spans: Option<Spans>,
    /// Backends beside the configured ones.
    pub discovery: Arc<Registry>,
    /// Asks the background service to reload.
    pub reload: mpsc::Sender<Reload>,
    /// How that went the last time.
    pub reloaded: ArcSwap<Reloaded>,
    /// What is dangerous in the configuration that is served.
    pub risks: ArcSwap<Vec<Risk>>,
    /// What happened in the last minutes.
    pub pulse: Pulse,
    pub refusals: Refusals,
    /// What the binary adds.
    pub extensions: Extensions,
}

impl Shared {
    /// What asks upstream: for callers, or in the background service.
    pub fn client(&self, in_background: bool) -> &Client {
        if in_background { &self.probes } else { &self.client }
    }

    /// Notes how a reload went.
    pub fn note_reload(&self, because: &'static str, problems: Option<&Vec<String>>, waiting: Vec<&'static str>) {
        let (at, before) = (jiff::Timestamp::now(), self.reloaded.load());
        let since = if problems.is_none() { at } else { before.since };
        self.reloaded.store(Arc::new(Reloaded { at, because, problems: problems.cloned().unwrap_or_default(), waiting, since }));
    }
}

/// A wish to reload, and where to tell how it went.
pub struct Reload {
    pub because: &'static str,
    pub told: Option<oneshot::Sender<Result<u64, Vec<String>>>>,
}

/// What became of the configuration that was read last.
pub struct Reloaded {
    pub at: jiff::Timestamp,
    pub because: &'static str,
    /// Why the one before goes on serving.
    pub problems: Vec<String>,
    /// Keys that changed and take a restart.
    pub waiting: Vec<&'static str>,
    /// Since when the one that is served is.
    pub since: jiff::Timestamp,
}

impl Reloaded {
    fn at_start() -> Self {
        let now = jiff::Timestamp::now();
        Self { at: now, because: "the start", problems: Vec::new(), waiting: Vec::new(), since: now }
    }
}

/// The published snapshot beside what is shared.
pub struct State {
    pub shared: Shared,
    snapshot: ArcSwap<Snapshot>,
}

impl State {
    /// # Errors
    /// What in the configuration cannot be used.
    pub fn new(config: Config, secret: &[u8], reload: mpsc::Sender<Reload>, extensions: Extensions) -> Result<Self, String> {
        let metrics = Metrics::new();
        let tracing = config.observability.tracing.as_ref();
        let shared = Shared {
            spans: tracing.map(|tracing| Spans::new(tracing.sample, metrics.spans.with_label_values(&["dropped"]))),
            metrics,
            client: Client::new(IDLE_PER_WORKER * config.server.workers),
            probes: Arc::new(Client::new(64)),
            sealer: Sealer::new(secret),
            lot: number(&[b"access records", secret].concat()),
            coarse: Coarse::default(),
            lag: Arc::default(),
            life: Life::default(),
            discovery: Arc::new(Registry::new(config.server.state_dir.clone())),
            reload,
            reloaded: ArcSwap::from_pointee(Reloaded::at_start()),
            risks: ArcSwap::default(),
            pulse: Pulse::default(),
            refusals: Refusals::default(),
            extensions,
        };
        let configured = Arc::new(config);
        let merged = shared.discovery.merge(&configured);
        let config = with_backends(&configured, &merged);
        let upstream = Upstream::build(&config, &merged.sources, None, &shared.metrics, &shared.probes)?;
        shared.discovery.serve(&merged);
        shared.life.set_warm(!warms_first(&config));
        let snapshot = Snapshot {
            revision: 1,
            configured,
            sources: merged.sources,
            access: Access::new(&config),
            auth: Arc::new(Auth::build(&config, None, &shared.extensions)?),
            permits: Permits::new(&config.roles, config.auth.as_ref()),
            limits: Arc::new(Limits::build(&config, None, &shared.metrics)?),
            cache: Cache::build(&config, None, &shared.metrics)?,
            analytics: Analytics::build(&config, None, &shared.metrics)?,
            gate: Gate::new(&config.server.limits, None),
            routes: Rules::new(&config.routes),
            versions: Versions::new(&config.versions),
            transforms: Transforms::new(&config.transforms),
            config: Arc::new(config),
            upstream: Arc::new(upstream),
        };
        shared.metrics.instance.loaded();
        Ok(Self { shared, snapshot: ArcSwap::from_pointee(snapshot) })
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Builds the next snapshot, lets its new backends show themselves, and publishes it. On failure the last good one
    /// goes on serving.
    ///
    /// # Errors
    /// What in the configuration cannot be used.
    pub async fn publish(&self, config: Config) -> Result<u64, String> {
        let configured = Arc::new(config);
        let merged = self.shared.discovery.merge(&configured);
        self.build(configured, merged, ACQUAINT).await
    }

    /// Publishes what the registry of discovered backends has, if that is something else than what is served.
    ///
    /// # Errors
    /// What cannot be used; the last good snapshot goes on serving.
    pub async fn refresh(&self) -> Result<Option<u64>, String> {
        let old = self.snapshot();
        let merged = self.shared.discovery.merge(&old.configured);
        if merged.backends == old.config.backends && merged.sources == old.sources {
            self.shared.discovery.serve(&merged);
            return Ok(None);
        }
        self.build(Arc::clone(&old.configured), merged, GLANCE).await.map(Some)
    }

    async fn build(&self, configured: Arc<Config>, merged: Merged, patience: Duration) -> Result<u64, String> {
        let old = self.snapshot();
        let config = with_backends(&configured, &merged);
        let upstream = Upstream::build(&config, &merged.sources, Some(&old.upstream), &self.shared.metrics, &self.shared.probes)?;
        // Unchanged, it keeps what it remembers of tokens.
        let auth = if old.auth.is_of(&config) {
            Arc::clone(&old.auth)
        } else {
            Arc::new(Auth::build(&config, Some(&old.auth), &self.shared.extensions)?)
        };
        let limits = Limits::build(&config, Some(&old.limits), &self.shared.metrics)?;
        let cache = Cache::build(&config, old.cache.as_ref(), &self.shared.metrics)?;
        let analytics = Analytics::build(&config, old.analytics.as_ref(), &self.shared.metrics)?;
        // One that takes the place of a healthy one is waited for: until it is checked there would be nobody.
        let serving: HashSet<&str> = old.upstream.backends.iter().filter(|b| b.is_healthy()).map(|b| b.name()).collect();
        let limit = |backend: &Backend| if serving.contains(backend.name()) { ACQUAINT } else { patience };
        upstream.acquaint(&self.shared.probes, limit).await;
        let snapshot = Snapshot {
            revision: old.revision + 1,
            access: Access::new(&config),
            auth,
            permits: Permits::new(&config.roles, config.auth.as_ref()),
            limits: Arc::new(limits),
            cache,
            analytics,
            gate: Gate::new(&config.server.limits, Some(&old.gate)),
            configured,
            routes: Rules::new(&config.routes),
            versions: Versions::new(&config.versions),
            transforms: Transforms::new(&config.transforms),
            config: Arc::new(config),
            sources: merged.sources.clone(),
            upstream: Arc::new(upstream),
        };
        let revision = snapshot.revision;
        let names: HashSet<&str> = snapshot.upstream.backends.iter().map(|backend| backend.name()).collect();
        for gone in old.upstream.backends.iter().filter(|backend| !names.contains(backend.name())) {
            self.shared.metrics.upstream.forget_backend(gone.name());
        }
        self.mark_draining(&snapshot);
        if !warms_first(&snapshot.config) {
            self.shared.life.set_warm(true);
        }
        self.snapshot.store(Arc::new(snapshot));
        // Again, for a drain that began meanwhile and saw the old one only.
        self.mark_draining(&self.snapshot());
        self.shared.discovery.serve(&merged);
        Ok(revision)
    }

    /// Reads the counters, for those who ask what happened lately.
    pub fn take_pulse(&self) {
        let snapshot = self.snapshot();
        let backends = snapshot.upstream.backends.iter().map(|backend| (backend.name().to_owned(), Tally::of_backend(&backend.meter)));
        self.shared.pulse.keep(Tally::of_requests(&self.shared.metrics), backends.collect());
    }

    /// Has every backend know whether it is being drained.
    pub fn mark_draining(&self, snapshot: &Snapshot) {
        for backend in &snapshot.upstream.backends {
            backend.set_draining(self.shared.discovery.is_draining(backend.name()));
        }
    }
}

/// Whether something is to be asked before traffic comes.
fn warms_first(config: &Config) -> bool {
    config.cache.iter().flat_map(|cache| &cache.warm).any(|warm| warm.before_ready)
}

/// The configuration that is served: as written, with the backends that were discovered.
fn with_backends(configured: &Arc<Config>, merged: &Merged) -> Config {
    Config { backends: merged.backends.clone(), ..(**configured).clone() }
}

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// No longer ready, but still serving, for load balancers to notice.
    LameDuck,
    /// New requests are refused; those under way and streams go on. Not after a hand-over: who still comes is served.
    Draining,
    /// Streams are ended cleanly, now.
    Closing,
}

/// The phase and what is still under way.
pub struct Life {
    phase: watch::Sender<Phase>,
    in_flight: AtomicUsize,
    /// What is to be asked before traffic comes was asked (`cache.warm[].before_ready`).
    is_warm: AtomicBool,
    began: Instant,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Serving),
            in_flight: AtomicUsize::new(0),
            is_warm: AtomicBool::new(true),
            began: Instant::now(),
        }
    }
}

impl Life {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// How long the process has been there.
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn is_warm(&self) -> bool {
        self.is_warm.load(Ordering::Relaxed)
    }

    pub fn set_warm(&self, is_warm: bool) {
        self.is_warm.store(is_warm, Ordering::Relaxed);
    }

    /// Completes when streams must end.
    pub async fn closing(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as self, so this cannot fail.
        let _ = phase.wait_for(|phase| *phase == Phase::Closing).await;
    }

    pub fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Waits until nothing is under way, up to `limit`; tells whether it came to that.
    pub async fn idle(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.in_flight.load(Ordering::Relaxed) > 0 {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }
}
