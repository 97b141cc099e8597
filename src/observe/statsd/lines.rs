//! What is written for an agent: `name:value|type|@rate|#tags`.
//!
//! Counters are told as what came on top since the last time (`c`), and not at all where nothing did. Gauges are told as
//! they are (`g`). Histograms are told as Datadog's own check of Prometheus endpoints does it
//! (`histogram_buckets_as_distributions`, `collect_counters_with_distributions`): as a distribution (`d`), because only
//! those have percentiles there, and as the counters `_count` and `_sum`, because a distribution knows its values only as
//! far as buckets do. Counters of buckets would be three times as many series, and no percentile could be made of them.
//! What a bucket counted is spread evenly over it, as `histogram_quantile` of Prometheus does, and above the last bound it
//! is told as that bound. So many equal values are one line with a sample rate of one in so many.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use prometheus::proto::{Histogram, LabelPair, MetricFamily, MetricType};

use crate::config::{Datadog, LONGEST_TAG};

/// Different values that stand for what one bucket counted.
const POINTS: u64 = 4;

/// How names and tags are written.
pub struct Form {
    prefix: String,
    tags: Vec<(String, String)>,
}

impl Form {
    pub fn new(conf: &Datadog) -> Self {
        Self { prefix: conf.prefix.clone(), tags: conf.tags.clone() }
    }

    /// The tags of a series: those of all that it does not have itself, and its own. Empty ones say nothing.
    fn tags(&self, labels: &[LabelPair]) -> String {
        let own = |name: &str| labels.iter().any(|label| label.name() == name);
        let common = self.tags.iter().filter(|(name, _)| !own(name)).map(|(name, value)| (name.as_str(), value.as_str()));
        let labels = labels.iter().map(|label| (label.name(), label.value())).filter(|(_, value)| !value.is_empty());
        let mut text = String::new();
        for (name, value) in common.chain(labels) {
            text.push_str(if text.is_empty() { "|#" } else { "," });
            text.push_str(name);
            text.push(':');
            text.extend(value.chars().map(allowed).take(LONGEST_TAG.saturating_sub(name.len() + 1)));
        }
        text
    }
}

/// What Datadog makes of characters that tags cannot have; some of them would end a tag, or a line.
fn allowed(c: char) -> char {
    if c.is_alphanumeric() || "_-:./".contains(c) { c } else { '_' }
}

/// One thing to tell: a line, or two for what cannot be told in one.
pub struct Line {
    pub text: String,
    /// What is known to have been told, before and after it is sent.
    then: Option<Step>,
}

/// One value of [`Told`].
struct Step {
    series: Arc<str>,
    slot: usize,
    before: f64,
    now: f64,
}

#[cfg(test)]
impl Line {
    pub(super) fn of(text: String) -> Self {
        Self { text, then: None }
    }
}

/// What was told of everything that only grows: of each series the value, or the count, the sum, and the count of each
/// bucket.
#[derive(Default)]
pub struct Told(HashMap<Arc<str>, Vec<f64>>);

impl Told {
    /// Everything there is to tell of these families.
    pub fn lines(&mut self, families: &[MetricFamily], form: &Form) -> Vec<Line> {
        let (mut lines, mut present) = (Vec::new(), HashSet::new());
        for family in families {
            let name = format!("{}{}", form.prefix, family.name());
            for metric in family.get_metric() {
                let tags = form.tags(metric.get_label());
                let series = Series { name: &name, tags: &tags, key: key(family.name(), metric.get_label()) };
                match family.get_field_type() {
                    MetricType::COUNTER => {
                        let steps = self.steps(&series.key, &[metric.get_counter().get_value()]);
                        lines.extend(steps.into_iter().filter_map(|step| series.grown("", step)));
                    }
                    MetricType::HISTOGRAM => lines.extend(self.histogram(&series, metric.get_histogram())),
                    MetricType::GAUGE => lines.extend(series.gauge(metric.get_gauge().get_value())),
                    MetricType::SUMMARY | MetricType::UNTYPED => {}
                }
                present.insert(series.key);
            }
        }
        // A series that comes again begins at 0.
        self.0.retain(|series, _| present.contains(series));
        lines
    }

    /// Notes that lines were sent.
    pub fn accept(&mut self, lines: &[Line]) {
        lines.iter().filter_map(|line| line.then.as_ref()).for_each(|step| self.set(step, step.now));
    }

    /// Notes that they were not.
    pub fn recall(&mut self, lines: &[Line]) {
        lines.iter().filter_map(|line| line.then.as_ref()).for_each(|step| self.set(step, step.before));
    }

    fn set(&mut self, step: &Step, to: f64) {
        if let Some(value) = self.0.get_mut(&step.series).and_then(|values| values.get_mut(step.slot)) {
            *value = to;
        }
    }

    fn histogram(&mut self, series: &Series<'_>, histogram: &Histogram) -> Vec<Line> {
        let (bounds, counts) = super::super::export::buckets(histogram);
        let counts = counts.into_iter().map(float);
        let now: Vec<f64> = [float(histogram.get_sample_count()), histogram.get_sample_sum()].into_iter().chain(counts).collect();
        let mut steps = self.steps(&series.key, &now).into_iter();
        let exact = ["_count", "_sum"].iter().zip(steps.by_ref()).filter_map(|(suffix, step)| series.grown(suffix, step));
        let mut lines: Vec<Line> = exact.collect();
        lines.extend(steps.enumerate().filter_map(|(at, step)| {
            let (lower, upper) = edges(&bounds, at);
            series.spread(lower, upper, step)
        }));
        lines
    }

    /// From what was told to what there is now. What has become less began anew.
    fn steps(&mut self, series: &Arc<str>, now: &[f64]) -> Vec<Step> {
        let told = self.0.entry(Arc::clone(series)).or_default();
        if told.len() != now.len() || told[0] > now[0] {
            *told = vec![0.0; now.len()];
        }
        let step = |(slot, (before, now)): (usize, (&f64, &f64))| Step { series: Arc::clone(series), slot, before: *before, now: *now };
        told.iter().zip(now).enumerate().map(step).collect()
    }
}

/// One series, as its lines begin and end.
struct Series<'a> {
    name: &'a str,
    tags: &'a str,
    /// The name for it that no other has, whatever tags make of its labels.
    key: Arc<str>,
}

impl Series<'_> {
    fn gauge(&self, value: f64) -> Option<Line> {
        let text = format!("{}:{value}|g{}", self.name, self.tags);
        value.is_finite().then_some(Line { text, then: None })
    }

    /// What came on top, if anything did.
    fn grown(&self, suffix: &str, step: Step) -> Option<Line> {
        let more = step.now - step.before;
        let text = format!("{}{suffix}:{more}|c{}", self.name, self.tags);
        (more > 0.0 && more.is_finite()).then_some(Line { text, then: Some(step) })
    }

    /// So many values between two bounds, if there are any. Where they cannot be told as equally many of each, there is a
    /// second line.
    fn spread(&self, lower: f64, upper: f64, step: Step) -> Option<Line> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, so far below 2^53")]
        let count = (step.now - step.before) as u64;
        if count == 0 {
            return None;
        }
        let points = count.min(POINTS);
        let (each, over) = (count / points, count % points);
        let value = |point: u64| lower + (upper - lower) * (float(point) + 0.5) / float(points);
        let groups = [(0..over, each + 1), (over..points, each)];
        let mut text = String::new();
        for (points, times) in groups.into_iter().filter(|(points, _)| !points.is_empty()) {
            let _ = write!(text, "{}{}", if text.is_empty() { "" } else { "\n" }, self.name);
            for point in points {
                let _ = write!(text, ":{}", value(point));
            }
            text.push_str("|d");
            if times > 1 {
                let _ = write!(text, "|@{}", rate(times));
            }
            text.push_str(self.tags);
        }
        Some(Line { text, then: Some(step) })
    }
}

/// The sample rate that agents read as so many: they cut the decimals of one divided by it.
fn rate(times: u64) -> f64 {
    let mut rate = 1.0 / float(times);
    while 1.0 / rate < float(times) {
        rate = rate.next_down();
    }
    rate
}

/// Between which values a bucket counts. What lies above the last bound is told as that.
fn edges(bounds: &[f64], at: usize) -> (f64, f64) {
    let last = bounds.last().copied().unwrap_or_default();
    let upper = bounds.get(at).copied().unwrap_or(last);
    let below = if at == 0 { Some(0.0_f64.min(upper)) } else { bounds.get(at - 1).copied() };
    (below.unwrap_or(last), upper)
}

fn key(name: &str, labels: &[LabelPair]) -> Arc<str> {
    let labels = labels.iter().flat_map(|label| ["\0", label.name(), "\0", label.value()]);
    std::iter::once(name).chain(labels).collect::<String>().into()
}

#[expect(clippy::cast_precision_loss, reason = "no counter gets as far as 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use prometheus::{Counter, Gauge, HistogramOpts, HistogramVec, Registry};

    use super::*;

    fn form(tags: &[(&str, &str)]) -> Form {
        let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Form { prefix: "gw.".to_owned(), tags }
    }

    fn told(told: &mut Told, registry: &Registry, form: &Form) -> Vec<String> {
        let lines = told.lines(&registry.gather(), form);
        told.accept(&lines);
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_counter_is_told_as_what_came_on_top_and_a_gauge_as_it_is() {
        let registry = Registry::new();
        let (counter, gauge) = (Counter::new("c_total", "c").unwrap(), Gauge::new("g", "g").unwrap());
        registry.register(Box::new(counter.clone())).unwrap();
        registry.register(Box::new(gauge.clone())).unwrap();
        let (mut before, form) = (Told::default(), form(&[("env", "test")]));
        counter.inc_by(3.0);
        assert_eq!(told(&mut before, &registry, &form), ["gw.c_total:3|c|#env:test", "gw.g:0|g|#env:test"]);
        counter.inc_by(0.5);
        gauge.set(-2.0);
        assert_eq!(before.lines(&registry.gather(), &form)[0].text, "gw.c_total:0.5|c|#env:test", "not sent, so told again");
        assert_eq!(told(&mut before, &registry, &form), ["gw.c_total:0.5|c|#env:test", "gw.g:-2|g|#env:test"]);
        assert_eq!(told(&mut before, &registry, &form), ["gw.g:-2|g|#env:test"]);
        counter.inc();
        let lines = before.lines(&registry.gather(), &form);
        before.accept(&lines);
        before.recall(&lines);
        assert_eq!(told(&mut before, &registry, &form)[0], "gw.c_total:1|c|#env:test", "not heard, so told again");
        counter.reset();
        counter.inc();
        assert_eq!(told(&mut before, &registry, &form)[0], "gw.c_total:1|c|#env:test", "it began anew");
    }

    #[test]
    fn a_histogram_is_told_as_a_distribution_with_every_value_once() {
        let registry = Registry::new();
        let options = HistogramOpts::new("h", "h").buckets(vec![1.0, 3.0]);
        let family = HistogramVec::new(options, &["tool"]).unwrap();
        registry.register(Box::new(family.clone())).unwrap();
        let (mut before, form) = (Told::default(), form(&[("tool", "never"), ("env", "test")]));
        let histogram = family.with_label_values(&["a,b|c\n#{é}"]);
        (0..10).for_each(|_| histogram.observe(0.5));
        (0..2).for_each(|_| histogram.observe(2.0));
        histogram.observe(7.0);
        let tags = "|#env:test,tool:a_b_c___é_";
        let expected = [
            format!("gw.h_count:13|c{tags}"),
            format!("gw.h_sum:16|c{tags}"),
            format!("gw.h:0.125:0.375|d|@0.3333333333333333{tags}\ngw.h:0.625:0.875|d|@0.5{tags}"),
            format!("gw.h:1.5:2.5|d{tags}"),
            format!("gw.h:3|d{tags}"),
        ];
        assert_eq!(told(&mut before, &registry, &form), expected);
        assert!(told(&mut before, &registry, &form).is_empty());
        family.remove_label_values(&["a,b|c\n#{é}"]).unwrap();
        assert!(told(&mut before, &registry, &form).is_empty() && before.0.is_empty(), "what is gone is forgotten");
    }

    #[test]
    fn a_rate_is_read_as_so_many() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as agents do")]
        let read = |rate: f64| (1.0 / rate.to_string().parse::<f64>().unwrap()) as u64;
        for times in (1..5000).chain([49 << 20, (1 << 40) - 1]) {
            assert_eq!(read(rate(times)), times);
        }
        assert!((1..5000).any(|times| read(1.0 / float(times)) != times), "plain ones would not be");
    }
}
