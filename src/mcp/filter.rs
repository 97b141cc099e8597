//! Lists as a caller may see them. A list result is recognised by its shape, not by the request it answers, because a
//! stream that is taken up again replays answers to requests of another connection. What cannot be read for certain is
//! not passed on.

use std::borrow::Cow;

use super::members::Members;
use super::rewrite::{self, Unreadable};
use super::strict;
use crate::call::Kind;
use crate::verbatim::Verbatim;

/// Says whether the caller may use the tool, prompt or resource.
pub type Keeps<'k> = &'k (dyn Fn(Kind, &str) -> bool + Send + Sync);

/// Where results list things, and what names each.
const LISTED: &[(&str, Kind, &str)] = &[
    ("tools", Kind::Tool, "name"),
    ("prompts", Kind::Prompt, "name"),
    ("resources", Kind::Resource, "uri"),
    ("resourceTemplates", Kind::Resource, "uriTemplate"),
];
/// Filters a result as it was written; `None` if it lists nothing.
///
/// # Errors
/// [`Unreadable`].
pub fn written(text: &str, keeps: Keeps<'_>) -> Result<Option<String>, Unreadable> {
    result(&serde_json::from_str(text).map_err(|_| Unreadable)?, keeps)
}

/// Filters a result; `None` if it lists nothing.
///
/// # Errors
/// [`Unreadable`].
pub fn result(result: &Members<'_>, keeps: Keeps<'_>) -> Result<Option<String>, Unreadable> {
    let listed = |name: &str| LISTED.iter().find(|(listed, ..)| *listed == name);
    // A reader that ignores case would find the list we did not filter.
    if result.0.iter().any(|(name, _)| LISTED.iter().any(|(listed, ..)| strict::is_another_writing(name, listed))) {
        return Err(Unreadable);
    }
    if !result.0.iter().any(|(name, _)| listed(name).is_some()) {
        return Ok(None);
    }
    let mut members: Vec<(&Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    for (name, value) in &result.0 {
        let value = match listed(name) {
            Some((list, ..)) => Cow::Owned(format!("[{}]", items(list, value.get(), keeps)?)),
            // What was filtered for one caller is no answer for another.
            None if name == "cacheScope" => Cow::Borrowed("\"private\""),
            None => Cow::Borrowed(value.get()),
        };
        members.push((name, value));
    }
    let text = rewrite::object(members.iter().map(|(name, value)| (*name, value.as_ref())));
    String::from_utf8(text).map(Some).map_err(|_| Unreadable)
}

/// The items of `list` that are kept, joined by commas. An item that does not say its name for certain is not kept.
///
/// # Errors
/// [`Unreadable`] if it is no list.
pub fn items(list: &str, written: &str, keeps: Keeps<'_>) -> Result<String, Unreadable> {
    let Some((_, kind, naming)) = LISTED.iter().find(|(listed, ..)| *listed == list) else { return Err(Unreadable) };
    let items: Vec<Verbatim<'_>> = serde_json::from_str(written).map_err(|_| Unreadable)?;
    let kept = items.iter().map(|raw| raw.get()).filter(|item| {
        let members = serde_json::from_str::<Members<'_>>(item).ok();
        let members = members.filter(|members| !members.0.iter().any(|(name, _)| strict::is_another_writing(name, naming)));
        let name = members.and_then(|members| members.text(naming).map(Cow::into_owned));
        name.is_some_and(|name| keeps(*kind, &name))
    });
    Ok(kept.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::rewrite::message;

    fn keeps(kind: Kind, name: &str) -> bool {
        kind == Kind::Tool && name.starts_with("read")
    }

    const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"read_a","x":1.0},{"name":"write"},{"n\u0061me":"read_b"},{}],"cacheScope":"public","next":{}}}"#;
    const KEPT: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"read_a","x":1.0},{"n\u0061me":"read_b"}],"cacheScope":"private","next":{}}}"#;

    #[test]
    fn a_list_shows_what_may_be_used() {
        let filter = |text: &str| {
            message(text.as_bytes(), &|_: Option<Verbatim<'_>>, text: &str| written(text, &keeps))
                .map(|kept| kept.map(|kept| String::from_utf8(kept).unwrap()))
        };
        assert_eq!(filter(LIST), Ok(Some(KEPT.into())));
        assert_eq!(filter(&format!("[{LIST}]")), Ok(Some(format!("[{KEPT}]"))));
        assert_eq!(
            filter(r#"{"id":1,"r\u0065sult":{"\u0074ools":[{"name":"write"}]}}"#),
            Ok(Some(r#"{"id":1,"result":{"tools":[]}}"#.into()))
        );
        for untouched in [r#"{"result":{"content":[{"name":"write"}]}}"#, r#"{"method":"x","params":{"tools":[]}}"#, ""] {
            assert_eq!(filter(untouched), Ok(None), "{untouched}");
        }
        assert_eq!(filter(&format!("\u{feff}{LIST}")), Ok(Some(KEPT.into())));
        let nested = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        assert_eq!(filter(&nested), Err(Unreadable));
        for twofold in [
            "7",
            "\u{0}{",
            r#"{"result":{"tools":[{"name":"write"}]},"result":{}}"#,
            r#"{"result":{"tools":[],"tools":[]}}"#,
            r#"{"result":{"tools":{}}}"#,
        ] {
            assert_eq!(filter(twofold), Err(Unreadable), "{twofold}");
        }
    }
}
