//! `mcp-gateway demo`: a real MCP server (official Rust SDK) on a loopback port of its own, for trying the gateway with
//! nothing else installed. Its folder is part of the binary.

mod files;
mod server;

use std::net::SocketAddr;
use std::sync::mpsc;

use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use self::server::Filesystem;

/// Starts the demo server on a thread of its own and returns its address.
///
/// # Errors
/// When no loopback port can be had.
pub fn start() -> std::io::Result<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new().name("demo".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let served = runtime.and_then(|runtime| runtime.block_on(serve(&sender)));
        if let Err(error) = served {
            let _ = sender.send(Err(error));
        }
    })?;
    receiver.recv().unwrap_or_else(|_| Err(std::io::Error::other("the demo server ended before it began")))
}

async fn serve(started: &mpsc::Sender<std::io::Result<SocketAddr>>) -> std::io::Result<()> {
    let config = StreamableHttpServerConfig::default();
    let service: StreamableHttpService<Filesystem, LocalSessionManager> =
        StreamableHttpService::new(|| Ok(Filesystem::new()), std::sync::Arc::default(), config);
    let router = axum::Router::new().nest_service("/mcp", service);
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let _ = started.send(Ok(listener.local_addr()?));
    axum::serve(listener, router).await
}
