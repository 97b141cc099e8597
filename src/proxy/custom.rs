//! Middleware compiled in, called from here and nowhere else. What panics in it is contained: such a request is refused,
//! and such an answer is left as it is.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use pingora::http::ResponseHeader;

use super::ctx::Ctx;
use crate::config::transform::may_change;
use crate::extend::{Answered, Asking, Lines, Middleware, Refusal};
use crate::reject::{Code, Reject, Verdict};
use crate::snapshot::State;
use crate::transform::Headers;

/// Shows a permitted request to all middleware, and gathers the headers it adds.
///
/// # Errors
/// The first refusal.
pub async fn request(state: &State, asking: &Asking<'_>) -> Verdict<Headers> {
    let mut added = Headers::default();
    for middleware in &state.shared.extensions.middleware {
        let asked = AssertUnwindSafe(middleware.request(asking)).catch_unwind().await;
        match asked {
            Ok(Ok(lines)) => added.then(&Headers { set: allowed(lines), remove: Vec::new() }),
            Ok(Err(Refusal { code, message })) => return Err(Reject::new(code, message)),
            Err(_) => return Err(Reject::new(Code::Internal, "middleware panicked; the request was not sent")),
        }
    }
    Ok(added)
}

/// Shows an answer to all middleware, and adds the headers it gives.
pub fn response(ctx: &Ctx, head: &mut ResponseHeader) {
    let (Some(server), Some(principal)) = (&ctx.told.server, &ctx.principal) else { return };
    for middleware in ctx.middleware() {
        let answered = Answered {
            server,
            principal,
            status: head.status.as_u16(),
            code: ctx.told.code,
            outcome: ctx.told.outcome.map(crate::observe::metrics::Outcome::name),
            backend: ctx.told.backend.as_deref(),
            elapsed: ctx.arrival.started.elapsed(),
        };
        for (name, value) in seen(&**middleware, &answered) {
            // A name and a value were parsed already.
            let _ = head.insert_header(name, value);
        }
    }
}

fn seen(middleware: &dyn Middleware, answered: &Answered<'_>) -> Lines {
    let seen = std::panic::catch_unwind(AssertUnwindSafe(|| middleware.response(answered)));
    if seen.is_err() {
        log::error!("middleware panicked over an answer of {}", answered.server);
    }
    seen.map(allowed).unwrap_or_default()
}

fn allowed(lines: Lines) -> Lines {
    let (good, bad): (Lines, Lines) = lines.into_iter().partition(|(name, _)| may_change(name));
    for (name, _) in bad {
        log::warn!("middleware gave the header {name}, which is not for it to set");
    }
    good
}
