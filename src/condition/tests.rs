//! What conditions admit, and what they refuse to be.

use super::*;
use crate::principal::{Identity, Way};

fn holds(text: &str, arguments: &str) -> bool {
    matches!(evaluated(text, arguments), Ok(true))
}

fn evaluated(text: &str, arguments: &str) -> Result<bool, Unclear> {
    let identity = Identity { subject: "ann".into(), tenant: Some("acme".into()), roles: vec!["reader".into()], ..Identity::default() };
    let principal = Principal::new(Way::Jwt, identity);
    let arguments = Verbatim::found(arguments);
    let headers = HeaderMap::from_iter([(http::header::ACCEPT, "a".parse().unwrap()), (http::header::ACCEPT, "b".parse().unwrap())]);
    let client = Some([192, 0, 2, 7].into());
    let request = Request { method: "POST", path: "/api/mcp/files", headers: &headers, client, version: "v1" };
    let question = Question {
        principal: &principal,
        server: "files",
        method: "tools/call",
        name: Some("read"),
        arguments: Some(arguments),
        request: Some(request),
    };
    Condition::new(text).unwrap().evaluate(&question)
}

#[test]
fn conditions_see_the_caller_the_call_and_the_request() {
    assert!(holds("principal.tenant == 'acme' && 'reader' in principal.roles && name == 'read' && server == 'files'", "{}"));
    assert!(holds("arguments.path.startsWith('/pub/') && size(arguments) == 1", r#"{"path":"/pub/a"}"#));
    assert!(!holds("arguments.path.startsWith('/pub/')", r#"{"path":"/etc/a"}"#));
    let all = "arguments.paths.all(p, p.startsWith('/srv/'))";
    assert!(holds(all, r#"{"paths":["/srv/a","/srv/b"]}"#) && !holds(all, r#"{"paths":["/srv/a","/etc"]}"#));
    assert!(holds("arguments['filePath'] == 'a'", r#"{"filePath":"a","Other":{"deep":[{"X":1}]}}"#));
    assert!(holds("request.method == 'POST' && request.path.endsWith('/files') && version == 'v1' && tool == 'read'", "{}"));
    assert!(holds("request.headers['accept'] == 'a, b' && 'accept' in headers && request.client == '192.0.2.7'", "{}"));
    assert!(holds("headers.exists(name, name.startsWith('acc')) && size(headers) == 1 && request['headers']['accept'] == 'a, b'", "{}"));
    assert!(!holds("'Accept' in headers || headers['none'] == ''", "{}") && holds("!has(headers.Accept)", "{}"));
    assert!(holds("has(request.headers.accept) && !has(headers.other) && has(principal.tenant)", "{}"));
    assert!(holds("['files'].exists(server, server == 'files') && principal.roles.map(request, request)[0] == 'reader'", "{}"));
    assert!(!holds("server == 'other' || false", "{}") && !holds("true && 'other' == server", "{}"));
}

#[test]
fn what_cannot_be_evaluated_does_not_hold() {
    for (text, arguments) in [
        ("arguments.path == 'a'", "{}"),
        ("arguments.path == 'a'", "[]"),
        ("arguments.path", r#"{"path":"a"}"#),
        ("1 / 0 == 1", "{}"),
        ("arguments.n > 5", r#"{"n":"six"}"#),
        ("arguments.path == 'a'", r#"{"path":"a","Path":"b"}"#),
        ("!has(arguments.force)", r#"{"Force":true}"#),
        ("name == 'read' && (server == 'other' || arguments.path == 'a')", r#"{"path":"a","Path":"b"}"#),
        ("true || !has(arguments.force)", r#"{"Force":true}"#),
        ("arguments.target.path == 'a'", r#"{"target":{"path":"a","PATH":"b"}}"#),
        ("arguments.task == 'a'", "{\"task\":\"a\",\"tas\u{212a}\":\"b\"}"),
    ] {
        assert!(!holds(text, arguments), "{text} {arguments}");
    }
}

#[test]
fn arguments_that_could_be_read_in_two_ways_are_told_by_their_name() {
    for (text, arguments, name) in [
        ("arguments.path == 'a'", r#"{"path":"a","Path":"b"}"#, Some("path")),
        ("arguments.path == 'a'", r#"{"Path":"b"}"#, Some("Path")),
        ("size(arguments) == 9", r#"{"x":[{"deep":{"a":1,"A":2}}]}"#, Some("a")),
        ("'file-path' in arguments", r#"{"File-Path":1}"#, Some("File-Path")),
        ("arguments.all(k, k != 'path')", r#"{"PATH":1}"#, Some("PATH")),
        ("true || arguments.path == 'a'", r#"{"PATH":"b"}"#, Some("PATH")),
        // Nothing that is said of arguments.
        ("tool == 'read' && size(arguments) == 9", r#"{"Tool":1,"SIZE":2,"Read":3}"#, None),
        ("arguments.n == 1 || principal.tenant == 'x'", r#"{"n":2,"Tenant":3}"#, None),
        // They do not matter.
        ("name == 'write' && arguments.path == 'a'", r#"{"path":"a","Path":"b"}"#, None),
        ("headers['none'] == 'x' && arguments.path == 'a'", r#"{"path":"a","Path":"b"}"#, None),
    ] {
        let twofold = match evaluated(text, arguments) {
            Err(Unclear::Twofold(name)) => Some(name.to_lowercase()),
            says => {
                assert_ne!(says, Ok(true), "{text} {arguments}");
                None
            }
        };
        assert_eq!(twofold, name.map(str::to_lowercase), "{text} {arguments}");
    }
}

#[test]
fn what_is_not_known_is_told_with_its_column() {
    assert_eq!(check("request.method == 'POST' && arguments.all(p, size(p) > 1)", OF_REQUESTS), Ok(()));
    let fault = |text: &str| check(text, OF_REQUESTS).unwrap_err();
    assert!(fault("server == 'a' && pth == 'b'").starts_with("column 18: `pth` is not known; a condition speaks of request,"));
    assert!(fault("request.metod == 'POST'").starts_with("column 1: `request.metod` is not known; there is method, path"));
    assert_eq!(fault("server.startWith('a') || siz(server) > 1").matches("there is no function `s").count(), 2);
    let every = "'a'.contains('b') || 'a'.matches('b') || 'a'.endsWith('b') || int('1') == 1 || string(2) == '2' || type(1) == int \
        || [1].map(x, x * 2).filter(x, x > 1).exists_one(x, x == 2) || {'a': 1}.exists(k, k in ['a']) || double(1) < 2.0 || !dyn(true)";
    assert_eq!(check(every, OF_REQUESTS), Ok(()));
    assert!(fault("server ==").contains("column"), "{}", fault("server =="));
    assert!(check("request.path == 'a'", OF_CALLS).is_err() && fault("[1].all(p, p > 0) && p").contains("column 22: `p`"));
}
