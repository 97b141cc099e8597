//! The two small charts of the operator's page, as paths of inline SVG: numbers only, so there is nothing in them to escape.

use std::fmt::Write as _;

use crate::observe::pulse::Stretch;

/// Units across, one for each second.
pub const WIDTH: f64 = 900.0;
/// Units down.
pub const HEIGHT: f64 = 100.0;

/// One line or area.
pub struct Trace {
    /// Its CSS class.
    pub class: &'static str,
    pub path: String,
}

/// A chart and what its top stands for.
pub struct Chart {
    pub traces: Vec<Trace>,
    pub top: f64,
}

/// Requests in a second, one kind on the other: failed at the bottom, where little is seen best.
pub fn requests(stretches: &[Stretch]) -> Chart {
    let rates = |stretch: &Stretch| {
        let seconds = stretch.lasted.as_secs_f64().max(0.001);
        let tally = &stretch.tally;
        #[expect(clippy::cast_precision_loss, reason = "pixels")]
        let stacked = [tally.failed, tally.failed + tally.refused, tally.requests()].map(|count| count as f64 / seconds);
        stacked
    };
    let all: Vec<[f64; 3]> = stretches.iter().map(rates).collect();
    let top = round(all.iter().map(|rates| rates[2]).fold(0.0, f64::max));
    // The outer ones first, so that the inner ones lie on them.
    let traces = [("ok", 2), ("refused", 1), ("failed", 0)];
    let area = |(class, at): (&'static str, usize)| {
        let heights = all.iter().map(|rates| rates[at] / top);
        Trace { class, path: area(stretches, heights) }
    };
    Chart { traces: traces.into_iter().map(area).collect(), top }
}

/// The times within which half and 95 % of the requests ended, in seconds.
pub fn latency(stretches: &[Stretch]) -> Chart {
    let times = |share: f64| stretches.iter().map(move |stretch| stretch.tally.quantile(share));
    let top = round(times(0.95).flatten().fold(0.0, f64::max));
    let line = |class, share| Trace { class, path: line(stretches, times(share).map(|time| time.map(|time| time / top))) };
    Chart { traces: vec![line("p95", 0.95), line("p50", 0.5)], top }
}

/// The next of 1, 2, 5, 10, …; something above nothing.
fn round(most: f64) -> f64 {
    let magnitude = 10_f64.powf(most.max(0.001).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * magnitude).find(|top| *top >= most).unwrap_or(most)
}

/// Where a stretch begins and ends.
fn across(stretch: &Stretch) -> (f64, f64) {
    let end = WIDTH - stretch.ago.as_secs_f64();
    ((end - stretch.lasted.as_secs_f64()).max(0.0), end.max(0.0))
}

fn down(height: f64) -> f64 {
    HEIGHT - height.clamp(0.0, 1.0) * HEIGHT
}

fn area(stretches: &[Stretch], heights: impl Iterator<Item = f64>) -> String {
    let mut path = String::new();
    let mut last = 0.0;
    for (stretch, height) in stretches.iter().zip(heights) {
        let (from, to) = across(stretch);
        if path.is_empty() {
            let _ = write!(path, "M{from:.0} {HEIGHT}");
        }
        let _ = write!(path, "L{from:.0} {y:.1}L{to:.0} {y:.1}", y = down(height));
        last = to;
    }
    if !path.is_empty() {
        let _ = write!(path, "L{last:.0} {HEIGHT}Z");
    }
    path
}

/// Broken where nothing was asked.
fn line(stretches: &[Stretch], heights: impl Iterator<Item = Option<f64>>) -> String {
    let mut path = String::new();
    let mut drawing = false;
    for (stretch, height) in stretches.iter().zip(heights) {
        let (from, to) = across(stretch);
        if let Some(y) = height.map(down) {
            let _ = write!(path, "{}{from:.0} {y:.1}L{to:.0} {y:.1}", if drawing { "L" } else { "M" });
        }
        drawing = height.is_some();
    }
    path
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::pulse::Tally;

    #[test]
    fn what_happened_is_drawn_to_scale() {
        let stretch = |ago, ok, failed| Stretch {
            ago: Duration::from_secs(ago),
            lasted: Duration::from_secs(5),
            tally: {
                let mut tally = Tally::default();
                (tally.ok, tally.failed) = (ok, failed);
                tally
            },
        };
        let chart = requests(&[stretch(5, 10, 0), stretch(0, 5, 5)]);
        assert!((chart.top - 2.0).abs() < f64::EPSILON);
        assert_eq!(chart.traces[0].path, "M890 100L890 0.0L895 0.0L895 0.0L900 0.0L900 100Z");
        assert_eq!(chart.traces[2].path, "M890 100L890 100.0L895 100.0L895 50.0L900 50.0L900 100Z");
        let silent = latency(&[stretch(0, 0, 0)]);
        assert!(silent.traces.iter().all(|trace| trace.path.is_empty()) && silent.top > 0.0);
        assert_eq!([0.0, 0.7, 3.0, 20.0].map(round).map(|top| format!("{top}")), ["0.001", "1", "5", "20"]);
    }
}
