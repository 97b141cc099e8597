//! Conditions in CEL (Common Expression Language), of permissions and of routes. They are compiled with the
//! configuration and speak of a request without copying it: a variable is looked up when the expression comes to it.
//! What cannot be evaluated does not hold; arguments that could be read in two ways are told apart, since what is not
//! judged by them must not go on either.

mod headers;
mod terms;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};

use cel::common::ast::Expr;
use cel::common::types::{CelBool, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, Env, ExecutionError, IdedExpr, Program, Value};
use http::HeaderMap;

use self::headers::Headers;
use self::terms::{only_server, outermost, parts, spoken};
use crate::mcp::strict;
use crate::principal::Principal;
use crate::reject::clip;
use crate::verbatim::Verbatim;

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// What a permission's condition may speak of.
pub const OF_CALLS: &[&str] = &["principal", "server", "method", "name", "arguments"];
/// What a route's condition may speak of.
pub const OF_REQUESTS: &[&str] = &["request", "headers", "principal", "server", "version", "method", "name", "tool", "arguments"];

/// What there is of the variables that have members of ours.
const MEMBERS: &[(&str, &[&str])] = &[
    ("principal", &["subject", "issuer", "client", "tenant", "tier", "way", "roles", "scopes"]),
    ("request", &["method", "path", "headers", "client"]),
];

/// What CEL itself names, for `type(x) == int`.
const TYPES: &[&str] = &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// A compiled condition.
pub struct Condition {
    program: Program,
    /// Whether it looks at the arguments, which a list has not.
    pub needs_arguments: bool,
    /// Whether it looks at the call at all, and not at caller and server alone.
    pub needs_call: bool,
    /// The only server it can hold for, where it says so by itself: nothing needs to be evaluated for another.
    server: Option<String>,
    /// Which of its outermost `&&` terms do not look at the arguments.
    light: Vec<bool>,
    /// The names of arguments it may look at: the words in the terms that look at them, as they are and folded.
    words: HashSet<String>,
    folded: HashSet<String>,
}

/// What a condition is asked about.
#[derive(Clone, Copy)]
pub struct Question<'q> {
    pub principal: &'q Principal,
    pub server: &'q str,
    pub method: &'q str,
    pub name: Option<&'q str>,
    pub arguments: Option<Verbatim<'q>>,
    /// The request around the call, where the condition may speak of it.
    pub request: Option<Request<'q>>,
}

/// The HTTP request a call came in.
#[derive(Clone, Copy)]
pub struct Request<'q> {
    pub method: &'q str,
    pub path: &'q str,
    pub headers: &'q HeaderMap,
    pub client: Option<IpAddr>,
    /// The API version; empty on native routes.
    pub version: &'q str,
}

/// A condition that cannot be evaluated, and why.
#[derive(Debug, PartialEq, Eq)]
pub enum Unclear {
    /// Of arguments that others may read otherwise than we do: the member that they may take for another one.
    Twofold(String),
    Other(String),
}

impl Unclear {
    fn because(why: &str) -> Self {
        Self::Other(why.to_owned())
    }
}

impl std::fmt::Display for Unclear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Twofold(name) => write!(f, "the argument `{}` can be taken for another one", clip(name)),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl Condition {
    /// `None` if it is not CEL, which checking the configuration ruled out.
    pub fn new(text: &str) -> Option<Self> {
        let program = ENV.compile(text).ok()?;
        let references = program.references();
        let needs_arguments = references.has_variable("arguments");
        let needs_call = needs_arguments || ["name", "method", "tool"].iter().any(|name| references.has_variable(name));
        let mut terms = Vec::new();
        outermost(program.expression(), &mut terms);
        let server = terms.iter().find_map(|term| only_server(term)).map(str::to_owned);
        let light: Vec<bool> = terms.iter().map(|term| !term.references().has_variable("arguments")).collect();
        let mut words = HashSet::new();
        terms.iter().zip(&light).filter(|(_, is_light)| !**is_light).for_each(|(term, _)| spoken(term, &mut words));
        let folded = words.iter().map(|word| strict::folded(word)).collect();
        Some(Self { program, needs_arguments, needs_call, server, light, words, folded })
    }

    /// Whether it holds.
    pub fn holds(&self, question: &Question<'_>) -> bool {
        matches!(self.evaluate(question), Ok(true))
    }

    /// Whether it holds, or why that cannot be said.
    ///
    /// # Errors
    /// [`Unclear`].
    pub fn evaluate(&self, question: &Question<'_>) -> Result<bool, Unclear> {
        if self.server.as_ref().is_some_and(|only| only != question.server) {
            return Ok(false);
        }
        // An interpreter is much code that meets what clients send; should it ever panic, that is no permission.
        let evaluated = std::panic::catch_unwind(AssertUnwindSafe(|| self.interpret(question)));
        evaluated.unwrap_or_else(|_| Err(Unclear::because("the interpreter panicked")))
    }

    fn interpret(&self, question: &Question<'_>) -> Result<bool, Unclear> {
        if let Some(early) = Some(question).filter(|_| self.needs_arguments).and_then(|question| self.early(question)) {
            return early;
        }
        // Before anything is evaluated: an `||` would forgive what cannot be read for certain.
        let arguments = if self.needs_arguments { Some(self.arguments(question.arguments)?) } else { None };
        truth(self.program.expression(), &Facts { question, arguments })
    }

    /// What a term that needs no arguments says, unless it holds: the whole does not hold either, whatever the arguments
    /// are, so that they need not be read.
    fn early(&self, question: &Question<'_>) -> Option<Result<bool, Unclear>> {
        let mut terms = Vec::with_capacity(self.light.len());
        outermost(self.program.expression(), &mut terms);
        let facts = Facts { question, arguments: None };
        let light = terms.iter().zip(&self.light).filter(|(_, is_light)| **is_light);
        light.map(|(term, _)| truth(term, &facts)).find(|says| !matches!(says, Ok(true)))
    }

    /// The arguments as a map; empty where there are none, nothing where a backend could read them in another way than
    /// we do (a reader that ignores case would take `Path` for the `path` that was judged).
    fn arguments(&self, written: Option<Verbatim<'_>>) -> Result<Box<dyn Val>, Unclear> {
        let Some(written) = written else { return boxed(Value::from(HashMap::<String, Value>::new())) };
        let tree: serde_json::Value = serde_json::from_str(written.get()).map_err(|_| Unclear::because("the arguments cannot be read"))?;
        if !tree.is_object() {
            return Err(Unclear::because("the arguments are no object"));
        }
        if let Some(name) = self.twofold(&tree) {
            return Err(Unclear::Twofold(name.to_owned()));
        }
        boxed(cel::to_value(tree).map_err(|_| Unclear::because("the arguments cannot be read"))?)
    }

    /// A name in it, at any depth, that is another writing of its neighbour or of a name the condition speaks of.
    fn twofold<'t>(&self, tree: &'t serde_json::Value) -> Option<&'t str> {
        match tree {
            serde_json::Value::Object(members) => {
                let mut seen = HashSet::new();
                members.iter().find_map(|(name, value)| {
                    let folded = strict::folded(name);
                    let known = self.words.contains(name) || !self.folded.contains(&folded);
                    if known && seen.insert(folded) { self.twofold(value) } else { Some(name.as_str()) }
                })
            }
            serde_json::Value::Array(items) => items.iter().find_map(|item| self.twofold(item)),
            _ => None,
        }
    }
}

fn boxed(value: Value) -> Result<Box<dyn Val>, Unclear> {
    value.try_into().map_err(|_| Unclear::because("a value CEL does not have"))
}

fn truth(expression: &IdedExpr, facts: &Facts<'_>) -> Result<bool, Unclear> {
    let mut context = Context::with_env(Arc::clone(&ENV));
    context.set_variable_resolver(facts);
    let value = Value::resolve_val(expression, &context).map_err(|error| Unclear::Other(error.to_string()))?;
    value.downcast_ref::<CelBool>().map(|flag| *flag.inner()).ok_or_else(|| Unclear::because("it is neither true nor false"))
}

/// What the variables of one evaluation stand for.
struct Facts<'q> {
    question: &'q Question<'q>,
    arguments: Option<Box<dyn Val>>,
}

impl VariableResolver for Facts<'_> {
    /// Whole paths come here as well (`principal.tenant`), so that their maps are made only for who asks for the map.
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let Question { principal, server, method, name, request, .. } = self.question;
        let identity = &principal.identity;
        let text = |text: &'b str| Some(CowVal::owned(CelString::from(text)));
        let optional = |found: &'b Option<String>| text(found.as_deref().unwrap_or_default());
        let made = |value: Value| boxed(value).ok().map(CowVal::Owned);
        match variable {
            "server" => text(server),
            "method" => text(method),
            "name" => text(name.unwrap_or_default()),
            "tool" => text(name.filter(|_| *method == "tools/call").unwrap_or_default()),
            "arguments" => self.arguments.as_deref().map(CowVal::Borrowed),
            "principal.subject" => text(&identity.subject),
            "principal.issuer" => text(&identity.issuer),
            "principal.client" => optional(&identity.client),
            "principal.tenant" => optional(&identity.tenant),
            "principal.tier" => optional(&identity.tier),
            "principal.way" => text(principal.way.name()),
            "principal.roles" => made(list(&identity.roles)),
            "principal.scopes" => made(list(&identity.scopes)),
            "principal" => made(whole_principal(principal)),
            _ => {
                let request = request.as_ref()?;
                match variable {
                    "version" => text(request.version),
                    "request.method" => text(request.method),
                    "request.path" => text(request.path),
                    "request.client" => made(client(request)),
                    "headers" | "request.headers" => Some(CowVal::owned(Headers::new(request.headers))),
                    "request" => made(whole_request(request)),
                    _ => None,
                }
            }
        }
    }
}

fn list(items: &[String]) -> Value {
    Value::from(items.iter().map(|item| Value::from(item.as_str())).collect::<Vec<_>>())
}

fn map<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::from(members.into_iter().collect::<HashMap<&str, Value>>())
}

fn whole_principal(principal: &Principal) -> Value {
    let identity = &principal.identity;
    let text = |text: Option<&str>| Value::from(text.unwrap_or_default());
    map([
        ("subject", text(Some(&identity.subject))),
        ("issuer", text(Some(&identity.issuer))),
        ("client", text(identity.client.as_deref())),
        ("tenant", text(identity.tenant.as_deref())),
        ("tier", text(identity.tier.as_deref())),
        ("way", text(Some(principal.way.name()))),
        ("roles", list(&identity.roles)),
        ("scopes", list(&identity.scopes)),
    ])
}

fn whole_request(request: &Request<'_>) -> Value {
    map([
        ("method", Value::from(request.method)),
        ("path", Value::from(request.path)),
        ("headers", every_header(request.headers)),
        ("client", client(request)),
    ])
}

fn client(request: &Request<'_>) -> Value {
    Value::from(request.client.map(|address| address.to_canonical().to_string()).unwrap_or_default())
}

/// The headers as a map, for who asks for the request as a whole.
fn every_header(map: &HeaderMap) -> Value {
    let headers = Headers::new(map);
    let joined = |name: &str| headers.find(name).map_or_else(|| Value::from(""), |value| Value::from(value.inner()));
    Value::from(map.keys().map(|name| (name.as_str(), joined(name.as_str()))).collect::<HashMap<&str, Value>>())
}

/// Checks that a text is a condition over `variables`.
///
/// # Errors
/// What is wrong, with its column.
pub fn check(text: &str, variables: &[&str]) -> Result<(), String> {
    let program = ENV.compile(text).map_err(|e| {
        let faults = e.errors.iter().map(|e| format!("column {}: {}", e.pos.1, e.msg));
        format!("not a CEL expression: {}", faults.collect::<Vec<_>>().join("; "))
    })?;
    let mut unknown = Vec::new();
    free(program.expression(), &mut Vec::new(), &mut |id, name, member| {
        let column = program.source_info().offset_for(id).map_or(1, |(start, _)| start + 1);
        let members = MEMBERS.iter().find(|(variable, _)| *variable == name).map(|(_, members)| *members);
        if TYPES.contains(&name) {
            return;
        }
        if !variables.contains(&name) {
            unknown.push(format!("column {column}: `{name}` is not known; a condition speaks of {}", variables.join(", ")));
        } else if let (Some(members), Some(member)) = (members, member)
            && !members.contains(&member)
        {
            unknown.push(format!("column {column}: `{name}.{member}` is not known; there is {}", members.join(", ")));
        }
    });
    let references = program.references();
    unknown
        .extend(references.functions().into_iter().filter(|name| !is_function(name)).map(|name| format!("there is no function `{name}`")));
    if unknown.is_empty() { Ok(()) } else { Err(unknown.join("; ")) }
}

/// Whether CEL has a function of this name, of which the crate can only be asked by calling it: a condition with a
/// misspelt one would never hold, and nobody would know why.
fn is_function(name: &str) -> bool {
    let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
    let knows = |text: String| {
        let context = Context::with_env(Arc::clone(&ENV));
        let called = ENV.compile(&text).map(|program| program.execute(&context));
        !matches!(called, Ok(Err(ExecutionError::UndeclaredReference(_))) | Err(_))
    };
    is_operator || knows(format!("{name}()")) || knows(format!("''.{name}()"))
}

/// Tells of every variable that is not a list macro's own (`p` in `paths.all(p, …)`), with the member asked of it.
fn free<'e>(expression: &'e IdedExpr, bound: &mut Vec<&'e str>, tell: &mut dyn FnMut(u64, &'e str, Option<&'e str>)) {
    match &expression.expr {
        Expr::Ident(name) if !name.starts_with('@') && !bound.contains(&name.as_str()) => tell(expression.id, name, None),
        Expr::Select(select) => match &select.operand.expr {
            Expr::Ident(name) if !name.starts_with('@') && !bound.contains(&name.as_str()) => {
                tell(select.operand.id, name, Some(&select.field));
            }
            _ => free(&select.operand, bound, tell),
        },
        Expr::Comprehension(comprehension) => {
            free(&comprehension.iter_range, bound, tell);
            free(&comprehension.accu_init, bound, tell);
            let outside = bound.len();
            bound.extend([comprehension.iter_var.as_str(), comprehension.accu_var.as_str()]);
            bound.extend(comprehension.iter_var2.as_deref());
            for part in [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result] {
                free(part, bound, tell);
            }
            bound.truncate(outside);
        }
        _ => parts(expression).into_iter().for_each(|part| free(part, bound, tell)),
    }
}

#[cfg(test)]
mod tests;
