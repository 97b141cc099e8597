//! `bench bare`: the yardstick, a Pingora proxy that does nothing but name its upstream.
//!
//! Same Pingora, allocator and build profile as the gateway; a ratio of 1 is what a proxy on Pingora costs at all.

use std::net::SocketAddr;

use async_trait::async_trait;
use clap::Args;
use pingora::prelude::*;
use pingora::proxy::http_proxy_service;
use pingora::server::RunArgs;
use pingora::server::configuration::ServerConf;

#[derive(Args)]
pub struct Bare {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    upstream: SocketAddr,
    /// One plain runtime per worker instead of Tokio's work-stealing one
    #[arg(long)]
    no_steal: bool,
}

struct Pass(SocketAddr);

#[async_trait]
impl ProxyHttp for Pass {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
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
    let mut proxy = http_proxy_service(&server.configuration, Pass(bare.upstream));
    proxy.add_tcp(&bare.listen.to_string());
    server.add_service(proxy);
    server.run(RunArgs::default());
}
