//! A page in the operator's browser must not drive the admin listener, wherever the page is from.

use serde_json::{Value, json};

use super::backend;
use crate::support::gateway::{Gateway, server};
use crate::support::http;
use crate::support::stub::Stub;

/// A token as a page of ours reads it.
async fn token(gateway: &Gateway) -> String {
    let answer =
        http().get(format!("{}/admin/csrf", gateway.admin)).header("sec-fetch-site", "same-origin").send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let told: Value = answer.json().await.expect("JSON");
    told["token"].as_str().expect("a token").to_owned()
}

/// The status and code of an action with these headers.
async fn act(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
    let request = http().request(method, format!("{}{path}", gateway.admin));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap_or_default();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_browser_acts_with_a_token_of_this_process_only() {
    let stub = Stub::start().await;
    let yaml = format!("{}{}", server(""), backend(&stub));
    let (gateway, other) = tokio::join!(Gateway::start(&yaml), Gateway::start(&yaml));
    let (ours, theirs) = (token(&gateway).await, token(&other).await);
    let origin = gateway.admin.as_str();
    let mut changed = ours.clone();
    changed.replace_range(4..5, if &ours[4..5] == "A" { "B" } else { "A" });
    let browsers = [
        vec![("origin", origin)],
        vec![("sec-fetch-site", "same-origin")],
        vec![("sec-fetch-site", "none")],
        vec![("cookie", "a=b")],
        vec![("origin", origin), ("sec-fetch-site", "same-origin"), ("cookie", "a=b")],
    ];
    for browser in &browsers {
        let with = |token| browser.iter().copied().chain([("x-csrf-token", token)]).collect::<Vec<_>>();
        assert_eq!(act(&gateway, "POST", "/admin/reload", &with(&ours)).await.0, 200, "{browser:?}");
        assert_eq!(act(&gateway, "POST", "/admin/reload", &with(&ours)).await.0, 200, "{browser:?}: as often as it likes");
        for wrong in [browser.clone(), with(&theirs), with(""), with("AAAA"), with(&changed), with(&ours[1..])] {
            let refused = act(&gateway, "POST", "/admin/reload", &wrong).await;
            assert_eq!((refused.0, refused.1.as_str()), (403, "origin_forbidden"), "{wrong:?}");
        }
        assert_eq!(act(&gateway, "GET", "/admin/config", browser).await.0, 200, "{browser:?}: to read takes none");
        for (method, path) in [("POST", "/admin/keys"), ("DELETE", "/admin/keys/ann"), ("POST", "/admin/keys/ann/rotate")] {
            assert_eq!(act(&gateway, method, path, browser).await.0, 403, "{browser:?} {method} {path}");
        }
    }
    assert_eq!(act(&gateway, "POST", "/admin/reload", &[]).await.0, 200, "curl is no browser");
    for site in ["cross-site", "same-site", "else"] {
        for method in ["GET", "POST"] {
            let path = if method == "GET" { "/admin/config" } else { "/admin/reload" };
            let refused = act(&gateway, method, path, &[("sec-fetch-site", site), ("x-csrf-token", &ours)]).await;
            assert_eq!((refused.0, refused.1.as_str()), (403, "origin_forbidden"), "{method} {site}");
        }
    }
    for origin in ["https://evil.example", "null", gateway.url.as_str()] {
        let refused = act(&gateway, "POST", "/admin/reload", &[("origin", origin), ("x-csrf-token", &ours)]).await;
        assert_eq!((refused.0, refused.1.as_str()), (403, "origin_forbidden"), "{origin}");
    }
    assert_eq!(act(&gateway, "GET", "/admin/csrf", &[("host", "evil.example")]).await.1, "host_forbidden", "a rebound name reads no token");
}

#[tokio::test]
async fn a_csrf_token_is_no_admin_token() {
    let stub = Stub::start().await;
    let gateway = Gateway::start(&format!("{}{}", server("  admin_token: the-admin-token\n"), backend(&stub))).await;
    let page = format!("{}/admin/csrf", gateway.admin);
    assert_eq!(http().get(&page).send().await.expect("an answer").status(), 401);
    let told: Value = http().get(&page).bearer_auth("the-admin-token").send().await.expect("an answer").json().await.expect("JSON");
    let csrf = told["token"].as_str().expect("a token");
    let act = async |bearer: Option<&str>, csrf: Option<&str>| {
        let request = http().post(format!("{}/admin/keys", gateway.admin)).json(&json!({ "id": "x" })).header("origin", &gateway.admin);
        let request = bearer.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
        let request = csrf.into_iter().fold(request, |request, token| request.header("x-csrf-token", token));
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(act(None, Some(csrf)).await, 401);
    assert_eq!(act(Some("the-admin-token"), None).await, 403);
    assert_eq!(act(Some("the-admin-token"), Some(csrf)).await, 404, "both, and there is only nothing to manage");
}
