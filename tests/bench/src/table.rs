//! The Markdown tables: medians over the rounds, with the span where it matters.

use std::fmt::Write;

use crate::memory::{Held, Memory};
use crate::rounds::Measured;
use crate::row::{Row, SIZES, Size};

/// One table per answer size.
pub fn lanes(measured: &[Measured], rows: &[Row]) -> String {
    let mut out = String::new();
    for size in SIZES {
        let _ = write!(out, "\nAnswers of {}\n\n", size.name());
        out.push_str("| row | req/s | p50 µs | p99 µs | CPU µs/request | × pingora | × gateway-bare | p50 × gateway-bare |\n");
        out.push_str("|---|---:|---:|---:|---:|---:|---:|---:|\n");
        for &row in rows {
            out.push_str(&line(measured, row, size));
        }
    }
    out
}

/// How far the numbers can be trusted: others on the same core slow a row, and warm or cool its caches.
pub fn foreign(measured: &[Measured]) -> String {
    let shares = measured.iter().map(|m| m.sample.foreign * 100.0).collect();
    format!("Others used the core of the process under test for {} % of the time.", with_span(shares, 1))
}

pub fn memory(subjects: &[Memory]) -> String {
    let mut out = String::from("\n| memory, KB for each | idle keep-alive connection | GET stream | subscriptions/listen stream |\n");
    out.push_str("|---|---:|---:|---:|\n");
    for subject in subjects {
        let (name, idle) = (subject.subject.name(), held(&subject.idle));
        let _ = writeln!(out, "| {name} | {idle} | {} | {} |", held(&subject.get), held(&subject.listen));
    }
    out
}

fn line(measured: &[Measured], row: Row, size: Size) -> String {
    let own: Vec<&Measured> = measured.iter().filter(|m| m.row == row && m.size == size).collect();
    let middle = |value: fn(&Measured) -> f64| median(own.iter().map(|m| value(m)).collect());
    let cpu = own.iter().map(|m| m.sample.cpu).collect();
    let ratios = |yardstick, value| own.iter().filter_map(|m| ratio(measured, m, yardstick, value)).collect::<Vec<_>>();
    let to_bare = |value| if row.subject().is_gateway() { ratios(Row::BARE, value) } else { Vec::new() };
    let (cpus, p50s): (Value, Value) = (|m| m.sample.cpu, |m| m.sample.p50);
    format!(
        "| {} | {:.0} | {:.0} | {:.0} | {} | {} | {} | {} |\n",
        row.name(),
        middle(|m| m.sample.rate),
        middle(|m| m.sample.p50),
        middle(|m| m.sample.p99),
        with_span(cpu, 1),
        with_span(ratios(Row::YARDSTICK, cpus), 2),
        with_span(to_bare(cpus), 2),
        with_span(to_bare(p50s), 2),
    )
}

/// What is read of a measurement.
type Value = fn(&Measured) -> f64;

/// A value compared with that of the yardstick of the same round and size.
fn ratio(measured: &[Measured], one: &Measured, yardstick: Row, value: Value) -> Option<f64> {
    let same = |m: &&Measured| m.row == yardstick && m.round == one.round && m.size == one.size;
    Some(value(one) / value(measured.iter().find(same)?))
}

fn with_span(values: Vec<f64>, digits: usize) -> String {
    if values.is_empty() {
        return "–".into();
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.digits$} ({least:.digits$}–{most:.digits$})", median(values))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

fn held(held: &Held) -> String {
    match held {
        Held::Bytes(bytes) => format!("{:.1}", bytes / 1024.0),
        Held::Declined(status) => format!("declined ({status})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Sample;

    fn measured(round: usize, row: Row, cpu: f64) -> Measured {
        let sample = Sample { rate: 1.0, p50: 1.0, p99: 1.0, cpu, foreign: 0.0, hits: 0.0 };
        Measured { round, row, size: Size::Small, sample }
    }

    #[test]
    fn a_ratio_compares_within_its_round() {
        let all = [
            measured(0, Row::Pingora, 100.0),
            measured(0, Row::Nginx, 50.0),
            measured(1, Row::Pingora, 200.0),
            measured(1, Row::Nginx, 100.0),
        ];
        assert!(line(&all, Row::Nginx, Size::Small).ends_with("| 75.0 (50.0–100.0) | 0.50 (0.50–0.50) | – | – |\n"));
    }

    #[test]
    fn a_row_without_the_yardstick_has_no_ratio() {
        let line = line(&[measured(0, Row::Nginx, 50.0)], Row::Nginx, Size::Small);
        assert!(line.ends_with("| – | – | – |\n"));
    }
}
