//! `bench bare`: the yardstick, a Pingora proxy that does nothing but name its upstream.
//!
//! Same Pingora, allocator and build profile as the gateway; a ratio of 1 is what a proxy on Pingora costs at all.

use std::net::SocketAddr;

use async_trait::async_trait;
use clap::Args;
use pingora::http::ResponseHeader;
use pingora::prelude::*;
use pingora::proxy::http_proxy_service;
use pingora::server::RunArgs;
use pingora::server::configuration::ServerConf;

use crate::answer;

#[derive(Args)]
pub struct Bare {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    upstream: SocketAddr,
    /// One plain runtime per worker instead of Tokio's work-stealing one
    #[arg(long)]
    no_steal: bool,
    /// Answer calls itself and pass on only what is none
    #[arg(long)]
    answer: bool,
}

struct Pass {
    upstream: SocketAddr,
    answers: bool,
}

#[async_trait]
impl ProxyHttp for Pass {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _ctx: &mut ()) -> Result<bool> {
        if !self.answers || session.req_header().method != "POST" {
            return Ok(false);
        }
        let body = session.read_request_body().await?.unwrap_or_default();
        let answer = answer::echoed(&body).or_err(ErrorType::InvalidHTTPHeader, "no call that can be answered")?;
        let mut head = ResponseHeader::build(200, Some(2))?;
        head.insert_header("Content-Type", "application/json")?;
        head.insert_header("Content-Length", answer.len())?;
        session.write_response_header(Box::new(head), false).await?;
        session.write_response_body(Some(answer.into()), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }
}

/// Serves until the process is ended.
pub fn run(bare: &Bare) {
    let conf = ServerConf {
        threads: 1,
        work_stealing: !bare.no_steal,
        // There is nothing to drain when a benchmark ends; the default would wait five minutes.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut proxy = http_proxy_service(&server.configuration, Pass { upstream: bare.upstream, answers: bare.answer });
    proxy.add_tcp(&bare.listen.to_string());
    server.add_service(proxy);
    server.run(RunArgs::default());
}
