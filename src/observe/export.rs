//! Telling others of the metrics, at every interval: a Datadog agent (`statsd`), a collector (`otlp::metrics`). Nothing waits
//! for them, and there is one batch at a time: who takes longer than the interval is given up until the next. That
//! somebody cannot be told is counted each time and said once, when it begins and when it is over. A reload tells them
//! otherwise, or others; whoever was told before is told once more, and so are all at the end of the process.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::proto::{Bucket, Histogram, MetricFamily};
use prometheus::{IntCounter, IntCounterVec, Registry};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use super::otlp;
use super::statsd::Statsd;
use crate::config::{Datadog, Observability, OtlpMetrics};
use crate::egress::Client;

/// The longest anybody is waited for that is told for the last time.
const LAST: Duration = Duration::from_secs(1);

/// How one of them is told.
pub(super) trait Teller: Send {
    type Conf: Clone + PartialEq + Send + Sync + 'static;

    /// Tells somebody else from now on, or otherwise; says whom. `skip` is what was counted before anybody was to be told.
    ///
    /// # Errors
    /// Why the configuration cannot be used.
    fn turn_to(&mut self, conf: &Self::Conf, skip: Option<&[MetricFamily]>) -> Result<String, String>;

    /// # Errors
    /// Why it was not told, or not everything.
    fn tell(&mut self, families: Vec<MetricFamily>) -> impl Future<Output = Result<(), String>> + Send;
}

/// What is to be done from now on.
#[derive(Clone, PartialEq)]
struct Order<C> {
    /// Who is told, and how often.
    conf: Option<(C, Duration)>,
    /// The process is about to end.
    ends: bool,
}

/// Who is told, for the life of the process.
pub struct Exports {
    registry: Registry,
    began: SystemTime,
    /// By who is told and by what came of it.
    counted: IntCounterVec,
    datadog: watch::Sender<Order<Datadog>>,
    otlp: watch::Sender<Order<OtlpMetrics>>,
    done: watch::Sender<bool>,
}

impl Exports {
    pub(super) fn new(registry: &Registry) -> Self {
        let help = "Times that others were told of the metrics, or not, by who: datadog, otlp.";
        let counted = super::metrics::counters(registry, "metrics_exports_total", help, &["way", "result"]);
        // Shown from the beginning.
        let _ = ["datadog", "otlp"].map(|way| Standing::new(way, &counted));
        let (datadog, otlp) = (Order { conf: None, ends: false }, Order { conf: None, ends: false });
        let (datadog, otlp, done) = (watch::Sender::new(datadog), watch::Sender::new(otlp), watch::Sender::new(true));
        Self { registry: registry.clone(), began: SystemTime::now(), counted, datadog, otlp, done }
    }

    /// Has those told that the configuration names, from now on.
    pub fn follow(&self, conf: &Observability) {
        fn say<C: PartialEq>(order: &watch::Sender<Order<C>>, conf: Option<(C, Duration)>) {
            order.send_if_modified(|order| std::mem::replace(&mut order.conf, conf) != order.conf);
        }
        say(&self.datadog, conf.datadog.clone().map(|conf| (conf.clone(), conf.interval.0)));
        say(&self.otlp, conf.otlp_metrics.clone().map(|conf| (conf.clone(), conf.interval.0)));
    }

    /// Tells them until the process is about to end. Who is to be told when this begins is told of everything since the
    /// process began, others of what comes after.
    pub async fn tend(&self, client: Arc<Client>) {
        self.done.send_replace(false);
        let collector = otlp::metrics::Metrics::new(client, self.began);
        tokio::join!(
            self.run(Statsd::default(), self.datadog.subscribe(), Standing::new("datadog", &self.counted)),
            self.run(collector, self.otlp.subscribe(), Standing::new("otlp", &self.counted)),
        );
        self.done.send_replace(true);
    }

    /// Has everybody told once more, for so long.
    pub async fn finish(&self, most: Duration) {
        self.datadog.send_modify(|order| order.ends = true);
        self.otlp.send_modify(|order| order.ends = true);
        let _ = timeout(most, self.done.subscribe().wait_for(|done| *done)).await;
    }

    async fn run<T: Teller>(&self, mut teller: T, mut orders: watch::Receiver<Order<T::Conf>>, mut standing: Standing) {
        let mut was_told = true;
        loop {
            let order = orders.borrow_and_update().clone();
            match order.conf {
                _ if order.ends => return,
                Some((conf, interval)) => {
                    let skip = (!was_told).then(|| self.registry.gather());
                    match teller.turn_to(&conf, skip.as_deref()) {
                        Ok(whom) => {
                            standing.begin(whom, interval);
                            self.tell(&mut teller, interval, &mut orders, &mut standing).await;
                        }
                        Err(why) => {
                            log::error!("metrics are not told: {why}");
                            let _ = orders.changed().await;
                        }
                    }
                    was_told = true;
                }
                None => {
                    standing.end();
                    let _ = orders.changed().await;
                    was_told = false;
                }
            }
        }
    }

    /// Tells one of them at every interval until there is another order, and once more then.
    async fn tell<T: Teller>(
        &self,
        teller: &mut T,
        interval: Duration,
        orders: &mut watch::Receiver<Order<T::Conf>>,
        standing: &mut Standing,
    ) {
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let told = async {
                ticks.tick().await;
                timeout(interval, teller.tell(self.registry.gather())).await
            };
            tokio::select! {
                told = told => standing.note(told.unwrap_or_else(|_| Err("it took longer than the interval".to_owned()))),
                _ = orders.changed() => break,
            }
        }
        let told = timeout(LAST, teller.tell(self.registry.gather())).await;
        standing.note(told.unwrap_or_else(|_| Err("it took too long at the end".to_owned())));
    }
}

/// The bounds of a histogram that are numbers, and what was counted below each and above the last: Prometheus counts
/// into a bucket and all above it.
pub(super) fn buckets(histogram: &Histogram) -> (Vec<f64>, Vec<u64>) {
    let finite = || histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let upto: Vec<u64> = finite().map(Bucket::cumulative_count).chain([histogram.get_sample_count()]).collect();
    let below = std::iter::once(0).chain(upto.iter().copied());
    let inside = upto.iter().zip(below).map(|(upto, below)| upto.saturating_sub(below)).collect();
    (finite().map(Bucket::upper_bound).collect(), inside)
}

/// How it stands with one of them.
struct Standing {
    whom: String,
    failing: bool,
    told: IntCounter,
    failed: IntCounter,
}

impl Standing {
    fn new(way: &str, counted: &IntCounterVec) -> Self {
        let [told, failed] = ["ok", "failed"].map(|result| counted.with_label_values(&[way, result]));
        Self { whom: String::new(), failing: false, told, failed }
    }

    fn begin(&mut self, whom: String, interval: Duration) {
        log::info!("metrics are told to {whom} every {interval:?}");
        (self.whom, self.failing) = (whom, false);
    }

    fn end(&mut self) {
        if !self.whom.is_empty() {
            log::info!("metrics are no longer told to {}", std::mem::take(&mut self.whom));
        }
    }

    fn note(&mut self, told: Result<(), String>) {
        match told {
            Ok(()) => {
                self.told.inc();
                if std::mem::take(&mut self.failing) {
                    log::info!("metrics are told again to {}", self.whom);
                }
            }
            Err(why) => {
                self.failed.inc();
                if !std::mem::replace(&mut self.failing, true) {
                    log::warn!("metrics are not told to {}: {why}", self.whom);
                }
            }
        }
    }
}
