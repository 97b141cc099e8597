//! PostgreSQL killed, hung, read-only, refusing, and unlike itself under load: requests go on as if nothing was, what cannot
//! be stored waits or is counted, and it goes on without a restart.

use serde_json::json;

use super::{Numbers, start, yaml};
use crate::cache::call;
use crate::support::gateway::Gateway;
use crate::support::load::Load;
use crate::support::postgres::Postgres;
use crate::support::stub::Stub;
use crate::support::{eventually, http};

/// Under load: lets something happen to PostgreSQL until the queue is full, undoes it, and looks what came of it all.
async fn survives(what: &str, postgres: &mut Postgres, happens: impl AsyncFnOnce(&mut Postgres), undone: impl AsyncFnOnce(&mut Postgres)) {
    let stub = Stub::start().await;
    let mut gateway = start(&stub, postgres, "  queue: 200\n  batch: 100\n", "").await;
    let load = Load::on(&gateway);
    load.more(100).await;
    eventually("some are stored", async || (Numbers::of(&gateway).await.stored >= 100).then_some(())).await;
    let before = gateway.resident();
    happens(postgres).await;
    eventually("the queue is full", async || (Numbers::of(&gateway).await.full > 0).then_some(())).await;
    gateway.process.says("PostgreSQL cannot be written").await;
    load.more(200).await;
    let during = Numbers::of(&gateway).await;
    // One batch is in the writer's hands beside the queue.
    assert!(during.queued <= 304, "{what}: the queue has an end: {during:?}");
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown <= 32 << 10, "{what}: {grown} KiB more");
    undone(postgres).await;
    let stored = Numbers::of(&gateway).await.stored;
    eventually("it goes on without a restart", async || (Numbers::of(&gateway).await.stored > stored).then_some(())).await;
    let (asked, failed) = load.end().await;
    assert_eq!(failed, 0, "{what}: of {asked}");
    let numbers = Numbers::settled(&gateway, asked).await;
    assert!(numbers.full > 0 && numbers.rejected == 0, "{what}: {numbers:?}");
    assert_eq!(postgres.events().await, numbers.stored, "{what}: what counts as stored is there, once: {numbers:?}");
    let said = gateway.said().await;
    let told = |text: &str| said.iter().filter(|line| line.contains(text)).count();
    assert!(told("PostgreSQL is written again") > 0, "{what}");
    assert!(told("PostgreSQL cannot be written") < 20, "{what}: the log does not repeat itself");
}

#[tokio::test]
async fn nothing_fails_while_postgresql_is_killed_and_it_goes_on_when_it_is_back() {
    let mut postgres = Postgres::start().await;
    survives("killed", &mut postgres, Postgres::stop, Postgres::resume).await;
}

#[tokio::test]
async fn nothing_fails_while_postgresql_hangs_and_what_was_under_way_is_stored_once() {
    let mut postgres = Postgres::start().await;
    survives("hung", &mut postgres, async |postgres: &mut Postgres| postgres.hang(), async |postgres: &mut Postgres| postgres.wake()).await;
}

#[tokio::test]
async fn nothing_fails_while_postgresql_is_read_only() {
    let mut postgres = Postgres::start().await;
    let read_only = async |postgres: &mut Postgres| postgres.read_only(true).await;
    survives("read-only", &mut postgres, read_only, async |postgres: &mut Postgres| postgres.read_only(false).await).await;
}

#[tokio::test]
async fn a_wrong_password_costs_no_request_and_is_never_told() {
    let (stub, postgres) = (Stub::start().await, Postgres::start().await);
    let url = postgres.url().replace("canary", "canary-wrong");
    let mut gateway = Gateway::start(&yaml(&stub, &url, "  queue: 2\n  batch: 1\n", "")).await;
    gateway.knows("stub").await;
    gateway.process.says("password authentication failed").await;
    for _ in 0..8 {
        gateway.call("stub", "echo", json!({})).await;
    }
    let full = async || Some(Numbers::of(&gateway).await).filter(|numbers| numbers.produced == 8 && numbers.full >= 5);
    let numbers = eventually("the queue is full", full).await;
    assert!(numbers.add_up() && numbers.stored == 0, "{numbers:?}");
    let answer = http().get(format!("{}/admin/analytics", gateway.admin)).send().await.expect("an answer");
    let (status, text) = (answer.status(), answer.text().await.expect("text"));
    assert!(status == 503 && text.contains("analytics_unavailable"), "{status} {text}");
    let all = format!("{text}\n{}", gateway.said().await.join("\n"));
    assert!(!all.contains("canary"), "{all}");
}

#[tokio::test]
async fn what_can_never_be_stored_is_dropped_and_does_not_hold_up_the_rest() {
    let (stub, postgres) = (Stub::start().await, Postgres::start().await);
    let gateway = start(&stub, &postgres, "", "").await;
    gateway.call("stub", "echo", json!({})).await;
    Numbers::settled(&gateway, 1).await;
    postgres.run("ALTER TABLE mcp_gateway.events ADD CONSTRAINT odd CHECK (name <> 'odd')").await;
    gateway.call("stub", "odd", json!({})).await;
    let numbers = Numbers::settled(&gateway, 2).await;
    assert_eq!((numbers.rejected, numbers.stored), (1, 1), "{numbers:?}");
    gateway.call("stub", "echo", json!({})).await;
    let numbers = Numbers::settled(&gateway, 3).await;
    assert_eq!((numbers.rejected, numbers.stored, postgres.events().await), (1, 2, 2), "{numbers:?}");
}

#[tokio::test]
async fn a_schema_that_somebody_dropped_is_made_again() {
    let (stub, postgres) = (Stub::start().await, Postgres::start().await);
    let gateway = start(&stub, &postgres, "", "").await;
    gateway.call("stub", "echo", json!({})).await;
    Numbers::settled(&gateway, 1).await;
    postgres.run("DROP SCHEMA mcp_gateway CASCADE").await;
    gateway.call("stub", "echo", json!({})).await;
    let numbers = Numbers::settled(&gateway, 2).await;
    assert_eq!((numbers.stored, postgres.events().await), (2, 1), "{numbers:?}");
}

#[tokio::test]
async fn a_full_queue_of_the_usual_length_holds_less_than_32_mib() {
    let stub = Stub::start().await;
    // Nobody listens there.
    let gateway = Gateway::start(&yaml(&stub, "postgres://gateway@127.0.0.1:1/postgres", "", "")).await;
    gateway.knows("stub").await;
    let batch = json!(vec![call(&"\u{1d11e}".repeat(3000), &json!({})); 100]);
    let ask = async || assert_eq!(gateway.rest("stub", batch.clone()).await.0, 200);
    for _ in 0..10 {
        ask().await;
    }
    let before = gateway.resident();
    for _ in 10..110 {
        ask().await;
    }
    let numbers = Numbers::of(&gateway).await;
    assert!(numbers.add_up() && numbers.full > 0 && numbers.queued >= 10_000, "{numbers:?}");
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown <= 32 << 10, "{grown} KiB more for {numbers:?}");
}
