//! A gateway with an authenticator of its own: a shared terminal sends `Authorization: Badge <number>`, and a table says
//! whose badge that is. Build your binary like this one, against the `mcp-gateway` crate; run it as you would the
//! gateway itself: `cargo run --example custom_auth -- --config gateway.yaml`.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use clap::Parser as _;
use http::header::AUTHORIZATION;
use mcp_gateway::bootstrap::cli::{self, Cli};
use mcp_gateway::extend::{Arriving, Authenticator, Extensions, Recognition};
use mcp_gateway::principal::Identity;

/// Badges by number.
struct Badges(HashMap<&'static str, (&'static str, &'static str)>);

#[async_trait]
impl Authenticator for Badges {
    async fn authenticate(&self, request: Arriving<'_>) -> Recognition {
        let value = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(number) = value.and_then(|value| value.strip_prefix("Badge ")) else { return Recognition::NotMine };
        match self.0.get(number) {
            Some((subject, role)) => Recognition::Known(Identity {
                issuer: "badges".into(),
                subject: (*subject).into(),
                roles: vec![(*role).into()],
                ..Identity::default()
            }),
            None => Recognition::Refused("no such badge".into()),
        }
    }
}

fn main() -> ExitCode {
    let badges = Badges([("1234", ("ann", "reader")), ("5678", ("bob", "operator"))].into());
    cli::run(Cli::parse(), Extensions { authenticators: vec![Arc::new(badges)], ..Extensions::default() })
}
