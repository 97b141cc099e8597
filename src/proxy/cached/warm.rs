//! Asking before anybody does: what `cache.warm` names is asked for as a caller would ask, so that callers are answered from
//! memory from the first one on. It is a loop that compares what is kept with what should be, so one piece of code is
//! right at the start, after something was declared void, after a reload, and shortly before an answer's time is over.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use globset::{Glob, GlobMatcher};
use http::{HeaderMap, HeaderValue, Method, header};
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinSet};

use super::{native, rest};
use crate::cache::{Cache, Wish};
use crate::call::Era;
use crate::config::cache::Warm;
use crate::limit::Granted;
use crate::mcp::members::Members;
use crate::mcp::message::{self, Message};
use crate::mcp::{self, headers, method, rest as form};
use crate::observe::trace::{self, Context};
use crate::principal::{Identity, Principal, Way};
use crate::proxy::admit::{Native, Rest};
use crate::proxy::body::Body;
use crate::proxy::course::{self, Courses, Http};
use crate::proxy::ctx::Ctx;
use crate::snapshot::State;
use crate::upstream::facts::Speaks;
use crate::upstream::pool::Pool;
use crate::verbatim::Verbatim;

/// How often what is kept is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long it takes at least until the same is asked again, and at most where nothing is kept of what comes.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Questions under way at a time.
const AT_ONCE: usize = 16;
/// How long traffic waits for what was to be asked before it.
const PATIENCE: Duration = Duration::from_secs(30);
/// In which lane it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lane {
    Rest,
    Native,
}

/// One question to one server: the place of its rule, the server, the lane.
type Errand = (usize, String, Lane);

/// How an errand went so far.
#[derive(Clone, Copy)]
struct Pace {
    /// When it may be run again.
    next: Instant,
    pause: Duration,
    /// The task that runs it.
    task: Option<Id>,
    was_tried: bool,
    was_told: bool,
}

/// What came of an errand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// An answer is kept.
    Kept,
    /// It was asked, and nothing is kept.
    Nothing,
    /// Somebody else asks, or it is not known yet whom to ask how.
    Later,
    /// It cannot be asked this way.
    Unasked,
}

/// Keeps what `cache.warm` names in the cache, for as long as the task lives.
pub async fn tend(state: Arc<State>, cache: Arc<Cache>) {
    if cache.conf.warm.is_empty() {
        return std::future::pending().await;
    }
    let mut warmer = Warmer::new(state, cache);
    loop {
        warmer.set_out();
        warmer.let_traffic_in();
        let next = tokio::time::Instant::now() + TICK;
        loop {
            tokio::select! {
                Some(ended) = warmer.under_way.join_next_with_id() => warmer.ended(ended),
                () = warmer.cache.voided() => break,
                () = tokio::time::sleep_until(next) => break,
            }
        }
    }
}

struct Warmer {
    state: Arc<State>,
    cache: Arc<Cache>,
    servers: Vec<GlobMatcher>,
    paces: HashMap<Errand, Pace>,
    under_way: JoinSet<(Errand, Came)>,
    room: Arc<Semaphore>,
}

impl Warmer {
    fn new(state: Arc<State>, cache: Arc<Cache>) -> Self {
        // One that cannot be compiled is about nothing; checking the configuration ruled it out.
        let glob = |warm: &Warm| Glob::new(&warm.server).unwrap_or_else(|_| Glob::new("").expect("a glob")).compile_matcher();
        let servers = cache.conf.warm.iter().map(glob).collect();
        let (under_way, room) = (JoinSet::new(), Arc::new(Semaphore::new(AT_ONCE)));
        Self { state, cache, servers, paces: HashMap::new(), under_way, room }
    }

    /// The errands there are now: rules and the servers that somebody healthy serves.
    fn errands(&self) -> Vec<(Errand, Arc<Pool>)> {
        let directory = Arc::clone(&self.state.snapshot().upstream.directory());
        let able = |pool: &Pool| pool.members.iter().any(|member| member.backend.is_healthy());
        let pools = directory.pools.iter().filter(|(_, pool)| able(pool));
        let of = |(server, pool): (&String, &Arc<Pool>)| {
            let rules = self.servers.iter().enumerate().filter(|(_, glob)| glob.is_match(server)).map(|(at, _)| at);
            rules.flat_map(|at| [Lane::Rest, Lane::Native].map(|lane| ((at, server.clone(), lane), Arc::clone(pool)))).collect::<Vec<_>>()
        };
        pools.flat_map(of).collect()
    }

    /// Sets out on every errand whose time has come.
    fn set_out(&mut self) {
        let now = Instant::now();
        let errands = self.errands();
        let there: HashSet<&Errand> = errands.iter().map(|(errand, _)| errand).collect();
        self.paces.retain(|known, _| there.contains(known));
        for (errand, pool) in errands {
            let new = Pace { next: now, pause: PAUSE, task: None, was_tried: false, was_told: false };
            let pace = self.paces.entry(errand.clone()).or_insert(new);
            if pace.task.is_some() || pace.next > now {
                continue;
            }
            let (state, cache, room) = (Arc::clone(&self.state), Arc::clone(&self.cache), Arc::clone(&self.room));
            let task = self.under_way.spawn(async move {
                let _room = room.acquire_owned().await;
                let came = ask(&state, &cache, &cache.conf.warm[errand.0], &pool, errand.2).await;
                (errand, came)
            });
            pace.task = Some(task.id());
        }
    }

    fn ended(&mut self, ended: Result<(Id, (Errand, Came)), JoinError>) {
        match ended {
            Ok((_, (errand, came))) => self.settle(&errand, came),
            // It panicked, which is a bug, but no reason never to ask again.
            Err(error) => {
                let errand = self.paces.iter().find(|(_, pace)| pace.task == Some(error.id())).map(|(errand, _)| errand.clone());
                if let Some(errand) = errand {
                    self.settle(&errand, Came::Nothing);
                }
            }
        }
    }

    fn settle(&mut self, errand: &Errand, came: Came) {
        let Some(pace) = self.paces.get_mut(errand) else { return };
        let pause = match came {
            Came::Kept | Came::Later => PAUSE,
            Came::Nothing => (pace.pause * 2).min(LONGEST_PAUSE),
            Came::Unasked => LONGEST_PAUSE,
        };
        if came == Came::Nothing && !pace.was_told {
            let (at, server, method) = (errand.0, &errand.1, &self.cache.conf.warm[errand.0].method);
            log::warn!("cache.warm[{at}]: nothing is kept of what `{server}` says to {method}: it failed, or may not be kept or shared");
        }
        let (was_tried, was_told) =
            (pace.was_tried || came != Came::Later, came == Came::Nothing || (came == Came::Later && pace.was_told));
        *pace = Pace { next: Instant::now() + pause, pause, task: None, was_tried, was_told };
    }

    /// Lets traffic in once everything that was to be asked before was tried.
    fn let_traffic_in(&self) {
        let life = &self.state.shared.life;
        if life.is_warm() {
            return;
        }
        let waits = |at: usize| {
            let mut of = self.paces.iter().filter(|((rule, ..), _)| *rule == at).peekable();
            of.peek().is_none() || of.any(|(_, pace)| !pace.was_tried)
        };
        let before = self.cache.conf.warm.iter().enumerate().filter(|(_, warm)| warm.before_ready);
        let left: Vec<usize> = before.map(|(at, _)| at).filter(|at| waits(*at)).collect();
        if left.is_empty() {
            log::info!("the cache is warm");
            life.set_warm(true);
        } else if life.age() > PATIENCE {
            log::warn!("traffic is let in though cache.warm{left:?} could not be asked within {} s", PATIENCE.as_secs());
            life.set_warm(true);
        }
    }
}

/// Asks a question in a lane, unless an answer is kept that lasts.
async fn ask(state: &Arc<State>, cache: &Arc<Cache>, warm: &Warm, pool: &Arc<Pool>, lane: Lane) -> Came {
    let mut ctx = Ctx::new(state);
    let none = HeaderMap::new();
    ctx.arrival.request_id = trace::request_id(&none);
    ctx.arrival.context = Context::of(&none, || false);
    let principal = Principal::new(Way::Anonymous, Identity { tenant: warm.tenant.clone(), ..Identity::default() });
    let came = match lane {
        Lane::Rest => Box::pin(by_rest(&mut ctx, cache, warm, pool, principal)).await,
        Lane::Native => Box::pin(by_native(&mut ctx, cache, warm, pool, principal)).await,
    };
    came.unwrap_or(Came::Unasked)
}

async fn by_rest(ctx: &mut Ctx, cache: &Arc<Cache>, warm: &Warm, pool: &Arc<Pool>, principal: Arc<Principal>) -> Option<Came> {
    let (snapshot, state, none) = (Arc::clone(&ctx.snapshot), Arc::clone(ctx.state()), HeaderMap::new());
    let path = format!("/api/mcp/{}", pool.server);
    let http = Http { method: &Method::POST, path: &path, headers: &none, client: None };
    let body = Body::new(Bytes::from(format!(r#"{{"method":"{}","params":{}}}"#, warm.method, warm.params)));
    let courses = Courses::new(&snapshot, &state.shared.extensions, None, http, &principal, pool);
    let course::Rest { payload, courses } = course::rest(ctx, &courses, &body, None).ok()?;
    let plan = Rest {
        granted: Granted::default(),
        pool: Arc::clone(pool),
        principal: Arc::clone(&principal),
        token: None,
        affinity: None,
        payload,
        form: form::Form::V1,
        courses,
    };
    let form::Payload::One(request) = &plan.payload else { return None };
    let course = plan.courses.first();
    let question = cache.question(&rest::asked(&plan, request, course, &none), &pool.server, &pool.cached).ok()??;
    let wish = Arc::new(cache.wish(question));
    let fill = cache.want(&wish);
    let was_asked = fill.is_some();
    if let Some(fill) = fill {
        rest::Renewal::of(ctx, &plan, course, request).in_background().run(fill).await;
    }
    Some(came(cache, &wish, was_asked))
}

async fn by_native(ctx: &mut Ctx, cache: &Arc<Cache>, warm: &Warm, pool: &Arc<Pool>, principal: Arc<Principal>) -> Option<Came> {
    match speak_modern(pool) {
        None => return Some(Came::Later),
        Some(false) => return None,
        Some(true) => {}
    }
    let (snapshot, state) = (Arc::clone(&ctx.snapshot), Arc::clone(ctx.state()));
    let body = Body::new(message(warm)?);
    let asked = message::Payload::read(body.read()).ok()?;
    let call = asked.one().and_then(Message::call);
    let lines = lines(warm, call.as_ref().and_then(|call| call.name.as_deref()))?;
    let path = format!("/mcp/{}", pool.server);
    let http = Http { method: &Method::POST, path: &path, headers: &lines, client: None };
    let courses = Courses::new(&snapshot, &state.shared.extensions, None, http, &principal, pool);
    let course::Native { payload, call, decided, body } = course::native(ctx, &courses, Some(asked), call, &body).ok()?;
    let plan = Native {
        granted: Granted::default(),
        pool: Arc::clone(pool),
        principal: Arc::clone(&principal),
        token: None,
        affinity: None,
        call,
        message: payload.and_then(message::Payload::into_one),
        may_list: false,
        session: None,
        body: body.clone(),
        decided,
    };
    let wish = native::question(ctx, cache, &lines, &plan).map(|question| cache.wish(question))?;
    let wish = Arc::new(wish);
    let fill = cache.want(&wish);
    let was_asked = fill.is_some();
    if let Some(fill) = fill {
        native::Renewal::of(ctx, &lines, &plan).in_background().run(fill).await;
    }
    Some(came(cache, &wish, was_asked))
}

/// Whether everybody who can be asked speaks the modern revision; `None`: nobody can, or it is not known yet.
fn speak_modern(pool: &Pool) -> Option<bool> {
    let mut all = None;
    for member in pool.members.iter().filter(|member| member.backend.is_healthy()) {
        all = Some(all.unwrap_or(true) && member.backend.facts().speaks? == Speaks::Mcp(Era::Modern));
    }
    all
}

/// What came of an errand, by what is kept now.
fn came(cache: &Cache, wish: &Wish, was_asked: bool) -> Came {
    match (cache.keeps(wish), was_asked) {
        (true, _) => Came::Kept,
        (false, true) => Came::Nothing,
        (false, false) => Came::Later,
    }
}

/// The question as a modern client writes it: the others have sessions, and what is kept of those is their client's.
fn message(warm: &Warm) -> Option<Bytes> {
    let params: Members<'_> = serde_json::from_str(&warm.params).ok()?;
    let capabilities: Verbatim<'_> = serde_json::from_str(&warm.capabilities).ok()?;
    let meta = form::Meta { modern: true, capabilities: Some(capabilities), ..form::Meta::default() };
    Some(form::Request::with(method::find(&warm.method)?, params).encode(1, None, &meta).into())
}

/// The headers of a modern client.
fn lines(warm: &Warm, name: Option<&str>) -> Option<HeaderMap> {
    let mut lines = HeaderMap::new();
    lines.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    lines.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    lines.insert(headers::VERSION.clone(), HeaderValue::from_static(mcp::MODERN));
    lines.insert(headers::METHOD.clone(), HeaderValue::from_str(&warm.method).ok()?);
    if let Some(name) = name {
        lines.insert(headers::NAME.clone(), HeaderValue::from_str(&headers::encode(name)).ok()?);
    }
    Some(lines)
}
