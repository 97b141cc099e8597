//! Nobody is given what is another's. Every answer of the stub holds a number that never comes twice, so whoever sees a
//! number again saw what was kept, and it is known for whom.

use std::collections::HashMap;

use mcp_gateway::digest::{hex, sha256};
use reqwest::Client;
use serde_json::{Value, json};

use super::{caching, list, native_by, read, rest, rest_by, told, tools};
use crate::support::gateway::Gateway;
use crate::support::redis::Redis;
use crate::support::stub::Stub;
use crate::support::{eventually, http};

const TENANTS: usize = 11;
const CALLERS: usize = 300;
const ROUNDS: usize = 6;

struct Caller {
    key: String,
    tenant: Option<usize>,
    /// Which of the tools it may see; `None` is all.
    sees: Option<usize>,
}

fn callers() -> Vec<Caller> {
    let caller = |i: usize| Caller {
        key: format!("key-of-caller-{i}"),
        tenant: Some(i % (TENANTS + 1)).filter(|tenant| *tenant < TENANTS),
        sees: Some((i / 7) % 4).filter(|sees| *sees < 3),
    };
    (0..CALLERS).map(caller).collect()
}

fn auth(callers: &[Caller]) -> String {
    let keys: Vec<Value> = callers
        .iter()
        .enumerate()
        .map(|(i, caller)| {
            let role = caller.sees.map_or_else(|| "all".to_owned(), |sees| format!("sees{sees}"));
            let mut key =
                json!({ "id": format!("c{i}"), "hash": format!("sha256:{}", hex(&sha256(caller.key.as_bytes()))), "roles": [role] });
            if let Some(tenant) = caller.tenant {
                key["tenant"] = json!(format!("t{tenant}"));
            }
            key
        })
        .collect();
    let role = |i: usize| (format!("sees{i}"), json!([{ "tools": [format!("tool{i}")], "resources": ["*"] }]));
    let mut roles: serde_json::Map<String, Value> = (0..3).map(role).collect();
    roles.insert("all".into(), json!([{}]));
    format!("auth: {}\nroles: {}\n", json!({ "api_keys": { "keys": keys } }), Value::Object(roles))
}

/// `store` is the Redis that replicas share.
async fn start(stub: &Stub, callers: &[Caller], store: Option<&Redis>) -> Gateway {
    let listed: Vec<Value> = (0..3).map(|i| json!({ "name": format!("tool{i}"), "description": "$N", "inputSchema": {} })).collect();
    stub.results("tools/list", json!({ "resultType": "complete", "ttlMs": 60_000, "cacheScope": "public", "tools": listed }));
    let private = |scope: &str| json!({ "resultType": "complete", "ttlMs": 60_000, "cacheScope": scope, "contents": [{ "uri": "a:b", "text": "$N" }] });
    stub.results("resources/read", private("private"));
    stub.results(
        "resources/list",
        json!({ "resultType": "complete", "ttlMs": 60_000, "cacheScope": "private", "resources": [{ "uri": "a:b", "name": "$N" }] }),
    );
    let more = store.map(Redis::section).unwrap_or_default();
    Gateway::start(&super::yaml(stub, if store.is_some() { "  redis: true\n" } else { "" }, &format!("{}{more}", auth(callers)))).await
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Of {
    Tools,
    Read,
    Resources,
}

/// The number in an answer; for a list of tools their names as well.
fn number(of: Of, result: &Value, is_rest: bool) -> (String, Vec<String>) {
    let part = |name: &str| if is_rest { result.clone() } else { result[name].clone() };
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {result}")).to_owned();
    match of {
        Of::Tools => {
            let tools = part("tools");
            let tools = tools.as_array().expect("a list");
            (text(&tools[0]["description"]), tools.iter().map(|tool| text(&tool["name"])).collect())
        }
        Of::Read => (text(&part("contents")[0]["text"]), Vec::new()),
        Of::Resources => (text(&part("resources")[0]["name"]), Vec::new()),
    }
}

async fn ask(client: &Client, gateway: &Gateway, caller: &Caller, of: Of, is_rest: bool) -> (String, (String, Vec<String>)) {
    let headers = [("x-api-key", caller.key.as_str()), ("mcp-name", "a:b")];
    let (method, body, params) = match of {
        Of::Tools => ("tools/list", list(), json!({})),
        Of::Read => ("resources/read", read("a:b"), json!({ "uri": "a:b" })),
        Of::Resources => ("resources/list", json!({ "method": "list_resources" }), json!({})),
    };
    let headers = if of == Of::Read { &headers[..] } else { &headers[..1] };
    let response = if is_rest {
        rest_by(client, gateway, &body, headers).await
    } else {
        native_by(client, gateway, &json!(1), method, params, headers).await
    };
    let (status, answer) = told(response).await;
    (status, number(of, &answer["result"], is_rest))
}

#[tokio::test]
async fn nobody_is_given_what_is_anothers() {
    let (stub, callers) = (Stub::start().await, callers());
    let gateways = [start(&stub, &callers, None).await];
    let lists = isolated(&gateways, &callers).await;
    // The control: what is public is shared by all of a tenant, so there are no more numbers than tenants and lanes.
    assert_eq!(lists, (TENANTS + 1) * 2);
}

#[tokio::test]
async fn nor_by_replicas_that_share_what_they_keep() {
    let (stub, callers, redis) = (Stub::start().await, callers(), Redis::start().await);
    let gateways = [start(&stub, &callers, Some(&redis)).await, start(&stub, &callers, Some(&redis)).await];
    let lists = isolated(&gateways, &callers).await;
    // Both may ask at the same moment, once.
    assert!(lists <= (TENANTS + 1) * 4, "{lists}");
    // And they do share: what one keeps the other comes to find, however busy the machine kept Redis before.
    let mut next = callers.iter().cycle();
    eventually("one finds what the other keeps", async || {
        let caller = next.next()?;
        for gateway in &gateways {
            let _ = ask(&http(), gateway, caller, Of::Resources, true).await;
        }
        (gateways[1].metric("cache_requests_total{result=\"hit\",server=\"stub\",tier=\"redis\"}").await > 0).then_some(())
    })
    .await;
}

/// Has callers ask at random; how many different lists there were.
async fn isolated(gateways: &[Gateway], callers: &[Caller]) -> usize {
    // Whom each number was first given to: a tenant for what is shared, a caller for what is private.
    let mut owners: HashMap<(Of, bool, String), String> = HashMap::new();
    let (client, mut hits) = (http(), 0);
    for _ in 0..ROUNDS {
        let mut order: Vec<(usize, Of, bool)> = Vec::new();
        for _ in 0..CALLERS {
            let of = [Of::Tools, Of::Read, Of::Resources][fastrand::usize(..3)];
            order.push((fastrand::usize(..CALLERS), of, fastrand::bool()));
        }
        let asking = order
            .iter()
            .map(|(who, of, is_rest)| ask(&client, &gateways[fastrand::usize(..gateways.len())], &callers[*who], *of, *is_rest));
        let answers = futures::future::join_all(asking).await;
        for ((who, of, is_rest), (status, (number, names))) in order.into_iter().zip(answers) {
            let caller = &callers[who];
            if of == Of::Tools {
                let sees: Vec<String> = (0..3).filter(|i| caller.sees.is_none_or(|sees| sees == *i)).map(|i| format!("tool{i}")).collect();
                assert_eq!(names, sees, "caller {who}, {status}");
            }
            let owner = if of == Of::Tools { format!("tenant {:?}", caller.tenant) } else { format!("caller {who}") };
            let known = owners.entry((of, is_rest, number)).or_insert_with(|| owner.clone());
            assert_eq!(*known, owner, "{of:?} {status}");
            hits += usize::from(status.contains("; hit"));
        }
    }
    assert!(hits > CALLERS, "and the cache was used: {hits}");
    owners.keys().filter(|(of, ..)| *of == Of::Tools).count()
}

#[tokio::test]
async fn what_is_private_is_not_kept_for_callers_nobody_can_tell_apart() {
    let stub = Stub::start().await;
    stub.results("tools/list", tools("private"));
    let gateway = caching(&stub, "", "").await;
    let before = stub.asked("tools/list");
    for _ in 0..3 {
        assert!(!told(rest(&gateway, &list(), &[]).await).await.0.contains("hit"));
    }
    assert_eq!(stub.asked("tools/list") - before, 3);
}

#[tokio::test]
async fn who_may_not_ask_is_not_told_from_the_cache() {
    let stub = Stub::start().await;
    let mut callers = callers();
    callers.truncate(20);
    let gateway = start(&stub, &callers, None).await;
    let (whole, part) =
        (callers.iter().find(|caller| caller.sees.is_none() && caller.tenant == Some(2)), callers.iter().find(|c| c.sees.is_some()));
    let (whole, part) = (whole.or_else(|| callers.iter().find(|caller| caller.sees.is_none())), part.expect("somebody"));
    assert!(whole.is_none() || ask(&http(), &gateway, whole.unwrap(), Of::Tools, true).await.0.contains("miss"));
    let prompts = rest(&gateway, &json!({ "method": "list_prompts" }), &[("x-api-key", part.key.as_str())]).await;
    assert_eq!(prompts.status(), 403);
    let anonymous = rest(&gateway, &list(), &[]).await;
    assert_eq!((anonymous.status().as_u16(), anonymous.headers().contains_key("cache-status")), (401, false));
}
