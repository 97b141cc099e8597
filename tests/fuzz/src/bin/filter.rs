//! What a caller may not use is on no list it is given, however the network cuts the answer, and however it is read: any
//! of repeated members taken, a byte order mark taken off, what is no UTF-8 replaced.
//!
//! The input is an answer, read both as JSON and as an event stream; the caller may use what is named `a`.

#![no_main]

use fuzz::call::Kind;
use fuzz::json::{Json, Taking};
use fuzz::mcp::filter;
use fuzz::mcp::rewrite::{self, Rewrite, Stream, Unreadable};
use fuzz::mcp::sse::Decoder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|answer: &[u8]| {
    let keeps = |_: Option<fuzz::verbatim::Verbatim<'_>>, result: &str| filter::written(result, &|_: Kind, name| name == "a");
    match rewrite::message(answer, &keeps) {
        Ok(Some(kept)) => nothing_else(&kept),
        Ok(None) => nothing_else(answer),
        Err(Unreadable) => {}
    }
    let whole = passed(&keeps, [answer]);
    for size in [1, 3] {
        assert_eq!(passed(&keeps, answer.chunks(size)).ok(), whole.clone().ok(), "in pieces of {size}");
    }
    let mut decoder = Decoder::new(usize::MAX);
    decoder.push(&whole.unwrap_or_else(|before| before));
    while let Ok(Some(event)) = decoder.event() {
        nothing_else(&event.data);
    }
});

/// What the stream lets through; an error has what it let through before.
fn passed<'c>(keeps: Rewrite<'_>, chunks: impl IntoIterator<Item = &'c [u8]>) -> Result<Vec<u8>, Vec<u8>> {
    let mut stream = Stream::new(keeps);
    let mut out = Vec::new();
    for chunk in chunks {
        match stream.pass(chunk) {
            Ok(bytes) => out.extend_from_slice(&bytes),
            Err(Unreadable) => return Err(out),
        }
    }
    Ok(out)
}

/// The caller is told of nothing but what it may use.
fn nothing_else(message: &[u8]) {
    let text = String::from_utf8_lossy(message);
    let Some(json) = Json::read(text.strip_prefix('\u{feff}').unwrap_or(&text).as_bytes()) else { return };
    let messages = if let Json::Array(messages) = &json { messages } else { std::slice::from_ref(&json) };
    for (message, taking) in messages.iter().flat_map(|message| [(message, Taking::First), (message, Taking::Last)]) {
        for (list, naming) in [("tools", "name"), ("prompts", "name"), ("resources", "uri"), ("resourceTemplates", "uriTemplate")] {
            let listed = message.get("result", taking).and_then(|result| result.get(list, taking));
            let items = if let Some(Json::Array(items)) = listed { items.as_slice() } else { &[] };
            let mut names = items.iter().filter_map(|item| item.get(naming, taking)?.text());
            assert!(names.all(|name| name == "a"), "{message:?} lists what the caller may not use");
        }
    }
}
