//! The operator's page on the admin listener: what it tells, whom it lets in, what it does, and what it never gives away.

mod browser;
mod playground;

use mcp_gateway::digest::{hex, sha256};
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, server};
use crate::support::stub::{Act, Stub};
use crate::support::{eventually, http};
use crate::tokens::key::Key;
use crate::tokens::token::Token;

const KEY: &str = "mgk_the-key-of-a-reader-in-this-test";
const SECRET: &str = "an-hs256-secret-of-thirty-two-bytes!";

/// What authenticates and permits in these tests: a reader who may call `echo`, and tokens whose bearers may do anything.
fn policy() -> String {
    let keys =
        json!([{ "id": "reader", "hash": format!("sha256:{}", hex(&sha256(KEY.as_bytes()))), "tenant": "acme", "roles": ["reader"] }]);
    let jwt = json!([{ "issuer": "https://idp.example", "algorithms": ["HS256"], "secret": SECRET, "claims": { "roles": "roles" } }]);
    let auth = json!({ "api_keys": { "keys": keys }, "jwt": jwt });
    format!("auth: {auth}\nroles: {{ reader: [ {{ tools: [echo] }} ], user: [ {{}} ] }}\n")
}

fn token(subject: &str) -> String {
    Token::of("https://idp.example", &Key::secret("HS256", SECRET)).claim("sub", subject).compact()
}

/// A gateway with this policy before one backend.
async fn guarded(stub: &Stub, more: &str) -> Gateway {
    Gateway::start(&format!("{}{}{more}backends:\n{}", server(""), policy(), stub.backend("one", ""))).await
}

async fn get(url: String) -> Response {
    http().get(url).send().await.expect("an answer")
}

async fn overview(gateway: &Gateway) -> Value {
    get(format!("{}/admin/overview", gateway.admin)).await.json().await.expect("JSON")
}

async fn page(gateway: &Gateway) -> String {
    get(format!("{}/admin/", gateway.admin)).await.text().await.expect("text")
}

/// One REST call with a header of the caller's: its status.
async fn call(gateway: &Gateway, server: &str, tool: &str, arguments: Value, credential: Option<(&str, &str)>) -> u16 {
    let body = json!({ "method": "call_tool", "params": { "tool_name": tool, "arguments": arguments } });
    let request = http().post(gateway.at(&format!("/api/mcp/{server}"))).json(&body);
    let request = credential.into_iter().fold(request, |request, (name, value)| request.header(name, value));
    request.send().await.expect("an answer").status().as_u16()
}

fn refusal<'v>(overview: &'v Value, code: &str) -> Option<&'v Value> {
    overview["refusals"].as_array()?.iter().find(|refusal| refusal["code"] == code)
}

#[tokio::test]
async fn refusals_and_failures_are_told_with_their_reasons_and_without_what_was_sent() {
    let stub = Stub::start().await;
    let gateway =
        guarded(&stub, "rate_limits: { rules: [ { name: few, match: { tool: echo }, by: [subject], rate: 3/h, burst: 3 } ] }\n").await;
    let secret = json!({ "password": "a-secret-argument" });
    let key = Some(("x-api-key", KEY));
    assert_eq!(call(&gateway, "stub", "echo", secret.clone(), Some(("x-api-key", "mgk_a-wrong-key-of-somebody"))).await, 401);
    assert_eq!(call(&gateway, "stub", "regional", secret.clone(), key).await, 403);
    stub.act(Act::Status(500));
    assert_eq!(call(&gateway, "stub", "echo", secret.clone(), key).await, 502);
    stub.act(Act::Say("error", json!({ "code": -32602, "message": "bad: a-secret-argument" })));
    assert_eq!(call(&gateway, "stub", "echo", secret.clone(), key).await, 400);
    stub.act(Act::Echo);
    assert_eq!(call(&gateway, "stub", "echo", secret.clone(), key).await, 200);
    for _ in 0..3 {
        assert_eq!(call(&gateway, "stub", "echo", secret.clone(), key).await, 429);
    }
    let told = overview(&gateway).await;
    let forbidden = refusal(&told, "forbidden").expect("told");
    let facts = ["principal", "tenant", "server", "name", "method", "client"].map(|fact| forbidden[fact].as_str().unwrap_or_default());
    assert_eq!(facts, ["reader", "acme", "stub", "regional", "tools/call", "127.0.0.1"]);
    assert_eq!(refusal(&told, "unauthorized").expect("told")["server"], "stub", "what its path says");
    let limited = refusal(&told, "rate_limited").expect("told");
    assert_eq!((&limited["times"], &limited["limit"]), (&json!(3), &json!("few")));
    let failed = refusal(&told, "backend_failed").expect("told");
    assert!(failed["cause"].as_str().is_some_and(|cause| cause.contains("500")), "{failed}");
    assert!(failed["request_id"].as_str().is_some_and(|id| !id.is_empty()));
    assert!(refusal(&told, "invalid_params").is_some(), "{told}");
    let near = &told["limits"]["near"][0];
    assert_eq!(
        (&near["rule"], &near["who"], &near["left"], &near["refused"]),
        (&json!("few"), &json!("subject reader"), &json!(0), &json!(3))
    );
    let (shown, told) = (page(&gateway).await, told.to_string());
    for secret in ["a-secret-argument", KEY, "mgk_a-wrong-key-of-somebody"] {
        assert!(!shown.contains(secret) && !told.contains(secret), "{secret}");
    }
    assert!(shown.contains("no role permits it") && shown.contains("subject reader"), "{shown}");
}

#[tokio::test]
async fn elements_of_a_batch_are_told_one_by_one() {
    let stub = Stub::start().await;
    let gateway = guarded(&stub, "").await;
    let call = |tool: &str| json!({ "method": "call_tool", "params": { "tool_name": tool, "arguments": {} } });
    let sent = http().post(gateway.at("/api/mcp/stub")).header("x-api-key", KEY).json(&json!([call("echo"), call("regional")]));
    assert_eq!(sent.send().await.expect("an answer").status(), 200);
    let told = overview(&gateway).await;
    assert_eq!(refusal(&told, "forbidden").expect("told")["times"], 1, "{told}");
}

#[tokio::test]
async fn rates_and_times_of_the_last_minute_are_told_of_the_gateway_and_its_backends() {
    let stub = Stub::start().await;
    let gateway = guarded(&stub, "cache: { enabled: true, tools: [ { server: stub, tool: echo, ttl: 5m } ] }\n").await;
    for _ in 0..4 {
        assert_eq!(call(&gateway, "stub", "echo", json!({}), Some(("x-api-key", KEY))).await, 200);
    }
    assert_eq!(call(&gateway, "stub", "echo", json!({}), None).await, 401);
    let drawn = async || {
        let told = overview(&gateway).await;
        let points = told["traffic"]["points"].as_array()?;
        let sum = |kind: &str| points.iter().filter_map(|point| point[kind].as_u64()).sum::<u64>();
        (sum("ok") == 4 && sum("refused") == 1 && sum("failed") == 0).then_some(told.clone())
    };
    let told = eventually("what came is read from the counters", drawn).await;
    assert_eq!(told["traffic"]["requests"], 5);
    assert!(told["traffic"]["p50_seconds"].is_f64() && told["traffic"]["refused_share"] == 0.2, "{}", told["traffic"]);
    let backend = &told["backends"][0];
    assert_eq!((&backend["requests"], &backend["failed_share"]), (&json!(1), &json!(0.0)), "{backend}");
    let cache = &told["cache"];
    assert_eq!((&cache["hits"], &cache["misses"], &cache["hit_share"]), (&json!(3), &json!(1), &json!(0.75)), "{cache}");
    assert_eq!(cache["hottest"][0]["tool"], "echo");
}

#[tokio::test]
async fn what_others_wrote_is_text_on_the_page() {
    let stub = Stub::start().await;
    let tool =
        json!({ "name": "<script>alert(1)</script>", "description": "\"><img onerror=alert(2)>", "inputSchema": { "type": "object" } });
    stub.results("tools/list", json!({ "resultType": "complete", "tools": [tool] }));
    let gateway = guarded(&stub, "").await;
    let subject = "\"><img src=x onerror=alert(3)>";
    let bearer = format!("Bearer {}", token(subject));
    assert_eq!(call(&gateway, "<b>nowhere", "x", json!({}), Some(("authorization", &bearer))).await, 404);
    let shown = async || Some(page(&gateway).await).filter(|shown| shown.contains("alert(1)") && shown.contains("alert(3)"));
    let shown = eventually("both are shown", shown).await;
    assert!(shown.contains("&#60;script&#62;alert(1)") && shown.contains("&#34;&#62;&#60;img src=x onerror=alert(3)"), "{shown}");
    assert!(!shown.contains("<script>") && !shown.contains("<img") && !shown.contains("<b>"), "{shown}");
}

#[tokio::test]
async fn which_configuration_is_served_is_told_and_why_another_is_not() {
    let stub = Stub::start().await;
    let gateway = guarded(&stub, "").await;
    let good = std::fs::read_to_string(gateway.config_path()).expect("readable");
    std::fs::write(gateway.config_path(), format!("{good}nonsense: 1\n")).expect("writable");
    let answer = http().post(format!("{}/admin/reload", gateway.admin)).send().await.expect("an answer");
    assert_eq!(answer.status(), 422);
    let told = overview(&gateway).await;
    let configuration = &told["configuration"];
    assert!(configuration["problems"][0].as_str().is_some_and(|problem| problem.contains("nonsense")), "{configuration}");
    assert_eq!(configuration["revision"], 1);
    assert!(told["attention"][0]["text"].as_str().is_some_and(|text| text.contains("is not served")), "{}", told["attention"]);
    gateway.load(&good).await;
    let told = overview(&gateway).await;
    assert_eq!(told["configuration"]["problems"], json!([]));
    // What the start warns of is told here as well: the file of the tests holds a secret that everybody can read.
    let notices = told["attention"].as_array().expect("a list");
    assert!(notices.iter().all(|notice| notice["level"] == "note"), "{notices:?}");
    assert!(
        notices.iter().any(|notice| notice["text"].as_str().unwrap_or_default().ends_with("[secrets_in_readable_file]")),
        "{notices:?}"
    );
    std::fs::write(gateway.config_path(), good.replace("workers: 2", "workers: 1")).expect("writable");
    let waits = async || (overview(&gateway).await["configuration"]["waiting"] == json!(["server.workers"])).then_some(());
    eventually("what takes a restart is told", waits).await;
}

#[tokio::test]
async fn nothing_of_the_page_is_on_the_public_listener() {
    let stub = Stub::start().await;
    let gateway = guarded(&stub, "").await;
    for path in ["/", "/admin", "/admin/", "/admin/overview", "/admin/page.js", "/admin/page.css", "/admin/login", "/admin/try"] {
        assert_eq!(get(gateway.at(path)).await.status(), 404, "{path}");
        assert_eq!(http().post(gateway.at(path)).send().await.expect("an answer").status(), 404, "{path}");
    }
    let document = get(gateway.at("/openapi.json")).await.text().await.expect("text");
    assert!(document.contains("/admin/overview") && !document.contains(&gateway.admin), "where it is, is not told");
}

#[tokio::test]
async fn the_page_says_what_a_browser_may_do_with_it() {
    let stub = Stub::start().await;
    let gateway = guarded(&stub, "").await;
    for path in ["/", "/admin"] {
        let answer = get(format!("{}{path}", gateway.admin)).await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["location"]), (303, &"/admin/".parse().expect("a value")));
    }
    for path in ["/admin/", "/admin/page.js", "/admin/page.css"] {
        let answer = get(format!("{}{path}", gateway.admin)).await;
        let header = |name: &str| answer.headers().get_all(name).iter().map(|value| value.to_str().expect("text")).collect::<Vec<_>>();
        let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
        assert_eq!(header("content-security-policy"), [policy], "{path}");
        assert_eq!((header("x-content-type-options"), header("referrer-policy")), (vec!["nosniff"], vec!["same-origin"]));
        assert_eq!(header("cache-control"), ["no-store"]);
    }
    let shown = page(&gateway).await;
    for inline in ["<style", "style=", "onclick=", "javascript:", "http-equiv=\"Content-Security-Policy\""] {
        assert!(!shown.contains(inline), "{inline}");
    }
    assert_eq!(shown.matches("<script").count(), 1);
    let health = get(format!("{}/health", gateway.admin)).await;
    assert_eq!(health.headers()["referrer-policy"], "no-referrer", "what is no page says so as before");
}

/// A form as a browser sends it.
async fn submit(gateway: &Gateway, path: &str, cookie: Option<&str>, fields: &[(&str, &str)]) -> Response {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let request = http().post(format!("{}{path}", gateway.admin)).header("origin", &gateway.admin).header("sec-fetch-site", "same-origin");
    let request = cookie.into_iter().fold(request, |request, cookie| request.header("cookie", cookie));
    request.header("content-type", "application/x-www-form-urlencoded").body(body).send().await.expect("an answer")
}

/// The name and value of the cookie that an answer sets.
fn cookie(answer: &Response) -> Option<String> {
    let set = answer.headers().get("set-cookie")?.to_str().ok()?;
    Some(set.split(';').next()?.to_owned())
}

async fn with(gateway: &Gateway, path: &str, cookie: &str) -> Response {
    http().get(format!("{}{path}", gateway.admin)).header("cookie", cookie).send().await.expect("an answer")
}

#[tokio::test]
async fn a_browser_comes_in_with_the_admin_token_alone() {
    let stub = Stub::start().await;
    let yaml = |token: &str| format!("{}backends:\n{}", server(&format!("  admin_token: {token}\n")), stub.backend("one", ""));
    let ours = yaml("the-admin-token");
    let (gateway, other) = tokio::join!(Gateway::start(&ours), Gateway::start(&ours));
    let door = get(format!("{}/admin/", gateway.admin)).await;
    assert_eq!(door.status(), 401);
    let door = door.text().await.expect("text");
    assert!(door.contains("name=\"token\"") && !door.contains("one") && !door.contains("csrf"), "{door}");
    assert_eq!(get(format!("{}/admin/page.css", gateway.admin)).await.status(), 200, "the door is dressed as well");
    for wrong in ["", "wrong", "the-admin-toke"] {
        let refused = submit(&gateway, "/admin/login", None, &[("token", wrong)]).await;
        assert_eq!((refused.status().as_u16(), cookie(&refused)), (401, None), "{wrong}");
    }
    let answer = submit(&gateway, "/admin/login", None, &[("token", "the-admin-token")]).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["location"]), (303, &"/admin/".parse().expect("a value")));
    let set = answer.headers()["set-cookie"].to_str().expect("text");
    assert!(["HttpOnly", "SameSite=Strict", "Path=/admin", "Max-Age=7200"].iter().all(|part| set.contains(part)), "{set}");
    assert!(!set.contains("the-admin-token") && !set.contains("Secure"), "{set}");
    let good = cookie(&answer).expect("a cookie");
    for path in ["/admin/", "/admin/overview", "/admin/config"] {
        assert_eq!(with(&gateway, path, &good).await.status(), 200, "{path}");
        assert_eq!(with(&gateway, path, "mcp_gateway_admin=AAAA").await.status(), 401, "{path}");
        assert_eq!(with(&other, path, &good).await.status(), 401, "{path}: of another gateway");
        assert_eq!(get(format!("{}{path}", gateway.admin)).await.status(), 401, "{path}");
    }
    gateway.load_as("the-admin-token", &yaml("another-admin-token")).await;
    assert_eq!(with(&gateway, "/admin/", &good).await.status(), 401, "a new token ends what the old one began");
    let said = gateway.process.output().join("\n");
    assert!(said.contains("a wrong token was given") && !said.contains("the-admin-token") && !said.contains(&good), "{said}");
}

#[tokio::test]
async fn buttons_work_from_pages_of_ours_alone() {
    let stub = Stub::start().await;
    let yaml = format!("{}cache: {{ enabled: true }}\nbackends:\n{}", server("  admin_token: the-admin-token\n"), stub.backend("one", ""));
    let gateway = Gateway::start(&yaml).await;
    let good = cookie(&submit(&gateway, "/admin/login", None, &[("token", "the-admin-token")]).await).expect("a cookie");
    let shown = with(&gateway, "/admin/", &good).await.text().await.expect("text");
    let (_, rest) = shown.split_once("name=\"csrf\" value=\"").expect("a token");
    let csrf = rest.split('"').next().expect("its end");
    let drains = [("action", "drain"), ("backend", "one")];
    let draining =
        async || with(&gateway, "/admin/overview", &good).await.json::<Value>().await.expect("JSON")["backends"][0]["draining"] == true;
    assert_eq!(submit(&gateway, "/admin/act", Some(&good), &drains).await.status(), 403, "without the token of the page");
    assert_eq!(submit(&gateway, "/admin/act", None, &[drains[0], drains[1], ("csrf", csrf)]).await.status(), 401, "without a login");
    let forged = http().post(format!("{}/admin/act", gateway.admin)).header("cookie", &good).header("sec-fetch-site", "cross-site");
    let forged = forged.header("content-type", "application/x-www-form-urlencoded").body(format!("action=drain&backend=one&csrf={csrf}"));
    assert_eq!(forged.send().await.expect("an answer").status(), 403, "from elsewhere");
    assert!(!draining().await);
    let act = async |fields: &[(&str, &str)]| {
        let fields: Vec<_> = fields.iter().copied().chain([("csrf", csrf)]).collect();
        let answer = submit(&gateway, "/admin/act", Some(&good), &fields).await;
        (answer.status().as_u16(), answer.headers().get("location").map(|place| place.to_str().expect("text").to_owned()))
    };
    assert_eq!(act(&drains).await, (303, Some("/admin/#backends".into())));
    assert!(draining().await);
    assert_eq!(act(&[("action", "undrain"), ("backend", "one")]).await.0, 303);
    assert!(!draining().await);
    assert_eq!(act(&[("action", "drain"), ("backend", "nobody")]).await.0, 404);
    assert_eq!(act(&[("action", "purge")]).await, (303, Some("/admin/#cache".into())));
    assert_eq!(act(&[("action", "reload")]).await, (303, Some("/admin/#configuration".into())));
    assert_eq!(act(&[("action", "explode")]).await.0, 400);
    let bye = submit(&gateway, "/admin/logout", Some(&good), &[("csrf", csrf)]).await;
    assert!(bye.headers()["set-cookie"].to_str().is_ok_and(|set| set.contains("Max-Age=0")));
    assert_eq!(submit(&gateway, "/admin/logout", Some(&good), &[]).await.status(), 403, "nobody else signs an operator out");
}

#[tokio::test]
async fn a_link_elsewhere_leads_to_the_page_and_tells_the_other_site_nothing() {
    let stub = Stub::start().await;
    let gateway = guarded(&stub, "").await;
    let from = async |path: &str, mode: &str| {
        let request = http().get(format!("{}{path}", gateway.admin)).header("sec-fetch-site", "cross-site").header("sec-fetch-mode", mode);
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    let (status, text) = from("/admin/", "navigate").await;
    assert!(status == 200 && text.contains("url=/admin/") && !text.contains("one"), "{text}");
    assert_eq!(from("/admin/", "cors").await.0, 403);
    assert_eq!(from("/admin/overview", "navigate").await.0, 403);
}
