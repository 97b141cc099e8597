//! Numbers and times in the words of the operator's page. Templates hand over references, and Rust values.

use std::borrow::Borrow;

use jiff::Timestamp;

/// A time of an answer, from seconds.
pub fn latency(seconds: impl Borrow<Option<f64>>) -> String {
    let seconds = *seconds.borrow();
    match seconds {
        None => "–".to_owned(),
        Some(seconds) if seconds < 0.01 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.2} s"),
    }
}

/// So many in a second.
pub fn rate(per_second: impl Borrow<f64>) -> String {
    let per_second = *per_second.borrow();
    match per_second {
        0.0 => "0".to_owned(),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

/// A share as per cent.
pub fn percent(share: impl Borrow<f64>) -> String {
    let share = *share.borrow();
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent < 0.1 => "< 0.1 %".to_owned(),
        // What is not all is not told as all.
        percent if (99.0..100.0).contains(&percent) => format!("{:.1} %", (percent * 10.0).floor() / 10.0),
        percent if percent < 10.0 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
pub fn bytes(bytes: impl Borrow<u64>) -> String {
    let bytes = *bytes.borrow();
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

/// A stretch of time by its two largest units.
pub fn lasting(seconds: impl Borrow<u64>) -> String {
    let seconds = *seconds.borrow();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// How long ago that was, by the largest unit.
pub fn ago(at: impl Borrow<Timestamp>) -> String {
    let at = *at.borrow();
    match Timestamp::now().as_second().saturating_sub(at.as_second()) {
        ..1 => "just now".to_owned(),
        seconds @ 1..60 => format!("{seconds} s ago"),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..86_400 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} d ago", seconds / 86_400),
    }
}

/// The number with its noun.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_unit() {
        let times: Vec<String> = [None, Some(0.0042), Some(0.25), Some(2.5)].into_iter().map(latency).collect();
        assert_eq!(times, ["–", "4.2 ms", "250 ms", "2.50 s"]);
        assert_eq!([rate(0.0), rate(0.25), rate(1234.5)], ["0", "0.2", "1234"]);
        assert_eq!(
            [percent(0.0), percent(0.0001), percent(0.034), percent(0.9999), percent(1.0)],
            ["0 %", "< 0.1 %", "3.4 %", "99.9 %", "100 %"]
        );
        assert_eq!([bytes(12), bytes(2048), bytes(5 << 20), bytes(3 << 30)], ["12 B", "2.0 KiB", "5.0 MiB", "3.00 GiB"]);
        assert_eq!([lasting(5), lasting(65), lasting(7500), lasting(200_000)], ["5 s", "1 min 5 s", "2 h 5 min", "2 d 7 h"]);
    }
}
