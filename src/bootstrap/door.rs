//! What stands between a new connection and the proxy: how many may come in, and how long one may take to say what it
//! wants. Pingora bounds neither the number of connections nor the time for a header block.

use std::any::Any;
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt as _;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::listeners::PreTlsProcess as _;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;

use super::announced::Announced;
use crate::proxy::Gateway;
use crate::snapshot::State;

/// How long a kept-alive connection may be silent (Pingora's own default for H1).
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Concurrent streams of one H2 connection.
const H2_STREAMS: u32 = 256;

/// The door of one listener.
pub struct Door {
    state: Arc<State>,
    proxy: Arc<HttpProxy<Gateway>>,
    options: HttpServerOptions,
    inside: Arc<Inside>,
}

impl Door {
    pub fn new(state: &Arc<State>, proxy: HttpProxy<Gateway>, h2c: bool, inside: &Arc<Inside>) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = h2c;
        options.h2_idle_timeout = Some(KEEPALIVE);
        Self { state: Arc::clone(state), proxy: Arc::new(proxy), options, inside: Arc::clone(inside) }
    }
}

impl Door {
    /// Reads who a plain connection says to come from; `None` if it does not say so properly. TLS has read it before.
    async fn announced(&self, stream: Stream) -> Option<Stream> {
        // Of the stream itself: a box of one is another type.
        if !(*stream).as_any().is::<L4Stream>() {
            return Some(stream);
        }
        let mut stream = stream.into_any().downcast::<L4Stream>().ok()?;
        let announced = Announced { state: Arc::clone(&self.state) };
        match announced.process(&mut stream).await {
            Ok(()) => Some(stream),
            Err(error) => {
                log::debug!("closed a connection: {error}");
                None
            }
        }
    }
}

#[async_trait]
impl ServerApp for Door {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let snapshot = self.state.snapshot();
        let stream = if snapshot.config.server.proxy_protocol { self.announced(stream).await? } else { stream };
        let limits = &snapshot.config.server.limits;
        let address = stream.get_socket_digest().and_then(|digest| Some(digest.peer_addr()?.as_inet()?.ip()));
        let Some(_pass) = self.inside.enter(address, limits.connections, limits.connections_per_ip, &self.state) else {
            self.state.shared.metrics.connections_refused.inc();
            return None;
        };
        let patience = limits.header_timeout;
        drop(snapshot);
        let waiting = Arc::new(Waiting::new());
        let visit = Arc::new(Visit { door: Arc::clone(self), waiting: Arc::clone(&waiting) });
        tokio::select! {
            biased;
            _ = ServerApp::process_new(&visit, stream, shutdown) => {}
            () = waiting.overdue(patience) => log::debug!("closed a connection that sent no whole header block in {patience:?}"),
        }
        None
    }

    async fn cleanup(&self) {
        // It closes connections that are silent. A client may be about to speak on one, so they are given what time there is.
        self.state.shared.life.closing().await;
        self.proxy.http_cleanup().await;
    }
}

/// One connection's way through the proxy.
struct Visit {
    door: Arc<Door>,
    waiting: Arc<Waiting>,
}

impl HttpServerApp for Visit {
    /// Written out, as `async_trait` would make a future of its own that the session is moved into and out of again.
    fn process_new_http<'life0, 'life1, 'async_trait>(
        self: &'life0 Arc<Self>,
        mut session: ServerSession,
        shutdown: &'life1 ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        // Pingora hands this back to the proxy (`on_connection_reuse`) once the header block is read.
        session.set_connection_user_context(Some(Box::new(Arrived(Arc::clone(&self.waiting))) as Box<dyn Any + Send + Sync>));
        let is_h2 = session.is_http2();
        let served = self.door.proxy.process_new_http(session, shutdown);
        Box::pin(served.inspect(move |_| {
            if !is_h2 {
                self.waiting.begin();
            }
        }))
    }

    fn h2_options(&self) -> Option<H2Options> {
        let headers = self.door.state.snapshot().config.server.limits.headers;
        let mut options = default_h2_options();
        options.max_concurrent_streams(H2_STREAMS);
        // Somewhat above our own limit, so that a client a little over it gets our 431 and not a reset.
        options.max_header_list_size(u32::try_from(headers.saturating_mul(2)).unwrap_or(u32::MAX));
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.door.options)
    }
}

/// Dropped when a header block has arrived.
struct Arrived(Arc<Waiting>);

impl Drop for Arrived {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Since when a connection has been waiting for a request's header block.
struct Waiting {
    origin: Instant,
    /// Milliseconds after `origin`, plus one; 0 while a request is being served.
    since: AtomicU64,
    /// The first request must follow the connection at once; later ones may be preceded by keep-alive silence.
    served: AtomicU64,
}

impl Waiting {
    fn new() -> Self {
        Self { origin: Instant::now(), since: AtomicU64::new(1), served: AtomicU64::new(0) }
    }

    fn begin(&self) {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.since.store(now + 1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
        self.served.store(1, Ordering::Relaxed);
    }

    /// Completes when the connection has waited longer than it may.
    async fn overdue(&self, patience: Duration) {
        loop {
            let first = self.served.load(Ordering::Relaxed) == 0;
            let limit = if first { patience } else { patience + KEEPALIVE };
            let waited = match self.since.load(Ordering::Relaxed) {
                0 => Duration::ZERO,
                since => self.origin.elapsed().saturating_sub(Duration::from_millis(since - 1)),
            };
            let Some(left) = limit.checked_sub(waited).filter(|left| !left.is_zero()) else { return };
            tokio::time::sleep(left.min(patience).max(Duration::from_millis(10))).await;
        }
    }
}

/// Who is inside, over all listeners.
#[derive(Default)]
pub struct Inside {
    all: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place inside.
struct Pass {
    inside: Arc<Inside>,
    /// Set when the place is counted by address.
    address: Option<IpAddr>,
    state: Arc<State>,
}

impl Inside {
    fn enter(self: &Arc<Self>, address: Option<IpAddr>, limit: usize, per_address: usize, state: &Arc<State>) -> Option<Pass> {
        let address = address.filter(|_| per_address > 0);
        if let Some(address) = address {
            let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(address).or_default();
            if *count >= per_address {
                return None;
            }
            *count += 1;
        }
        let before = self.all.fetch_add(1, Ordering::Relaxed);
        state.shared.metrics.connections.inc();
        let pass = Pass { inside: Arc::clone(self), address, state: Arc::clone(state) };
        (limit == 0 || before < limit).then_some(pass)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.inside.all.fetch_sub(1, Ordering::Relaxed);
        self.state.shared.metrics.connections.dec();
        let Some(address) = self.address else { return };
        let mut counts = self.inside.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&address);
            }
        }
    }
}
