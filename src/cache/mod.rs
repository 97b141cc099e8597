//! The response cache: what a server answered is kept as it gave it and answered from there, for whom it may be and as
//! long as it is fresh. What is kept is the MCP result before anything was left out or changed for a caller; permission,
//! limits, filters and transformations come anew with every request, so an entry can be shared by callers who see
//! different parts of it.
//!
//! Reading order: `rules` (what is kept at all), `key` (what tells questions apart), `freshness` (what a server's answer
//! says of itself), `parts`, `entry` and `memory` (how and where it is kept), `marks` (when it stops being true), `notices` (what servers
//! say about that), `look` and `flight` (one question at a time), `fill` (what becomes of an answer), `shared` (what
//! replicas share).
//!
//! # Why not pingora-cache
//! Its hooks live in Pingora's proxy path and this gateway answers from `request_filter` (`exchange` says what that buys).
//! Even there they could not serve: every MCP request is a POST, which `CacheMetaDefaults` and the HTTP semantics around
//! it do not keep, and whose body is not part of the key; a stored HTTP response carries the first caller's JSON-RPC id,
//! request id and filtered lists; and stale-while-revalidate repeats the request without its body. Of its types, `CacheKey`
//! identifies by a 128-bit digest where we compare whole keys, `CacheMeta` is an HTTP response header with freshness,
//! which a result does not have, and `Storage` streams bodies that we hold whole because they are filtered for each
//! caller. Nothing but names would be left of them.
//!
//! # Who shares what
//! Tenants never share. Within a tenant all callers share what is `public`, or what the operator's rules let them share; what
//! is `private` is kept for its caller alone, and not at all for the anonymous, who cannot be told apart. Where a backend is
//! asked with a token of the caller's own, everything is the caller's. Answers within the session of a native legacy client
//! may depend on what was declared and done in it; they are kept only where the operator says that they do not
//! (`cache.sessions`).

pub mod entry;
pub mod fill;
pub mod flight;
pub mod freshness;
pub mod key;
mod look;
pub mod marks;
pub mod memory;
pub mod notices;
mod parts;
pub mod question;
pub mod rules;
pub mod shared;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::HeaderMap;
use tokio::sync::Notify;

use self::entry::{Entry, Slot};
pub use self::fill::Fill;
use self::flight::Flights;
pub use self::flight::Witness;
use self::freshness::Wanted;
use self::key::Key;
use self::marks::{Mark, Marks};
use self::memory::Memory;
pub use self::question::Question;
use self::rules::Rules;
use self::shared::{Tier, Told};
use crate::config::{self, Config};
use crate::digest::{hex, sha256};
use crate::mcp::method::{METHODS, Method};
pub use crate::observe::cache::Bypass;
use crate::observe::cache::{CacheMeter, ServerMeter};
use crate::observe::metrics::Metrics;

/// The cache of one configuration.
pub struct Cache {
    pub conf: config::cache::Cache,
    rules: Rules,
    /// The rules that what is kept was kept under; others find nothing of it.
    generation: String,
    store: Option<config::Redis>,
    /// Whether there is nobody but the anonymous, who may share what is a caller's where nobody says otherwise.
    all_are_anonymous: bool,
    kept: Arc<Kept>,
    meter: Arc<CacheMeter>,
}

/// What outlives a reload.
struct Kept {
    memory: Memory,
    /// `None`: every replica keeps for itself.
    tier: Option<Tier>,
    marks: Marks,
    flights: Arc<Flights>,
    voided: Notify,
}

/// Where the series of one server are kept, made with the first question.
pub type Series = OnceLock<Arc<ServerMeter>>;

/// What it takes to ask a question, or to wait for others who ask it.
pub struct Wish {
    /// Where it is looked for first.
    first: Key,
    /// Where the answer is if it is the caller's alone; `None` if such an answer is not kept.
    own: Option<Key>,
    server: Arc<str>,
    method: usize,
    name: Option<Box<str>>,
    wanted: Wanted,
    /// For the entry that is made of the answer.
    mark: Arc<Mark>,
    meter: Arc<ServerMeter>,
}

/// What is to be done about a question.
pub enum Step {
    /// Answer with this; whoever has a turn renews it beside.
    Hit(Hit),
    /// Ask, and tell what came.
    Ask(Fill),
    /// Ask, and tell nobody.
    Pass(Bypass),
    /// Others asked, and nothing came in time.
    Late,
}

/// An answer from the cache.
pub struct Hit {
    pub entry: Arc<Entry>,
    /// When it was given.
    pub age: Duration,
    /// It is past its time.
    pub is_stale: bool,
    pub renew: Option<Box<Fill>>,
}

impl Kept {
    fn new(conf: &config::cache::Cache, store: Option<&config::Redis>, meter: &Arc<CacheMeter>) -> Result<Self, String> {
        let tier = store.map(|store| Tier::new(store, conf, meter)).transpose()?;
        Ok(Self {
            memory: Memory::new(conf.memory, conf.max_entry, conf.stays(), meter),
            tier,
            marks: Marks::default(),
            flights: Arc::default(),
            voided: Notify::new(),
        })
    }
}

impl Cache {
    /// Compiles the cache of `config`; what `old` kept stays where its bounds are the same. `None` where there is none.
    ///
    /// # Errors
    /// When the shared store cannot be used.
    pub fn build(config: &Config, old: Option<&Arc<Self>>, metrics: &Metrics) -> Result<Option<Arc<Self>>, String> {
        let Some(conf) = config.cache.clone() else { return Ok(None) };
        let store = config.redis.clone().filter(|_| conf.redis.is_some());
        let bounds = |conf: &config::cache::Cache| (conf.memory, conf.max_entry, conf.stale, conf.redis);
        let kept = match old.filter(|old| bounds(&old.conf) == bounds(&conf) && config::Redis::is_same(old.store.as_ref(), store.as_ref()))
        {
            Some(old) => {
                old.kept.tier.iter().zip(&store).for_each(|(tier, store)| tier.set_timeout(store.timeout.0));
                Arc::clone(&old.kept)
            }
            None => Arc::new(Kept::new(&conf, store.as_ref(), &metrics.cache)?),
        };
        let rules = (&conf.methods, &conf.tools, conf.ttl, &config.transforms, &config.roles, &config.routes, &config.versions);
        let generation = hex(&sha256(&serde_json::to_vec(&rules).unwrap_or_default())[..16]);
        let (all_are_anonymous, meter) = (config.auth.is_none(), Arc::clone(&metrics.cache));
        Ok(Some(Arc::new(Self { rules: Rules::new(&conf), generation, store, all_are_anonymous, kept, meter, conf })))
    }

    /// The turn to ask ahead of everybody; `None` while an answer is kept for all that lasts, is known to be none that is, or
    /// somebody asks.
    pub fn want(self: &Arc<Self>, wish: &Arc<Wish>) -> Option<Fill> {
        let settled = match self.kept.memory.find(&wish.first, Instant::now()) {
            Some(Slot::Kept(entry)) => entry.counts() && !entry.is_ending(),
            Some(Slot::Private(_) | Slot::Passed) => true,
            None => false,
        };
        let turn = (!settled).then(|| self.kept.flights.try_join(&wish.first)).flatten()?;
        Some(Fill::new(self, wish, turn, None).ahead())
    }

    /// Whether an answer is kept for everybody the question stands for.
    pub fn keeps(&self, wish: &Wish) -> bool {
        self.kept.memory.entry(&wish.first).is_some_and(|entry| entry.left().is_some())
    }

    /// Completes when something was declared void.
    pub async fn voided(&self) {
        self.kept.voided.notified().await;
    }

    /// Voids what was kept of a server (`None` is all), of the methods that `which` says, by one name or any.
    pub fn void(&self, server: Option<&str>, which: impl Fn(&Method) -> bool, name: Option<&str>) {
        let methods: Vec<&'static Method> = METHODS.iter().filter(|row| rules::may_keep(row) && which(row)).collect();
        self.kept.marks.void(server, which, name);
        self.meter.invalidations.inc();
        self.kept.voided.notify_one();
        self.tell(server, methods, name);
    }

    /// Tells the shared store and the other replicas what is void; until that is done nothing is taken from it.
    fn tell(&self, server: Option<&str>, methods: Vec<&'static Method>, name: Option<&str>) {
        let Some(tier) = &self.kept.tier else { return };
        tier.begin_void();
        let names = methods.iter().map(|method| method.mcp.to_owned()).collect();
        let told = Told { server: server.map(str::to_owned), methods: names, name: name.map(str::to_owned) };
        let kept = Arc::clone(&self.kept);
        tokio::spawn(async move {
            if let Some(tier) = &kept.tier {
                tier.void(&methods, &told).await;
            }
        });
    }

    /// Whether calls of a tool are kept, and so taken for reads.
    pub fn keeps_calls(&self, server: &str, method: &Method, tool: &str) -> bool {
        self.rules.of(server, method, Some(tool)).is_some()
    }

    /// Voids and lets go of what `which` says; how many entries those were.
    pub fn purge(&self, server: Option<&str>, method: Option<&str>, name: Option<&str>) -> usize {
        self.void(server, |row| method.is_none_or(|method| method == row.mcp), name);
        self.kept.memory.drop_all(|entry| {
            server.is_none_or(|server| *entry.server == *server)
                && method.is_none_or(|method| method == entry.method_name())
                && name.is_none_or(|name| entry.name.as_deref() == Some(name))
        })
    }

    /// Voids and lets go of what is kept by rules with a tag, of these servers; how many entries those were here. What tagged
    /// rules only may be about is void as well, and asked for anew.
    ///
    /// # Errors
    /// The tags there are, if this is none of them.
    pub fn purge_tag<'s>(&self, tag: &str, servers: impl Iterator<Item = &'s str>) -> Result<usize, Vec<&str>> {
        let tags = self.rules.tags();
        if !tags.contains(&tag) {
            return Err(tags);
        }
        for server in servers {
            if METHODS.iter().any(|row| self.rules.may_be_tagged(tag, server, row)) {
                self.void(Some(server), |row| self.rules.may_be_tagged(tag, server, row), None);
            }
        }
        Ok(self.kept.memory.drop_all(|entry| {
            METHODS.get(entry.method).is_some_and(|row| self.rules.is_tagged(tag, &entry.server, row, entry.name.as_deref()))
        }))
    }

    /// What is kept, for operators.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.kept.memory.entries()
    }

    /// The bytes of it, noted for the metrics as well.
    pub fn bytes(&self) -> u64 {
        let bytes = self.kept.memory.bytes();
        self.meter.holds(bytes);
        bytes
    }

    /// Questions under way.
    pub fn under_way(&self) -> usize {
        self.kept.flights.count()
    }
}

/// Whether the caller wants nothing from a cache, or nothing in it (RFC 9111 §5.2.1).
fn refuses(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(http::header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|directive| {
        let directive = directive.trim();
        ["no-cache", "no-store"].iter().any(|word| directive.eq_ignore_ascii_case(word))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::key::{Asked, Form};
    use super::parts::Parts;
    use super::*;
    use crate::mcp::members::Members;
    use crate::mcp::method;
    use crate::principal::{Identity, Principal, Way};

    fn cache(more: &str) -> Arc<Cache> {
        let text = format!("backends: [{{ name: a, url: 'http://a' }}]\ncache:\n  enabled: true\n{more}");
        let config = crate::config::parse("", &text, &|_| None).unwrap();
        Cache::build(&config, None, &Metrics::new()).unwrap().unwrap()
    }

    /// An answer that was kept so long ago, of a minute's time, and given so often.
    async fn ask(cache: &Arc<Cache>, age: Duration, hits: u64) -> Step {
        let principal = Principal::new(Way::Anonymous, Identity::default());
        let params = Members::default();
        let asked = Asked {
            form: Form::One,
            server: "files",
            method: method::find("tools/list").unwrap(),
            name: None,
            params: &params,
            meta: None,
            principal: &principal,
            on_behalf: false,
            among: None,
            added: &[],
            headers: &HeaderMap::new(),
        };
        let (server, series) = ("files".into(), Series::default());
        let question = || cache.question(&asked, &server, &series).ok().unwrap().unwrap();
        let wish = Arc::new(cache.wish(question()));
        let entry = Entry {
            server: "files".into(),
            method: wish.method,
            name: None,
            backend: "a".into(),
            result: Parts::of(&Members::default()),
            is_hinted: true,
            is_private: false,
            asked: cache.kept.marks.now(),
            kept: Instant::now().checked_sub(age).unwrap(),
            ttl: Duration::from_secs(60),
            hits: hits.into(),
            mark: Arc::clone(&wish.mark),
        };
        cache.kept.memory.put(wish.first.clone(), Slot::Kept(Arc::new(entry)));
        let step = match cache.fresh(&question(), Instant::now()) {
            Some(hit) => Step::Hit(hit),
            None => cache.look(&wish, Instant::now() + Duration::from_secs(5)).await,
        };
        if let Step::Hit(hit) = &step {
            assert_eq!(hit.entry.hits.load(Ordering::Relaxed), hits + 1);
        }
        step
    }

    #[tokio::test]
    async fn what_is_asked_for_often_is_asked_for_anew_shortly_before_its_time_is_over() {
        let fresh = |step: &Step| matches!(step, Step::Hit(hit) if !hit.is_stale);
        let renews = |step: &Step| matches!(step, Step::Hit(hit) if hit.renew.is_some());
        let (on, off) = (cache(""), cache("  refresh_ahead: false\n"));
        for (cache, age, hits, expected) in [(&on, 50, 9, false), (&on, 57, 1, false), (&on, 57, 9, true), (&off, 57, 9, false)] {
            let step = ask(cache, Duration::from_secs(age), hits).await;
            assert!(fresh(&step), "{age} {hits}");
            assert_eq!(renews(&step), expected, "{age} {hits}");
        }
        let renewing = ask(&on, Duration::from_secs(57), 9).await;
        assert!(!renews(&ask(&on, Duration::from_secs(57), 9).await), "one at a time");
        drop(renewing);
    }
}
