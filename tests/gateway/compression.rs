//! Compressed answers: for whom, which of them, and that they are whole or seen not to be.

mod wire;

use std::io::Read as _;

use futures::StreamExt as _;
use reqwest::{Client, Response, Version};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::support::gateway::{Gateway, server};
use crate::support::part::{self, Server, scenario};
use crate::support::stub::{Act, Part, Stub};
use crate::support::{client, http};

const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];
const ON: &str = "  compression: {}\n";

/// A gateway before a stub, with these lines below `server:` and more at the end.
async fn start(stub: &Stub, server_more: &str, more: &str) -> Gateway {
    let gateway = Gateway::start(&format!("{}backends:\n{}{more}", server(server_more), stub.backend("one", ""))).await;
    gateway.knows("stub").await;
    gateway
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Rest,
    Native,
}

const LANES: [Lane; 2] = [Lane::Rest, Lane::Native];

/// A call of `echo` with a pad of this length.
fn call(client: &Client, base: &str, lane: Lane, pad: usize) -> reqwest::RequestBuilder {
    // Repeats itself, as answers do, but not so much that nothing is left.
    let pad: String = (0..pad).map(|n| char::from(b'a' + u8::try_from((n * n / 7) % 26).expect("a letter"))).collect();
    let arguments = json!({ "pad": pad });
    match lane {
        Lane::Rest => client
            .post(format!("{base}/api/mcp/stub"))
            .json(&json!({ "method": "call_tool", "params": { "tool_name": "echo", "arguments": arguments } })),
        Lane::Native => {
            let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
            client
                .post(format!("{base}/mcp/stub"))
                .header("accept", "application/json, text/event-stream")
                .header("mcp-protocol-version", "2026-07-28")
                .header("mcp-method", "tools/call")
                .header("mcp-name", "echo")
                .json(&json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call",
                    "params": { "name": "echo", "arguments": arguments, "_meta": meta } }))
        }
    }
}

async fn sent(request: reqwest::RequestBuilder, accept: &str) -> Response {
    let request = if accept.is_empty() { request } else { request.header("accept-encoding", accept) };
    request.send().await.expect("an answer")
}

fn field<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().expect("text"))
}

fn coding(response: &Response) -> &str {
    field(response, "content-encoding").unwrap_or_default()
}

fn varies(response: &Response) -> bool {
    response.headers().get_all("vary").iter().any(|value| value == "Accept-Encoding")
}

fn decoder<'b>(coding: &str, bytes: &'b [u8]) -> Box<dyn std::io::Read + 'b> {
    match coding {
        "zstd" => Box::new(zstd::stream::read::Decoder::new(bytes).expect("a decoder")),
        "br" => Box::new(brotli::Decompressor::new(bytes, 4096)),
        "gzip" => Box::new(flate2::read::GzDecoder::new(bytes)),
        "" => Box::new(bytes),
        other => panic!("{other} was not offered"),
    }
}

/// The body in plain bytes; fails where it is not whole.
async fn plain(response: Response) -> Vec<u8> {
    let coding = coding(&response).to_owned();
    let bytes = response.bytes().await.expect("a whole answer");
    let mut plain = Vec::new();
    decoder(&coding, &bytes).read_to_end(&mut plain).expect("a whole answer");
    plain
}

async fn read(response: Response) -> Value {
    serde_json::from_slice(&plain(response).await).expect("JSON")
}

/// What a call gave, in either lane.
fn given(lane: Lane, answer: &Value) -> &Value {
    match lane {
        Lane::Rest => &answer["result"],
        Lane::Native => &answer["result"]["content"],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_coding_gives_back_what_was_said_in_both_lanes_over_http_1_and_h2c() {
    let stub = Stub::start().await;
    let mut gateway = start(&stub, &format!("  h2c: 127.0.0.1:0\n{ON}"), "").await;
    let h2c = format!("http://{}", crate::listeners::address(&mut gateway, "listening on h2c://").await);
    let h2 = client(reqwest::Client::builder().http2_prior_knowledge());
    // Judged whole, relayed, and in several pieces.
    for (lane, pad) in LANES.into_iter().flat_map(|lane| [3_000, 40_000, 300_000].map(|pad| (lane, pad))) {
        for (client, base, version) in [(&http(), &gateway.url, Version::HTTP_11), (&h2, &h2c, Version::HTTP_2)] {
            let whole = sent(call(client, base, lane, pad), "").await;
            let about = format!("{lane:?} {pad} {version:?}");
            assert_eq!((whole.status().as_u16(), whole.version(), coding(&whole), varies(&whole)), (200, version, "", true), "{about}");
            let length: usize = field(&whole, "content-length").expect("a length").parse().expect("a number");
            let whole = read(whole).await;
            assert!(length > pad, "{about}");
            for name in CODINGS {
                let answer = sent(call(client, base, lane, pad), name).await;
                assert_eq!((answer.status().as_u16(), coding(&answer), varies(&answer)), (200, name, true), "{about}");
                let told = field(&answer, "content-length").map(|text| text.parse::<usize>().expect("a number"));
                assert!(told.is_none_or(|told| told < length), "{about}: {told:?} of {length}");
                assert_eq!(told.is_some(), pad == 3_000 || (lane, pad) == (Lane::Rest, 40_000), "{about}");
                let answer = read(answer).await;
                assert_eq!(given(lane, &answer), given(lane, &whole), "{about} {name}");
                assert!(given(lane, &answer)[0]["text"].as_str().is_some_and(|text| text.len() > pad), "{about}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_long_enough_is_compressed() {
    let stub = Stub::start().await;
    let gateway = start(&stub, "  compression: { min_size: 2000, level: best }\n", "").await;
    let ask = async |pad: usize, accept: &str| sent(call(&http(), &gateway.url, Lane::Native, pad), accept).await;
    let around = plain(ask(100, "").await).await.len() - 100;
    for (size, expected) in [(1999, ""), (2000, "gzip"), (2001, "gzip")] {
        assert_eq!(plain(ask(size - around, "").await).await.len(), size);
        let answer = ask(size - around, "gzip").await;
        assert_eq!((coding(&answer), varies(&answer)), (expected, true), "{size}");
        assert_eq!(plain(answer).await.len(), size);
    }
    let refused = ask(10, "identity;q=0, gzip").await;
    assert_eq!(coding(&refused), "gzip", "who refuses plain bytes gets none, however short");
    assert_eq!(read(refused).await["id"], 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_chooses_by_weight_and_the_configuration_among_equals() {
    let stub = Stub::start().await;
    let gateway = start(&stub, "  compression: { algorithms: [br, gzip] }\n", "").await;
    for (accept, expected) in [
        ("gzip, br, zstd", "br"),
        ("gzip;q=0.9, br;q=0.8", "gzip"),
        ("zstd", ""),
        ("*", "br"),
        ("br;q=0, *;q=0.1", "gzip"),
        ("gzip;q=0", ""),
        ("deflate, compress, exotic", ""),
        ("identity, gzip;q=0.5", ""),
        ("gzip;q=nonsense", ""),
        // Nothing is acceptable: an answer that can be read after all is better than none.
        ("identity;q=0", ""),
        ("*;q=0", ""),
    ] {
        for lane in LANES {
            let answer = sent(call(&http(), &gateway.url, lane, 3000), accept).await;
            assert_eq!((answer.status().as_u16(), coding(&answer), varies(&answer)), (200, expected, true), "{accept} {lane:?}");
            assert!(read(answer).await["result"].is_object() || lane == Lane::Rest, "{accept}");
        }
    }
    let request = call(&http(), &gateway.url, Lane::Rest, 3000).header("accept-encoding", "br;q=0.1").header("accept-encoding", "gzip");
    assert_eq!(coding(&request.send().await.expect("an answer")), "gzip", "several fields are one list");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_compressed_unless_it_is_switched_on_which_takes_no_restart() {
    let stub = Stub::start().await;
    let gateway = start(&stub, "", "").await;
    let ask = async |lane| sent(call(&http(), &gateway.url, lane, 50_000), "gzip, br, zstd").await;
    for lane in LANES {
        let answer = ask(lane).await;
        assert_eq!((coding(&answer), varies(&answer)), ("", false), "{lane:?}");
    }
    let yaml = |more: &str| format!("{}backends:\n{}", server(more), stub.backend("one", ""));
    gateway.load(&yaml(ON)).await;
    for lane in LANES {
        assert_eq!(coding(&ask(lane).await), "zstd", "{lane:?}");
    }
    gateway.load(&yaml("  compression: { enabled: false }\n")).await;
    assert_eq!(coding(&ask(Lane::Rest).await), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_are_never_compressed() {
    let stub = Stub::start().await;
    let gateway = start(&stub, "  compression: { min_size: 0 }\n", "").await;
    stub.act(Act::Events(json!({ "content": [{ "type": "text", "text": "x".repeat(20_000) }] })));
    let native = sent(call(&http(), &gateway.url, Lane::Native, 1), "gzip").await;
    let rest = sent(call(&http(), &gateway.url, Lane::Rest, 1).header("accept", "text/event-stream"), "gzip").await;
    let stream = http().get(gateway.at("/mcp/stub")).header("accept", "text/event-stream").header("mcp-protocol-version", "2025-11-25");
    let stream = sent(stream, "identity;q=0, gzip").await;
    for answer in [&native, &rest, &stream] {
        assert_eq!(field(answer, "content-type"), Some("text/event-stream"));
        assert_eq!((answer.status().as_u16(), coding(answer), varies(answer)), (200, "", false));
    }
    for answer in [native, rest] {
        assert!(answer.text().await.expect("text").contains("data: {"));
    }
    let mut stream = stream.bytes_stream();
    let first = stream.next().await.expect("an event").expect("bytes");
    assert!(first.starts_with(b"event: message"), "as it comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_coded_already_or_must_not_be_changed_goes_as_it_is() {
    let stub = Stub::start().await;
    let rule = "transform: [ { match: { tool: sealed }, response: { headers: { set: { Cache-Control: no-transform } } } } ]\n";
    let gateway = start(&stub, ON, rule).await;
    let message =
        json!({ "jsonrpc": "2.0", "id": 7, "result": { "content": [{ "type": "text", "text": "y".repeat(20_000) }] } }).to_string();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, message.as_bytes()).expect("into memory");
    let packed = packed.finish().expect("into memory");
    let json = ("content-type", "application/json");
    let native = async || sent(call(&http(), &gateway.url, Lane::Native, 1), "br, gzip").await;
    stub.act(Act::Parts(200, vec![json, ("content-encoding", "gzip")], vec![Part::Bytes(packed.clone().into())]));
    let answer = native().await;
    assert_eq!((coding(&answer), varies(&answer)), ("gzip", false));
    assert_eq!(answer.bytes().await.expect("bytes"), packed, "not a byte is another");
    for (field, body) in [(("cache-control", "no-transform"), message.clone()), (("content-digest", "sha-256=:AAAA:"), message.clone())] {
        stub.act(Act::Parts(200, vec![json, field], vec![Part::Bytes(body.into())]));
        let answer = native().await;
        assert_eq!((coding(&answer), varies(&answer)), ("", false), "{field:?}");
        assert_eq!(answer.text().await.expect("text"), message);
    }
    stub.act(Act::Parts(200, vec![("content-type", "image/png")], vec![Part::Bytes(message.clone().into())]));
    assert_eq!(coding(&native().await), "");
    stub.act(Act::Parts(200, vec![json, ("etag", "\"1\""), ("vary", "Origin")], vec![Part::Bytes(message.clone().into())]));
    let answer = native().await;
    assert_eq!((coding(&answer), field(&answer, "etag"), varies(&answer)), ("br", Some("W/\"1\""), true));
    assert_eq!(plain(answer).await, message.as_bytes());
    // By the caller, and by a rule of the operator's.
    let answer = sent(call(&http(), &gateway.url, Lane::Native, 1).header("cache-control", "no-transform"), "gzip").await;
    assert_eq!((coding(&answer), varies(&answer)), ("", true));
    stub.act(Act::Echo);
    let body = json!({ "method": "call_tool", "params": { "tool_name": "sealed", "arguments": { "pad": "z".repeat(5000) } } });
    let answer = sent(http().post(gateway.at("/api/mcp/stub")).json(&body), "gzip").await;
    assert_eq!((coding(&answer), varies(&answer)), ("", false));
    assert!(!stub.headers().contains_key("accept-encoding"), "a backend is asked for plain bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_pages_batches_and_changed_answers_are_compressed_as_well() {
    let stub = Stub::start().await;
    let rule = "transform: [ { match: { method: tools/list }, response: { fields: { remove: [nothing] } } } ]\n";
    let gateway = start(&stub, "  compression: { min_size: 100 }\n", rule).await;
    for path in
        ["/openapi.json", "/api/servers", "/docs/", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/no/such/page", "/mcp/nobody"]
    {
        let whole = http().get(gateway.at(path)).header("x-request-id", "same").send().await.expect("an answer");
        let (status, kind) = (whole.status(), field(&whole, "content-type").map(str::to_owned));
        assert!(varies(&whole), "{path}");
        let whole = plain(whole).await;
        for name in CODINGS {
            let answer = sent(http().get(gateway.at(path)).header("x-request-id", "same"), name).await;
            assert_eq!(
                (answer.status(), coding(&answer), field(&answer, "content-type").map(str::to_owned)),
                (status, name, kind.clone()),
                "{path}"
            );
            let answer = plain(answer).await;
            assert!(answer == whole || path == "/api/servers", "{path} {name}");
        }
    }
    let metrics = sent(http().get(gateway.at("/metrics")), "gzip").await;
    assert_eq!(coding(&metrics), "gzip");
    assert!(String::from_utf8(plain(metrics).await).expect("text").contains("http_requests_total"));
    let batch = json!([{ "method": "list_tools" }, { "method": "ping" }, { "method": "nonsense" }]);
    let batch = sent(http().post(gateway.at("/api/mcp/stub")).json(&batch), "br").await;
    assert_eq!(coding(&batch), "br");
    assert_eq!(read(batch).await.as_array().map(Vec::len), Some(3));
    stub.results(
        "tools/list",
        json!({ "resultType": "complete", "tools": [], "nothing": "w".repeat(100_000), "more": "v".repeat(100_000) }),
    );
    let list = json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/list", "params": { "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} } } });
    let list =
        http().post(gateway.at("/mcp/stub")).header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/list").json(&list);
    let list = sent(list.header("accept", "application/json, text/event-stream"), "zstd").await;
    assert_eq!(coding(&list), "zstd");
    let list = read(list).await;
    assert_eq!(
        (&list["id"], list["result"].get("nothing"), list["result"]["more"].as_str().map(str::len)),
        (&json!(5), None, Some(100_000))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_and_the_log_tell_bytes_before_and_after() {
    let stub = Stub::start().await;
    let gateway = start(&stub, ON, "").await;
    let mut bytes = [0, 0];
    for (lane, pad) in [(Lane::Rest, 3000), (Lane::Native, 3000), (Lane::Rest, 100_000), (Lane::Native, 100_000)] {
        let answer = sent(call(&http(), &gateway.url, lane, pad).header("x-request-id", format!("{lane:?}-{pad}")), "br").await;
        let coded = answer.bytes().await.expect("bytes");
        let mut plain = Vec::new();
        decoder("br", &coded).read_to_end(&mut plain).expect("a whole answer");
        bytes[0] += plain.len();
        bytes[1] += coded.len();
        let said = gateway.said().await;
        let line = said.iter().find(|line| line.contains(&format!("{lane:?}-{pad}"))).expect("its line");
        for expected in
            [format!("\"bytes\":{}", plain.len()), "\"encoding\":\"br\"".to_owned(), format!("\"encoded_bytes\":{}", coded.len())]
        {
            assert!(line.replace("\\\"", "\"").contains(&expected), "{expected}: {line}");
        }
    }
    let said = gateway.said().await;
    assert!(
        said.iter().filter(|line| line.contains("/health")).all(|line| !line.contains("encoded_bytes")),
        "where there is none, nothing is said"
    );
    for (stage, expected) in ["before", "after"].into_iter().zip(bytes) {
        let counted = gateway.metric(&format!("compression_bytes_total{{encoding=\"br\",stage=\"{stage}\"}}")).await;
        assert_eq!(counted, expected as u64, "{stage}");
    }
}

/// Whatever their HTTP libraries take by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn official_clients_read_compressed_answers() {
    for (python_client, legacy) in [(true, false), (true, true), (false, false)] {
        let real = Server::python_sdk(&["--json"]).await;
        let backend = format!("  - {{ name: one, url: \"{}\", protocol: mcp, capabilities: [real] }}\n", real.url);
        let gateway = Gateway::start(&format!("{}backends:\n{backend}", server("  compression: { min_size: 0 }\n"))).await;
        let client = || if python_client { part::Client::Python } else { part::Client::Ts };
        for name in ["tools", "resources", "prompts"] {
            scenario(client(), &gateway.at("/mcp/real"), if legacy { "legacy" } else { "modern" }, name).await;
        }
        let text = http().get(gateway.at("/metrics")).send().await.expect("metrics").text().await.expect("text");
        let after = text.lines().filter(|line| line.starts_with("compression_bytes_total") && !line.ends_with(" 0")).count();
        assert!(after >= 2, "some were compressed: {after}");
    }
}
