//! The loops that ask the feeds, one for each, for as long as the configuration has it as it is.

use std::sync::Arc;

use tokio::task::AbortHandle;

use super::{Feed, Registry, admin, dns, etcd};
use crate::config::Config;
use crate::egress::Client;
use crate::observe::metrics::Metrics;

/// The loops that run.
#[derive(Default)]
pub struct Tending {
    tasks: Vec<(Feed, AbortHandle)>,
}

impl Tending {
    /// Starts asking new feeds and stops asking those that are gone; one whose configuration changed is both.
    pub fn follow(&mut self, config: &Config, registry: &Arc<Registry>, client: &Arc<Client>, metrics: &Metrics) {
        let feeds = Feed::of(config);
        self.tasks.retain(|(feed, task)| {
            let keep = feeds.contains(feed);
            if !keep {
                task.abort();
                if feeds.iter().all(|other| other.label() != feed.label()) {
                    metrics.upstream.forget_discovery(&feed.label());
                }
            }
            keep
        });
        registry.retain(&feeds);
        for feed in feeds {
            if self.tasks.iter().all(|(running, _)| *running != feed) {
                let (registry, client, meter) = (Arc::clone(registry), Arc::clone(client), metrics.upstream.discovery(&feed.label()));
                let task = match feed.clone() {
                    Feed::Admin { place, .. } => tokio::spawn(admin::run(feed.clone(), place, registry, meter)),
                    Feed::Etcd { conf, interval } => tokio::spawn(etcd::run(feed.clone(), (conf, interval), registry, client, meter)),
                    Feed::Dns { conf } => tokio::spawn(dns::run(feed.clone(), conf, registry, meter)),
                };
                self.tasks.push((feed, task.abort_handle()));
            }
        }
    }
}
