//! Outputs of tools cut to a length, with a mark that says so to people, models and programs alike. What is left is
//! always valid: texts end at a character, what follows the cut is dropped whole.

use std::borrow::Cow;

use serde::Deserialize;

use super::edit::{Fault, Part};
use super::members::borrowed;

/// Members of a result that are not its output.
const APART: &[&str] = &["isError", "resultType", "_meta"];
/// Where `_meta` tells of the cut.
const TOLD: &str = "mcp-gateway/truncated";
/// Bytes of `_meta` that are no output however small the limit is.
const SOME: usize = 4096;

#[derive(Deserialize)]
struct Item<'t> {
    #[serde(borrow, default, rename = "type", deserialize_with = "borrowed")]
    kind: Option<Cow<'t, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed")]
    text: Option<Cow<'t, str>>,
}

/// Cuts the result of a tool call to `limit` bytes of output: decoded bytes of texts, and of everything else the bytes
/// it is written in. `None` if it fits.
///
/// # Errors
/// [`Fault::Unreadable`].
pub fn output(result: &str, limit: usize) -> Result<Option<String>, Fault> {
    // Nothing is longer decoded than it is written.
    if result.len() <= limit {
        return Ok(None);
    }
    let mut result = Part::text(result);
    let Part::Object(members) = result.open()? else { return Ok(None) };
    let mut bytes = 0;
    for (name, part) in members.iter_mut().filter(|(name, _)| !APART.contains(&name.as_ref())) {
        bytes += if name == "content" { measure(part)? } else { part.length() };
    }
    if bytes <= limit {
        return Ok(None);
    }
    members.retain(|(name, part)| {
        name == "content" || (APART.contains(&name.as_ref()) && (name != "_meta" || part.length() <= limit.max(SOME)))
    });
    if let Some((_, content)) = members.iter_mut().find(|(name, _)| name == "content") {
        shorten(content, limit, &format!("… [truncated by mcp-gateway: {limit} of {bytes} bytes]"));
    }
    tell(members, bytes, limit)?;
    Ok(Some(result.written()))
}

fn measure(content: &mut Part<'_>) -> Result<usize, Fault> {
    Ok(match content.open()? {
        Part::List(items) => items.iter().map(size).sum(),
        other => size(other),
    })
}

/// The bytes of one item of content.
fn size(item: &Part<'_>) -> usize {
    text_of(item).map_or_else(|| item.length(), |text| text.len())
}

/// The text of an item that is text; middleware may answer with plain text.
fn text_of<'i>(item: &'i Part<'_>) -> Option<Cow<'i, str>> {
    let Part::Text(written) = item else { return None };
    if written.starts_with('"') {
        return serde_json::from_str::<String>(written).ok().map(Cow::Owned);
    }
    let item: Item<'_> = serde_json::from_str(written).ok()?;
    item.text.filter(|_| item.kind.as_deref() == Some("text"))
}

fn shorten(content: &mut Part<'_>, limit: usize, mark: &str) {
    let Part::List(items) = content else {
        if size(content) > limit {
            *content = cut(content, limit, mark).unwrap_or_else(|| Part::List(vec![marked(mark)]));
        }
        return;
    };
    let mut room = limit;
    let Some(at) = items.iter().position(|item| {
        let bytes = size(item);
        let fits = bytes <= room;
        room -= if fits { bytes } else { 0 };
        !fits
    }) else {
        return;
    };
    items.truncate(at + 1);
    if let Some(last) = items.last_mut() {
        *last = cut(last, room, mark).unwrap_or_else(|| marked(mark));
    }
}

/// The item with its text cut; `None` if it is no text.
fn cut<'t>(item: &Part<'_>, room: usize, mark: &str) -> Option<Part<'t>> {
    let text = text_of(item)?;
    let end = (0..=room.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let kept = quoted(&format!("{}{mark}", &text[..end]));
    let Part::Text(written) = item else { return None };
    if written.starts_with('"') {
        return Some(kept);
    }
    // Whatever else it says of itself stays.
    let mut whole = Part::text(written);
    *whole.open().ok()?.member("text")? = kept;
    Some(Part::Text(Cow::Owned(whole.written())))
}

fn marked<'t>(mark: &str) -> Part<'t> {
    Part::Object(vec![(Cow::Borrowed("type"), Part::text("\"text\"")), (Cow::Borrowed("text"), quoted(mark))])
}

fn quoted<'t>(text: &str) -> Part<'t> {
    // A text as a JSON text cannot fail.
    Part::Text(Cow::Owned(serde_json::to_string(text).unwrap_or_default()))
}

fn tell(members: &mut Vec<(Cow<'_, str>, Part<'_>)>, bytes: usize, limit: usize) -> Result<(), Fault> {
    let told = Part::Text(Cow::Owned(format!(r#"{{"bytes":{bytes},"limit":{limit}}}"#)));
    for (_, meta) in members.iter_mut().filter(|(name, _)| name == "_meta") {
        if let Part::Object(meta) = meta.open()? {
            meta.retain(|(name, _)| name != TOLD);
            meta.push((Cow::Borrowed(TOLD), told));
            return Ok(());
        }
    }
    members.retain(|(name, _)| name != "_meta");
    members.push((Cow::Borrowed("_meta"), Part::Object(vec![(Cow::Borrowed(TOLD), told)])));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn cut(result: &Value, limit: usize) -> Value {
        let text = result.to_string();
        serde_json::from_str(&output(&text, limit).unwrap().unwrap_or(text)).unwrap()
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let long = json!({ "content": [{ "type": "text", "text": "ab" }, { "type": "text", "text": "äöü", "annotations": { "x": 1 } }, { "type": "image", "data": "zz" }],
            "structuredContent": { "a": 1 }, "isError": true, "_meta": { "m": 1 }, "future": 1 });
        let bytes = 2 + 6 + 28 + 7 + 1;
        let mark = format!("ä… [truncated by mcp-gateway: 5 of {bytes} bytes]");
        let expected = json!({ "content": [{ "type": "text", "text": "ab" }, { "type": "text", "text": mark, "annotations": { "x": 1 } }],
            "isError": true, "_meta": { "m": 1, "mcp-gateway/truncated": { "bytes": bytes, "limit": 5 } } });
        assert_eq!(cut(&long, 5), expected);
        assert_eq!(cut(&long, bytes), long, "what fits is untouched");
        let structured = json!({ "content": [{ "type": "text", "text": "ab" }], "structuredContent": { "a": "bcd" } });
        let kept =
            json!({ "content": [{ "type": "text", "text": "ab" }], "_meta": { "mcp-gateway/truncated": { "bytes": 13, "limit": 9 } } });
        assert_eq!(cut(&structured, 9), kept);
        let image = json!({ "content": [{ "type": "image", "data": "zzzzzzzzzz" }] });
        assert_eq!(cut(&image, 9)["content"][0]["text"], "… [truncated by mcp-gateway: 9 of 36 bytes]");
        assert_eq!(cut(&json!({ "content": "ünplain" }), 1)["content"], "… [truncated by mcp-gateway: 1 of 8 bytes]");
        assert_eq!(cut(&json!({ "content": [{ "rows": 3 }] }), 3)["content"][0]["type"], "text");
    }

    proptest! {
        #[test]
        fn a_cut_result_is_valid_and_no_longer_than_it_may_be(texts in proptest::collection::vec("\\PC{0,20}", 0..4), limit in 0usize..60) {
            let items: Vec<Value> = texts.iter().map(|text| json!({ "type": "text", "text": text })).collect();
            let kept = cut(&json!({ "content": items }), limit);
            let total: usize = texts.iter().map(String::len).sum();
            let text: String = kept["content"].as_array().unwrap().iter().map(|item| item["text"].as_str().unwrap()).collect();
            if total <= limit {
                prop_assert_eq!(text, texts.concat());
            } else {
                let (before, _) = text.split_once("… [truncated by").unwrap();
                prop_assert!(before.len() <= limit && texts.concat().starts_with(before));
            }
        }
    }
}
