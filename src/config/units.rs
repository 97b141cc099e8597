//! The units an operator writes: durations, sizes, percentages and `${NAME}` references.
//! Pure parsing; every error says what would have been accepted.

use std::time::Duration;

/// Longer times would overflow once added to a clock.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Parses `30` (seconds), `"250ms"`, `"30s"`, `"5m"`, `"2h"`, `"1d"`.
///
/// # Errors
/// When it is something else, or longer than a year.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let amount: f64 = number.parse().map_err(|_| not_a("duration", text, "30, \"250ms\", \"30s\" or \"5m\""))?;
    let seconds = match unit {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(not_a("duration", text, "30, \"250ms\", \"30s\" or \"5m\"")),
    };
    let out_of_range = || format!("`{text}` is out of range for a duration; the longest is 365d");
    Duration::try_from_secs_f64(amount * seconds).ok().filter(|duration| *duration <= LONGEST).ok_or_else(out_of_range)
}

/// Parses `4096`, `"64KiB"`, `"4MiB"`, `"1GiB"` and the decimal `kB`, `MB`, `GB`, in bytes.
pub fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = split(text);
    let amount: usize = number.parse().map_err(|_| not_a("size", text, "4096, \"64KiB\" or \"4MiB\""))?;
    let factor: usize = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(not_a("size", text, "4096, \"64KiB\" or \"4MiB\"")),
    };
    amount.checked_mul(factor).ok_or_else(|| format!("`{text}` is out of range for a size"))
}

/// Parses `100/min`, `10/s`, `1000/day` or `5/10s`: so many, in so much time.
pub fn rate(text: &str) -> Result<(u32, Duration), String> {
    let fault = || not_a("rate", text, "\"10/s\", \"100/min\", \"1000/day\" or \"5/10s\"");
    let (count, unit) = text.split_once('/').ok_or_else(fault)?;
    let count = count.trim().parse::<u32>().ok().filter(|count| *count > 0).ok_or_else(fault)?;
    let per = match unit.trim() {
        "s" | "sec" | "second" => Duration::from_secs(1),
        "m" | "min" | "minute" => Duration::from_secs(60),
        "h" | "hour" => Duration::from_secs(3600),
        "d" | "day" => Duration::from_secs(86_400),
        other => duration(other).ok().filter(|per| !per.is_zero()).ok_or_else(fault)?,
    };
    Ok((count, per))
}

/// Parses `20%` or `0.2`, a share from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    let (number, factor) = text.trim().strip_suffix('%').map_or((text.trim(), 1.0), |number| (number.trim(), 0.01));
    let amount = number.parse::<f64>().ok().map(|amount| amount * factor).filter(|share| (0.0..=1.0).contains(share));
    amount.ok_or_else(|| not_a("share", text, "\"20%\" or 0.2, at most 100%"))
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn not_a(kind: &str, text: &str, examples: &str) -> String {
    format!("`{text}` is not a {kind}; write {examples}")
}

/// Expands `${NAME}` and `${NAME:-default}` from `lookup`; `$$` is a literal dollar sign.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        rest = if let Some(tail) = tail.strip_prefix('$') {
            out.push('$');
            tail
        } else if let Some(tail) = tail.strip_prefix('{') {
            let end = tail.find('}').ok_or_else(|| format!("`{text}` has `${{` without `}}`"))?;
            out.push_str(&resolve(&tail[..end], lookup)?);
            &tail[end + 1..]
        } else {
            out.push('$');
            tail
        };
    }
    out.push_str(rest);
    Ok(out)
}

fn resolve(reference: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    // As in a shell, `:-` also covers a variable that is set but empty.
    lookup(name)
        .filter(|value| default.is_none() || !value.is_empty())
        .or_else(|| default.map(str::to_owned))
        .ok_or_else(|| format!("environment variable {name} is not set; set it or write ${{{name}:-default}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert!(duration("5 parsecs").unwrap_err().contains("write 30"));
        assert!(duration("-1s").is_err());
        assert!(duration("").is_err());
    }

    #[test]
    fn rates_and_shares_are_what_they_say() {
        assert_eq!(rate("100/min"), Ok((100, Duration::from_secs(60))));
        assert_eq!(rate("5/10s"), Ok((5, Duration::from_secs(10))));
        assert_eq!(rate("1/250ms"), Ok((1, Duration::from_millis(250))));
        assert!(["0/s", "100", "1/0s", "x/s", "1/fortnight", "-1/s"].iter().all(|text| rate(text).is_err()));
        assert_eq!((share("20%"), share("0.5"), share("0")), (Ok(0.2), Ok(0.5), Ok(0.0)));
        assert!(["120%", "2", "-1", "half", "NaN"].iter().all(|text| share(text).is_err()));
    }

    #[test]
    fn sizes_are_bytes() {
        assert_eq!(size("4MiB"), Ok(4 << 20));
        assert_eq!(size("10kB"), Ok(10_000));
        assert!(size("99999999999GiB").is_err());
        assert!(size("4 bananas").is_err());
    }

    #[test]
    fn references_expand_with_defaults_and_name_what_is_missing() {
        let env = |name: &str| (name == "HOST").then(|| "db".to_owned());
        assert_eq!(expand("http://${HOST}:${PORT:-80}/$$x", &env).unwrap(), "http://db:80/$x");
        assert!(expand("${NOPE}", &env).unwrap_err().contains("NOPE"));
        assert!(expand("${HOST", &env).is_err());
    }
}
