//! One request's way through a pool: whom to ask, what a failure says about a backend, and whether another is asked.
//! Another one is asked only where nothing was sent, or where what was sent may safely be executed twice and the
//! configuration allows it; always within the pool's budget and the request's time.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::refuse;
use crate::config::traffic::Repeat;
use crate::egress::Failure;
use crate::mcp::method;
use crate::observe::metrics::{Metrics, Shed};
use crate::observe::upstream::Retry;
use crate::reject::{Code, Reject, Verdict};
use crate::upstream::ask::Trouble;
use crate::upstream::breaker;
use crate::upstream::pool::{Ask, Member, NoChoice, Pool, Tried};
use crate::upstream::trial::Trial;

/// Why a backend gave no answer for the caller.
pub enum Stop {
    /// The backend's fault, or nobody's: another may be asked.
    Trouble(Trouble),
    /// What it said, or we judged, is the answer.
    Refused(Reject),
}

impl From<Reject> for Stop {
    fn from(reject: Reject) -> Self {
        Self::Refused(reject)
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// How a lane asks one backend.
pub trait Attempt: Sync {
    type Answer: Send;

    /// Asks.
    fn send<'a>(&'a self, member: &'a Member, trial: &'a Trial) -> impl Future<Output = Result<Self::Answer, Stop>> + Send + 'a;

    /// The failure that an answer is, which stands if nobody else can do better.
    fn failure(answer: &Self::Answer) -> Option<Trouble>;
}

/// What of a request decides how it is tried.
#[derive(Clone, Copy)]
pub struct Tries<'t> {
    pub pool: &'t Pool,
    pub ask: Ask<'t>,
    /// Whether it may be executed twice.
    pub safe: bool,
    /// The time it has, if that is bounded as a whole.
    pub span: Option<Span>,
    pub metrics: &'t Metrics,
}

/// The time a request has as a whole.
#[derive(Clone, Copy)]
pub struct Span {
    pub began: Instant,
    pub most: Duration,
}

impl Span {
    pub fn until(self) -> Instant {
        self.began + self.most
    }

    fn left(self) -> Duration {
        self.until().saturating_duration_since(Instant::now())
    }
}

/// How long one attempt may take: cut short only where another may follow.
pub fn patience(pool: &Pool, timeout: Duration, safe: bool) -> Duration {
    pool.policy.balancer.retries.per_try.filter(|_| safe).map_or(timeout, |per_try| per_try.0.min(timeout))
}

/// Whether a request may be executed twice: by its method, or by what the server declares of the tool.
pub fn is_safe(pool: &Pool, mcp_method: &str, name: Option<&str>) -> bool {
    match pool.policy.balancer.retries.repeat {
        Repeat::Never => false,
        Repeat::Annotated if mcp_method == "tools/call" => {
            let declared = |member: &Member| member.tool(name.unwrap_or_default()).map(|tool| tool.read_only || tool.idempotent);
            // All must say so: any of them may be asked.
            pool.members.iter().all(|member| declared(member) == Some(true))
        }
        Repeat::Reads | Repeat::Annotated => method::find(mcp_method).is_some_and(|method| method.reads),
    }
}

/// A request under way at one member.
struct Running<A> {
    index: usize,
    trial: Trial,
    /// It has so little time that running out of it says nothing about the backend.
    hurried: bool,
    result: Result<A, Stop>,
}

impl<A> Running<A> {
    /// Whether it said something, and not only nothing of use.
    fn is_answered(&self) -> bool {
        matches!(self.result, Ok(_) | Err(Stop::Refused(_)))
    }
}

impl Tries<'_> {
    /// Asks until there is an answer, or nobody left to ask.
    ///
    /// # Errors
    /// The refusal for the client.
    pub async fn run<A: Attempt>(&self, attempt: &A) -> Verdict<(A::Answer, Trial)> {
        if self.is_late() {
            let detail = "its time was up before it could be sent (server.limits.request_timeout); nothing was sent";
            return Err(Reject::new(Code::BackendTimeout, detail));
        }
        self.pool.budget.deposit(self.pool.policy.balancer.retries.budget);
        match self.pool.policy.balancer.hedge {
            Some(after) if self.safe => Box::pin(self.hedged(attempt, after.0)).await,
            _ => self.one_by_one(attempt).await,
        }
    }

    async fn one_by_one<A: Attempt>(&self, attempt: &A) -> Verdict<(A::Answer, Trial)> {
        let mut tried = Tried::default();
        let (index, trial) = self.pool.choose(self.ask, &tried).await.map_err(|why| self.nobody(why))?;
        let mut running = self.at(attempt, index, trial).await;
        let mut count = 1;
        loop {
            let Some(kind) = self.judge::<A>(&mut running) else { return Self::conclude(running) };
            if count > self.pool.policy.balancer.retries.max || self.is_late() {
                return Self::conclude(running);
            }
            tried.note(running.index);
            running.trial.leave();
            let chosen = self.pool.choose(self.ask, &tried).await.ok();
            let Some((index, trial)) = self.afford(chosen, kind) else { return Self::conclude(running) };
            running = Box::pin(self.at(attempt, index, trial)).await;
            count += 1;
        }
    }

    /// Asks a second backend when the first takes too long; the first answer counts, and whoever is slower is let go. A
    /// failure is no answer as long as somebody else may give one.
    async fn hedged<A: Attempt>(&self, attempt: &A, after: Duration) -> Verdict<(A::Answer, Trial)> {
        let mut tried = Tried::default();
        let (index, trial) = self.pool.choose(self.ask, &tried).await.map_err(|why| self.nobody(why))?;
        tried.note(index);
        let mut running = FuturesUnordered::new();
        running.push(self.at(attempt, index, trial));
        let mut patience = std::pin::pin!(tokio::time::sleep(after));
        let (mut count, mut hedged) = (1, false);
        let mut last = None;
        while !running.is_empty() {
            let kind = tokio::select! {
                biased;
                Some(mut done) = running.next() => {
                    let kind = self.judge::<A>(&mut done);
                    if kind.is_none() && done.is_answered() {
                        return Self::conclude(done);
                    }
                    done.trial.leave();
                    last = Some(done);
                    kind
                }
                () = &mut patience, if !hedged => {
                    hedged = true;
                    Some(Retry::Hedge)
                }
            };
            let Some(kind) = kind else { continue };
            if count > self.pool.policy.balancer.retries.max || self.is_late() {
                continue;
            }
            // Waiting for a place must not keep us from an answer that is on its way.
            let chosen =
                if running.is_empty() { self.pool.choose(self.ask, &tried).await.ok() } else { self.pool.choose_free(self.ask, &tried) };
            if let Some((index, trial)) = self.afford(chosen, kind) {
                tried.note(index);
                count += 1;
                running.push(self.at(attempt, index, trial));
            }
        }
        match last {
            Some(last) => Self::conclude(last),
            None => Err(self.nobody(NoChoice::Nobody)),
        }
    }

    async fn at<A: Attempt>(&self, attempt: &A, index: usize, trial: Trial) -> Running<A::Answer> {
        let (whole, left) = self.span.map_or((Duration::MAX, Duration::MAX), |span| (span.most, span.left()));
        let patience = patience(self.pool, trial.backend.conf.timeout, self.safe);
        // A time that others set, shorter than the backend's own, is no measure of it.
        let hurried = whole < trial.backend.conf.timeout || left.min(patience) < whole.min(patience) / 2;
        let result = attempt.send(&self.pool.members[index], &trial).await;
        Running { index, trial, hurried, result }
    }

    /// Tells the backend's breakers of a failure; returns whether another backend may be asked, and as what.
    fn judge<A: Attempt>(&self, running: &mut Running<A::Answer>) -> Option<Retry> {
        let (verdict, retry) = match &running.result {
            Ok(answer) => self.weigh(&A::failure(answer)?),
            Err(Stop::Trouble(trouble)) => self.weigh(trouble),
            Err(Stop::Refused(reject)) if is_backends_fault(reject) => (breaker::Verdict::Failed, self.safe.then_some(Retry::Repeat)),
            Err(Stop::Refused(_)) => (breaker::Verdict::Passed, None),
        };
        if retry == Some(Retry::Unsent) {
            running.trial.miss();
        }
        let is_ours = running.hurried && matches!(running.result, Err(Stop::Trouble(Trouble::Failure(Failure::TimedOut))));
        running.trial.judge(if is_ours { breaker::Verdict::Void } else { verdict });
        if let Err(Stop::Trouble(trouble)) = &running.result {
            log::warn!("backend {}: {trouble}", running.trial.backend.name());
        }
        retry
    }

    /// What a trouble says about the backend, and whether the request may go elsewhere after it.
    fn weigh(&self, trouble: &Trouble) -> (breaker::Verdict, Option<Retry>) {
        let verdict = verdict(trouble);
        let retry = match trouble {
            Trouble::NotReady | Trouble::Failure(Failure::NotSent(_)) => Some(Retry::Unsent),
            _ => (self.safe && verdict == breaker::Verdict::Failed).then_some(Retry::Repeat),
        };
        (verdict, retry)
    }

    /// The next backend, if there is one and the budget has a retry left. What nobody was given adds to nobody's load and
    /// costs nothing of it.
    fn afford(&self, chosen: Option<(usize, Trial)>, kind: Retry) -> Option<(usize, Trial)> {
        let chosen = chosen?;
        if kind != Retry::Unsent && !self.pool.budget.withdraw(Instant::now()) {
            self.metrics.upstream.retry(Retry::OverBudget);
            return None;
        }
        self.metrics.upstream.retry(kind);
        Some(chosen)
    }

    fn conclude<T>(running: Running<T>) -> Verdict<(T, Trial)> {
        match running.result {
            Ok(answer) => Ok((answer, running.trial)),
            Err(Stop::Trouble(trouble)) => Err(refuse(&trouble, &running.trial.backend)),
            Err(Stop::Refused(reject)) => Err(reject),
        }
    }

    fn is_late(&self) -> bool {
        self.span.is_some_and(|span| span.left().is_zero())
    }

    fn nobody(&self, why: NoChoice) -> Reject {
        nobody(why, self.pool, self.ask, self.metrics)
    }
}

/// What a failure says about the backend. Too large an answer is no fault of its own.
pub fn failed(failure: &Failure) -> breaker::Verdict {
    if matches!(failure, Failure::TooLarge) { breaker::Verdict::Void } else { breaker::Verdict::Failed }
}

/// What a trouble says about the backend.
pub fn verdict(trouble: &Trouble) -> breaker::Verdict {
    match trouble {
        Trouble::Failure(failure) => failed(failure),
        // A credential refused: it works, though not for us.
        Trouble::Refused(_) | Trouble::NotReady | Trouble::NoToken(_) | Trouble::NoExchange(_) => breaker::Verdict::Void,
        Trouble::Status(status) if !status.is_server_error() => breaker::Verdict::Void,
        Trouble::Status(_) | Trouble::Protocol(_) | Trouble::SessionLost => breaker::Verdict::Failed,
    }
}

/// What a client is told when no backend can be asked.
pub fn nobody(why: NoChoice, pool: &Pool, ask: Ask<'_>, metrics: &Metrics) -> Reject {
    const SOON: Duration = Duration::from_secs(1);
    let server = &*pool.server;
    match why {
        NoChoice::Nobody => Reject::no_healthy_backend(server),
        NoChoice::Open(wait) => {
            let tool = if ask.tool.is_some() { ", or this tool of it," } else { "" };
            let detail = format!("what serves `{server}`{tool} failed too often and is left alone for a while");
            Reject::new(Code::CircuitOpen, detail).retry_after(wait.max(SOON))
        }
        NoChoice::Full => {
            metrics.shed(Shed::Backend);
            Reject::new(Code::Overloaded, format!("what serves `{server}` has all the requests it may have; nothing was sent"))
                .retry_after(SOON)
        }
    }
}

/// Whether a refusal says that the backend failed, and not that it refused.
fn is_backends_fault(reject: &Reject) -> bool {
    matches!(reject.code, Code::BackendFailed | Code::BackendTimeout)
}
