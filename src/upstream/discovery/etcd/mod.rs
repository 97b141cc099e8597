//! Backends that are keys in etcd: the value is one backend in YAML or JSON, named after the last part of its key unless it
//! says otherwise. The keys are listed, then watched from the revision of the list. Whatever ends the watch (etcd
//! restarted, the revision compacted, another endpoint's turn) is followed by a new list, so there is one way to be in
//! step and no way to stay out of it. etcd tells of progress every ten minutes only, so a watch that hangs is noticed by
//! asking every second for what is newest.

mod api;
mod keys;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use url::Url;

use self::api::{Api, Fault, Tip, Token, Watching};
use self::keys::Keys;
use super::{Feed, Outage, Registry};
use crate::config::Backend;
use crate::config::discovery::Etcd;
use crate::egress::Client;
use crate::observe::upstream::DiscoveryMeter;

/// How often it is asked what is newest.
const PULSE: Duration = Duration::from_secs(1);
/// How long the watch may be behind what is newest.
const GRACE: Duration = Duration::from_millis(500);
/// Between attempts when no endpoint answers: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// A backend as a key has it.
///
/// # Errors
/// Every problem, without a secret.
pub fn read(key: &str, text: &str, interval: Duration) -> Result<Arc<Backend>, String> {
    let name = key.rsplit('/').next().unwrap_or_default();
    super::read(&format!("etcd key {}", key.escape_debug()), text, name, interval)
}

/// How many keys there are, by one member that has a quorum.
///
/// # Errors
/// Why it does not say.
pub async fn count(conf: &Etcd, endpoint: &Url, client: &Client) -> Result<usize, String> {
    let token = Token::default();
    let tip = Api::new(endpoint, conf, client, &token)?.tip().await;
    tip.map(|tip| tip.count).map_err(|fault| fault.to_string())
}

/// Keeps the registry in step with etcd for as long as the task lives.
pub async fn run(feed: Feed, (conf, interval): (Etcd, Duration), registry: Arc<Registry>, client: Arc<Client>, meter: DiscoveryMeter) {
    let label = feed.label();
    let mut outage = Outage::new(&label);
    let mut keys = Keys::new(&feed, interval, &registry, &meter);
    let token = Token::default();
    let mut pause = PAUSES.0;
    loop {
        let next = Instant::now() + pause;
        pause = (pause * 2).min(PAUSES.1);
        for endpoint in &conf.endpoints {
            let mut reached = || {
                pause = PAUSES.0;
                meter.up.set(1);
                outage.end();
            };
            let cause = match Api::new(endpoint, &conf, &client, &token) {
                Ok(api) => follow(&api, &mut keys, &mut reached).await.to_string(),
                Err(cause) => cause,
            };
            meter.up.set(0);
            outage.begin(format!("{endpoint}: {cause}"));
        }
        // Attempts that took their time have waited enough.
        tokio::time::sleep_until(next).await;
    }
}

/// Keeps in step until it cannot be asked. `reached` is called when it can.
async fn follow(api: &Api<'_>, keys: &mut Keys<'_>, mut reached: impl FnMut()) -> Fault {
    loop {
        let mut in_step = false;
        let fault = keep_in_step(api, keys, || {
            in_step = true;
            reached();
        })
        .await;
        match fault {
            // No outage: it answers, so it is listed anew at once.
            Fault::Compacted | Fault::Behind if in_step => log::info!("discovery, etcd: {fault}; listing anew"),
            _ => return fault,
        }
    }
}

/// What is told of the keys.
enum Told {
    Events(api::Events),
    Newest(Tip),
}

/// Lists and watches until something ends it. `in_step` is called when the list is had and the watch begins.
async fn keep_in_step(api: &Api<'_>, keys: &mut Keys<'_>, in_step: impl FnOnce()) -> Fault {
    let list = match api.list().await {
        Ok(list) => list,
        Err(fault) => return fault,
    };
    let revision = list.revision;
    keys.replace(list);
    let watching = match api.watch(revision + 1).await {
        Ok(watching) => watching,
        Err(fault) => return fault,
    };
    in_step();
    let (sender, mut told) = mpsc::channel(64);
    // Beside each other rather than in turn: a read that is given up half-way would lose what it had read.
    tokio::select! {
        fault = relay(watching, &sender) => fault,
        fault = pulse(api, &sender) => fault,
        fault = apply(keys, &mut told) => fault,
    }
}

async fn relay(mut watching: Watching<'_>, told: &mpsc::Sender<Told>) -> Fault {
    loop {
        match watching.next().await {
            Ok(events) => {
                if told.send(Told::Events(events)).await.is_err() {
                    return Fault::Behind;
                }
            }
            Err(fault) => return fault,
        }
    }
}

async fn pulse(api: &Api<'_>, told: &mpsc::Sender<Told>) -> Fault {
    loop {
        tokio::time::sleep(PULSE).await;
        match api.tip().await {
            Ok(tip) => {
                if told.send(Told::Newest(tip)).await.is_err() {
                    return Fault::Behind;
                }
            }
            Err(fault) => return fault,
        }
    }
}

async fn apply(keys: &mut Keys<'_>, told: &mut mpsc::Receiver<Told>) -> Fault {
    loop {
        match told.recv().await {
            Some(Told::Events(events)) => keys.change(events),
            Some(Told::Newest(tip)) => {
                let until = Instant::now() + GRACE;
                while !keys.has(&tip) {
                    match tokio::time::timeout_at(until, told.recv()).await {
                        Ok(Some(Told::Events(events))) => keys.change(events),
                        Ok(Some(Told::Newest(_))) => {}
                        Ok(None) | Err(_) => return Fault::Behind,
                    }
                }
            }
            None => return Fault::Behind,
        }
    }
}
