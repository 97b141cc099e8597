//! One upstream exchange, in the lane it needs: `call` asks an MCP server on behalf of a REST caller, `middleware` hands
//! a REST call on to a backend that speaks REST itself, `native` opens a pass-through and `relay` carries its answer to
//! the client; `tries` decides for both lanes which backend is asked, and which next; `hear` listens on streams of our
//! own. Everything sent upstream goes over Pingora's pooled `Connector` from inside `request_filter`: the whole body was
//! judged before the first byte leaves, the status can follow the answer, every phase has a deadline, streams end cleanly
//! on drain, and it costs less than Pingora's own proxy path.

pub mod call;
pub mod hear;
pub mod middleware;
pub mod native;
pub mod relay;
pub mod sight;
pub mod tries;

use std::time::Duration;

use crate::egress::Failure;
use crate::reject::{Code, Reject};
use crate::upstream::ask::Trouble;
use crate::upstream::backend::Backend;

/// What a client is told when a backend failed after it was given the request. Names the backend, never its address.
pub fn refuse(trouble: &Trouble, backend: &Backend) -> Reject {
    let name = backend.name();
    let reject = match trouble {
        Trouble::Failure(Failure::TimedOut) => {
            let seconds = backend.conf.timeout.as_secs_f64();
            Reject::new(Code::BackendTimeout, format!("backend {name} did not answer in time (timeout {seconds} s)"))
        }
        Trouble::NoToken(_) => Reject::new(Code::Forbidden, format!("there is no token for backend {name} on the caller's behalf")),
        Trouble::NoExchange(_) => {
            let detail = format!("no token for backend {name} can be asked for now; try again");
            Reject::new(Code::AuthUnavailable, detail).retry_after(Duration::from_secs(1))
        }
        Trouble::Refused(_) => Reject::new(Code::BackendRefused, format!("backend {name} refused the gateway's credential")),
        Trouble::NotReady | Trouble::Failure(Failure::NotSent(_)) => {
            Reject::new(Code::NoHealthyBackend, format!("backend {name} cannot be reached")).retry_after(Duration::from_secs(1))
        }
        Trouble::Failure(_) | Trouble::SessionLost => {
            Reject::new(Code::BackendFailed, format!("backend {name} broke off; the request may have been executed"))
        }
        Trouble::Status(status) => Reject::new(Code::BackendFailed, format!("backend {name} answered {status}")),
        Trouble::Protocol(what) => Reject::new(Code::BackendFailed, format!("backend {name}: {what}")),
    };
    reject.because(trouble)
}
