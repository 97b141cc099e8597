//! A REST call: ask a backend in its own tongue, write the envelope.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use tokio::sync::mpsc;

use super::middleware;
use super::sight::Sight;
use super::tries::{self, Attempt, Span, Stop, Tries};
use crate::cache::freshness::Hints;
use crate::call::Era;
use crate::egress::{Client, Target};
use crate::mcp::members::Members;
use crate::mcp::message::Answer;
use crate::mcp::rest::{self, Facts, Form, Meta, Request};
use crate::mcp::{error, filter, headers};
use crate::observe::metrics::{Metrics, Outcome};
use crate::observe::trace::Traceparent;
use crate::reject::{Code, Reject, Verdict};
use crate::route::rule::Choice;
use crate::snapshot::Snapshot;
use crate::transform::Shape;
use crate::upstream::ask::{self, Question, Reply, Trace, Trouble};
use crate::upstream::backend::Backend;
use crate::upstream::breaker;
use crate::upstream::catalog::{self, MAX_PAGES};
use crate::upstream::exchange::OnBehalf;
use crate::upstream::facts::{Speaks, Tool};
use crate::upstream::pool::{Ask, Member, Pool, Want};
use crate::upstream::trial::Trial;
use crate::verbatim::Verbatim;

/// The longest list gathered, in bytes.
const MAX_LIST: usize = 64 << 20;

/// Everything one REST call needs.
pub struct Call<'c> {
    pub client: &'c Client,
    pub snapshot: &'c Snapshot,
    pub pool: &'c Pool,
    pub request: &'c Request<'c>,
    pub form: Form,
    /// Whose sessions with legacy servers are used.
    pub owner: &'c str,
    /// The caller's token, for backends that are asked on its behalf.
    pub on_behalf: Option<OnBehalf<'c>>,
    /// What the caller sees of the server's lists; `None` is everything.
    pub sight: Option<Sight>,
    pub trace: Trace<'c>,
    /// When the request came in; `response_time` counts from here.
    pub started: Instant,
    /// What the caller is known by, where it should meet the same backend again.
    pub affinity: Option<u64>,
    pub metrics: &'c Metrics,
    /// Takes progress and log notifications when the caller wants to see them.
    pub notices: Option<mpsc::Sender<Bytes>>,
    /// Where it may go.
    pub choice: Option<&'c Choice>,
    /// What is changed of its answer.
    pub shape: Option<&'c Shape>,
    /// Headers that the operator's rules add.
    pub headers: &'c [(HeaderName, HeaderValue)],
    /// Whether the result is wanted as it came, beside the answer made of it.
    pub keeps: bool,
}

/// The answer to a REST call.
#[derive(Debug)]
pub struct Done {
    pub body: Vec<u8>,
    pub outcome: Outcome,
    pub backend: Arc<str>,
    /// The result as it came, where it was wanted.
    pub raw: Option<Raw>,
}

/// A result as its server gave it.
#[derive(Debug)]
pub struct Raw {
    pub result: String,
    /// Whether the server is one that says how long its answers are fresh.
    pub is_modern: bool,
}

impl Call<'_> {
    /// Answers the call.
    ///
    /// # Errors
    /// The refusal for the caller.
    pub async fn run(&self) -> Verdict<Done> {
        let (method, name) = (self.request.method.mcp, self.request.name());
        let tries = Tries {
            pool: self.pool,
            ask: Ask {
                clock: self.trace.clock,
                want: Want::Rest,
                among: self.choice.and_then(|choice| choice.among.as_ref()),
                tool: name.filter(|_| method == "tools/call"),
                affinity: self.affinity,
                stays: false,
            },
            safe: self.is_safe(),
            span: Some(self.span()),
            metrics: self.metrics,
        };
        let (done, mut trial) = tries.run(self).await?;
        trial.judge(breaker::Verdict::Passed);
        Ok(done)
    }

    /// Whether it may be executed twice. What was told of an answer under way cannot be taken back.
    fn is_safe(&self) -> bool {
        self.notices.is_none() && tries::is_safe(self.pool, self.request.method.mcp, self.request.name())
    }

    /// When nobody waits any more.
    pub fn ends(&self) -> Instant {
        self.span().until()
    }

    /// The time it has as a whole: by the rule that chose where it goes, or as every request.
    fn span(&self) -> Span {
        let most = self.choice.and_then(|choice| choice.timeout).unwrap_or(self.snapshot.config.server.limits.request_timeout);
        Span { began: self.started, most }
    }

    async fn at(&self, member: &Member, target: &Arc<Target>) -> Result<Done, Stop> {
        if member.backend.speaks() == Some(Speaks::Middleware) {
            return Box::pin(middleware::forward(self, member, target)).await;
        }
        if self.request.method.paged && self.form == Form::V1 {
            return Box::pin(self.whole_list(member, target)).await;
        }
        let reply = self.ask_with_headers(member, target).await?;
        let result = self.read(&reply)?;
        let done = self.answer(&result, member.backend.label(), false)?;
        Ok(Done { raw: self.keeps.then(|| Raw::of(&result, member)), ..done })
    }

    /// Makes the caller's answer of a result that was kept.
    ///
    /// # Errors
    /// The refusal for the caller.
    pub fn given(&self, result: &Members<'_>, backend: &Arc<str>) -> Verdict<Done> {
        let broken = || Reject::new(Code::Internal, "what was kept of an answer cannot be read");
        self.answer(result, backend, true).map_err(|stop| match stop {
            Stop::Refused(reject) => reject,
            Stop::Trouble(trouble) => broken().because(trouble),
        })
    }

    /// Makes the caller's answer of a result: what it may see of it, as the operator's rules have it.
    fn answer(&self, result: &Members<'_>, backend: &Arc<str>, cached: bool) -> Result<Done, Stop> {
        let seen = self.seen(result)?;
        let seen = seen.as_deref().map(serde_json::from_str::<Members<'_>>).transpose().map_err(|_| Self::unreadable())?;
        let result = seen.as_ref().unwrap_or(result);
        let failed = rest::is_tool_error(result);
        if failed && self.names_unknown_tool() && says_unknown(result) {
            // Some SDKs report an unknown tool as a failed call.
            return Err(Stop::Refused(Reject::new(Code::UnknownName, format!("`{}` has no such tool", self.pool.server))));
        }
        let shaped = self.shaped(result)?;
        let shaped = shaped.as_deref().map(serde_json::from_str::<Members<'_>>).transpose().map_err(|_| Self::unreadable())?;
        let facts = Facts { backend, elapsed: self.started.elapsed(), cached };
        let body = rest::envelope(self.form(), self.request.method, shaped.as_ref().unwrap_or(result), facts)?;
        let outcome = if failed { Outcome::ToolError } else { Outcome::Ok };
        Ok(Done { body, outcome, backend: Arc::clone(backend), raw: None })
    }

    /// All pages of a list as one.
    async fn whole_list(&self, member: &Member, target: &Arc<Target>) -> Result<Done, Stop> {
        let (items, hints) = self.gather(member, target).await?;
        if self.sight.is_none() && !self.keeps && !self.shape.is_some_and(Shape::reshapes) {
            let body = rest::list_envelope(&items, self.facts(member));
            return Ok(Done { body, outcome: Outcome::Ok, backend: Arc::clone(member.backend.label()), raw: None });
        }
        let whole = format!(r#"{{"{}":[{items}]{}}}"#, self.request.method.result.unwrap_or_default(), hints.written());
        let result: Members<'_> = serde_json::from_str(&whole).map_err(|_| Self::unreadable())?;
        let done = self.answer(&result, member.backend.label(), false)?;
        Ok(Done { raw: self.keeps.then(|| Raw::of(&result, member)), ..done })
    }

    /// The items of all pages joined by commas, and what the pages say of themselves.
    async fn gather(&self, member: &Member, target: &Arc<Target>) -> Result<(String, Hints), Stop> {
        let (mut items, mut hints) = (String::new(), Hints::default());
        let mut cursor: Option<String> = None;
        let mut seen = HashSet::new();
        loop {
            let reply = self.ask(member, target, cursor.as_deref(), &[]).await?;
            let result = self.read(&reply)?;
            let page = rest::page(self.request.method, &result)?;
            if self.keeps {
                hints.add(&result);
            }
            if !items.is_empty() && !page.items.is_empty() {
                items.push(',');
            }
            items.push_str(page.items);
            let next = page.next.map(std::borrow::Cow::into_owned);
            // The empty string is a cursor like any other; one that comes again would go on forever.
            let Some(next) = next else { return Ok((items, hints)) };
            if !seen.insert(next.clone()) || seen.len() >= MAX_PAGES || items.len() > MAX_LIST {
                return Err(Trouble::Protocol("its list does not end").into());
            }
            cursor = Some(next);
        }
    }

    /// The items of a list that the caller may see; `None` if that is all of them.
    ///
    /// # Errors
    /// When the list cannot be read for certain.
    pub fn kept(&self, list: &str) -> Result<Option<String>, Stop> {
        let Some(sight) = &self.sight else { return Ok(None) };
        let name = self.request.method.result.unwrap_or_default();
        filter::items(name, list, &|kind, name| sight.keeps(kind, name)).map(Some).map_err(|_| Self::unreadable())
    }

    /// A result with its list filtered; `None` if nothing is to be filtered.
    fn seen(&self, result: &Members<'_>) -> Result<Option<String>, Stop> {
        let Some(sight) = &self.sight else { return Ok(None) };
        filter::result(result, &|kind, name| sight.keeps(kind, name)).map_err(|_| Self::unreadable())
    }

    /// A result as the operator's rules have it; `None` if it stays as it is.
    ///
    /// # Errors
    /// When it cannot be read for certain.
    pub fn shaped(&self, result: &Members<'_>) -> Result<Option<String>, Stop> {
        let Some(shape) = self.shape.filter(|shape| shape.reshapes()) else { return Ok(None) };
        shape.result(&result.written()).map_err(|_| Self::unreadable())
    }

    /// The form of the answer; what was put below another name is shown whole.
    pub fn form(&self) -> Form {
        if self.shape.is_some_and(Shape::wraps) { Form::V2 } else { self.form }
    }

    fn unreadable() -> Stop {
        Trouble::Protocol("its answer cannot be read").into()
    }

    /// Asks with the `Mcp-Param-*` headers the tool calls for. A server that finds them lacking tells so before it
    /// executes anything; then its tools are read again and the call is sent once more.
    async fn ask_with_headers(&self, member: &Member, target: &Arc<Target>) -> Result<Reply, Stop> {
        let arguments = self.request.params.get("arguments");
        let is_tool = self.request.method.mcp == "tools/call";
        let known = self.request.name().filter(|_| is_tool).and_then(|name| member.tool(name));
        let reply = self.ask(member, target, None, &known.map(|tool| values(tool, arguments)).unwrap_or_default()).await?;
        if is_tool && is_header_mismatch(&reply) { Box::pin(self.ask_informed(member, target)).await } else { Ok(reply) }
    }

    /// The repetition with the headers the server's tools call for now.
    async fn ask_informed(&self, member: &Member, target: &Arc<Target>) -> Result<Reply, Stop> {
        let arguments = self.request.params.get("arguments");
        let facts = catalog::inventory(self.client, &member.backend).await;
        let params = facts.servers.get(&*self.pool.server).and_then(|server| {
            let tool = server.tools.as_ref()?.get(self.request.name()?)?;
            Some(values(tool, arguments))
        });
        if member.backend.learn(facts) {
            self.snapshot.upstream.gather();
        }
        self.ask(member, target, None, &params.unwrap_or_default()).await
    }

    async fn ask(&self, member: &Member, target: &Arc<Target>, cursor: Option<&str>, params: &[(String, String)]) -> Result<Reply, Stop> {
        let credential = member.backend.credential(self.client, self.on_behalf).await?;
        let encode = |era: Era, id: u64| self.request.encode(id, cursor, &self.meta(era, id, &self.trace.context.traceparent()));
        let heard = |message: &[u8]| {
            if let Some(cache) = &self.snapshot.cache {
                cache.notice(&self.pool.server, message);
            }
        };
        let question = Question {
            server: &self.pool.server,
            owner: self.owner,
            credential: credential.as_ref(),
            method: self.request.method.mcp,
            name: self.request.name(),
            params,
            headers: self.headers,
            encode: &encode,
            trace: Some(self.trace),
            deadline: self.deadline(&member.backend),
            notices: self.notices.clone(),
            heard: Some(&heard),
        };
        let asked = ask::ask(self.client, &member.backend, target, &question).await;
        if matches!(asked, Err(Trouble::Refused(_))) {
            member.backend.refused(self.on_behalf).await;
        }
        Ok(asked?)
    }

    /// The time for one attempt, within what the request as a whole may take.
    pub fn deadline(&self, backend: &Backend) -> Instant {
        let whole = self.choice.and_then(|choice| choice.timeout).unwrap_or(backend.conf.timeout);
        (Instant::now() + tries::patience(self.pool, whole, self.is_safe())).min(self.span().until())
    }

    fn meta<'t>(&self, era: Era, id: u64, traceparent: &'t Traceparent) -> Meta<'t> {
        let modern = era == Era::Modern;
        let streams = self.notices.is_some();
        Meta {
            modern,
            capabilities: None,
            // Unique among the requests of a session.
            progress_token: streams.then_some(id),
            logs: streams && modern,
            // Legacy servers validate `_meta` more strictly than they use it; the header reaches them anyway.
            traceparent: modern.then(|| traceparent.as_str()),
        }
    }

    fn read<'r>(&self, reply: &'r Reply) -> Result<Members<'r>, Stop> {
        match Answer::read(&reply.body, reply.id) {
            Some(Answer::Result(result)) => Ok(result),
            Some(Answer::Error(error)) => Err(Stop::Refused(error::refuse(error, !self.names_unknown_tool()))),
            None => Err(Trouble::Protocol("the answer is no JSON-RPC response to our request").into()),
        }
    }

    fn names_unknown_tool(&self) -> bool {
        self.request.method.mcp == "tools/call" && self.request.name().is_some_and(|tool| !self.pool.knows_tool(tool))
    }

    /// The facts for the envelope.
    pub fn facts<'m>(&self, member: &'m Member) -> Facts<'m> {
        Facts { backend: member.backend.name(), elapsed: self.started.elapsed(), cached: false }
    }
}

impl Raw {
    pub fn of(result: &Members<'_>, member: &Member) -> Self {
        Self { result: result.written(), is_modern: member.backend.speaks() == Some(Speaks::Mcp(Era::Modern)) }
    }
}

impl Attempt for Call<'_> {
    type Answer = Done;

    async fn send(&self, member: &Member, trial: &Trial) -> Result<Done, Stop> {
        self.at(member, &trial.target).await
    }

    fn failure(_: &Done) -> Option<Trouble> {
        None
    }
}

/// Whether a failed call failed because there is no such tool, in the words of the SDKs that report it so. A tool the
/// catalogue does not know yet may have failed for reasons of its own.
fn says_unknown(result: &Members<'_>) -> bool {
    let content = result.get("content").map_or("", Verbatim::get).to_ascii_lowercase();
    content.contains("unknown tool") || content.contains("not found") || content.contains("no such tool")
}

/// The `Mcp-Param-*` headers that `arguments` call for.
fn values(tool: &Tool, arguments: Option<Verbatim<'_>>) -> Vec<(String, String)> {
    arguments.map(|raw| headers::values(&tool.params, raw)).unwrap_or_default()
}

fn is_header_mismatch(reply: &Reply) -> bool {
    // Cheap to rule out: an error answer is short.
    reply.body.len() < 4096
        && matches!(Answer::read(&reply.body, reply.id), Some(Answer::Error(refusal)) if error::code(refusal) == error::HEADER_MISMATCH)
}
