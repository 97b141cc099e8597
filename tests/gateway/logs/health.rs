//! Why a backend gets no requests.

use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::stub::Stub;

#[tokio::test]
async fn the_log_says_what_the_check_of_a_backend_got_that_became_unhealthy() {
    let stub = Stub::start().await;
    let gateway = Gateway::with(&stub.backend("one", ", health_check: {path: /health, interval: 50ms}")).await;
    stub.be_sick(true);
    let find = async || gateway.said().await.into_iter().find(|line| line.contains("is now unhealthy"));
    let line = eventually("the log tells of it", find).await;
    assert!(line.contains("backend one: ") && line.contains("is now unhealthy: GET /health answered 5"), "{line}");
}
