//! Which way a request goes, and what is changed of it and its answer: decided once for each message, by what the caller
//! asked. Routers compiled in are asked first, then the configured routes, then the API version; what matches is
//! transformed before it is judged.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use super::body::Body;
use super::ctx::Ctx;
use crate::call::Call;
use crate::condition::{Question, Request};
use crate::extend::{Asking, Extensions, Way};
use crate::mcp::message::{Message, Payload};
use crate::mcp::strict::Checked;
use crate::mcp::{headers, rest};
use crate::principal::Principal;
use crate::reject::{Code, Reject, Verdict};
use crate::route::rule::{Choice, Rules};
use crate::route::version::Version;
use crate::snapshot::Snapshot;
use crate::transform::{self, Asked, Headers, Rule, Shape, Shapes};
use crate::upstream::pool::Pool;
use crate::verbatim::Verbatim;

/// What was decided about one message.
#[derive(Clone, Default)]
pub struct Course {
    pub choice: Option<Arc<Choice>>,
    pub shape: Shape,
    /// Headers that change on the way to the server.
    pub upstream: Headers,
}

/// What decides about the messages of one request.
pub struct Courses<'r> {
    extensions: &'r Extensions,
    rules: &'r Rules,
    version: Option<&'r Version>,
    transforms: Option<Arc<[Arc<Rule>]>>,
    http: Http<'r>,
    principal: &'r Principal,
    pool: &'r Pool,
}

/// The HTTP request around the messages.
#[derive(Clone, Copy)]
pub struct Http<'r> {
    pub method: &'r Method,
    pub path: &'r str,
    pub headers: &'r HeaderMap,
    pub client: Option<IpAddr>,
}

impl<'r> Courses<'r> {
    pub fn new(
        snapshot: &'r Snapshot,
        extensions: &'r Extensions,
        version: Option<&'r Version>,
        http: Http<'r>,
        principal: &'r Principal,
        pool: &'r Pool,
    ) -> Self {
        let transforms = snapshot.transforms.of(&pool.server, version.map(|version| &*version.name));
        Self { extensions, rules: &snapshot.routes, version, transforms, http, principal, pool }
    }

    /// Whether there is nothing to decide.
    pub fn is_plain(&self) -> bool {
        let chooses = |version: &Version| version.choice.among.is_some();
        self.rules.is_empty()
            && self.transforms.is_none()
            && self.extensions.routers.is_empty()
            && self.extensions.middleware.is_empty()
            && !self.version.is_some_and(chooses)
    }

    /// Decides about a message; `None` is a stream, or the end of a session.
    ///
    /// # Errors
    /// `internal` when a router panics, `invalid_params` for arguments that a route cannot judge for certain.
    pub fn of(&self, call: Option<&Call<'_>>) -> Verdict<Course> {
        let routed = self.routed(call)?;
        let choice = self.within_version(if routed.is_some() { routed } else { self.ruled(call)? });
        let Some(rules) = &self.transforms else { return Ok(Course { choice, ..Course::default() }) };
        let route = choice.as_ref().and_then(|choice| choice.route.as_deref());
        let shape = Shape::of(rules, &Asked { route, version: self.version.map(|version| &*version.name), call });
        let upstream = shape.upstream();
        Ok(Course { choice, shape, upstream })
    }

    /// The version's backends, where no rule names others.
    fn within_version(&self, choice: Option<Arc<Choice>>) -> Option<Arc<Choice>> {
        let version = self.version.map(|version| &version.choice).filter(|version| version.among.is_some());
        match (choice, version) {
            (Some(choice), Some(version)) if choice.among.is_none() => {
                Some(Arc::new(Choice { among: version.among.clone(), ..Choice::clone(&choice) }))
            }
            (Some(choice), _) => Some(choice),
            (None, version) => version.cloned(),
        }
    }

    /// What the first router that has a say says.
    fn routed(&self, call: Option<&Call<'_>>) -> Verdict<Option<Arc<Choice>>> {
        let asking = self.asking(call);
        let ask = || self.extensions.routers.iter().find_map(|router| router.route(&asking));
        let way = std::panic::catch_unwind(AssertUnwindSafe(ask)).map_err(|_| Reject::new(Code::Internal, "a router panicked"))?;
        Ok(way.map(|Way { among, timeout }| Arc::new(Choice { among, timeout, route: Some("custom".into()) })))
    }

    fn ruled(&self, call: Option<&Call<'_>>) -> Verdict<Option<Arc<Choice>>> {
        if self.rules.is_empty() {
            return Ok(None);
        }
        let Http { method, path, headers, client } = self.http;
        let version = self.version.map_or("", |version| &version.name);
        self.rules.choose(&Question {
            principal: self.principal,
            server: &self.pool.server,
            method: call.map_or("", |call| &call.method),
            name: call.and_then(|call| call.name.as_deref()),
            arguments: call.and_then(|call| call.arguments),
            request: Some(Request { method: method.as_str(), path, headers, client, version }),
        })
    }

    /// A message as code compiled in sees it.
    pub fn asking<'a>(&'a self, call: Option<&'a Call<'_>>) -> Asking<'a> {
        Asking {
            server: &self.pool.server,
            method: call.map_or("", |call| &call.method),
            name: call.and_then(|call| call.name.as_deref()),
            arguments: call.and_then(|call| call.arguments).map(Verbatim::get),
            principal: self.principal,
            headers: self.http.headers,
            client: self.http.client,
        }
    }
}

/// REST requests as the operator's rules have them, and which way each goes; no courses where nothing was to be decided.
pub struct Rest<'b> {
    pub payload: rest::Payload<'b>,
    pub courses: Vec<Course>,
}

/// Decides about the requests of a REST body, and changes them.
///
/// # Errors
/// What is wrong with the body as a whole, or about a single request.
pub fn rest<'b>(ctx: &mut Ctx, courses: &Courses<'_>, body: &'b Body, checked: Option<Checked<'b>>) -> Verdict<Rest<'b>> {
    let mut payload = checked.map_or_else(|| rest::Payload::read(body.read()), rest::Payload::of)?;
    if courses.is_plain() {
        return Ok(Rest { payload, courses: Vec::new() });
    }
    let of = |request: &rest::Request<'_>| courses.of(Some(&request.call()));
    // Each request of a batch is refused on its own, and one that cannot be read is answered as such.
    let mut faults = Vec::new();
    let courses: Vec<Course> = match &payload {
        rest::Payload::One(request) => vec![of(request)?],
        rest::Payload::Batch(requests) => {
            let each = requests.iter().enumerate().map(|(at, request)| {
                let course = request.as_ref().map_or_else(|_| Ok(Course::default()), of);
                course.unwrap_or_else(|fault| {
                    faults.push((at, fault));
                    Course::default()
                })
            });
            each.collect()
        }
    };
    note(ctx, &courses);
    ctx.told.rule = courses.iter().find_map(|course| course.choice.as_ref()?.route.clone());
    if let Some(changed) = transform::rewrite(body.read(), shapes(&courses), true)? {
        payload = rest::Payload::read(body.change(changed.body))?;
        faults.extend(changed.faults);
    }
    if let rest::Payload::Batch(requests) = &mut payload {
        for (at, fault) in faults {
            requests[at] = Err(fault);
        }
    }
    Ok(Rest { payload, courses })
}

/// What was decided about a native request.
pub struct Decided {
    /// Where it may go; a batch where all its calls lead.
    pub choice: Option<Arc<Choice>>,
    /// What is changed of its answer.
    pub shapes: Option<Shapes>,
    /// Headers that change on the way to the server.
    pub upstream: Headers,
}

/// A native request as the operator's rules have it.
pub struct Native<'b> {
    pub payload: Option<Payload<'b>>,
    pub call: Option<Call<'b>>,
    /// `None` where nothing was to be decided.
    pub decided: Option<Box<Decided>>,
    pub body: &'b Bytes,
}

/// Decides about a native request, and changes it.
///
/// # Errors
/// Why it cannot be changed as it must be.
pub fn native<'b>(
    ctx: &mut Ctx,
    courses: &Courses<'_>,
    payload: Option<Payload<'b>>,
    call: Option<Call<'b>>,
    body: &'b Body,
) -> Verdict<Native<'b>> {
    if courses.is_plain() {
        return Ok(Native { payload, call, decided: None, body: body.read() });
    }
    let decided: Vec<Course> = match &payload {
        Some(Payload::Batch(messages)) => messages.iter().map(|message| courses.of(message.call().as_ref())).collect::<Verdict<_>>()?,
        _ => vec![courses.of(call.as_ref())?],
    };
    note(ctx, &decided);
    let lead = payload.as_ref().map_or(0, lead);
    let choice = decided.get(lead).and_then(|course| course.choice.clone());
    ctx.told.rule = choice.as_ref().and_then(|choice| choice.route.clone());
    one_way(payload.as_ref(), &decided, choice.as_deref())?;
    let mut upstream = Headers::default();
    for course in &decided {
        upstream.then(&course.upstream);
    }
    let changed = if payload.is_some() { transform::rewrite(body.read(), shapes(&decided), false)? } else { None };
    let shapes = answers(courses, payload.as_ref(), &decided).filter(Shapes::reshapes);
    let Some(changed) = changed else {
        let decided = Decided { choice, shapes, upstream };
        return Ok(Native { payload, call, decided: Some(Box::new(decided)), body: body.read() });
    };
    if let Some((_, fault)) = changed.faults.into_iter().next() {
        return Err(fault);
    }
    let body = body.change(changed.body);
    let payload = Payload::read(body)?;
    let after = payload.one().and_then(Message::call);
    if let (Some(before), Some(after)) = (&call, &after) {
        redress(&mut upstream, courses.http.headers, courses.pool, before, after);
    }
    let decided = Decided { choice, shapes, upstream };
    Ok(Native { payload: Some(payload), call: after, decided: Some(Box::new(decided)), body })
}

/// A batch goes one way, so what is to go another may not hide in it.
fn one_way(payload: Option<&Payload<'_>>, decided: &[Course], choice: Option<&Choice>) -> Verdict<()> {
    let Some(Payload::Batch(messages)) = payload else { return Ok(()) };
    let among = |choice: Option<&Choice>| choice.and_then(|choice| choice.among.clone());
    let same = |course: &Course| among(course.choice.as_deref()) == among(choice);
    let all = messages.iter().zip(decided).all(|(message, course)| message.call().is_none() || same(course));
    if all {
        Ok(())
    } else {
        Err(Reject::new(Code::InvalidRequest, "the routes of these calls lead to different backends; send them apart"))
    }
}

/// The message that says where a native request goes: the first that asks anything.
fn lead(payload: &Payload<'_>) -> usize {
    let Payload::Batch(messages) = payload else { return 0 };
    messages.iter().position(|message| message.call().is_some()).unwrap_or(0)
}

/// What is changed of the answers to a native request.
fn answers(courses: &Courses<'_>, payload: Option<&Payload<'_>>, decided: &[Course]) -> Option<Shapes> {
    match payload {
        None if courses.http.method == Method::GET => courses.transforms.as_ref().map(|rules| Shapes::replay(rules)),
        // What is no request is not answered, and what a server says to it all the same may be no JSON.
        Some(Payload::One(message)) if message.id.is_some() => decided.first().map(|course| Shapes::One(course.shape.clone())),
        None | Some(Payload::One(_)) => None,
        Some(Payload::Batch(messages)) => {
            let ids = messages.iter().map(|message| message.id.map(transform::plain));
            Some(Shapes::Batch(ids.zip(shapes(decided).cloned()).collect()))
        }
    }
}

fn shapes(courses: &[Course]) -> impl Iterator<Item = &Shape> + Clone {
    courses.iter().map(|course| &course.shape)
}

/// Notes what was decided for the header of the answer.
fn note(ctx: &mut Ctx, courses: &[Course]) {
    for course in courses {
        ctx.downstream.then(&course.shape.downstream());
    }
}

/// Has the `Mcp-*` headers of a native request tell what its body does, after it was changed: the name, and the arguments
/// that travel in headers, as the catalogue knows the tool.
fn redress(changed: &mut Headers, client: &HeaderMap, pool: &Pool, before: &Call<'_>, after: &Call<'_>) {
    let value = |text: &str| HeaderValue::from_str(&headers::encode(text)).ok();
    if before.name != after.name && client.contains_key(&headers::NAME) {
        changed.remove.push(headers::NAME.clone());
        let name = after.name.as_deref().and_then(value);
        changed.set.extend(name.map(|name| (headers::NAME.clone(), name)));
    }
    let text = |call: &Call<'_>| call.arguments.map(|raw| raw.get().to_owned());
    if before.name == after.name && text(before) == text(after) {
        return;
    }
    changed.remove.extend(client.keys().filter(|name| name.as_str().starts_with("mcp-param-")).cloned());
    let tool = after.name.as_deref().and_then(|name| pool.members.iter().find_map(|member| member.tool(name)));
    if let (Some(tool), Some(arguments)) = (tool.filter(|_| after.method == "tools/call"), after.arguments) {
        let told = headers::values(&tool.params, arguments).into_iter();
        changed.set.extend(told.filter_map(|(name, text)| Some((name.parse().ok()?, HeaderValue::from_str(&text).ok()?))));
    }
}
