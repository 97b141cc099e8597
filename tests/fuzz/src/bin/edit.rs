//! What is changed of a message is changed for every reader, and nothing else is: a member that was set is read as it was
//! set, also by who takes the last of its writings whatever their case; one that was removed is read by nobody; what was
//! not on the way keeps its bytes. What is cut of a tool's output is JSON, and as short as it must be.
//!
//! The input is a message or a result that passed `strict`, as those of requests do.

#![no_main]

use fuzz::json::{Json, Taking};
use fuzz::mcp::edit::{Care, Change, Edit, Fault, Part};
use fuzz::mcp::members::Members;
use fuzz::mcp::{cut, strict};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

const READERS: [Taking; 3] = [Taking::First, Taking::Last, Taking::LastFolded];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if strict::check(data).is_err() {
        return;
    }
    let set = RawValue::from_string("\"set\"".to_owned()).expect("JSON");
    for (path, change) in [
        (&["a", "b"][..], Change::Set(set.clone())),
        (&["a"], Change::Set(set.clone())),
        (&["a", "b"], Change::Default(set)),
        (&["a", "b"], Change::Remove),
        (&["a"], Change::Rename("b".to_owned())),
    ] {
        edit(text, path, change);
    }
    for limit in [0, 7, 60] {
        shorten(text, limit);
    }
});

fn edit(text: &str, path: &[&str], change: Change) {
    let edit = Edit { path: path.iter().map(|name| (*name).to_owned()).collect(), change };
    let mut part = Part::text(text);
    match part.apply(&edit, Care::Request) {
        Ok(()) => {}
        Err(Fault::Unreadable) => panic!("{text} was readable before"),
        Err(_) => return,
    }
    let written = part.written();
    let json = Json::read(written.as_bytes()).expect("JSON");
    for taking in READERS {
        match &edit.change {
            Change::Set(_) => assert_eq!(at(&json, path, taking), Some(&Json::Text("set".to_owned())), "{text} as {taking:?} reads it"),
            Change::Default(_) => assert!(at(&json, path, taking).is_some(), "{text} as {taking:?} reads it"),
            Change::Remove | Change::Rename(_) => absent(&json, path, taking),
        }
    }
    let others = |text: &str| {
        let members: Members<'_> = serde_json::from_str(text).unwrap_or_default();
        let other = |name: &str| name != "a" && name != "b";
        members
            .0
            .iter()
            .filter(|(name, _)| other(name))
            .map(|(name, raw)| (name.clone().into_owned(), raw.get().to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(others(text), others(&written), "what is not on the way");
}

fn at<'j>(json: &'j Json, path: &[&str], taking: Taking) -> Option<&'j Json> {
    path.iter().try_fold(json, |json, name| json.get(name, taking))
}

/// Nobody finds it, in the elements of lists neither.
fn absent(json: &Json, path: &[&str], taking: Taking) {
    let Some((name, rest)) = path.split_first() else { panic!("it is there to {taking:?}") };
    match json {
        Json::Array(items) => items.iter().for_each(|item| absent(item, path, taking)),
        json => json.get(name, taking).into_iter().for_each(|inner| absent(inner, rest, taking)),
    }
}

fn shorten(text: &str, limit: usize) {
    let Ok(Some(kept)) = cut::output(text, limit) else { return };
    let json = Json::read(kept.as_bytes()).expect("what is cut is JSON");
    for taking in READERS.into_iter().take(2) {
        assert!(json.get("structuredContent", taking).is_none());
        let Some(Json::Array(items)) = json.get("content", taking) else { continue };
        let texts = items.iter().filter_map(|item| item.get("text", taking)?.text());
        let mark = "… [truncated by mcp-gateway: 60 of 999 bytes]".len();
        assert!(texts.map(str::len).sum::<usize>() <= limit + mark, "{kept}");
    }
}
