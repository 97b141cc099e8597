//! The background service: looks after every backend of the current configuration, and reloads. A reload reads and
//! builds everything first and publishes only what is whole; a fault leaves the last good configuration serving and
//! says why.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::ServiceReadyNotifier;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::banner;
use super::systemd;
use super::takeover::Takeover;
use super::tls::Certificates;
use super::watch::Watch;
use crate::auth::Auth;
use crate::config::identity::KeyStore;
use crate::config::risk::{self, Risk};
use crate::config::{Config, Source, Tls};
use crate::egress::Client;
use crate::exchange;
use crate::observe::levels::levels;
use crate::observe::otlp::traces::Exporter;
use crate::observe::pulse;
use crate::observe::spans::Spans;
use crate::proxy::cached;
use crate::snapshot::{Phase, Reload, State};
use crate::upstream::backend::Backend;
use crate::upstream::{self, discovery};

/// The background service.
pub struct Caretaker {
    state: Arc<State>,
    source: Source,
    certificates: Option<Arc<Certificates>>,
    /// Taken when the service starts.
    wishes: Mutex<Option<mpsc::Receiver<Reload>>>,
    /// The same; until it succeeds the listeners are closed.
    takeover: Mutex<Option<Takeover>>,
}

impl Caretaker {
    pub fn new(
        state: Arc<State>,
        source: Source,
        certificates: Option<Arc<Certificates>>,
        wishes: mpsc::Receiver<Reload>,
        takeover: Option<Takeover>,
    ) -> Self {
        let (wishes, takeover) = (Mutex::new(Some(wishes)), Mutex::new(takeover));
        Self { state, source, certificates, wishes, takeover }
    }

    /// Begins to tell whoever is told of metrics.
    fn export_metrics(&self) {
        let state = Arc::clone(&self.state);
        state.shared.metrics.exports.follow(&state.snapshot().config.observability);
        tokio::spawn(async move { state.shared.metrics.exports.tend(Arc::clone(&state.shared.probes)).await });
    }

    /// Begins to tell the collector of traces, if there is one.
    fn export(&self) {
        let (state, config) = (Arc::clone(&self.state), Arc::clone(&self.state.snapshot().config));
        let queue = state.shared.spans.as_ref().and_then(Spans::waiting);
        let (Some(tracing), Some(queue)) = (&config.observability.tracing, queue) else { return };
        match Exporter::new(tracing, &state.shared.metrics.spans) {
            Ok(exporter) => drop(tokio::spawn(async move {
                let shared = &state.shared;
                let stopping = async {
                    match &shared.spans {
                        Some(spans) => spans.stopping().await,
                        None => std::future::pending().await,
                    }
                };
                exporter.run(Arc::clone(&shared.probes), queue, stopping).await;
                shared.spans.iter().for_each(Spans::done);
            })),
            Err(error) => log::error!("traces are not told: {error}"),
        }
    }

    async fn run(&self, mut wishes: mpsc::Receiver<Reload>) {
        self.note_certificate();
        let mut hangup = signal(SignalKind::hangup()).expect("signals can be watched once a runtime is up");
        let certificates = self.certificates.iter().flat_map(|certificates| certificates.files());
        let mut watch = Watch::start(self.source.file().into_iter().chain(certificates));
        let mut seen = self.source.text();
        let mut tended = Tending::default();
        tended.follow(&self.state);
        let mut pulse = tokio::time::interval(pulse::EVERY);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = hangup.recv() => {
                    seen = self.source.text();
                    drop(self.reload("SIGHUP").await);
                }
                Some(wish) = wishes.recv() => {
                    seen = self.source.text();
                    let result = self.reload(wish.because).await;
                    wish.told.and_then(|told| told.send(result).ok());
                }
                () = self.state.shared.discovery.changed() => self.refresh().await,
                _ = pulse.tick() => {
                    self.state.take_pulse();
                    continue;
                }
                () = watch.changed() => {
                    self.reload_certificates();
                    let text = self.source.text();
                    if text != seen {
                        // Taken before it is loaded: what is written meanwhile is a change again.
                        seen = text;
                        drop(self.reload("the file changed").await);
                    }
                }
            }
            tended.follow(&self.state);
        }
    }

    async fn reload(&self, because: &'static str) -> Result<u64, Vec<String>> {
        if self.state.shared.life.phase() > Phase::Serving {
            log::info!("not reloading ({because}): this process is ending");
            return Err(vec!["this process is ending; its successor, if there is one, has read the file".to_owned()]);
        }
        log::info!("reloading the configuration: {because}");
        self.reload_certificates();
        let mut waiting = Vec::new();
        let result = match self.source.load() {
            Ok(config) => self.publish(config, &mut waiting).await.map_err(|message| vec![message]),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        };
        self.state.shared.metrics.instance.reloaded(result.is_ok());
        self.state.shared.note_reload(because, result.as_ref().err(), waiting);
        match &result {
            Ok(revision) => {
                log::info!("serving configuration revision {revision}");
                self.warn();
            }
            Err(problems) => {
                log::error!("the configuration was not reloaded, the last good one goes on serving: {}", problems.join("; "));
            }
        }
        result
    }

    /// Tells of the risks that the configuration did not have before.
    fn warn(&self) {
        let now = risk::risks(&self.state.snapshot().configured, &self.source);
        let told = self.state.shared.risks.load();
        let known = |risk: &Risk| told.iter().any(|old| (old.name, &old.message) == (risk.name, &risk.message));
        banner::warn(now.iter().filter(|risk| !known(risk)));
        self.state.shared.risks.store(Arc::new(now));
    }

    /// Serves what was discovered.
    async fn refresh(&self) {
        match self.state.refresh().await {
            Ok(None) => {}
            Ok(Some(revision)) => {
                let snapshot = self.state.snapshot();
                let (all, found) = (snapshot.config.backends.len(), snapshot.sources.len());
                log::info!("backends changed: serving configuration revision {revision} with {all}, {found} of them discovered");
            }
            Err(message) => {
                log::error!("what was discovered is not served: {message}");
                self.state.shared.discovery.give_up();
            }
        }
        let registry = Arc::clone(&self.state.shared.discovery);
        let _ = tokio::task::spawn_blocking(move || registry.keep()).await;
    }

    /// `waiting` is told the keys that changed and take a restart.
    async fn publish(&self, mut config: Config, waiting: &mut Vec<&'static str>) -> Result<u64, String> {
        let old = self.state.snapshot();
        // A file caught half-written reads as one that ends earlier, and must not open the door.
        if old.config.auth.is_some() && config.auth.is_none() {
            return Err("auth is gone, which would let everybody in; switching it off takes a restart".to_owned());
        }
        if !old.config.roles.is_empty() && config.roles.is_empty() {
            return Err("roles are gone, which would permit everything; taking them away takes a restart".to_owned());
        }
        for key in keep_fixed(&old.config, &mut config) {
            log::warn!("{key} changed, which takes an upgrade or a restart; the rest is applied");
            waiting.push(key);
        }
        let level = config.observability.log.level.clone();
        let revision = self.state.publish(config).await?;
        levels().configure(&level);
        Ok(revision)
    }

    /// Tells the metrics until when the certificate in use holds.
    fn note_certificate(&self) {
        if let Some(ends) = self.certificates.as_ref().and_then(|certificates| certificates.ends()) {
            self.state.shared.metrics.instance.certificate("server.tls.cert", ends);
        }
    }

    fn reload_certificates(&self) {
        match self.certificates.as_ref().map(|certificates| certificates.reload()) {
            Some(Ok(true)) => log::info!("serving a new certificate"),
            Some(Err(error)) => log::error!("the certificate was not reloaded, the old one stays: {error}"),
            Some(Ok(false)) | None => {}
        }
        self.note_certificate();
    }
}

/// What of the TLS listener is fixed at the start.
fn tls_files(tls: &Tls) -> (&PathBuf, &PathBuf, Option<&PathBuf>, bool) {
    (&tls.cert, &tls.key, tls.client_ca.as_ref(), tls.client_required)
}

/// Takes what cannot change while running from the old configuration; says what that concerns.
fn keep_fixed(old: &Config, new: &mut Config) -> Vec<&'static str> {
    let (was, is) = (&old.server, &mut new.server);
    let mut changed = Vec::new();
    // Port 0 was settled at the start; asking for "any port" again is no change.
    let listen = |was: std::net::SocketAddr, is: std::net::SocketAddr| was != is && !(is.port() == 0 && is.ip() == was.ip());
    let optional = |was: Option<std::net::SocketAddr>, is: Option<std::net::SocketAddr>| match (was, is) {
        (Some(was), Some(is)) => listen(was, is),
        (was, is) => was.is_some() != is.is_some(),
    };
    let tls = optional(was.tls.as_ref().map(|tls| tls.listen), is.tls.as_ref().map(|tls| tls.listen))
        || was.tls.as_ref().map(tls_files) != is.tls.as_ref().map(tls_files);
    let admin = optional(was.admin, is.admin);
    let checks = [
        ("server.listen", listen(was.listen, is.listen)),
        ("server.workers", was.workers != is.workers),
        ("server.h2c", optional(was.h2c, is.h2c)),
        ("server.admin", admin),
        ("server.state_dir", was.state_dir != is.state_dir),
        ("server.session_secret", was.session_secret != is.session_secret),
        ("server.tls", tls),
        ("observability.log.format", old.observability.log.json != new.observability.log.json),
        ("observability.tracing", old.observability.tracing != new.observability.tracing),
    ];
    changed.extend(checks.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key));
    is.listen = was.listen;
    is.workers = was.workers;
    is.h2c = was.h2c;
    is.admin = was.admin;
    if admin {
        // The new file may leave the token out because its own address needs none; the old socket still does.
        is.admin_token.clone_from(&was.admin_token);
    }
    let moved = is.state_dir.join("keys.json");
    is.state_dir.clone_from(&was.state_dir);
    if let Some(keys) = new.auth.as_mut().and_then(|auth| auth.api_keys.as_mut())
        && keys.store == KeyStore::File(moved)
    {
        // It goes where the rest of the state stays.
        keys.store = KeyStore::File(was.state_dir.join("keys.json"));
    }
    is.session_secret.clone_from(&was.session_secret);
    is.tls.clone_from(&was.tls);
    new.observability.log.json = old.observability.log.json;
    new.observability.tracing.clone_from(&old.observability.tracing);
    changed
}

/// The loops that look after backends, by the address of what they look after.
#[derive(Default)]
struct Tending {
    tasks: HashMap<usize, AbortHandle>,
    keys: KeyTending,
    limits: Option<(usize, AbortHandle)>,
    cache: Option<(usize, AbortHandle)>,
    hearing: Option<AbortHandle>,
    discovery: discovery::Tending,
}

/// The loops that look after keys: the key sets of issuers, and the managed keys.
#[derive(Default)]
struct KeyTending {
    tasks: HashMap<usize, AbortHandle>,
}

impl KeyTending {
    fn follow(&mut self, auth: &Auth, probes: &Arc<Client>) {
        let mut current = HashSet::new();
        for set in auth.key_sets() {
            let key = Arc::as_ptr(&set).addr();
            current.insert(key);
            self.tasks.entry(key).or_insert_with(|| tokio::spawn(set.tend(Arc::clone(probes))).abort_handle());
        }
        if let Some(managed) = auth.managed() {
            let key = Arc::as_ptr(managed).addr();
            current.insert(key);
            self.tasks.entry(key).or_insert_with(|| tokio::spawn(Arc::clone(managed).tend()).abort_handle());
        }
        self.tasks.retain(|known, task| {
            let keep = current.contains(known);
            if !keep {
                task.abort();
            }
            keep
        });
    }
}

impl Tending {
    /// Starts looking after new backends and stops looking after those that are gone.
    fn follow(&mut self, state: &Arc<State>) {
        let snapshot = state.snapshot();
        let key = |backend: &Arc<Backend>| Arc::as_ptr(backend).addr();
        let current: HashSet<usize> = snapshot.upstream.backends.iter().map(key).collect();
        self.tasks.retain(|known, task| {
            let keep = current.contains(known);
            if !keep {
                task.abort();
            }
            keep
        });
        self.keys.follow(&snapshot.auth, &state.shared.probes);
        let limits = Arc::as_ptr(&snapshot.limits).addr();
        if self.limits.as_ref().is_none_or(|(known, _)| *known != limits) {
            let task = tokio::spawn(Arc::clone(&snapshot.limits).tend()).abort_handle();
            if let Some((_, old)) = self.limits.replace((limits, task)) {
                old.abort();
            }
        }
        let cache = snapshot.cache.as_ref().map(|cache| Arc::as_ptr(cache).addr());
        if self.cache.as_ref().map(|(known, _)| *known) != cache {
            let task = snapshot.cache.clone().map(|cache| {
                let warming = cached::warm::tend(Arc::clone(state), Arc::clone(&cache));
                let tending = Arc::clone(&cache).tend();
                (Arc::as_ptr(&cache).addr(), tokio::spawn(async { tokio::join!(tending, warming) }).abort_handle())
            });
            if let Some((_, old)) = std::mem::replace(&mut self.cache, task) {
                old.abort();
            }
        }
        // An old one ends by itself when it has stored what it was given.
        if let Some(writer) = snapshot.analytics.as_ref().and_then(|analytics| analytics.writer()) {
            tokio::spawn(writer.run());
        }
        // One for all configurations, so that no reload cuts its streams.
        self.hearing.get_or_insert_with(|| tokio::spawn(exchange::hear::tend(Arc::clone(state))).abort_handle());
        let shared = &state.shared;
        shared.metrics.exports.follow(&snapshot.config.observability);
        self.discovery.follow(&snapshot.configured, &shared.discovery, &shared.probes, &shared.metrics);
        for backend in &snapshot.upstream.backends {
            self.tasks.entry(key(backend)).or_insert_with(|| {
                let changed = {
                    let state = Arc::clone(state);
                    move || state.snapshot().upstream.gather()
                };
                tokio::spawn(upstream::tend(Arc::clone(backend), Arc::clone(&state.shared.probes), changed)).abort_handle()
            });
        }
    }
}

#[async_trait]
impl BackgroundService for Caretaker {
    /// Ready means that the listeners may be opened.
    async fn start_with_ready_notifier(&self, shutdown: ShutdownWatch, gate: ServiceReadyNotifier) {
        let takeover = self.takeover.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(takeover) = takeover {
            tokio::spawn(takeover.run(Arc::clone(&self.state), gate));
        } else {
            gate.notify_ready();
            systemd::ready();
        }
        self.start(shutdown).await;
    }

    async fn start(&self, mut shutdown: ShutdownWatch) {
        let wishes = self.wishes.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(wishes) = wishes else { return };
        self.export();
        self.export_metrics();
        tokio::select! {
            () = self.run(wishes) => {}
            _ = shutdown.changed() => {}
        }
    }
}
