//! Written `observability.log:` → the checked model: which records are written, and how.

use std::time::Duration;

use log::LevelFilter;
use serde::Serialize;

use super::Timespan;
use super::reader::Section;

/// The crate whose modules may speak below `info`, and the targets that are no modules. What others print there is not ours
/// to judge: Pingora prints headers and bodies, the PostgreSQL client parameters.
const OURS: &[&str] = &["mcp_gateway", "access", "audit"];
/// Parts of the longest level.
const MOST: usize = 64;

/// The log on standard error.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Log {
    /// `info`, or module by module as in `info,mcp_gateway::upstream=debug`.
    pub level: String,
    pub json: bool,
    /// The share of access records written of requests that went well and fast: 0 to 1.
    pub sample: f64,
    /// From how long on a request is always written; zero never.
    pub slow: Timespan,
}

pub(super) fn log(section: &Section<'_>) -> Log {
    let log = Log {
        level: section.parse("level", level).unwrap_or_else(|| "info".to_owned()),
        json: section.choice("format", &[("json", true), ("text", false)]).unwrap_or(true),
        sample: section.share("sample").unwrap_or(1.0),
        slow: Timespan(section.duration("slow").unwrap_or(Duration::from_secs(1))),
    };
    section.finish();
    log
}

/// Whether a module may speak below `info`.
pub fn is_our_module(target: &str) -> bool {
    OURS.iter().any(|ours| target.strip_prefix(ours).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
}

/// Reads a level for all, `module=level` for some, or both.
///
/// # Errors
/// What is wrong with it.
pub fn level(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.len() > MOST {
        return Err(format!("more than {MOST} parts"));
    }
    let mut whole = 0;
    for part in &parts {
        let (module, level) = part.split_once('=').map_or((None, *part), |(module, level)| (Some(module.trim()), level.trim()));
        let named = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b));
        let Some(level) = level.parse::<LevelFilter>().ok().filter(|_| module.is_none_or(named)) else {
            return Err(format!("`{part}` is not a log level: off, error, warn, info, debug, trace, or module=level"));
        };
        if let Some(module) = module.filter(|module| level > LevelFilter::Info && !is_our_module(module)) {
            return Err(format!("`{module}` may print secrets below info; debug and trace are for mcp_gateway and its modules"));
        }
        whole += usize::from(module.is_none());
    }
    if whole > 1 {
        return Err(format!("`{text}` has more than one level for all; give the others as module=level"));
    }
    Ok(parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_for_all_or_for_modules_and_only_ours_speak_below_info() {
        for good in ["info", "OFF", "info,mcp_gateway::upstream=debug", "audit=warn", "warn, pingora_core=info", "trace"] {
            assert!(level(good).is_ok(), "{good}: {:?}", level(good));
        }
        for bad in ["", "inof", "info,", "info,debug", "info,x", "=info", "info,pingora_proxy=debug", "h2=trace", "info/secret", "a b=info"]
        {
            assert!(level(bad).is_err(), "{bad}");
        }
        assert!(
            is_our_module("mcp_gateway::upstream")
                && is_our_module("access")
                && !is_our_module("mcp_gateway_x")
                && !is_our_module("pingora_core")
        );
    }
}
