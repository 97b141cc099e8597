//! Hearing what servers say of their lists, on a stream of our own to each, so that what was kept of them is dropped when it
//! changes also while no client listens.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::cache::Cache;
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
/// How long a server is left alone that does not tell of changes.
const DEAF: Duration = Duration::from_secs(600);

/// Listens to every server of the current snapshot, for as long as the task lives.
pub async fn tend(state: Arc<State>) {
    let mut tasks = JoinSet::new();
    let mut known = HashMap::new();
    loop {
        let there = there(&state);
        known.retain(|key, task: &mut tokio::task::AbortHandle| {
            let stays = there.contains_key(key);
            if !stays {
                task.abort();
            }
            stays
        });
        for (key, (backend, server)) in there {
            let task = || tasks.spawn(attend(Arc::clone(&state), backend, server));
            known.entry(key).or_insert_with(task);
        }
        tokio::select! {
            // What ended was aborted.
            Some(_) = tasks.join_next() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

type There = HashMap<(usize, Arc<str>), (Arc<Backend>, Arc<str>)>;

/// Every server of every backend that speaks MCP.
fn there(state: &State) -> There {
    let snapshot = state.snapshot();
    if !snapshot.cache.as_ref().is_some_and(|cache| cache.conf.listen) {
        return There::new();
    }
    let directory = Arc::clone(&snapshot.upstream.directory());
    let members = directory.pools.values().flat_map(|pool| pool.members.iter().map(|member| (Arc::clone(&member.backend), &pool.server)));
    let speaking = members.filter(|(backend, _)| backend.speaks().is_some_and(Speaks::is_mcp));
    speaking.map(|(backend, server)| ((Arc::as_ptr(&backend).addr(), Arc::clone(server)), (backend, Arc::clone(server)))).collect()
}

/// Listens to one server of one backend, again and again.
async fn attend(state: Arc<State>, backend: Arc<Backend>, server: Arc<str>) {
    let with_cache = |tell: &dyn Fn(&Cache)| state.snapshot().cache.iter().for_each(|cache| tell(cache));
    let heard = |message: &[u8]| with_cache(&|cache| cache.notice(&server, message));
    // What changed while nobody listened nobody was told.
    let missed = AtomicBool::new(false);
    let opened = || {
        log::debug!("listening to `{server}` on {}", backend.name());
        if missed.swap(false, Ordering::Relaxed) {
            with_cache(&|cache| cache.void(Some(&server), |row| row.paged, None));
        }
    };
    let mut pause = SOONEST;
    loop {
        let began = Instant::now();
        let question = listen::question(&server, &heard, LONGEST);
        let ended = listen::listen(&state.shared.probes, &backend, &question, &opened).await;
        missed.store(true, Ordering::Relaxed);
        let was_open = began.elapsed() > LATEST;
        pause = match ended {
            Err(Trouble::NotReady) => SOONEST,
            Err(trouble @ (Trouble::Status(_) | Trouble::Refused(_) | Trouble::Protocol(_))) => {
                log::debug!("`{server}` on {} does not tell when its lists change: {trouble}", backend.name());
                DEAF
            }
            _ if was_open => SOONEST,
            _ => (pause * 2).min(LATEST),
        };
        tokio::time::sleep(pause).await;
    }
}
