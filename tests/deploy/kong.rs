//! `conf/kong`: the declarative configuration, and what the registration really sends, by the fields that Kong documents; and
//! the same from both.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::{Value, json};

use crate::written::{loaded, paths, root, run, yaml};

/// The kinds of a field, as far as they are used.
#[derive(Clone, Copy)]
enum Kind {
    Name,
    Url,
    Flag,
    /// Whole numbers from, to.
    Number(u64, u64),
    One(&'static [&'static str]),
    Strings(fn(&str) -> bool),
    Entities(Entity),
    Record(Fields),
}
use Kind::{Entities, Flag, Name, Number, One, Record, Strings, Url};

type Fields = &'static [(&'static str, Kind)];

#[derive(Clone, Copy)]
struct Entity {
    required: &'static [&'static str],
    fields: Fields,
}

// As documented for Kong 3: https://developer.konghq.com/gateway/entities/{service,route,plugin}/ and the plugin's reference.
const TIMEOUT: Kind = Number(1, (1 << 31) - 2);
const SERVICE: Entity = Entity {
    required: &["url"],
    fields: &[
        ("name", Name),
        ("url", Url),
        ("retries", Number(0, 32767)),
        ("connect_timeout", TIMEOUT),
        ("write_timeout", TIMEOUT),
        ("read_timeout", TIMEOUT),
        ("enabled", Flag),
        ("tags", Strings(|_| true)),
        ("routes", Entities(ROUTE)),
        ("plugins", Entities(PLUGIN)),
    ],
};
const ROUTE: Entity = Entity {
    required: &["paths"],
    fields: &[
        ("name", Name),
        ("protocols", Strings(|protocol| ["http", "https"].contains(&protocol))),
        ("methods", Strings(|method| method.chars().all(|c| c.is_ascii_uppercase()))),
        ("hosts", Strings(|_| true)),
        ("paths", Strings(|path| path.starts_with('/') || path.starts_with("~/"))),
        ("https_redirect_status_code", Number(301, 426)),
        ("regex_priority", Number(0, 1 << 31)),
        ("strip_path", Flag),
        ("preserve_host", Flag),
        ("request_buffering", Flag),
        ("response_buffering", Flag),
        ("tags", Strings(|_| true)),
    ],
};
/// Of the plugins in use.
const PLUGIN: Entity = Entity {
    required: &["name"],
    fields: &[
        ("name", One(&["correlation-id"])),
        ("enabled", Flag),
        ("config", Record(&[("header_name", Name), ("generator", One(&["uuid", "uuid#counter", "tracker"])), ("echo_downstream", Flag)])),
    ],
};

/// What is wrong with an entity.
fn faults(at: &str, value: &Value, entity: Entity, found: &mut Vec<String>) {
    found.extend(entity.required.iter().filter(|name| value.get(name).is_none()).map(|name| format!("{at}.{name} is missing")));
    record(at, value, entity.fields, found);
}

fn record(at: &str, value: &Value, fields: Fields, found: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{key}");
        let Some((_, kind)) = fields.iter().find(|(name, _)| name == key) else {
            found.push(format!("{at} is no field"));
            continue;
        };
        let fits = match kind {
            Name => {
                value.as_str().is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_~".contains(c)))
            }
            Url => value.as_str().is_some_and(|url| url::Url::parse(url).is_ok_and(|url| ["http", "https"].contains(&url.scheme()))),
            Flag => value.is_boolean(),
            Number(from, to) => value.as_u64().is_some_and(|number| (*from..=*to).contains(&number)),
            One(of) => value.as_str().is_some_and(|text| of.contains(&text)),
            Strings(fits) => {
                value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(|item| item.as_str().is_some_and(fits)))
            }
            Entities(entity) => value.as_array().is_some_and(|list| {
                list.iter().enumerate().for_each(|(i, item)| faults(&format!("{at}[{i}]"), item, *entity, found));
                !list.is_empty()
            }),
            Record(fields) => {
                record(&at, value, fields, found);
                value.is_object()
            }
        };
        if !fits {
            found.push(format!("{at}: {value}"));
        }
    }
}

fn service() -> Value {
    yaml("conf/kong/kong.yaml")["services"][0].clone()
}

#[test]
fn the_declarative_configuration_has_kongs_fields() {
    let kong = yaml("conf/kong/kong.yaml");
    for key in kong.as_object().expect("an object").keys() {
        assert!(["_format_version", "_transform", "services"].contains(&key.as_str()), "{key}");
    }
    assert_eq!((&kong["_format_version"], &kong["_transform"]), (&json!("3.0"), &json!(true)));
    let mut found = Vec::new();
    faults("service", &service(), SERVICE, &mut found);
    assert!(found.is_empty(), "{found:?}");
    let mut wrong = service();
    wrong["routes"][0]["response_bufferring"] = json!(false);
    wrong["plugins"][0]["config"]["generator"] = json!("random");
    wrong["retries"] = json!("none");
    faults("service", &wrong, SERVICE, &mut found);
    assert_eq!(found.len(), 3, "it would see faults: {found:?}");
}

#[test]
fn what_kong_passes_on_fits_the_gateway() {
    let (service, known) = (service(), paths());
    let route = &service["routes"][0];
    for path in route["paths"].as_array().expect("paths").iter().filter_map(Value::as_str) {
        assert!(known.iter().any(|known| known.starts_with(path)), "the gateway answers nothing at {path}");
    }
    for hidden in ["/metrics", "/health", "/ready"] {
        assert!(route["paths"].as_array().expect("paths").iter().all(|path| path != hidden), "{hidden} is not for callers");
    }
    assert_eq!((&route["strip_path"], &route["response_buffering"], &route["preserve_host"]), (&json!(false), &json!(false), &json!(true)));
    let idle = loaded(&root().join("conf/compose/gateway/gateway.yaml")).server.limits.stream_idle;
    assert!(u128::from(service["read_timeout"].as_u64().expect("a number")) > idle.as_millis(), "silent streams are the gateway's to end");
}

/// One request to a Kong that says 200 to everything: its line without the version, and its body.
fn taken(stream: &TcpStream) -> (String, Value) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let mut length = 0;
    reader.read_line(&mut line).expect("a request");
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).expect("headers");
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        if header.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    (&mut &*stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}").expect("an answer");
    (line.trim().trim_end_matches(" HTTP/1.1").to_owned(), serde_json::from_slice(&body).expect("JSON"))
}

#[test]
fn the_registration_sends_what_the_declarative_configuration_says() {
    let kong = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", kong.local_addr().expect("bound"));
    let answering = std::thread::spawn(move || kong.incoming().take(3).map(|stream| taken(&stream.expect("a caller"))).collect::<Vec<_>>());
    let (passed, said) = run(Command::new("bash").arg(root().join("conf/kong/register.sh")).env("KONG_ADMIN", url).env_remove("GATEWAY"));
    assert!(passed, "{said}");
    let sent = answering.join().expect("three requests");
    let (declared, mut found) = (service(), Vec::new());
    for ((line, body), (path, entity, written)) in sent.iter().zip([
        ("/services/mcp-gateway", SERVICE, &declared),
        ("/services/mcp-gateway/routes/mcp-gateway", ROUTE, &declared["routes"][0]),
        ("/services/mcp-gateway/plugins/", PLUGIN, &declared["plugins"][0]),
    ]) {
        assert!(line.starts_with(&format!("PUT {path}")), "{line}");
        faults(path, body, entity, &mut found);
        for (key, value) in written.as_object().expect("an entity").iter().filter(|(key, _)| !["routes", "plugins"].contains(&key.as_str()))
        {
            let named_by_path = key == "name" && line.ends_with(value.as_str().unwrap_or_default());
            assert!(named_by_path || body.get(key) == Some(value), "{path}: {key}: {value} and {body}");
        }
    }
    assert!(found.is_empty(), "{found:?}");
}
