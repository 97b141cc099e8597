//! A gateway with a router and middleware of its own. The router keeps each experiment on the machine that holds its data,
//! by a table no condition could express; the middleware refuses what an experiment that runs must not be disturbed by,
//! tells servers who calls, and counts what callers wait for. Build your binary like this one, against the `mcp-gateway`
//! crate; run it as you would the gateway itself: `cargo run --example custom_gateway -- --config gateway.yaml`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser as _;
use http::{HeaderName, HeaderValue};
use mcp_gateway::bootstrap::cli::{self, Cli};
use mcp_gateway::extend::{Among, Answered, Asking, Code, Extensions, Lines, Middleware, Refusal, Router, Way};

/// Which backend holds the data of an experiment, by its number.
struct Machines(Vec<&'static str>);

impl Router for Machines {
    fn route(&self, asking: &Asking<'_>) -> Option<Way> {
        let number = asking.headers.get("x-experiment")?.to_str().ok()?.parse::<usize>().ok()?;
        // A number beyond the table panics, as code does that nobody thought through: the gateway answers 500, sends the
        // request nowhere, and goes on serving.
        let machine = self.0[number];
        Some(Way { among: Some(Among::Names(vec![machine.to_owned()])), timeout: Some(Duration::from_secs(300)) })
    }
}

/// The tools that must not be called while an experiment runs, and the time callers waited so far.
struct Laboratory {
    forbidden: &'static [&'static str],
    waited: AtomicU64,
}

#[async_trait]
impl Middleware for Laboratory {
    async fn request(&self, asking: &Asking<'_>) -> Result<Lines, Refusal> {
        let name = asking.name.unwrap_or_default();
        if asking.method == "tools/call" && self.forbidden.contains(&name) {
            return Err(Refusal { code: Code::Conflict, message: format!("an experiment runs; `{name}` has to wait") });
        }
        let caller = HeaderValue::from_str(&asking.principal.identity.subject).ok();
        Ok(caller.map(|caller| (HeaderName::from_static("x-caller"), caller)).into_iter().collect())
    }

    fn response(&self, answered: &Answered<'_>) -> Lines {
        let elapsed = u64::try_from(answered.elapsed.as_micros()).unwrap_or(u64::MAX);
        let waited = self.waited.fetch_add(elapsed, Ordering::Relaxed) + elapsed;
        vec![
            (HeaderName::from_static("x-waited-us"), HeaderValue::from(waited)),
            (HeaderName::from_static("x-ended"), HeaderValue::from_static(answered.code.or(answered.outcome).unwrap_or("under way"))),
        ]
    }
}

fn main() -> ExitCode {
    let laboratory = Laboratory { forbidden: &["regional"], waited: AtomicU64::new(0) };
    let extensions = Extensions {
        routers: vec![Arc::new(Machines(vec!["one", "two"]))],
        middleware: vec![Arc::new(laboratory)],
        ..Extensions::default()
    };
    cli::run(Cli::parse(), extensions)
}
