//! A TCP relay that can go deaf on the connections that carry a long answer, as a network does that forgot them: they stay
//! open and nothing comes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// A running relay; it stops when dropped.
pub struct Relay {
    pub address: SocketAddr,
    /// How often it went deaf.
    age: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Relay {
    /// To `port`; a connection is long from when it asks for `path` on.
    pub async fn start(port: u16, path: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, age) = (listener.local_addr().expect("bound"), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn({
            let age = Arc::clone(&age);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(relay(client, port, path, Arc::clone(&age)));
                }
            }
        });
        Self { address, age, task }
    }

    /// From now on nothing comes through the long connections there are.
    pub fn deafen(&self) {
        self.age.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: TcpStream, port: u16, path: &'static str, age: Arc<AtomicUsize>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // When it became long; not yet, at first.
    let since = Arc::new(AtomicUsize::new(usize::MAX));
    tokio::join!(questions(from_client, to_server, path, &age, &since), answers(from_server, to_client, &age, &since));
}

async fn questions(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, path: &str, age: &AtomicUsize, since: &AtomicUsize) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if String::from_utf8_lossy(&buffer[..length]).contains(path) {
            since.store(age.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, age: &AtomicUsize, since: &AtomicUsize) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let deaf = since.load(Ordering::SeqCst) < age.load(Ordering::SeqCst);
        if !deaf && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
