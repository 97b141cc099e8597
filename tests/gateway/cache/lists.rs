//! Tool lists of many servers, one of which hangs.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{list, status, tools};
use crate::support::gateway::{Gateway, server};
use crate::support::stub::Stub;
use crate::support::{eventually, http};

const SERVERS: usize = 20;
const ROUNDS: usize = 25;

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[tokio::test]
async fn a_server_that_hangs_holds_up_nobodys_list() {
    let mut stubs = Vec::new();
    for _ in 0..SERVERS {
        let stub = Stub::start().await;
        let mut short = tools("public");
        short["ttlMs"] = json!(2_000);
        stub.results("tools/list", short);
        stubs.push(stub);
    }
    let named = |(i, stub): (usize, &Stub)| stub.backend(&format!("b{i}"), "").replace("[stub]", &format!("[s{i}]"));
    let backends: String = stubs.iter().enumerate().map(named).collect();
    let cache = "cache:\n  enabled: true\n  stale: { while_revalidate: 1h }\n  warm: [ { method: tools/list, before_ready: true } ]\n";
    let gateway = Gateway::start(&format!("{}backends:\n{backends}{cache}", server(""))).await;
    stubs[7].hold(true);
    // Its list runs out, and whoever asks for it anew waits forever.
    eventually("it hangs", async || (stubs[7].waiting() > 0).then_some(())).await;
    let client = http();
    let ask = async |i: usize| {
        let began = Instant::now();
        let asked = client.post(gateway.at(&format!("/api/mcp/s{i}"))).json(&list()).send().await.expect("an answer");
        (began.elapsed(), status(&asked))
    };
    let stale = async || ask(7).await.1.contains("detail=stale").then_some(());
    eventually("what it said before is given", stale).await;
    let (mut lists, mut pings) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for i in 0..SERVERS {
            let (took, told) = ask(i).await;
            assert!(told.starts_with("mcp-gateway; hit;"), "s{i}: {told}");
            lists.push(took);
            let began = Instant::now();
            assert_eq!(client.get(gateway.at("/health")).send().await.expect("an answer").status(), 200);
            pings.push(began.elapsed());
        }
    }
    assert!(stubs[7].waiting() > 0, "it still hangs");
    let (lists, pings) = (p99(lists), p99(pings));
    println!("tools/list: p99 {lists:?}, {:.2} × that of /health ({pings:?})", lists.as_secs_f64() / pings.as_secs_f64());
}
