//! Everything behind us. `Upstream` is the set of backends of one configuration and the directory of their servers;
//! `tend` is the background loop that keeps one backend's addresses, health and facts fresh.
//!
//! Reading order: `backend` (one instance), `pool` (who serves what, and who is asked), `balance` (whose turn), `trial` (one
//! request at one backend), `record`, `breaker` and `outlier` (when a backend is left alone), `budget` (how often is tried
//! again), `policy` (what of the configuration governs all that), `ask` and `answer` (one
//! JSON-RPC request to one backend), `cancel` (a request nobody waits for), `exchange` (tokens on a caller's behalf), `session_pool` (our
//! legacy sessions), `catalog` (learning), `health`, `peer`, `facts`, `discovery` (where backends come from).

mod answer;
pub mod ask;
pub mod backend;
pub mod balance;
pub mod breaker;
mod budget;
mod cancel;
pub mod catalog;
pub mod discovery;
pub mod exchange;
pub mod facts;
mod field;
pub mod health;
pub mod listen;
pub mod outlier;
pub mod peer;
pub mod policy;
pub mod pool;
pub mod record;
pub mod session_pool;
pub mod trial;
mod window;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use futures::future::join_all;

use self::backend::Backend;
use self::discovery::Sources;
use self::policy::Policy;
use self::pool::{Directory, Pool};
use crate::config::{self, Config};
use crate::egress::Client;
use crate::observe::metrics::Metrics;

/// How long a backend's facts are believed before it is asked again.
const FACTS_AGE: Duration = Duration::from_secs(60);
/// A backend that answers its health check but could not say what it is gets asked again this soon.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Sessions ended at the same time.
const ENDINGS: usize = 16;

/// The backends of one configuration and who serves what among them.
pub struct Upstream {
    pub backends: Vec<Arc<Backend>>,
    policy: Arc<Policy>,
    directory: ArcSwap<Directory>,
}

impl Upstream {
    /// Builds the set for `config`; backends of `old` whose configuration is the same live on. `discovered` ones that
    /// cannot be used are told and left out.
    ///
    /// # Errors
    /// What a configured backend names that cannot be used.
    pub fn build(
        config: &Config,
        discovered: &Sources,
        old: Option<&Self>,
        metrics: &Metrics,
        probes: &Arc<Client>,
    ) -> Result<Self, String> {
        let before = |conf: &config::Backend| Some(&**old?.backends.iter().find(|backend| backend.is_same(conf))?);
        let backends = config.backends.iter().filter_map(|conf| {
            let thresholds = config.load_balancer.thresholds;
            let same = |backend: &&Arc<Backend>| backend.conf == *conf && backend.thresholds == thresholds;
            let built = match old.and_then(|old| old.backends.iter().find(same)) {
                Some(backend) => Ok(Arc::clone(backend)),
                None => Backend::new(conf, thresholds, metrics, probes, before(conf)).map_err(|e| format!("backend {}: {e}", conf.name)),
            };
            match built {
                Err(fault) if discovered.contains_key(&conf.name) => {
                    log::error!("{fault}; it is left out");
                    None
                }
                built => Some(built),
            }
        });
        let backends = backends.collect::<Result<_, _>>()?;
        let kept = old.map(|old| &old.policy).filter(|policy| policy.is_of(config)).cloned();
        let policy = kept.unwrap_or_else(|| Arc::new(Policy::new(config)));
        let upstream = Self { backends, policy, directory: ArcSwap::default() };
        if let Some(old) = old {
            upstream.directory.store(old.directory.load_full());
        }
        upstream.gather();
        Ok(upstream)
    }

    /// Rebuilds the directory from what the backends told.
    pub fn gather(&self) {
        self.directory.rcu(|old| Directory::gather(&self.backends, &self.policy, old));
    }

    pub fn directory(&self) -> arc_swap::Guard<Arc<Directory>> {
        self.directory.load()
    }

    /// The pool of a server.
    pub fn pool(&self, server: &str) -> Option<Arc<Pool>> {
        self.directory.load().pools.get(server).cloned()
    }

    /// Checks and asks every backend not known yet, each up to its `limit`, so that a new set can take traffic when published.
    pub async fn acquaint(&self, probes: &Client, limit: impl Fn(&Backend) -> Duration) {
        let strangers = self.backends.iter().filter(|backend| backend.last_check().is_none());
        join_all(strangers.map(|backend| tokio::time::timeout(limit(backend), visit(backend, probes)))).await;
        self.gather();
    }
}

/// One look at a backend: resolve, check, and learn what it is if it is alive. Tells whether it could be learned.
async fn visit(backend: &Backend, probes: &Client) -> bool {
    let alive = backend.check().await;
    // A backend is asked what it is before it counts as healthy, so that its first request finds it known.
    let learned = alive && identify(backend, probes).await;
    backend.publish_health();
    learned
}

async fn identify(backend: &Backend, probes: &Client) -> bool {
    match catalog::identify(probes, backend).await {
        Ok(facts) => {
            backend.learn(facts);
            backend.record.is_news("");
            true
        }
        Err(cause) => {
            if backend.record.is_news(&cause) {
                log::warn!("backend {}: {cause}", backend.name());
            }
            false
        }
    }
}

/// Tells the server of the sessions nobody used for a while, beside everything else: a server that does not answer must
/// not keep its health from being asked.
fn close(backend: &Arc<Backend>, probes: &Arc<Client>) {
    let abandoned = backend.record.sessions.abandoned();
    if abandoned.is_empty() {
        return;
    }
    let (backend, probes) = (Arc::clone(backend), Arc::clone(probes));
    tokio::spawn(async move {
        let end = async |abandoned| ask::end(&probes, &backend, &abandoned).await;
        futures::stream::iter(abandoned).for_each_concurrent(ENDINGS, end).await;
    });
}

/// Looks after one backend for as long as the task lives. `changed` is called when the directory may have changed.
pub async fn tend(backend: Arc<Backend>, probes: Arc<Client>, changed: impl Fn() + Send) {
    let mut asked: Option<Instant> = None;
    let mut seen = false;
    loop {
        close(&backend, &probes);
        if asked.is_some_and(|at| at.elapsed() < FACTS_AGE) {
            backend.check().await;
            if backend.publish_health() {
                // It went or came back, perhaps as something else.
                asked = None;
                continue;
            }
        } else if visit(&backend, &probes).await {
            seen = true;
            changed();
            backend.learn(catalog::inventory(&probes, &backend).await);
            changed();
            asked = Some(Instant::now());
        }
        let interval = backend.conf.health_check.interval;
        // One that was never seen may just be starting beside us; one that fell is asked at the pace configured.
        let eager = asked.is_none() && (!seen || backend.is_healthy());
        tokio::time::sleep(if eager { interval.min(ASK_AGAIN) } else { interval }).await;
    }
}
