//! What the tests stand on: the real binary, real MCP servers and clients, and a stub for the faults no real server
//! would commit on demand. Everything started here is stopped when its handle is dropped; every port is one the system
//! gave.

pub mod alternator;
pub mod collector;
pub mod dogstatsd;
pub mod etcd;
pub mod exposition;
pub mod faulty;
pub mod gateway;
pub mod load;
pub mod names;
pub mod part;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod redis;
pub mod relay;
pub mod stub;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long anything may take to come about before a test gives up. Generous: CI has two cores for everything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Asks until the answer is there; fails naming what never came.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < until, "never came about: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client without proxies or redirects, as tests want it.
pub fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    client(reqwest::Client::builder())
}

pub fn client(builder: reqwest::ClientBuilder) -> reqwest::Client {
    // An error means that another test did it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    builder.no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE).build().expect("a client")
}
