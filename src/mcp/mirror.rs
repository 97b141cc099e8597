//! The text that mirrors structured content. Servers repeat `structuredContent` as JSON in the texts of `content`, for
//! clients that know no other, so what is taken from the one is taken from the other as well. Text in words is not
//! searched: nobody can say what of it came from where.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::edit::{Care, Edit, Fault, Part};

/// What is mirrored.
const STRUCTURED: &str = "structuredContent";
/// Where SDKs put what is no object, and mirror it without: `{"result": [...]}` as a text for each element.
const WRAPPED: &str = "result";

/// Makes in the texts of a result's content the changes that `edits` make below its structured content.
///
/// # Errors
/// [`Fault::Unreadable`] for JSON in a text that could be read in two ways.
pub fn follow<'e>(result: &mut Part<'_>, edits: impl Iterator<Item = &'e Edit> + Clone) -> Result<(), Fault> {
    let edits = edits.filter(|edit| edit.path.len() > 1 && edit.path[0] == STRUCTURED);
    if edits.clone().next().is_none() {
        return Ok(());
    }
    let Some(content) = result.open()?.member("content") else { return Ok(()) };
    match content.open()? {
        Part::List(items) => items.iter_mut().try_for_each(|item| in_item(item, edits.clone())),
        item => in_item(item, edits),
    }
}

/// In an item of content, or in a bare text as middleware answers with.
fn in_item<'e>(item: &mut Part<'_>, edits: impl Iterator<Item = &'e Edit>) -> Result<(), Fault> {
    let mut copy = match &*item {
        Part::Text(text) => Part::Text(text.clone()),
        _ => return in_member(item, edits).map(drop),
    };
    // What has no text to change keeps its bytes.
    let changed =
        if matches!(&copy, Part::Text(text) if text.starts_with('"')) { in_text(&mut copy, edits)? } else { in_member(&mut copy, edits)? };
    if changed {
        *item = copy;
    }
    Ok(())
}

fn in_member<'e>(item: &mut Part<'_>, edits: impl Iterator<Item = &'e Edit>) -> Result<bool, Fault> {
    item.open()?.member("text").map_or(Ok(false), |text| in_text(text, edits))
}

/// In a JSON string that holds JSON; tells whether anything is changed.
fn in_text<'e>(text: &mut Part<'_>, edits: impl Iterator<Item = &'e Edit>) -> Result<bool, Fault> {
    let Part::Text(quoted) = &*text else { return Ok(false) };
    let Ok(plain) = serde_json::from_str::<String>(quoted) else { return Ok(false) };
    if !plain.trim_start().starts_with(['{', '[']) || serde_json::from_str::<IgnoredAny>(&plain).is_err() {
        return Ok(false);
    }
    let mut mirror = Part::text(&plain);
    let mut changed = false;
    for edit in edits {
        changed |= in_mirror(&mut mirror, edit)?;
    }
    if changed {
        // A text as a JSON text cannot fail.
        *text = Part::Text(Cow::Owned(serde_json::to_string(&mirror.written()).unwrap_or_default()));
    }
    Ok(changed)
}

fn in_mirror<'e>(mirror: &mut Part<'e>, edit: &'e Edit) -> Result<bool, Fault> {
    let whole = &edit.path[1..];
    let bare = whole.strip_prefix(&[WRAPPED.to_owned()]).filter(|path| !path.is_empty());
    for path in std::iter::once(whole).chain(bare) {
        if mirror.holds(path)? {
            mirror.change(path, &edit.change, Care::Answer)?;
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::super::edit::Change;
    use super::*;

    fn followed(content: &str) -> Result<String, Fault> {
        let edit = |path: &str, change| Edit { path: path.split('.').map(str::to_owned).collect(), change };
        let edits = [
            edit("structuredContent.secret", Change::Remove),
            edit("structuredContent.rows.old", Change::Rename("new".into())),
            edit("structuredContent.result.key", Change::Remove),
            edit("content.annotations", Change::Remove),
            edit("structuredContent", Change::Remove),
        ];
        let whole = format!(r#"{{"content":{content}}}"#);
        let mut result = Part::text(&whole);
        follow(&mut result, edits.iter())?;
        let written = result.written();
        Ok(written[r#"{"content":"#.len()..written.len() - 1].to_owned())
    }

    /// Items of text.
    fn items(texts: &[&str]) -> String {
        let item = |text: &&str| format!(r#"{{"type":"text","text":{}}}"#, serde_json::to_string(text).unwrap());
        format!("[{}]", texts.iter().map(item).collect::<Vec<_>>().join(","))
    }

    #[test]
    fn what_is_taken_from_the_structure_is_taken_from_its_text() {
        for (text, expected) in [
            ("{\"secret\": 1, \"rows\": [{\"old\": 1.0e0}, {\"old\":\"\u{e9}\"}]}", "{\"rows\":[{\"new\":1.0e0},{\"new\":\"\u{e9}\"}]}"),
            ("\n {\n  \"\\u0073ecret\": {\"a\": 1},\n  \"x\": [ 1 ]\n}", "{\"x\":[ 1 ]}"),
            ("{\"result\": [{\"key\": 1, \"a\": 2}]}", "{\"result\":[{\"a\":2}]}"),
            ("{\"key\": 1, \"a\": 2}", "{\"a\":2}"),
            ("[{\"key\": 1}, {\"b\":1}]", "[{},{\"b\":1}]"),
        ] {
            assert_eq!(followed(&items(&["in words", text])), Ok(items(&["in words", expected])), "{text}");
        }
    }

    #[test]
    fn other_content_keeps_its_bytes() {
        let content = r#"[{"type": "text", "text": "secret: {\"secret\": 1}"}, {"type": "text", "text": "{ \"a\" : 1}"}, {"text": 7}, 5,
            {"type": "text", "text": "{secret}"}, {"type": "image", "data": "{\"secret\":1}"}]"#;
        let kept = content.replace(", {", ",{").replace(", 5", ",5").replace(",\n            ", ",");
        assert_eq!(followed(content), Ok(kept));
        assert_eq!(followed(r#"["{\"secret\":1}"]"#).as_deref(), Ok(r#"["{}"]"#), "texts of middleware");
        assert_eq!(followed(r#""{\"secret\":1}""#).as_deref(), Ok(r#""{}""#));
    }

    #[test]
    fn json_that_could_be_read_in_two_ways_is_not_passed() {
        for text in [
            r#"{"secret":1,"secret":2}"#,
            r#"{"rows":[{"old":1},{"old":1,"old":2}]}"#,
            &format!("{}{}", "[".repeat(99_999), "]".repeat(99_999)),
        ] {
            assert_eq!(followed(&items(&[text])), Err(Fault::Unreadable));
        }
    }
}
