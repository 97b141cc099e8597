//! `/openapi.json`: OpenAPI 3.1, generated from the types below and the tables the code itself runs on (routes, methods,
//! refusals). The live servers' names are filled in, so that "Try it out" offers them.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{OpenApi, ToSchema};

use super::console::overview::Overview;
use super::servers::Servers;
use crate::config::Auth;
use crate::config::routing::Version;
use crate::mcp::method::METHODS;
use crate::mcp::rest::Form;
use crate::reject::Code;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "mcp-gateway",
        description = "One entry point for MCP servers. Native MCP clients use `/mcp/{server}`; people with curl use the REST form below."
    ),
    paths(health, ready, metrics, servers, call, call_v2, native, native_stream, native_end, protected_resource, overview),
    components(schemas(Request, Envelope, EnvelopeV2, Problem, Servers, Health, Ready, Overview)),
    tags((name = "REST", description = "Call MCP servers with plain JSON"), (name = "Native MCP", description = "Streamable HTTP, every revision"), (name = "Operations", description = "For probes and scrapers"), (name = "Admin listener", description = "On `server.admin` alone; nothing here answers on this listener"))
)]
struct Api;

/// A REST call.
#[derive(ToSchema, Serialize)]
#[schema(example = json!({"method": "list_tools"}))]
struct Request {
    /// The REST word or the MCP name of a method; the list is filled in from the table of methods.
    method: String,
    /// Parameters of the method: `tool_name` and `arguments` for `call_tool`, `uri` for `read_resource`, `name` and
    /// `arguments` for `get_prompt`.
    #[schema(value_type = Object)]
    params: Option<Value>,
}

/// The answer to a REST call.
#[derive(ToSchema, Serialize)]
struct Envelope {
    /// The content array of a tool call, the whole list of a list method, the contents of a read, the messages of a prompt.
    #[schema(value_type = Object)]
    result: Value,
    /// Who answered.
    #[schema(example = "primary")]
    backend: String,
    /// Seconds.
    #[schema(example = 0.245)]
    response_time: f64,
    cached: bool,
    /// Present when the tool reported failure.
    #[serde(rename = "isError")]
    is_error: Option<bool>,
    /// Present when the tool answered with structured content.
    #[serde(rename = "structuredContent")]
    #[schema(value_type = Object)]
    structured_content: Option<Value>,
}

/// The answer in v2: `result` is the whole MCP result, lists come one page at a time.
#[derive(ToSchema, Serialize)]
struct EnvelopeV2 {
    #[schema(value_type = Object)]
    result: Value,
    backend: String,
    response_time: f64,
    cached: bool,
}

/// A refusal (RFC 9457).
#[derive(ToSchema, Serialize)]
struct Problem {
    #[schema(example = "about:blank")]
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    /// One of the documented codes.
    code: String,
    request_id: String,
    /// The MCP server's own JSON-RPC error, when it gave one.
    #[schema(value_type = Object)]
    rpc_error: Option<Value>,
}

/// Liveness.
#[derive(ToSchema, Serialize)]
struct Health {
    /// `healthy`, `degraded` or `unhealthy`: all, some or no backends are healthy.
    status: String,
    version: String,
    #[schema(value_type = Object, example = json!({"total": 2, "healthy": 2, "unhealthy": 0}))]
    backends: Value,
    #[schema(value_type = Object)]
    circuit_breakers: Value,
    timestamp: String,
}

/// Readiness.
#[derive(ToSchema, Serialize)]
struct Ready {
    ready: bool,
    reason: Option<String>,
}

#[utoipa::path(get, path = "/health", tag = "Operations", responses((status = 200, description = "The process serves", body = Health)))]
#[expect(dead_code, reason = "carries the documentation of the route")]
fn health() {}

#[utoipa::path(get, path = "/ready", tag = "Operations", responses((status = 200, description = "Send traffic", body = Ready), (status = 503, description = "Send no traffic", body = Ready)))]
#[expect(dead_code, reason = "carries the documentation of the route")]
fn ready() {}

#[utoipa::path(get, path = "/metrics", tag = "Operations", responses((status = 200, description = "Prometheus text exposition", content_type = "text/plain")))]
#[expect(dead_code, reason = "carries the documentation of the route")]
fn metrics() {}

#[utoipa::path(get, path = "/api/servers", tag = "REST", responses((status = 200, description = "One row per server and backend", body = Servers)))]
#[expect(dead_code, reason = "carries the documentation of the route")]
fn servers() {}

#[utoipa::path(post, path = "/api/mcp/{server}", tag = "REST", params(("server" = String, Path, description = "An MCP server")), request_body(content = Request, description = "One request, or an array of up to 100 that run concurrently and are answered in order. With `Accept: text/event-stream` progress and log notifications come as events before the envelope."), responses((status = 200, description = "The answer", body = Envelope), (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json")))]
#[expect(dead_code, reason = "carries the documentation of the route")]
fn call() {}

#[utoipa::path(post, path = "/api/v2/mcp/{server}", tag = "REST", params(("server" = String, Path, description = "An MCP server")), request_body = Request, responses((status = 200, description = "The answer", body = EnvelopeV2), (status = "default", description = "A refusal", body = Problem, content_type = "application/problem+json")))]
#[expect(dead_code, reason = "carries the documentation of the route")]
fn call_v2() {}

#[utoipa::path(post, path = "/mcp/{server}", tag = "Native MCP", params(("server" = String, Path, description = "An MCP server")), request_body(content = Object, description = "A JSON-RPC message"), responses((status = 200, description = "As the MCP server answers: JSON or an event stream"), (status = 202, description = "A notification or response was taken"), (status = "default", description = "A JSON-RPC error")))]
#[expect(dead_code, reason = "carries the documentation of the route")]
fn native() {}

#[utoipa::path(get, path = "/mcp/{server}", tag = "Native MCP", params(("server" = String, Path, description = "An MCP server")), responses((status = 200, description = "The server's event stream (revisions up to 2025-11-25)", content_type = "text/event-stream"), (status = 405, description = "The server offers none")))]
#[expect(dead_code, reason = "carries the documentation of the route")]
fn native_stream() {}

#[utoipa::path(delete, path = "/mcp/{server}", tag = "Native MCP", params(("server" = String, Path, description = "An MCP server")), responses((status = 200, description = "The session is ended")))]
#[expect(dead_code, reason = "carries the documentation of the route")]
fn native_end() {}

#[utoipa::path(get, path = "/.well-known/oauth-protected-resource", tag = "Operations", responses((status = 200, description = "OAuth metadata of the gateway as a whole (RFC 9728); below `/mcp/{server}` that of one server", content_type = "application/json"), (status = 404, description = "No authorization server is configured")))]
#[expect(dead_code, reason = "carries the documentation of the route")]
fn protected_resource() {}

#[utoipa::path(get, path = "/admin/overview", tag = "Admin listener", responses((status = 200, description = "What the operator's page (`GET /admin/`) shows: one look at backends, traffic, limits, cache, refusals and configuration", body = Overview), (status = 401, description = "`server.admin_token` is set, and neither `Authorization: Bearer` nor the cookie of a login shows it", body = Problem, content_type = "application/problem+json")))]
#[expect(dead_code, reason = "carries the documentation of the route")]
fn overview() {}

/// The document, offering `servers` where a server is asked for, with the ways to authenticate that are on and the
/// configured `versions` of the REST API.
pub fn document(servers: &[String], auth: Option<&Auth>, versions: &[Version]) -> String {
    let mut document = serde_json::to_value(Api::openapi()).unwrap_or_default();
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    let words: Vec<&str> = METHODS.iter().filter_map(|method| Some([method.rest?, method.mcp])).flatten().collect();
    document["components"]["schemas"]["Request"]["properties"]["method"]["enum"] = json!(words);
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] = json!(codes);
    // An example: where it is, is not for everybody to know.
    document["paths"]["/admin/overview"]["servers"] = json!([{ "url": "http://127.0.0.1:8081", "description": "the admin listener" }]);
    for version in versions {
        list(&mut document, version);
    }
    if let Some(auth) = auth {
        secure(&mut document, auth);
    }
    if !servers.is_empty() {
        offer(&mut document, servers);
    }
    document.to_string()
}

/// Lists a version of the REST API, or marks a built-in one as deprecated.
fn list(document: &mut Value, version: &Version) {
    let form = if version.form == Form::V1 { "/api/mcp/{server}" } else { "/api/v2/mcp/{server}" };
    let path = match version.name.as_str() {
        "v1" | "v2" => form.to_owned(),
        name => format!("/api/{name}/mcp/{{server}}"),
    };
    let mut operations = document["paths"][form].clone();
    if path != form {
        operations["post"]["deprecated"] = json!(false);
        operations["post"]["operationId"] = json!(format!("call_{}", version.name));
    }
    if version.deprecated.is_some() {
        operations["post"]["deprecated"] = json!(true);
    }
    document["paths"][path] = operations;
}

/// Says how to authenticate on the routes that ask who calls.
fn secure(document: &mut Value, auth: &Auth) {
    let mut schemes = json!({ "bearer": { "type": "http", "scheme": "bearer" } });
    let mut ways = vec![json!({ "bearer": [] })];
    if let Some(keys) = &auth.api_keys {
        schemes["api_key"] = json!({ "type": "apiKey", "in": "header", "name": keys.header });
        ways.push(json!({ "api_key": [] }));
    }
    if !auth.required {
        ways.push(json!({}));
    }
    document["components"]["securitySchemes"] = schemes;
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (_, operations) in paths.filter(|(path, _)| path.contains("mcp/{server}") || *path == "/api/servers") {
        for operation in operations.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
            operation["security"] = json!(ways);
        }
    }
}

fn offer(document: &mut Value, servers: &[String]) {
    let paths = document["paths"].as_object_mut().into_iter().flat_map(serde_json::Map::values_mut);
    for operation in paths.filter_map(Value::as_object_mut).flat_map(serde_json::Map::values_mut) {
        for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            if parameter["name"] == "server" {
                parameter["schema"]["enum"] = json!(servers);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route;

    #[test]
    fn every_documented_route_is_dispatched() {
        let config = crate::config::parse("", "backends: [{ name: a, url: 'http://a' }]", &|_| None).unwrap();
        let versions = route::version::Versions::new(&config.versions);
        let document: Value = serde_json::from_str(&document(&["files".into()], None, &config.versions)).unwrap();
        assert_eq!(document["openapi"].as_str().unwrap().get(..3), Some("3.1"));
        let mut seen = 0;
        for (path, operations) in document["paths"].as_object().unwrap() {
            if path.starts_with("/admin/") {
                assert!(route::find(&http::Method::GET, path, &versions).is_err(), "{path} is on the admin listener alone");
                continue;
            }
            for method in operations.as_object().unwrap().keys() {
                let method = http::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let found = path.replace("{server}", "files");
                assert_eq!(route::find(&method, &found, &versions).unwrap().label(), path);
                seen += 1;
            }
        }
        assert_eq!(seen, 10);
        assert_eq!(document["paths"]["/api/mcp/{server}"]["post"]["parameters"][0]["schema"]["enum"], json!(["files"]));
    }
}
