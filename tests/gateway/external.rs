//! The operator's own authenticator over HTTP: what it is shown, what its answers mean, how long they are believed, and
//! that nobody gets in without one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, server};
use crate::support::stub::Stub;
use crate::support::{eventually, http};

/// What it answers to a credential.
#[derive(Clone)]
enum Say {
    Status(u16, String),
    Hang,
    /// Half of an answer, and the connection is cut.
    Cut,
}

/// One question it was asked.
#[derive(Clone)]
struct Question {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

/// An authenticator that notes its questions; it stops when dropped.
struct Authenticator {
    url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<HashMap<String, Say>>,
    asked: Mutex<Vec<Question>>,
}

impl Authenticator {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let shared = Arc::new(Shared::default());
        let router = axum::Router::new().fallback(judge).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self { url, shared, task }
    }

    /// From now on this is its answer to a credential; it knows no other.
    fn says(&self, credential: &str, say: Say) {
        self.shared.answers.lock().expect("no panic while held").insert(credential.to_owned(), say);
    }

    fn knows(&self, credential: &str, identity: &Value) {
        self.says(credential, Say::Status(200, identity.to_string()));
    }

    fn asked(&self) -> Vec<Question> {
        self.shared.asked.lock().expect("no panic while held").clone()
    }
}

impl Drop for Authenticator {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A credential is the text of `X-Custom-Auth`, and of `X-Realm` behind a colon where there is one.
async fn judge(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let credential =
        text("x-custom-auth").unwrap_or_default().to_owned() + &text("x-realm").map(|realm| format!(":{realm}")).unwrap_or_default();
    shared.asked.lock().expect("no panic while held").push(Question { method, uri, headers });
    let say = shared.answers.lock().expect("no panic while held").get(&credential).cloned();
    match say {
        Some(Say::Status(status, body)) => {
            (StatusCode::from_u16(status).expect("a status"), [("location", "/elsewhere")], body).into_response()
        }
        Some(Say::Hang) => std::future::pending().await,
        Some(Say::Cut) => {
            let broken = futures::stream::once(async { Err::<axum::body::Bytes, _>(std::io::Error::other("cut")) });
            ([("content-length", "100")], axum::body::Body::from_stream(broken)).into_response()
        }
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

const ROLES: &str = "roles:\n  reader: [ { tools: [echo] } ]\n  idle: [ { tools: [nothing] } ]\n";

/// A gateway that asks the authenticator, before a stub; `more` goes beside `url`, `auth` below `auth:`.
async fn asking(stub: &Stub, url: &str, more: &str, auth: &str) -> Gateway {
    let external = format!("  external: {{ url: \"{url}/who\", headers: [X-Custom-Auth, X-Realm]{more} }}\n");
    let backend = stub.backend("one", ", health_check: {path: /health, interval: 10m}");
    Gateway::start(&format!("{}auth:\n{external}{auth}{ROLES}backends:\n{backend}", server(""))).await
}

/// The answer to a tool call with these headers: status, code and `Retry-After`.
async fn call(gateway: &Gateway, tool: &str, headers: &[(&str, &str)]) -> (u16, String, Option<u64>) {
    let body = json!({ "method": "call_tool", "params": { "tool_name": tool, "arguments": {} } });
    let request = http().post(gateway.at("/api/mcp/stub")).json(&body);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = request.send().await.expect("an answer");
    let retry_after = response.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap_or_default();
    (status, body["code"].as_str().unwrap_or_default().to_owned(), retry_after)
}

/// The status of a call of `echo` with a credential.
async fn status(gateway: &Gateway, credential: &str) -> u16 {
    call(gateway, "echo", &[("x-custom-auth", credential)]).await.0
}

fn ann() -> Value {
    json!({ "subject": "ann", "tenant": "acme", "roles": ["reader"] })
}

#[tokio::test]
async fn whom_it_knows_is_admitted_with_its_roles() {
    let (stub, who) = (Stub::start().await, Authenticator::start().await);
    let scopes = "  scopes: { \"mcp:read\": [reader] }\n";
    let gateway = asking(&stub, &who.url, "", scopes).await;
    who.knows("ann", &ann());
    who.knows("bob", &json!({ "subject": "bob", "roles": ["idle"], "more": "than is read" }));
    who.knows("eve", &json!({ "subject": "eve" }));
    who.knows("sue", &json!({ "subject": "sue", "scopes": ["mcp:read"] }));
    assert_eq!((status(&gateway, "ann").await, status(&gateway, "sue").await), (200, 200));
    assert_eq!(call(&gateway, "other", &[("x-custom-auth", "ann")]).await.1, "forbidden", "her roles are hers, no more");
    for (poor, what) in [("bob", "the wrong role"), ("eve", "no role")] {
        let refused = call(&gateway, "echo", &[("x-custom-auth", poor)]).await;
        assert_eq!((refused.0, refused.1.as_str()), (403, "forbidden"), "{what}");
    }
    who.says("403", Say::Status(403, String::new()));
    who.says("200 with 401", Say::Status(401, ann().to_string()));
    for stranger in ["nobody", "403", "200 with 401"] {
        let refused = call(&gateway, "echo", &[("x-custom-auth", stranger)]).await;
        assert_eq!((refused.0, refused.1.as_str()), (401, "unauthorized"), "{stranger}");
    }
    assert_eq!(stub.calls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_cannot_be_asked_nobody_gets_in() {
    let (stub, who) = (Stub::start().await, Authenticator::start().await);
    let gateway = asking(&stub, &who.url, ", timeout: 300ms", "  required: false\n  anonymous: { roles: [reader] }\n").await;
    let identity = ann().to_string();
    let mut faults = vec![Say::Hang, Say::Cut];
    faults.extend([500, 502, 404, 302, 204, 201].map(|status| Say::Status(status, identity.clone())));
    let garbage = [
        "",
        "ann",
        "null",
        "\"ann\"",
        "{}",
        r#"{"subject":""}"#,
        r#"{"subject":null}"#,
        r#"{"subject":7}"#,
        r#"{"subject":"ann""#,
        r#"{"subject":"ann","roles":"reader"}"#,
        r#"{"subject":"ann","roles":[1]}"#,
        r#"{"subject":"ann","tenant":5,"roles":["reader"]}"#,
        r#"{"subject":"bob","subject":"ann","roles":["reader"]}"#,
        r#"["ann",null,["reader"],[],null]"#,
        r#"{"subject":"ann","roles":["reader"]} and more"#,
    ];
    faults.extend(garbage.map(|body| Say::Status(200, body.to_owned())));
    let mut admitted = Vec::new();
    for (at, fault) in faults.into_iter().enumerate() {
        let what = if let Say::Status(status, body) = &fault { format!("{status} {body}") } else { format!("fault {at}") };
        let credential = format!("credential-{at}");
        who.says(&credential, fault);
        let (status, code, retry_after) = call(&gateway, "echo", &[("x-custom-auth", &credential)]).await;
        if (status, code.as_str()) != (503, "auth_unavailable") || retry_after.is_none_or(|wait| wait == 0) {
            admitted.push(format!("{what}: {status} {code} {retry_after:?}"));
        }
        // No fault is remembered.
        who.knows(&credential, &ann());
        if call(&gateway, "echo", &[("x-custom-auth", &credential)]).await.0 != 200 {
            admitted.push(format!("{what}: remembered"));
        }
    }
    assert!(admitted.is_empty(), "not as they should be:\n{}", admitted.join("\n"));
    let url = who.url.clone();
    drop(who);
    let refuses = async || tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.is_err().then_some(());
    eventually("it is down", refuses).await;
    let before = stub.calls();
    assert_eq!(call(&gateway, "echo", &[("x-custom-auth", "late")]).await.0, 503);
    assert_eq!(stub.calls(), before);
}

#[tokio::test]
async fn its_answer_is_remembered_for_exactly_the_headers_it_judged() {
    let (stub, who) = (Stub::start().await, Authenticator::start().await);
    let gateway = asking(&stub, &who.url, ", cache: 10m", "").await;
    who.knows("ann", &ann());
    for _ in 0..5 {
        assert_eq!((status(&gateway, "ann").await, status(&gateway, "nobody").await), (200, 401));
    }
    assert_eq!(who.asked().len(), 2, "once for each credential, a refusal as well");
    // Another value, or the same bytes shared out otherwise, is another credential.
    who.says("ann", Say::Status(401, String::new()));
    for headers in [
        &[("x-custom-auth", "ann ")][..],
        &[("x-custom-auth", "Ann")],
        &[("x-custom-auth", "a"), ("x-realm", "nn")],
        &[("x-custom-auth", "ann"), ("x-realm", "")],
        &[("x-realm", "ann")],
        &[("x-custom-auth", "ann"), ("x-custom-auth", "ann")],
        &[("x-custom-auth", "an"), ("x-custom-auth", "n")],
    ] {
        // A client cannot send a space at the end of a value: it is not part of it.
        let same = headers == [("x-custom-auth", "ann ")];
        let before = who.asked().len();
        assert_eq!(call(&gateway, "echo", headers).await.0, if same { 200 } else { 401 }, "{headers:?}");
        assert_eq!(who.asked().len(), before + usize::from(!same), "{headers:?}");
    }
    assert_eq!(status(&gateway, "ann").await, 200, "what was said of her is still believed");
}

#[tokio::test]
async fn its_answer_is_forgotten_in_time() {
    let (stub, who) = (Stub::start().await, Authenticator::start().await);
    let gateway = asking(&stub, &who.url, ", cache: 1s", "").await;
    who.knows("ann", &ann());
    assert_eq!(status(&gateway, "ann").await, 200);
    who.says("ann", Say::Status(401, String::new()));
    eventually("she is refused", async || (status(&gateway, "ann").await == 401).then_some(())).await;
    who.knows("ann", &ann());
    eventually("she is admitted again", async || (status(&gateway, "ann").await == 200).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_first_requests_ask_it_once() {
    let (stub, who) = (Stub::start().await, Authenticator::start().await);
    let gateway = asking(&stub, &who.url, ", cache: 10m", "").await;
    who.knows("ann", &ann());
    let many = futures::future::join_all((0..30).map(|_| status(&gateway, "ann"))).await;
    assert_eq!((many, who.asked().len()), (vec![200; 30], 1));
}

#[tokio::test]
async fn it_is_shown_the_configured_headers_and_no_others() {
    let (stub, who) = (Stub::start().await, Authenticator::start().await);
    let gateway = asking(&stub, &who.url, "", "").await;
    who.knows("ann:acme", &ann());
    let headers = [
        ("x-custom-auth", "ann"),
        ("x-realm", "acme"),
        ("cookie", "session=s3cret"),
        ("x-api-key", "s3cret"),
        ("x-other", "s3cret"),
        ("x-custom-auth-2", "s3cret"),
        ("user-agent", "s3cret"),
        ("x-forwarded-for", "10.66.66.66"),
    ];
    assert_eq!(call(&gateway, "echo", &headers).await.0, 200);
    let asked = who.asked();
    let [Question { method, uri, headers }] = &asked[..] else { panic!("{} questions", asked.len()) };
    assert_eq!((method, uri.path()), (&Method::GET, "/who"));
    assert_eq!((headers["x-custom-auth"].as_bytes(), headers["x-realm"].as_bytes()), (&b"ann"[..], &b"acme"[..]));
    let mut names: Vec<_> =
        headers.keys().map(axum::http::HeaderName::as_str).filter(|name| !["connection", "content-length"].contains(name)).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "host", "user-agent", "x-custom-auth", "x-realm"]);
    assert!(!format!("{headers:?}").contains("s3cret"), "{headers:?}");
    let sent = stub.headers();
    assert!(!sent.contains_key("x-custom-auth") && !sent.contains_key("x-realm"), "the credential is not passed on: {sent:?}");
}

#[tokio::test]
async fn who_brings_none_of_its_headers_is_none_of_its_business() {
    let (stub, who) = (Stub::start().await, Authenticator::start().await);
    let strict = asking(&stub, &who.url, "", "").await;
    assert_eq!(call(&strict, "echo", &[]).await.0, 401);
    assert_eq!(call(&strict, "echo", &[("authorization", "Bearer some-token")]).await.0, 401, "a credential nobody knows");
    let lax = asking(&stub, &who.url, "", "  required: false\n  anonymous: { roles: [reader] }\n").await;
    assert_eq!(call(&lax, "echo", &[]).await.0, 200);
    assert_eq!(call(&lax, "echo", &[("authorization", "Bearer some-token")]).await.0, 401, "a wrong credential is not none");
    assert_eq!(who.asked().len(), 0);
    assert_eq!(call(&lax, "echo", &[("x-custom-auth", "nobody")]).await.0, 401);
    assert_eq!(who.asked().len(), 1);
}

#[tokio::test]
async fn it_can_judge_the_authorization_header_itself() {
    let (stub, who) = (Stub::start().await, Authenticator::start().await);
    let external = format!("auth:\n  external: {{ url: \"{}\", headers: [Authorization, X-Custom-Auth] }}\n", who.url);
    let gateway = Gateway::start(&format!("{}{external}{ROLES}backends:\n{}", server(""), stub.backend("one", ""))).await;
    who.knows("ann", &ann());
    let basic = [("authorization", "Basic YW5uOnB3"), ("x-custom-auth", "ann")];
    assert_eq!(call(&gateway, "echo", &basic).await.0, 200, "of a scheme that is none of ours");
    assert_eq!(who.asked()[0].headers["authorization"], "Basic YW5uOnB3");
    assert!(!stub.headers().contains_key("authorization"), "{:?}", stub.headers());
}
