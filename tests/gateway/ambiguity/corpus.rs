//! Bodies that parsers read in different ways, made from one honest call, and honest ones that look as odd. The caller
//! may call `read_ok` with a path below `/pub/`.

use super::backend::{ALL, Lane};

/// One request to be tried.
pub struct Case {
    pub name: String,
    pub body: Vec<u8>,
    pub headers: Vec<(&'static str, String)>,
    pub lanes: &'static [Lane],
    /// Whether it must reach the backend.
    pub honest: bool,
}

const NATIVE: &[Lane] = &[Lane::Legacy, Lane::Modern];
pub const LEGACY: &[Lane] = &[Lane::Legacy];
const BATCHES: &[Lane] = &[Lane::Rest, Lane::Legacy];
const REST: &[Lane] = &[Lane::Rest];

pub const GOOD: &str = r#""name":"read_ok","arguments":{"path":"/pub/a"}"#;
const EVIL: &str = r#""name":"write","arguments":{"path":"/etc/a"}"#;

impl Case {
    pub fn evil(name: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), body: body.into(), headers: Vec::new(), lanes: ALL, honest: false }
    }

    pub fn honest(name: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self { honest: true, ..Self::evil(name, body) }
    }

    pub fn on(self, lanes: &'static [Lane]) -> Self {
        Self { lanes, ..self }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// The beginning of it, for a message.
    pub fn shown(&self) -> String {
        format!("{:?} {:.300}", self.headers, self.body.escape_ascii().to_string().replace("\\\"", "\""))
    }
}

/// A message with these members besides `jsonrpc` and `id`.
pub fn envelope(members: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,{members}}}"#)
}

/// A tool call with these members of `params`.
pub fn call(params: &str) -> String {
    envelope(&format!(r#""method":"tools/call","params":{{{params}}}"#))
}

fn arguments(members: &str) -> String {
    call(&format!(r#""name":"read_ok","arguments":{{{members}}}"#))
}

/// All of them but those about headers.
pub fn all() -> Vec<Case> {
    let mut cases = honest();
    for make in [repeated, shapes, texts, envelopes, documents, depths, numbers, batches, media] {
        cases.extend(make());
    }
    cases
}

fn honest() -> Vec<Case> {
    let many: Vec<String> = (0..500).map(|i| format!("\"m{i}\":{i}")).collect();
    vec![
        Case::honest("plain", call(GOOD)),
        Case::honest("escaped names", call(r#""n\u0061me":"read_\u006fk","\u0061rguments":{"p\u0061th":"\/pub\/a"}"#)),
        Case::honest(
            "white space",
            format!(" \r\n\t{}\n \r\n", call(GOOD).replace(',', "\n ,\t").replace(':', " : ").replace("tools / call", "tools/call")),
        ),
        Case::honest(
            "another order",
            r#"{"params":{"arguments":{"path":"/pub/a"},"name":"read_ok"},"method":"tools/call","id":"x","jsonrpc":"2.0"}"#,
        ),
        Case::honest(
            "members of the server's own",
            call(r#""name":"read_ok","arguments":{"path":"/pub/a","Name":"x","Method":"y"},"x":{"Name":"z"}"#),
        ),
        Case::honest("many members", arguments(&format!(r#""path":"/pub/a",{}"#, many.join(",")))),
        Case::honest("deep, but not too deep", arguments(&format!(r#""path":"/pub/a","deep":{}1{}"#, "[".repeat(55), "]".repeat(55)))),
        Case::honest("beyond the first plane", arguments(r#""path":"/pub/\ud83d\ude00😀""#)),
        Case::honest("a NUL in a value", arguments(r#""path":"/pub/a","text":"a\u0000b""#)),
        Case::honest("numbers", arguments(r#""path":"/pub/a","n":[1e308,-0,0.1,123456789012345678901234567890]"#)),
        Case::honest("an explicit null", arguments(r#""path":"/pub/a","null":null"#)),
        Case::honest("a prototype", arguments(r#""path":"/pub/a","__proto__":{"path":"/etc/a"}"#)),
        Case::honest("a batch", format!("[{},{}]", call(GOOD), call(GOOD))).on(BATCHES),
        Case::honest("a response", r#"{"jsonrpc":"2.0","id":1,"result":{"method":"tools/call"}}"#).on(NATIVE),
        Case::honest("the REST words", format!(r#"{{"method":"call_tool","params":{{{}}}}}"#, GOOD.replace("name", "tool_name"))).on(REST),
    ]
}

/// Each member we judge by twice: in both orders, and the second one in every writing that some parser takes for it.
fn repeated() -> Vec<Case> {
    doubled(writings)
}

/// The same with names that end earlier for parsers that keep them as C does.
pub fn cut() -> Vec<Case> {
    let mut cases = vec![Case::honest("plain", call(GOOD))];
    cases.extend(doubled(|name| vec![format!("{name}\\u0000"), format!("{name}\\u0000x")]));
    cases
}

/// A body around two members.
type Around = fn(&str) -> String;

fn doubled(writings: fn(&str) -> Vec<String>) -> Vec<Case> {
    let params = |members: &str| format!("{{{members}}}");
    let evil_path = r#"{"path":"/etc/a"}"#;
    let good_path = r#"{"path":"/pub/a"}"#;
    let around: [(&str, String, String, Around); 5] = [
        ("method", r#""ping""#.into(), r#""tools/call""#.into(), |two| envelope(&format!(r#"{two},"params":{{{EVIL}}}"#))),
        ("params", params(GOOD), params(EVIL), |two| envelope(&format!(r#""method":"tools/call",{two}"#))),
        ("name", r#""read_ok""#.into(), r#""write""#.into(), |two| call(&format!(r#"{two},"arguments":{{"path":"/pub/a"}}"#))),
        ("arguments", good_path.into(), evil_path.into(), |two| call(&format!(r#""name":"read_ok",{two}"#))),
        ("path", r#""/pub/a""#.into(), r#""/etc/a""#.into(), arguments),
    ];
    let mut cases = Vec::new();
    for (member, good, evil, body) in &around {
        for writing in writings(member) {
            let (first, second) = (format!(r#""{member}":{good}"#), format!(r#""{writing}":{evil}"#));
            let swapped = (format!(r#""{writing}":{good}"#), format!(r#""{member}":{evil}"#));
            for (how, two) in [
                ("after", format!("{first},{second}")),
                ("before", format!("{second},{first}")),
                ("good, after", format!("{},{}", swapped.1, swapped.0)),
                ("good, before", format!("{},{}", swapped.0, swapped.1)),
            ] {
                cases.push(Case::evil(format!("{member} and {writing} {how}"), body(&two)));
            }
            if writing != *member {
                cases.push(Case::evil(format!("{writing} alone"), body(&second)));
            }
        }
    }
    cases
}

/// Ways to write a name, as they stand in JSON.
fn writings(name: &str) -> Vec<String> {
    let code = u32::from(name.as_bytes()[0]);
    let capital = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
    let mut all = vec![name.to_owned(), format!("\\u{code:04x}{}", &name[1..]), name.to_uppercase(), capital];
    all.extend(name.contains('s').then(|| name.replacen('s', "ſ", 1)));
    all.extend(name.contains('s').then(|| name.replacen('s', "\\u017f", 1)));
    all
}

/// Values of other kinds than they should be.
fn shapes() -> Vec<Case> {
    let evil = |name: &str, params: &str| Case::evil(name, envelope(&format!(r#""method":"tools/call","params":{params}"#)));
    vec![
        evil("no arguments", r#"{"name":"read_ok"}"#),
        evil("params null", "null"),
        evil("params text", r#""write""#),
        evil("params by position", r#"["write",{"path":"/etc/a"}]"#),
        evil("params by position, as it is permitted", r#"["read_ok",{"path":"/pub/a"}]"#),
        evil("params in an array", &format!("[{{{GOOD}}},{{{EVIL}}}]")),
        evil("a name that is a number", r#"{"name":7,"arguments":{"path":"/pub/a"}}"#),
        evil("a name that is null", r#"{"name":null,"arguments":{"path":"/pub/a"}}"#),
        evil("a name that is an array", r#"{"name":["read_ok","write"],"arguments":{"path":"/pub/a"}}"#),
        evil("a name that is an object", r#"{"name":{"name":"write"},"arguments":{"path":"/pub/a"}}"#),
        evil("arguments that are an array", r#"{"name":"read_ok","arguments":["/pub/a"]}"#),
        evil("arguments that are text", r#"{"name":"read_ok","arguments":"{\"path\":\"/pub/a\"}"}"#),
        evil("arguments that are null", r#"{"name":"read_ok","arguments":null}"#),
        evil("a path that is an array", r#"{"name":"read_ok","arguments":{"path":["/pub/a","/etc/a"]}}"#),
        evil("a path that is an object", r#"{"name":"read_ok","arguments":{"path":{"path":"/pub/a"}}}"#),
        evil("a path in the prototype", r#"{"name":"read_ok","arguments":{"__proto__":{"path":"/pub/a"}}}"#),
        evil("a name in the prototype", r#"{"__proto__":{"name":"read_ok"},"arguments":{"path":"/pub/a"}}"#),
        evil("two names for the tool", r#"{"name":"write","tool_name":"read_ok","arguments":{"path":"/pub/a"}}"#),
        Case::evil(
            "the REST words twice",
            r#"{"method":"call_tool","params":{"tool_name":"read_ok","name":"write","arguments":{"path":"/pub/a"}}}"#,
        ),
        Case::evil("an array for a message", format!(r#"["2.0",1,"tools/call",{{{EVIL}}}]"#)),
        Case::evil("an array for a message in a batch", format!(r#"[["2.0",1,"tools/call",{{{EVIL}}}]]"#)),
        Case::evil("an array for a REST request", format!(r#"["tools/call",{{{EVIL}}}]"#)),
        Case::evil("a method in an array", envelope(&format!(r#""method":["ping","tools/call"],"params":{{{EVIL}}}"#))),
        Case::evil("text", r#""tools/call""#),
        Case::evil("null", "null"),
        Case::evil("nothing", ""),
        Case::evil("white space alone", " \n"),
    ]
}

/// Texts that are not what they seem.
fn texts() -> Vec<Case> {
    let named = |name: &str| Case::evil(format!("name {name}"), call(&format!(r#""name":"{name}","arguments":{{"path":"/pub/a"}}"#)));
    let at = |path: &str| Case::evil(format!("path {path}"), arguments(&format!(r#""path":"{path}""#)));
    let mut cases: Vec<Case> =
        ["write\\u0000", "read_ok\\u0000", "\\u0000read_ok", "read_ok\\n", " read_ok", "read_ok ", "READ_OK", "read_oK", "ｒead_ok", ""]
            .into_iter()
            .map(named)
            .collect();
    cases.extend(["/PUB/a", " /pub/a", "\\u0000/pub/a", "pub/a", "/pub", "\\\\pub\\\\a", "／pub/a", "%2fpub/a", "file:///pub/a"].map(at));
    cases.extend(
        ["Tools/Call", "tools/call ", "tools/call\\u0000", "tools\\\\call", "TOOLS/CALL"]
            .map(|method| Case::evil(format!("method {method}"), envelope(&format!(r#""method":"{method}","params":{{{EVIL}}}"#)))),
    );
    let surrogates = ["\\ud800", "\\udc00", "\\ud83dx", "\\ude00\\ud83d", "\\uD800\\u0041"];
    cases.extend(
        surrogates.map(|half| Case::evil(format!("half a pair {half} in a value"), arguments(&format!(r#""path":"/pub/{half}""#)))),
    );
    cases.push(Case::evil("half a pair in a name", arguments(r#""path":"/pub/a","\ud800":1,"\ud801":2"#)));
    for (name, bytes) in [
        ("a stray byte", &b"\xff"[..]),
        ("an overlong slash", b"\xc0\xaf"),
        ("a surrogate in UTF-8", b"\xed\xa0\x80"),
        ("half a letter", b"\xc3"),
    ] {
        let body = arguments(r#""path":"/pub/@""#).into_bytes();
        let at = body.iter().position(|byte| *byte == b'@').expect("there");
        cases.push(Case::evil(name, [&body[..at], bytes, &body[at + 1..]].concat()));
    }
    cases.push(Case::evil("a line break in a value", arguments("\"path\":\"/pub/\n\"")));
    cases.push(Case::evil("a tab in a value", arguments("\"path\":\"/pub/\t\"")));
    cases.push(Case::evil("an escape JSON has not", arguments(r#""path":"\x2fpub/a""#)));
    cases
}

/// Messages that are more than one thing.
fn envelopes() -> Vec<Case> {
    let evil = |name: &str, members: &str| Case::evil(name, envelope(members));
    vec![
        evil("a request and a response", &format!(r#""method":"ping","result":{{}},"params":{{{EVIL}}}"#)),
        evil("a request and an error", &format!(r#""method":"tools/call","error":{{"code":1,"message":""}},"params":{{{EVIL}}}"#)),
        evil("a null result beside the method", &format!(r#""method":"tools/call","result":null,"params":{{{EVIL}}}"#)),
        evil("a null method", &format!(r#""method":null,"result":{{}},"params":{{{EVIL}}}"#)),
        evil(
            "a notification that is a call",
            &format!(r#""method":"notifications/initialized","Method":"tools/call","params":{{{EVIL}}}"#),
        ),
        evil("no method", &format!(r#""params":{{{EVIL}}}"#)),
        evil("a method in the params", &format!(r#""method":"ping","params":{{"method":"tools/call","params":{{{EVIL}}}}}"#)),
        evil("an unknown method", &format!(r#""method":"vendor/call","params":{{{GOOD}}}"#)),
        evil("a task", r#""method":"tasks/result","params":{"taskId":"t"}"#),
        evil("a task in another case", r#""method":"ping","params":{"tas\u212aId":"t","taskId":"t"}"#),
        evil("_meta twice", &format!(r#""method":"tools/call","params":{{"_meta":{{}},"_META":{{}},{EVIL}}}"#)),
        Case::evil("jsonrpc twice", format!(r#"{{"jsonrpc":"2.0","jsonrpc":"1.0","id":1,"method":"tools/call","params":{{{EVIL}}}}}"#)),
        Case::evil("ids twice", format!(r#"{{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/call","params":{{{GOOD}}}}}"#)),
        Case::evil("Id and id", format!(r#"{{"jsonrpc":"2.0","id":1,"ID":2,"method":"tools/call","params":{{{GOOD}}}}}"#)),
        Case::evil("another revision of JSON-RPC", format!(r#"{{"jsonrpc":"1.0","id":1,"method":"tools/call","params":{{{GOOD}}}}}"#))
            .on(NATIVE),
        Case::evil("no revision of JSON-RPC", format!(r#"{{"id":1,"method":"tools/call","params":{{{GOOD}}}}}"#)).on(NATIVE),
    ]
}

/// Texts that are more or less than one JSON document.
fn documents() -> Vec<Case> {
    let (good, evil) = (call(GOOD), call(EVIL));
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let mut cases = vec![
        Case::evil("two documents", format!("{good}{evil}")),
        Case::evil("two lines", format!("{good}\n{evil}\n")),
        Case::evil("a document and a NUL", format!("{good}\0")),
        Case::evil("a document, a NUL and another", format!("{good}\0{evil}")),
        Case::evil("a document and a comma", format!("{good},")),
        Case::evil("a document and a brace", format!("{good}}}")),
        Case::evil("a record separator", format!("\u{1e}{good}")),
        Case::evil("a byte order mark", format!("\u{feff}{good}")),
        Case::evil("a byte order mark at the end", format!("{good}\u{feff}")),
        Case::evil("UTF-16", utf16(&good)),
        Case::evil("UTF-16 with a mark", utf16(&format!("\u{feff}{good}"))),
        Case::evil("a comment", format!("/* {evil} */{good}")),
        Case::evil("a comment within", good.replace("\"params\":", "\"params\":/**/")),
        Case::evil("a comment to the end of the line", format!("{good}//\n")),
        Case::evil("a comma at the end", good.replace("}}}", ",}}}")),
        Case::evil("single quotes", good.replace('"', "'")),
        Case::evil("no quotes", good.replace("\"method\":", "method:")),
        Case::evil("cut off", good.trim_end_matches('}')),
        Case::evil("a form", "method=tools/call&name=write"),
        Case::evil("a prefix against inclusion", format!(")]}}',\n{good}")),
    ];
    for space in ["\u{a0}", "\u{b}", "\u{c}", "\u{2028}", "\u{85}", "\u{200b}"] {
        cases.push(Case::evil(format!("{space:?} for a space"), format!("{space}{good}")));
        cases.push(Case::evil(format!("{space:?} for a space within"), good.replace("\"params\":", &format!("\"params\":{space}"))));
    }
    cases
}

fn depths() -> Vec<Case> {
    let mut cases = Vec::new();
    for depth in [65, 129, 10_000, 200_000] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            cases
                .push(Case::evil(format!("{depth} deep in an argument ({open})"), arguments(&format!(r#""path":"/pub/a","deep":{deep}"#))));
            cases.push(Case::evil(
                format!("{depth} deep in a member nobody knows ({open})"),
                envelope(&format!(r#""x":{deep},"method":"tools/call","params":{{{GOOD}}}"#)),
            ));
            cases.push(Case::evil(format!("{depth} deep and nothing else ({open})"), deep));
        }
        cases.push(Case::evil(format!("{depth} deep and never closed"), "[".repeat(depth)));
    }
    cases
}

fn numbers() -> Vec<Case> {
    let number = |number: &str| Case::evil(format!("the number {number:.20}"), arguments(&format!(r#""path":"/pub/a","n":{number}"#)));
    let long = "9".repeat(5000);
    ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "01", "+1", "1.", ".5", "0x10", "1_000", "--1", "1e", "True", "undefined", &long]
        .map(number)
        .into()
}

fn batches() -> Vec<Case> {
    let (good, evil) = (call(GOOD), call(EVIL));
    vec![
        Case::evil("a batch with an evil one last", format!("[{good},{evil}]")),
        Case::evil("a batch with an evil one first", format!("[{evil},{good}]")),
        Case::evil("a batch in a batch", format!("[[{evil}]]")),
        Case::evil("a batch with a batch behind", format!("[{good},[{evil}]]")),
        Case::evil("two batches", format!("[{good}][{evil}]")),
        Case::evil("a batch and a message", format!("[{good}]{evil}")),
        Case::evil("an empty batch", "[]"),
        Case::evil("a batch of null", "[null]"),
        Case::evil("a batch with a comma at the end", format!("[{good},]")),
        Case::evil(
            "a batch with a name in another case",
            format!("[{}]", call(r#""name":"read_ok","Name":"write","arguments":{"path":"/pub/a"}"#)),
        ),
        Case::evil(
            "a batch with params in another case",
            format!("[{}]", envelope(&format!(r#""method":"tools/call","params":{{{GOOD}}},"Params":{{{EVIL}}}"#))),
        ),
        Case::evil("a batch with a path in another case", format!("[{}]", arguments(r#""path":"/pub/a","Path":"/etc/a""#))),
        Case::evil("a batch as an object", format!(r#"{{"0":{evil},"length":1}}"#)),
        Case::evil("too large a batch", format!("[{}]", vec![good; 300].join(","))),
    ]
}

/// What the headers say the body is.
fn media() -> Vec<Case> {
    let typed = |case: Case, kind: &str| Case { name: format!("{} as {kind}", case.name), ..case }.with("content-type", kind);
    let good = || Case::honest("a call", call(GOOD));
    let evil = || Case::evil("a call", call(GOOD));
    let hidden: Vec<u8> = call(EVIL).encode_utf16().flat_map(u16::to_be_bytes).collect();
    let mut cases: Vec<Case> = [
        "application/json",
        "Application/JSON",
        "application/json;charset=utf-8",
        "application/json ; charset=\"UTF-8\"",
        "application/json; x=y",
    ]
    .map(|kind| typed(good(), kind))
    .into();
    cases.extend(
        [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "",
            "application/jsonp",
            "application/json, text/plain",
            "text/json",
            "application/json-seq",
        ]
        .map(|kind| typed(evil(), kind)),
    );
    // The backend is told `application/json` alone, so no charset of the client's misleads it.
    cases.extend(
        ["application/json; charset=utf-16", "application/json; charset=utf-7", "application/json; charset=ebcdic"]
            .map(|kind| typed(evil(), kind)),
    );
    cases.push(typed(Case::evil("hidden", hidden), "application/json; charset=utf-16be"));
    cases.push(typed(typed(evil(), "text/plain"), "application/json"));
    cases.push(typed(evil(), "application/json").with("content-encoding", "gzip"));
    cases.push(typed(evil(), "application/json").with("content-encoding", "identity, gzip"));
    cases
}
