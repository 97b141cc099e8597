//! Middleware compiled in, called from here and nowhere else. What panics in it is contained: such a request is refused,
//! and such an answer is left as it is.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use http::response::Parts;

use super::ctx::Ctx;
use crate::config::transform::may_change;
use crate::extend::{Answered, Asking, Lines, Middleware, Refusal};
use crate::reject::{Code, Reject, Verdict};
use crate::transform::Headers;

/// Shows a permitted request to all middleware, and gathers the headers it adds.
///
/// # Errors
/// The first refusal.
pub async fn request(middleware: &[Arc<dyn Middleware>], asking: &Asking<'_>) -> Verdict<Headers> {
    let mut added = Headers::default();
    for middleware in middleware {
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
pub fn response(ctx: &Ctx, head: &mut Parts) {
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
            head.headers.insert(name, value);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;
    use crate::principal::{Identity, Principal, Way};

    struct Clumsy;

    #[async_trait]
    impl Middleware for Clumsy {
        async fn request(&self, asking: &Asking<'_>) -> Result<Lines, Refusal> {
            tokio::task::yield_now().await;
            assert!(asking.method != "ping", "clumsy");
            let line = |name: &'static str| (HeaderName::from_static(name), HeaderValue::from_static("x"));
            Ok(vec![line("x-mine"), line("authorization"), line("mcp-name"), line("content-length")])
        }

        fn response(&self, answered: &Answered<'_>) -> Lines {
            panic!("clumsy about {}", answered.status)
        }
    }

    #[tokio::test]
    async fn what_panics_admits_nothing_and_what_is_not_for_it_to_set_is_left_out() {
        let (principal, headers) = (Principal::new(Way::Anonymous, Identity::default()), HeaderMap::new());
        let asking =
            |method| Asking { server: "a", method, name: None, arguments: None, principal: &principal, headers: &headers, client: None };
        let clumsy: [Arc<dyn Middleware>; 1] = [Arc::new(Clumsy)];
        let added = request(&clumsy, &asking("tools/list")).await.unwrap();
        assert_eq!(added.set.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-mine"]);
        assert_eq!(request(&clumsy, &asking("ping")).await.unwrap_err().code, Code::Internal);
        let answered =
            Answered { server: "a", principal: &principal, status: 200, code: None, outcome: None, backend: None, elapsed: Duration::ZERO };
        assert!(seen(&Clumsy, &answered).is_empty());
    }
}
