//! The listeners and the services behind them.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::listeners::{ListenerConfig, Listeners};
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::proxy::http_proxy;
use pingora::server::{ListenFds, Server, ShutdownWatch};
use pingora::services::listening::Service;
use pingora::services::{Service as Serve, ServiceHandle};

use super::announced::Announced;
use super::door::{Door, Inside};
use super::tls::{self, Certificates};
use crate::config;
use crate::proxy::Gateway;
use crate::sidecar::admin::Admin;
use crate::snapshot::State;

/// Bytes read at once from a client. Pingora's default of 64 KiB is what an idle connection mostly costs; a large body is
/// read past this buffer anyway.
const READ_BUFFER: usize = 8 << 10;
/// Bytes gathered before they are written to a client. Pingora's default of 1,460 sends the header and the first piece
/// of a body, which came in one read, as two packets.
const WRITE_BUFFER: usize = 8 << 10;

/// A listening socket and the configuration key it is for.
pub struct Socket {
    pub key: &'static str,
    address: SocketAddr,
    pub listener: TcpListener,
}

/// Every listening socket of this process, kept so that they can be handed over.
pub struct Sockets(pub Vec<Socket>);

impl Sockets {
    /// Binds every address, or takes what the process before this one gave for it, and turns port 0 into the port the
    /// system gave. Pingora would panic in a thread of its own where it cannot bind, and the process would live on
    /// without a listener.
    ///
    /// # Errors
    /// The address that cannot be bound, by its key.
    pub fn settle(server: &mut config::Server, mut given: Vec<(String, TcpListener)>) -> Result<Self, String> {
        let mut sockets = Vec::new();
        let mut bind = |key: &'static str, address: &mut SocketAddr| {
            let listener = match take(&mut given, key, *address) {
                Some(listener) => listener,
                None => TcpListener::bind(*address).map_err(|e| format!("{key}: cannot listen on {address}: {e}"))?,
            };
            *address = listener.local_addr().map_err(|e| format!("{key}: {e}"))?;
            listener.set_nonblocking(true).map_err(|e| format!("{key}: {e}"))?;
            sockets.push(Socket { key, address: *address, listener });
            Ok::<_, String>(())
        };
        bind("server.listen", &mut server.listen)?;
        if let Some(tls) = &mut server.tls {
            bind("server.tls.listen", &mut tls.listen)?;
        }
        if let Some(h2c) = &mut server.h2c {
            bind("server.h2c", h2c)?;
        }
        if let Some(admin) = &mut server.admin {
            bind("server.admin", admin)?;
        }
        for (key, listener) in given {
            log::info!("{key} is not taken over: the configuration has no listener on {:?} any more", listener.local_addr());
        }
        Ok(Self(sockets))
    }

    /// For Pingora: the sockets of some addresses.
    fn of(&self, addresses: &[SocketAddr]) -> Result<Vec<(String, OwnedFd)>, String> {
        let wanted = self.0.iter().filter(|socket| addresses.contains(&socket.address));
        let cloned = wanted.map(|socket| Ok((socket.address.to_string(), socket.listener.try_clone()?.into())));
        cloned.collect::<std::io::Result<_>>().map_err(|e| format!("a listener cannot be shared: {e}"))
    }
}

/// What was given for an address, or for the same key where any port will do.
fn take(given: &mut Vec<(String, TcpListener)>, key: &str, address: SocketAddr) -> Option<TcpListener> {
    let fits = |(of, listener): &(String, TcpListener)| {
        let bound = listener.local_addr().ok();
        bound == Some(address) || (address.port() == 0 && of == key && bound.is_some_and(|bound| bound.ip() == address.ip()))
    };
    let at = given.iter().position(fits)?;
    Some(given.swap_remove(at).1)
}

/// A listening service that takes the sockets that were settled, and ends when we say so: Pingora says it only when the
/// process ends, which is too late for HTTP/2 clients to be told.
struct Listening<A> {
    service: Service<A>,
    sockets: Vec<(String, OwnedFd)>,
    stop: ShutdownWatch,
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Serve for Listening<A> {
    async fn start_service(&mut self, fds: Option<ListenFds>, _shutdown: ShutdownWatch, listeners_per_fd: usize) {
        if let Some(fds) = &fds {
            let mut fds = fds.lock();
            for (address, socket) in self.sockets.drain(..) {
                fds.add(address, socket.into_raw_fd());
            }
        }
        self.service.start_service(fds, self.stop.clone(), listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        Serve::name(&self.service)
    }

    fn threads(&self) -> Option<usize> {
        Serve::threads(&self.service)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Serve::listen_addresses(&self.service)
    }
}

fn listen(address: SocketAddr) -> Listeners {
    let mut listeners = Listeners::new();
    listeners.add_listener(endpoint(address));
    listeners
}

fn endpoint(address: SocketAddr) -> ListenerConfig {
    ListenerConfig::tcp(address.to_string()).l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER))
}

/// What the listening services are made of.
pub struct Stands<'s> {
    pub state: &'s Arc<State>,
    pub certificates: Option<&'s Arc<Certificates>>,
    pub sockets: &'s Sockets,
    /// Turns true when no new connections are taken.
    pub stop: &'s ShutdownWatch,
}

/// Adds the proxy's listeners and the admin listener.
///
/// # Errors
/// What is wrong with `server.tls`.
pub fn add_services(server: &mut Server, stands: &Stands<'_>) -> Result<Vec<ServiceHandle>, String> {
    let (snapshot, state) = (stands.state.snapshot(), stands.state);
    let settings = &snapshot.config.server;
    let inside = Arc::new(Inside::default());
    let door = |h2c| {
        let proxy = http_proxy(&server.configuration, Gateway { state: Arc::clone(state) });
        Door::new(state, proxy, h2c, &inside)
    };
    let mut listeners = listen(settings.listen);
    let mut addresses = vec![settings.listen];
    // Before TLS here, and at the door where there is none.
    listeners.set_pre_tls_callback(Arc::new(Announced { state: Arc::clone(state) }));
    if let (Some(tls), Some(certificates)) = (&settings.tls, stands.certificates) {
        // Serving without the verifier that was asked for would let everybody in.
        let verifier = tls::verifier(tls).map_err(|e| format!("server.tls.client_ca: {e}"))?;
        let settings = tls::settings(certificates, verifier).map_err(|e| format!("server.tls: {e}"))?;
        listeners.add_listener(endpoint(tls.listen).tls(settings));
        addresses.push(tls.listen);
    }
    let h2c = settings.h2c.map(|address| (address, Service::with_listeners("h2c".into(), listen(address), door(true))));
    let proxy = Service::with_listeners("proxy".into(), listeners, door(false));
    let mut handles = vec![server.add_service(stands.listening(proxy, &addresses)?)];
    if let Some((address, h2c)) = h2c {
        handles.push(server.add_service(stands.listening(h2c, &[address])?));
    }
    if let Some(address) = settings.admin {
        let mut admin = Service::with_listeners("admin".into(), listen(address), Admin::new(Arc::clone(state)));
        admin.threads = Some(1);
        handles.push(server.add_service(stands.listening(admin, &[address])?));
    }
    Ok(handles)
}

impl Stands<'_> {
    fn listening<A>(&self, service: Service<A>, addresses: &[SocketAddr]) -> Result<Listening<A>, String> {
        Ok(Listening { service, sockets: self.sockets.of(addresses)?, stop: self.stop.clone() })
    }
}
