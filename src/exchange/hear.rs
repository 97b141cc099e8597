//! Hearing what servers say of their lists, on a stream of our own to each, so that what was kept of them is dropped when it
//! changes also while no client listens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::egress::Failure;
use crate::snapshot::State;
use crate::upstream::ask::Trouble;
use crate::upstream::backend::Backend;
use crate::upstream::facts::Speaks;
use crate::upstream::listen;

/// How often it is seen who is there to be listened to.
const TICK: Duration = Duration::from_secs(1);
/// How long a stream is believed that may have died in silence.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long it takes until a server is listened to again, at least and at most.
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(60);
/// How long nobody may have listened without anything being dropped for it.
const GAP: Duration = Duration::from_secs(5);
/// How long a server is left alone that does not tell of changes.
const DEAF: Duration = Duration::from_secs(600);

/// Listens to every server of the current snapshot, for as long as the task lives.
pub async fn tend(state: Arc<State>) {
    let mut tasks = JoinSet::new();
    let mut known = HashMap::new();
    loop {
        let there = there(&state);
        known.retain(|key, task: &mut tokio::task::AbortHandle| {
            // One that panicked, which is a bug, is begun again.
            let stays = there.contains_key(key) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        for (key, backend) in there {
            let task = || tasks.spawn(attend(Arc::clone(&state), backend, key.1.clone()));
            known.entry(key.clone()).or_insert_with(task);
        }
        tokio::select! {
            // What ended was aborted.
            Some(_) = tasks.join_next() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

/// What is listened to: the address of a backend, and its servers at one endpoint, where a session has one stream only.
type Place = (usize, Vec<Arc<str>>);
type There = HashMap<Place, Arc<Backend>>;

/// Every endpoint of every backend that speaks MCP.
fn there(state: &State) -> There {
    let snapshot = state.snapshot();
    if !snapshot.cache.as_ref().is_some_and(|cache| cache.conf.listen) {
        return There::new();
    }
    let directory = Arc::clone(&snapshot.upstream.directory());
    let mut endpoints: HashMap<(usize, &str), Vec<Arc<str>>> = HashMap::new();
    let mut backends = HashMap::new();
    for pool in directory.pools.values() {
        for member in pool.members.iter().filter(|member| member.backend.speaks().is_some_and(Speaks::is_mcp)) {
            let address = Arc::as_ptr(&member.backend).addr();
            endpoints.entry((address, &member.path)).or_default().push(Arc::clone(&pool.server));
            backends.entry(address).or_insert_with(|| Arc::clone(&member.backend));
        }
    }
    let place = |((address, _), servers): ((usize, &str), Vec<Arc<str>>)| Some(((address, servers), Arc::clone(backends.get(&address)?)));
    endpoints.into_iter().filter_map(place).collect()
}

/// Listens to one endpoint of one backend, again and again.
async fn attend(state: Arc<State>, backend: Arc<Backend>, servers: Vec<Arc<str>>) {
    let with_cache = |tell: &dyn Fn(&Cache, &str)| {
        let snapshot = state.snapshot();
        snapshot.cache.iter().for_each(|cache| servers.iter().for_each(|server| tell(cache, server)));
    };
    let heard = |message: &[u8]| with_cache(&|cache, server| cache.notice(server, message));
    let deaf_since = Mutex::new(Instant::now());
    let opened = || {
        log::debug!("listening to {servers:?} on {}", backend.name());
        let since = *deaf_since.lock().unwrap_or_else(PoisonError::into_inner);
        // What changed while nobody listened nobody was told. A proxy that cuts silent streams every minute must not
        // void every list each time, so that a moment's gap is let pass: what falls into it is true again in its time.
        if since.elapsed() > GAP {
            with_cache(&|cache, server| cache.void(Some(server), |row| row.paged, None));
        }
    };
    let Some(server) = servers.first() else { return };
    let mut pause = SOONEST;
    loop {
        let began = Instant::now();
        let question = listen::question(server, &heard, LONGEST);
        let ended = listen::listen(&state.shared.probes, &backend, &question, &opened).await;
        if matches!(ended, Ok(()) | Err(Trouble::Failure(_))) && began.elapsed() > SOONEST {
            // One that was silent to the end of its time may have been dead all the time.
            let until = if matches!(ended, Err(Trouble::Failure(Failure::TimedOut))) { began } else { Instant::now() };
            *deaf_since.lock().unwrap_or_else(PoisonError::into_inner) = until;
            pause = SOONEST;
        }
        let rests = match &ended {
            Err(trouble) if is_deaf(trouble) => {
                log::debug!("{servers:?} on {} do not tell when their lists change: {trouble}", backend.name());
                DEAF
            }
            _ => pause,
        };
        tokio::time::sleep(rests).await;
        pause = (pause * 2).min(LATEST);
    }
}

/// Whether a server will not tell for long, and not only now.
fn is_deaf(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Status(status) => !status.is_server_error() && !matches!(status.as_u16(), 408 | 429),
        Trouble::Refused(_) | Trouble::Protocol(_) => true,
        _ => false,
    }
}
