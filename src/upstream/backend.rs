//! One backend at run time: its addresses and their health (Pingora's `Backends`), what it told about itself, and our
//! sessions with it. Lives on through reloads as long as its configuration stays the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{HeaderValue, header};
use pingora::lb::Backends;

use super::ask::Trouble;
use super::exchange::{Exchanger, OnBehalf};
use super::facts::{Facts, Speaks};
use super::health::Check;
use super::peer::Resolver;
use super::record::Record;
use crate::config::traffic::Thresholds;
use crate::config::{self, Protocol};
use crate::egress::dial::Dialer;
use crate::egress::{AGENT, Client, Outgoing, Target};
use crate::observe::metrics::Metrics;
use crate::observe::upstream::BackendMeter;
use crate::room::Room;

/// One instance that serves MCP servers.
pub struct Backend {
    pub conf: Arc<config::Backend>,
    /// Its name, for those who keep it.
    label: Arc<str>,
    pub thresholds: Thresholds,
    /// `Host` of our requests.
    pub authority: HeaderValue,
    /// `Authorization` of our requests.
    pub bearer: Option<HeaderValue>,
    exchanger: Option<Exchanger>,
    pub meter: BackendMeter,
    pub record: Arc<Record>,
    /// Where `max_in_flight` bounds what it is given.
    pub room: Option<Arc<Room>>,
    origin: Instant,
    /// Milliseconds after `origin` when it last became healthy.
    recovered: AtomicU64,
    /// It goes on as what was healthy before, so that its first check is no recovery.
    continues: AtomicBool,
    facts: ArcSwap<Facts>,
    addresses: Backends,
    dialer: Dialer,
    /// The healthy addresses, ready to dial; empty while the backend is unhealthy.
    ready: ArcSwap<Vec<Arc<Target>>>,
    turn: AtomicUsize,
    /// Unix time of the last health check in seconds; 0 before the first.
    checked: AtomicI64,
    draining: AtomicBool,
}

impl Backend {
    /// `before` is the same instance as it was described before, if it was.
    ///
    /// # Errors
    /// When something its configuration names cannot be used (a CA file).
    pub fn new(
        conf: &Arc<config::Backend>,
        thresholds: Thresholds,
        metrics: &Metrics,
        probes: &Arc<Client>,
        before: Option<&Self>,
    ) -> Result<Arc<Self>, String> {
        let as_wide = before.filter(|before| before.conf.max_in_flight == conf.max_in_flight).and_then(|before| before.room.clone());
        let room = as_wide.or_else(|| (conf.max_in_flight > 0).then(|| Arc::new(Room::new(conf.max_in_flight))));
        let dialer = Dialer::new(&conf.name, &conf.url, conf.tls.sni.as_deref(), conf.tls.ca.as_ref())?;
        let mut exchanger = conf.exchange.as_ref().map(Exchanger::new).transpose()?;
        let backend = Arc::new_cyclic(|this: &std::sync::Weak<Self>| {
            let mut addresses = Backends::new(Box::new(Resolver::new(conf)));
            addresses.set_health_check(Box::new(Check::new(this.clone(), Arc::clone(probes), thresholds)));
            Self {
                authority: authority(&conf.url),
                bearer: conf.credential.as_ref().and_then(|token| bearer(token.expose())),
                exchanger: exchanger.take(),
                meter: metrics.upstream.backend(&conf.name),
                facts: ArcSwap::from_pointee(configured_facts(conf)),
                addresses,
                dialer,
                ready: ArcSwap::default(),
                turn: AtomicUsize::new(0),
                checked: AtomicI64::new(0),
                draining: AtomicBool::new(false),
                label: conf.name.as_str().into(),
                conf: Arc::clone(conf),
                thresholds,
                continues: AtomicBool::new(before.is_some_and(Self::is_healthy)),
                record: before.map(|before| Arc::clone(&before.record)).unwrap_or_default(),
                room: room.clone(),
                origin: before.map_or_else(Instant::now, |before| before.origin),
                recovered: AtomicU64::new(before.map_or(0, |before| before.recovered.load(Ordering::Relaxed))),
            }
        });
        Ok(backend)
    }

    pub fn name(&self) -> &str {
        &self.label
    }

    /// Its name, to be kept.
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    pub fn is_healthy(&self) -> bool {
        !self.ready.load().is_empty()
    }

    /// Whether it is given no new requests; those under way and sessions that are resumed go on.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
        self.meter.draining.set(i64::from(draining));
    }

    /// A healthy address, each in turn.
    pub fn target(&self) -> Option<Arc<Target>> {
        let ready = self.ready.load();
        match ready.len() {
            0 => None,
            1 => Some(Arc::clone(&ready[0])),
            n => Some(Arc::clone(&ready[self.turn.fetch_add(1, Ordering::Relaxed) % n])),
        }
    }

    /// The healthy address that is `address`: where a session was opened.
    pub fn target_at(&self, address: &str) -> Option<Arc<Target>> {
        self.ready.load().iter().find(|target| target.address.to_string() == address).cloned()
    }

    /// How many addresses are healthy.
    pub fn ready(&self) -> usize {
        self.ready.load().len()
    }

    /// Some address, healthy or not: for asking what it is before it counts as healthy.
    pub fn any_target(&self) -> Option<Arc<Target>> {
        let endpoints = self.addresses.get_backend();
        endpoints.iter().find_map(|endpoint| endpoint.addr.as_inet().map(|address| self.dial(*address)))
    }

    /// The dial target for an address that may not be healthy yet.
    pub fn dial(&self, address: SocketAddr) -> Arc<Target> {
        self.dialer.target(address)
    }

    pub fn facts(&self) -> Arc<Facts> {
        self.facts.load_full()
    }

    /// Publishes new facts; tells whether they differ from the old ones.
    pub fn learn(&self, facts: Facts) -> bool {
        if **self.facts.load() == facts {
            return false;
        }
        self.facts.store(Arc::new(facts));
        true
    }

    /// What it speaks, as told or as configured.
    pub fn speaks(&self) -> Option<Speaks> {
        self.facts.load().speaks
    }

    /// Whether native requests can be passed to it. Before it was asked, anything but declared middleware may.
    pub fn takes_native(&self) -> bool {
        self.speaks().map_or(self.conf.protocol != Protocol::Middleware, Speaks::is_mcp)
    }

    /// `Authorization` of a client's request: ours, or where tokens are exchanged, one on the caller's behalf.
    ///
    /// # Errors
    /// When a caller's token cannot be exchanged.
    pub async fn credential(&self, client: &Client, on_behalf: Option<OnBehalf<'_>>) -> Result<Option<HeaderValue>, Trouble> {
        match &self.exchanger {
            None => Ok(self.bearer.clone()),
            Some(exchanger) => Box::pin(exchanger.header(client, on_behalf)).await.map(Some),
        }
    }

    /// Notes that it refused a credential: one that was exchanged is exchanged anew for the next request.
    pub async fn refused(&self, on_behalf: Option<OnBehalf<'_>>) {
        if let (Some(exchanger), Some(on_behalf)) = (&self.exchanger, on_behalf) {
            exchanger.forget(on_behalf).await;
        }
    }

    /// Whether it is asked on behalf of callers.
    pub fn exchanges(&self) -> bool {
        self.exchanger.is_some()
    }

    /// A question of our own to it.
    pub fn request(&self, method: &'static str, path: &str, accept: HeaderValue) -> Outgoing {
        self.request_with(method, path, accept, self.bearer.as_ref())
    }

    /// A request to it, with what every request carries: who we are, the credential, what we accept.
    pub fn request_with(&self, method: &'static str, path: &str, accept: HeaderValue, bearer: Option<&HeaderValue>) -> Outgoing {
        let mut head = Outgoing::to_backend(method, path, &self.authority);
        head.header(&header::ACCEPT, &accept);
        head.header(&header::USER_AGENT, &HeaderValue::from_static(AGENT));
        if method == "POST" {
            head.header(&header::CONTENT_TYPE, &HeaderValue::from_static("application/json"));
        }
        if let Some(bearer) = bearer {
            head.header(&header::AUTHORIZATION, bearer);
        }
        head
    }

    /// The path of `server`'s MCP endpoint on it.
    pub fn mcp_path(&self, server: &str) -> String {
        self.path(&self.conf.mcp_path.replace("{server}", server))
    }

    /// A path below the backend's base path.
    pub fn path(&self, path: &str) -> String {
        format!("{}{path}", self.conf.url.path().trim_end_matches('/'))
    }

    /// Resolves its name and checks every address once; tells whether any is alive.
    pub async fn check(&self) -> bool {
        if let Err(error) = self.addresses.update(|_| {}).await {
            log::warn!("backend {}: {error}", self.name());
        }
        // One after the other: the check must know whose outcome is being counted (see `health`).
        self.addresses.run_health_check(false).await;
        self.checked.store(jiff::Timestamp::now().as_second(), Ordering::Relaxed);
        self.addresses.get_backend().iter().any(|endpoint| self.addresses.ready(endpoint))
    }

    /// Makes the outcome of the last check effective; tells whether the backend became healthy or unhealthy by it.
    pub fn publish_health(&self) -> bool {
        let endpoints = self.addresses.get_backend();
        let healthy = endpoints.iter().filter(|endpoint| self.addresses.ready(endpoint));
        let addresses: Vec<SocketAddr> = healthy.filter_map(|endpoint| endpoint.addr.as_inet().copied()).collect();
        let was = self.is_healthy();
        let known = self.ready.load();
        let same = known.len() == addresses.len() && known.iter().zip(&addresses).all(|(target, address)| target.address == *address);
        if !same {
            self.ready.store(Arc::new(addresses.iter().map(|address| self.dial(*address)).collect()));
        }
        let is = self.is_healthy();
        if is && !was && !self.continues.swap(false, Ordering::Relaxed) {
            // Never 0, which is never.
            self.recovered.store(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
            // It failed because it was down, and is not: the first requests may show whether that was all.
            let now = Instant::now();
            self.record.breaker.hasten(now);
            self.record.outlier.hasten(now);
        }
        self.meter.up.set(i64::from(is));
        was != is
    }

    /// Whether it ever was healthy.
    pub fn was_healthy(&self) -> bool {
        self.recovered.load(Ordering::Relaxed) > 0
    }

    /// How long it has been healthy.
    pub fn healthy_for(&self) -> Duration {
        self.origin.elapsed().saturating_sub(Duration::from_millis(self.recovered.load(Ordering::Relaxed)))
    }

    /// Whether a configuration describes the same instance, asked by the same credential.
    pub fn is_same(&self, conf: &config::Backend) -> bool {
        let of = |conf: &config::Backend| {
            (conf.name.clone(), conf.url.clone(), conf.mcp_path.clone(), conf.tls.clone(), conf.credential.clone(), conf.exchange.clone())
        };
        of(&self.conf) == of(conf)
    }

    /// When its health was last checked.
    pub fn last_check(&self) -> Option<jiff::Timestamp> {
        let second = self.checked.load(Ordering::Relaxed);
        (second != 0).then(|| jiff::Timestamp::from_second(second).unwrap_or_default())
    }
}

/// What the configuration alone tells, before the backend was asked.
fn configured_facts(conf: &config::Backend) -> Facts {
    Facts { speaks: None, servers: conf.capabilities.iter().map(|name| (name.clone(), super::facts::Server::default())).collect() }
}

fn authority(url: &url::Url) -> HeaderValue {
    let host = url.host_str().unwrap_or_default();
    let text = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("backend"))
}

fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}
