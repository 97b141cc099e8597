//! What is judged is what a backend reads. Whatever of a body the gateway accepts, any other reader accepts or refuses,
//! but never reads another method or name in it: not one that takes the first of repeated members, nor the last, nor one
//! that is blind to case. The same holds for what the gateway writes of a REST request.

#![no_main]

use fuzz::call::{Call, Kind};
use fuzz::json::{Json, Taking};
use fuzz::mcp::message::{self, Message, Payload};
use fuzz::mcp::method::{self, Named};
use fuzz::mcp::{rest, strict};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    // `proxy::admit` reads only what passed this.
    let is_strict = strict::check(body).is_ok();
    either_way(body);
    native(body, is_strict);
    rest(body, is_strict);
    if let Some(id) = message::id_of(body) {
        assert!(Json::read(id.get().as_bytes()).is_some(), "the id {id:?} is JSON");
    }
});

/// What was taken apart while it was checked is what careful reading makes of it.
fn either_way(body: &[u8]) {
    if let (Ok(one), Ok(other)) = (strict::check(body), strict::check(body)) {
        assert_eq!(format!("{:?}", Payload::of(one)), format!("{:?}", Payload::read(body)));
        assert_eq!(format!("{:?}", rest::Payload::of(other)), format!("{:?}", rest::Payload::read(body)));
    }
}

fn native(body: &[u8], is_strict: bool) {
    let Ok(payload) = Payload::read(body) else { return };
    let json = Json::read(body).expect("what is accepted is JSON");
    let tree: Option<Value> = serde_json::from_slice(body).ok();
    let messages: Vec<(&Message<'_>, &Json, Option<&Value>)> = match (&payload, &json) {
        (Payload::One(message), json) => vec![(message, json, tree.as_ref())],
        (Payload::Batch(messages), Json::Array(elements)) if messages.len() == elements.len() => {
            let elements = elements.iter().enumerate().map(|(i, json)| (json, tree.as_ref().and_then(|tree| tree.get(i))));
            messages.iter().zip(elements).map(|(message, (json, tree))| (message, json, tree)).collect()
        }
        _ => panic!("a batch is an array of messages"),
    };
    for (message, json, tree) in messages {
        let call = message.call();
        all_read(json, call.as_ref(), is_strict);
        for taking in readers(is_strict).iter().copied() {
            assert_eq!(version(json, taking), message.version(), "the revision as {taking:?} reads it");
        }
        if let (Some(tree), Some(call)) = (tree, &call) {
            assert_eq!(tree.get("method").and_then(Value::as_str), Some(&*call.method), "as serde_json::Value reads it");
            if let Some(member) = member(&call.method) {
                let name = tree.get("params").and_then(|params| params.get(member)?.as_str());
                assert_eq!(name, call.name.as_deref(), "as serde_json::Value reads it");
            }
        }
    }
}

fn rest(body: &[u8], is_strict: bool) {
    let requests = match rest::Payload::read(body) {
        Ok(rest::Payload::One(request)) => vec![request],
        Ok(rest::Payload::Batch(requests)) => requests.into_iter().flatten().collect(),
        Err(_) => return,
    };
    assert!(Json::read(body).is_some(), "what is accepted is JSON");
    let bare = rest::Meta::default();
    let full = rest::Meta { modern: true, capabilities: None, progress_token: Some(1), logs: true, traceparent: Some("00-1-2-00") };
    for request in requests {
        for (cursor, meta) in [(None, &bare), (Some("c"), &full)] {
            let sent = request.encode(7, cursor, meta);
            all_read(&Json::read(&sent).expect("what is sent is JSON"), Some(&request.call()), is_strict);
        }
    }
}

/// Every reader finds the method and the names that were judged.
fn all_read(json: &Json, call: Option<&Call<'_>>, is_strict: bool) {
    for taking in readers(is_strict).iter().copied() {
        let method = json.get("method", taking).and_then(Json::text);
        assert_eq!(method, call.map(|call| &*call.method), "the method as {taking:?} reads it");
        let Some(call) = call else { continue };
        let params = json.get("params", taking);
        if let Some(member) = member(&call.method) {
            let name = params.and_then(|params| params.get(member, taking)?.text());
            assert_eq!(name, call.name.as_deref(), "`{member}` as {taking:?} reads it");
        }
        if is_strict {
            below_params(params, call, taking);
        }
    }
}

/// Who must agree. Without the strict check repeated members are refused all the same, where a message is read at once:
/// in the envelope, in `params` and in `_meta`.
fn readers(is_strict: bool) -> &'static [Taking] {
    if is_strict { &[Taking::First, Taking::Last, Taking::LastFolded] } else { &[Taking::First, Taking::Last] }
}

/// What completions and subscriptions name.
fn below_params(params: Option<&Json>, call: &Call<'_>, taking: Taking) {
    let referred = |member| params.and_then(|params| params.get("ref", taking)?.get(member, taking)?.text());
    // What has to have a name and has none is nobody's to ask.
    if let ("completion/complete", Some(name)) = (&*call.method, call.name.as_deref()) {
        let (prompt, template) = if call.kind == Kind::Prompt { (Some(name), None) } else { (None, Some(name)) };
        assert_eq!((referred("name"), referred("uri")), (prompt, template), "`ref` as {taking:?} reads it");
    }
    if call.method == "subscriptions/listen" && !call.is_named {
        let also = params.and_then(|params| params.get("notifications", taking)?.get("resourceSubscriptions", taking));
        let texts = if let Some(Json::Array(items)) = also { items.iter().map(Json::text).collect() } else { Vec::new() };
        let judged = call.also.iter().map(|uri| Some(&**uri));
        assert!(texts.iter().copied().eq(judged), "`resourceSubscriptions` as {taking:?} reads it");
    }
}

/// The member of `params` that names what `method` acts on.
fn member(method: &str) -> Option<&'static str> {
    match method::find(method)?.named {
        Named::Name => Some("name"),
        Named::Uri => Some("uri"),
        Named::TaskId => Some("taskId"),
        Named::Nothing | Named::Reference => None,
    }
}

fn version(json: &Json, taking: Taking) -> Option<&str> {
    let meta = json.get("params", taking)?.get("_meta", taking)?;
    meta.get("io.modelcontextprotocol/protocolVersion", taking)?.text()
}
