//! What a request is served by. `Snapshot` is one configuration, built whole and swapped whole; a request holds the one
//! it began with. `Shared` outlives reloads. `State` holds both and is what every service is given.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use crate::access::Access;
use crate::auth::Auth;
use crate::auth::permit::Permits;
use crate::config::Config;
use crate::egress::Client;
use crate::extend::Extensions;
use crate::mcp::session::Sealer;
use crate::observe::metrics::Metrics;
use crate::route::rule::Rules;
use crate::route::version::Versions;
use crate::transform::Transforms;
use crate::upstream::Upstream;

/// How long a reload waits for new backends to show themselves before it publishes all the same.
const ACQUAINT: Duration = Duration::from_secs(5);
/// Idle upstream connections kept for each worker; a pool smaller than the concurrency costs 1.6× the CPU.
const IDLE_PER_WORKER: usize = 1024;

/// One configuration, ready to serve.
pub struct Snapshot {
    /// Counts up from 1 with every published configuration.
    pub revision: u64,
    pub config: Arc<Config>,
    pub access: Access,
    pub auth: Arc<Auth>,
    pub permits: Permits,
    pub routes: Rules,
    pub versions: Versions,
    pub transforms: Transforms,
    pub upstream: Arc<Upstream>,
}

/// What outlives a reload.
pub struct Shared {
    pub metrics: Metrics,
    /// For requests of clients.
    pub client: Client,
    /// For questions of our own; used by the background service only.
    pub probes: Arc<Client>,
    pub sealer: Sealer,
    pub life: Life,
    /// Asks the background service to reload.
    pub reload: mpsc::Sender<Reload>,
    /// What the binary adds.
    pub extensions: Extensions,
}

/// A wish to reload, and where to tell how it went.
pub struct Reload {
    pub because: &'static str,
    pub told: Option<oneshot::Sender<Result<u64, Vec<String>>>>,
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
        let shared = Shared {
            metrics: Metrics::new(),
            client: Client::new(IDLE_PER_WORKER * config.server.workers),
            probes: Arc::new(Client::new(64)),
            sealer: Sealer::new(secret),
            life: Life::default(),
            reload,
            extensions,
        };
        let upstream = Upstream::build(&config, None, &shared.metrics, &shared.probes)?;
        let snapshot = Snapshot {
            revision: 1,
            access: Access::new(&config),
            auth: Arc::new(Auth::build(&config, None, &shared.extensions)?),
            permits: Permits::new(&config.roles, config.auth.as_ref()),
            routes: Rules::new(&config.routes),
            versions: Versions::new(&config.versions),
            transforms: Transforms::new(&config.transforms),
            config: Arc::new(config),
            upstream: Arc::new(upstream),
        };
        shared.metrics.last_reload.set(jiff::Timestamp::now().as_second());
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
        let old = self.snapshot();
        let upstream = Upstream::build(&config, Some(&old.upstream), &self.shared.metrics, &self.shared.probes)?;
        // Unchanged, it keeps what it remembers of tokens.
        let auth = if old.auth.is_of(&config) {
            Arc::clone(&old.auth)
        } else {
            Arc::new(Auth::build(&config, Some(&old.auth), &self.shared.extensions)?)
        };
        upstream.acquaint(&self.shared.probes, ACQUAINT).await;
        let snapshot = Snapshot {
            revision: old.revision + 1,
            access: Access::new(&config),
            auth,
            permits: Permits::new(&config.roles, config.auth.as_ref()),
            routes: Rules::new(&config.routes),
            versions: Versions::new(&config.versions),
            transforms: Transforms::new(&config.transforms),
            config: Arc::new(config),
            upstream: Arc::new(upstream),
        };
        let revision = snapshot.revision;
        for gone in old.upstream.backends.iter().filter(|backend| snapshot.upstream.backends.iter().all(|b| b.name() != backend.name())) {
            self.shared.metrics.forget_backend(gone.name());
        }
        self.snapshot.store(Arc::new(snapshot));
        Ok(revision)
    }
}

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// No longer ready, but still serving, for load balancers to notice.
    LameDuck,
    /// New requests are refused; those under way and streams go on.
    Draining,
    /// Streams are ended cleanly, now.
    Closing,
}

/// The phase and what is still under way.
pub struct Life {
    phase: watch::Sender<Phase>,
    in_flight: AtomicUsize,
}

impl Default for Life {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Serving), in_flight: AtomicUsize::new(0) }
    }
}

impl Life {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
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
