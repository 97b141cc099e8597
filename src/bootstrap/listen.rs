//! The listeners and the services behind them.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use pingora::listeners::{ListenerConfig, Listeners};
use pingora::protocols::l4::stream::L4BufferSettings;
use pingora::proxy::http_proxy;
use pingora::server::Server;
use pingora::services::listening::Service;

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

/// Tries every address once and turns port 0 into the port the system gave. Pingora would panic in a thread of its own
/// where it cannot bind, and the process would live on without a listener.
///
/// # Errors
/// The address that cannot be bound, by its key.
pub fn settle(server: &mut config::Server) -> Result<(), String> {
    let mut held = Vec::new();
    let mut bind = |key: &str, address: &mut SocketAddr| {
        let listener = TcpListener::bind(*address).map_err(|e| format!("{key}: cannot listen on {address}: {e}"))?;
        *address = listener.local_addr().map_err(|e| format!("{key}: {e}"))?;
        // Held until all are settled, so that two zeros do not get the same port.
        held.push(listener);
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
    Ok(())
}

fn listen(address: SocketAddr) -> Listeners {
    let mut listeners = Listeners::new();
    listeners.add_listener(endpoint(address));
    listeners
}

fn endpoint(address: SocketAddr) -> ListenerConfig {
    ListenerConfig::tcp(address.to_string()).l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER))
}

/// Adds the proxy's listeners and the admin listener.
///
/// # Errors
/// What is wrong with `server.tls`.
pub fn add_services(server: &mut Server, state: &Arc<State>, certificates: Option<&Arc<Certificates>>) -> Result<(), String> {
    let snapshot = state.snapshot();
    let settings = &snapshot.config.server;
    let inside = Arc::new(Inside::default());
    let door = |h2c| {
        let proxy = http_proxy(&server.configuration, Gateway { state: Arc::clone(state) });
        Door::new(state, proxy, h2c, &inside)
    };
    let mut listeners = listen(settings.listen);
    // Before TLS here, and at the door where there is none.
    listeners.set_pre_tls_callback(Arc::new(Announced { state: Arc::clone(state) }));
    if let (Some(tls), Some(certificates)) = (&settings.tls, certificates) {
        // Serving without the verifier that was asked for would let everybody in.
        let verifier = tls::verifier(tls).map_err(|e| format!("server.tls.client_ca: {e}"))?;
        let settings = tls::settings(certificates, verifier).map_err(|e| format!("server.tls: {e}"))?;
        listeners.add_listener(endpoint(tls.listen).tls(settings));
    }
    let h2c = settings.h2c.map(|address| Service::with_listeners("h2c".into(), listen(address), door(true)));
    let proxy = Service::with_listeners("proxy".into(), listeners, door(false));
    server.add_service(proxy);
    if let Some(h2c) = h2c {
        server.add_service(h2c);
    }
    if let Some(address) = settings.admin {
        let mut admin = Service::with_listeners("admin".into(), listen(address), Admin::new(Arc::clone(state)));
        admin.threads = Some(1);
        server.add_service(admin);
    }
    Ok(())
}
