//! What crosses the wire beside codings: framing, ends, and readers that take their time.

use super::*;

/// Reads an answer to a request written by hand: its head in small letters, and as much of the body as `length` says.
async fn by_hand(socket: &mut TcpStream, request: &str, has_body: bool) -> (String, Vec<u8>) {
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        assert_ne!(socket.read_buf(&mut read).await.expect("bytes"), 0, "{}", String::from_utf8_lossy(&read));
    };
    let mut body = read.split_off(end);
    let head = String::from_utf8(read).expect("text").to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    while has_body && body.len() < length.expect("a length") {
        assert_ne!(socket.read_buf(&mut body).await.expect("bytes"), 0);
    }
    (head, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_no_body_and_leaves_the_connection_usable_and_http_1_0_gets_plain_bytes() {
    let stub = Stub::start().await;
    let gateway = start(&stub, "  compression: { algorithms: [gzip], min_size: 0 }\n", "").await;
    let address = gateway.url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    let request =
        |method: &str, path: &str, version: &str, more: &str| format!("{method} {path} HTTP/{version}\r\nHost: localhost\r\n{more}\r\n");
    let gzip = "Accept-Encoding: gzip\r\n";
    let (head, body) = by_hand(&mut socket, &request("HEAD", "/docs/", "1.1", gzip), false).await;
    assert!(head.starts_with("http/1.1 200") && head.contains("vary: accept-encoding") && body.is_empty(), "{head}");
    assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "the length of what GET gives is not known: {head}");
    let (head, body) = by_hand(&mut socket, &request("GET", "/docs/", "1.1", gzip), true).await;
    assert!(head.contains("content-encoding: gzip") && body.starts_with(&[0x1f, 0x8b]), "{head}");
    let (head, body) = by_hand(&mut socket, &request("HEAD", "/docs/", "1.1", ""), false).await;
    assert!(head.contains("content-length: ") && body.is_empty(), "{head}");
    let mut old = TcpStream::connect(address).await.expect("a connection");
    let (head, body) = by_hand(&mut old, &request("GET", "/docs/", "1.0", gzip), true).await;
    assert!(!head.contains("content-encoding") && body.starts_with(b"<!"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_stay_without_one() {
    let stub = Stub::start().await;
    let gateway = start(&stub, "  compression: { min_size: 0 }\n", "").await;
    for status in [204, 304, 202] {
        stub.act(Act::Parts(status, vec![("content-type", "application/json")], Vec::new()));
        let answer = sent(call(&http(), &gateway.url, Lane::Native, 1), "gzip").await;
        assert_eq!(
            (answer.status().as_u16(), coding(&answer) == "gzip"),
            (status, status == 202),
            "202 may have a body, of unknown length"
        );
        assert_eq!(plain(answer).await, b"", "{status}");
    }
    stub.act(Act::Status(202));
    let answer = sent(call(&http(), &gateway.url, Lane::Native, 1), "identity;q=0, gzip").await;
    assert_eq!((answer.status().as_u16(), coding(&answer)), (202, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_given_in_every_callers_coding() {
    let stub = Stub::start().await;
    let tool = json!({ "name": "echo", "description": "$N ".repeat(2000), "inputSchema": { "type": "object" } });
    stub.results("tools/list", json!({ "resultType": "complete", "ttlMs": 60_000, "cacheScope": "public", "tools": [tool] }));
    let gateway = start(&stub, ON, "cache: { enabled: true }\n").await;
    let mut seen = Vec::new();
    for (id, name) in ["gzip", "br", "zstd", ""].into_iter().enumerate() {
        for lane in LANES {
            let headers: &[(&str, &str)] = if name.is_empty() { &[] } else { &[("accept-encoding", name)] };
            let answer = match lane {
                Lane::Rest => crate::cache::rest(&gateway, &json!({ "method": "tools/list" }), headers).await,
                Lane::Native => crate::cache::native(&gateway, &json!(id), "tools/list", json!({}), headers).await,
            };
            let status = crate::cache::status(&answer);
            assert_eq!((coding(&answer), varies(&answer)), (name, true), "{lane:?} {status}");
            assert!(status.contains("hit") || id == 0, "{lane:?} {name}: {status}");
            let answer = read(answer).await;
            if lane == Lane::Native {
                assert_eq!(answer["id"], id, "each caller's own");
                seen.push(answer["result"]["tools"][0]["description"].clone());
            }
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "it was asked once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_cut_short_is_seen_to_be_cut() {
    let stub = Stub::start().await;
    let mut gateway = start(&stub, &format!("  h2c: 127.0.0.1:0\n{ON}"), "circuit_breaker: { enabled: false }\n").await;
    let h2c = format!("http://{}", crate::listeners::address(&mut gateway, "listening on h2c://").await);
    let h2 = client(reqwest::Client::builder().http2_prior_knowledge());
    let json = ("content-type", "application/json");
    let part = Part::Bytes(format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"content":"{}"#, "half ".repeat(30_000)).into());
    for headers in [vec![json], vec![json, ("content-length", "1000000")]] {
        for name in CODINGS {
            for (client, base) in [(&http(), &gateway.url), (&h2, &h2c)] {
                let (cut, is_cut) = watch::channel(false);
                stub.act(Act::Parts(200, headers.clone(), vec![part.clone(), Part::Wait(is_cut), Part::Cut]));
                let answer = sent(call(client, base, Lane::Native, 1), name).await;
                assert_eq!((answer.status().as_u16(), coding(&answer)), (200, name));
                cut.send_replace(true);
                let read = answer.bytes().await;
                assert!(read.is_err(), "{name} {headers:?} {base}: {} bytes passed for the whole", read.map_or(0, |bytes| bytes.len()));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_held_back_while_the_backend_pauses() {
    let stub = Stub::start().await;
    let gateway = start(&stub, ON, "").await;
    for name in CODINGS {
        let (go, goes_on) = watch::channel(false);
        let parts = vec![Part::Bytes("[\"first\",".into()), Part::Wait(goes_on), Part::Bytes("\"second\"]".into())];
        stub.act(Act::Parts(200, vec![("content-type", "application/json")], parts));
        let answer = sent(call(&http(), &gateway.url, Lane::Native, 1), name).await;
        assert_eq!(coding(&answer), name);
        let mut stream = answer.bytes_stream();
        let mut coded = Vec::new();
        // The rest comes only once this was read.
        let mut seen = [0; 9];
        while decoder(name, &coded).read_exact(&mut seen).is_err() {
            coded.extend(stream.next().await.expect("more").expect("bytes"));
        }
        assert_eq!(&seen, b"[\"first\",", "{name}");
        go.send_replace(true);
        while let Some(more) = stream.next().await {
            coded.extend(more.expect("bytes"));
        }
        let mut plain = String::new();
        decoder(name, &coded).read_to_string(&mut plain).expect("a whole answer");
        assert_eq!(plain, "[\"first\",\"second\"]", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_its_time_gets_all_of_it_and_others_are_served_meanwhile() {
    let stub = Stub::start().await;
    let gateway = start(&stub, "  compression: { algorithms: [gzip], level: fast }\n", "").await;
    // Noise, so that more is left than the buffers between us hold.
    let mut state = 1_u64;
    let noise: String = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        format!("{:012x}", state >> 16)
    })
    .take(700_000)
    .collect();
    stub.act(Act::Say("result", json!({ "resultType": "complete", "content": [{ "type": "text", "text": noise }] })));
    for lane in LANES {
        let slow = sent(call(&http(), &gateway.url, lane, 1), "gzip").await;
        let mut stream = slow.bytes_stream();
        let mut coded = stream.next().await.expect("more").expect("bytes").to_vec();
        for _ in 0..20 {
            let other = sent(http().get(gateway.at("/openapi.json")), "gzip").await;
            assert!(!plain(other).await.is_empty());
        }
        while let Some(more) = stream.next().await {
            coded.extend(more.expect("bytes"));
        }
        let mut plain = Vec::new();
        decoder("gzip", &coded).read_to_end(&mut plain).expect("a whole answer");
        let answer: Value = serde_json::from_slice(&plain).expect("JSON");
        assert_eq!(given(lane, &answer)[0]["text"].as_str().map(str::len), Some(noise.len()), "{lane:?}");
    }
}
