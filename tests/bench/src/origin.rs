//! `bench origin`: the backend every row talks to, as cheap as it can be made.
//!
//! One thread, one write per answer. It shares its core with the load generator, so what it saves is what the proxy
//! under test can be given.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::Result;
use crate::answer::{Answer, answer};
use crate::wire::{Framing, Wire};

/// Serves until the process is ended.
pub fn serve(port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(accept(SocketAddr::from(([127, 0, 0, 1], port))))
}

async fn accept(addr: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(addr).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = converse(Wire::over(stream)?).await {
                eprintln!("origin: {error}");
            }
            Result::Ok(())
        });
    }
}

async fn converse(mut wire: Wire) -> Result<()> {
    while let Some(head) = wire.head().await? {
        let body = match head.framing()? {
            Framing::Chunked => {
                return Err("a chunked request; the rows are compared on sized ones".into());
            }
            sized => wire.body(sized).await?,
        };
        match answer(&head, &body) {
            Answer::Full(bytes) => wire.send(&bytes).await?,
            Answer::Stream(bytes) => {
                wire.send(&bytes).await?;
                return wire.until_closed().await;
            }
        }
    }
    Ok(())
}
