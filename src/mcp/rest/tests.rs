//! REST bodies as they are read and written.

use super::*;

const FACTS: Facts<'static> = Facts { backend: "primary", elapsed: Duration::from_millis(245), cached: false };

fn one(body: &str) -> Verdict<String> {
    match Payload::read(body.as_bytes())? {
        Payload::One(request) => Ok(String::from_utf8(request.encode(9, None, &Meta::default())).unwrap()),
        Payload::Batch(_) => panic!("not a batch"),
    }
}

fn members(text: &str) -> Members<'_> {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_call_becomes_json_rpc_with_its_arguments_untouched() {
    let rpc = one(r#"{"method":"call_tool","params":{"tool_name":"read_file","arguments":{"n": 1.0e0,"s":"\u00e9"}}}"#).unwrap();
    assert_eq!(
        rpc,
        r#"{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"read_file","arguments":{"n": 1.0e0,"s":"\u00e9"}}}"#
    );
    assert!(one(r#"{"method":"tools/call","params":{"name":"x"}}"#).unwrap().contains(r#""name":"x""#));
}

#[test]
fn what_is_wrong_is_named() {
    let detail = |body: &str| one(body).unwrap_err().detail.into_owned();
    assert!(detail(r#"{"method":"call_tool"}"#).contains("params.tool_name"));
    assert!(detail(r#"{"method":"read_resource","params":{"uri":5}}"#).contains("params.uri"));
    assert!(detail(r#"{"method":"call_tool","params":{"tool_name":"a","name":"b"}}"#).contains("not both"));
    assert!(detail(r#"{"method":"call_tool","params":{"tool_name":"a","tool_name":"b"}}"#).contains("duplicate"));
    assert!(detail(r#"{"method":"initialize"}"#).contains("unknown method"));
    assert_eq!(one("{").unwrap_err().code, Code::ParseError);
    assert_eq!(one("7").unwrap_err().code, Code::InvalidRequest);
}

#[test]
fn our_meta_is_laid_over_the_callers() {
    let body = br#"{"method":"ping","params":{"_meta":{"mine":1,"progressToken":"x","io.modelcontextprotocol/clientInfo":"forged"}}}"#;
    let Payload::One(request) = Payload::read(body).unwrap() else { panic!() };
    let meta = Meta { modern: true, progress_token: Some(3), ..Meta::default() };
    let rpc = String::from_utf8(request.encode(1, None, &meta)).unwrap();
    assert!(rpc.contains(r#""mine":1"#) && rpc.contains(r#""progressToken":3"#) && !rpc.contains("forged"), "{rpc}");
}

#[test]
fn unknown_members_of_a_result_survive() {
    let text = r#"{"content":[{"type":"text","text":"hi","x":[1]}],"isError":true,"future":{"a":1},"resultType":"complete"}"#;
    let result = members(text);
    let method = method::find("tools/call").unwrap();
    let v1 = String::from_utf8(envelope(Form::V1, method, &result, FACTS).unwrap()).unwrap();
    assert_eq!(
        v1,
        r#"{"result":[{"type":"text","text":"hi","x":[1]}],"backend":"primary","response_time":0.245000,"cached":false,"isError":true,"future":{"a":1}}"#
    );
    let v2 = String::from_utf8(envelope(Form::V2, method, &result, FACTS).unwrap()).unwrap();
    assert!(v2.starts_with(&format!("{{\"result\":{text}")));
    let asks = members(r#"{"resultType":"input_required","inputRequests":{}}"#);
    assert_eq!(envelope(Form::V2, method, &asks, FACTS).unwrap_err().code, Code::InputRequired);
}

#[test]
fn pages_give_their_items_and_cursor() {
    let method = method::find("tools/list").unwrap();
    let result = members(r#"{"tools":[ {"name":"a"} ],"nextCursor":""}"#);
    let page = page(method, &result).unwrap();
    assert_eq!((page.items, page.next.as_deref()), (r#"{"name":"a"}"#, Some("")), "the empty cursor is a cursor");
    assert!(super::page(method, &members(r#"{"tools":5}"#)).is_err());
}
