//! Who may do what, asked of the real binary from outside: one verdict in every lane, lists that show what a call would
//! be allowed, and sessions that belong to who opened them.

pub mod callers;
mod lists;
mod matrix;
pub mod offers;
mod sessions;
pub mod witness;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use self::callers::{Caller, Guarded};
use self::matrix::Matrix;
use self::witness::Witness;
use crate::support::http;

#[tokio::test]
async fn every_lane_gives_every_role_the_same_verdict() {
    Matrix::start(matrix::roles()).await.agrees().await;
}

#[tokio::test]
async fn a_condition_holds_for_whatever_is_asked_in_every_lane() {
    Matrix::start(matrix::conditions()).await.agrees().await;
}

#[tokio::test]
async fn a_list_shows_what_a_call_would_be_allowed_and_nothing_else() {
    lists::World::start().await.lists_tell_the_truth().await;
}

#[tokio::test]
async fn a_stream_taken_up_again_shows_no_more_than_the_list_itself() {
    lists::World::start().await.replays_tell_the_truth().await;
}

#[tokio::test]
async fn the_catalogue_shows_the_servers_and_counts_the_tools_a_caller_may_use() {
    lists::World::start().await.catalogues_tell_the_truth().await;
}

#[tokio::test]
async fn a_filtered_list_is_private_and_an_unfiltered_one_stays_as_it_was() {
    lists::World::start().await.scopes_tell_the_truth().await;
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_kept_from_those_who_see_a_part() {
    lists::World::start().await.hidden_lists_stay_hidden().await;
}

#[tokio::test]
async fn a_native_session_belongs_to_who_opened_it() {
    let world = sessions::World::start().await;
    world.only_its_owner_continues_a_session().await;
}

#[tokio::test]
async fn rest_callers_never_share_a_session() {
    let world = sessions::World::start().await;
    world.each_caller_has_one_session_upstream().await;
}

#[tokio::test]
async fn what_nobody_admitted_never_reaches_a_backend_by_any_http_method() {
    let witness = Witness::start(offers::answer).await;
    let callers = [Caller::new("nobody", json!([])), Caller::new("whole", json!([{}]))];
    let guarded = Guarded::start(&callers, &witness.backend(&["main"], "modern"), "whole").await;
    let mut reached = BTreeSet::new();
    for (caller, expected) in [("nobody", 403), ("whole", 200)] {
        for method in ["GET", "DELETE"] {
            let request = http().request(method.parse().expect("a method"), guarded.gateway.at("/mcp/main"));
            let sent = request.header("x-api-key", callers::key(caller)).header("x-request-id", format!("{caller}-{method}"));
            assert_eq!(sent.send().await.expect("an answer").status().as_u16(), expected, "{caller} {method}");
        }
        reached.extend(witness.seen().into_iter().map(|seen| seen.request));
        assert_eq!(reached.len(), if caller == "nobody" { 0 } else { 2 }, "{reached:?}");
    }
    let anonymous = http().get(guarded.gateway.at("/api/servers")).send().await.expect("an answer");
    assert_eq!(anonymous.status(), 401);
    let problem: Value = anonymous.json().await.expect("JSON");
    assert_eq!(problem["code"], "unauthorized");
}
