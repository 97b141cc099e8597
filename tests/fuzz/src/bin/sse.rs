//! An event stream means the same however the network cuts it: the decoder gives, for any cuts, the events, the last id
//! and the waiting time that a plain reader finds in the whole (WHATWG HTML, "Server-sent events"). A bound on the size
//! of an event ends only streams that have a larger one.
//!
//! The first two bytes choose the cuts; the rest is the stream.

#![no_main]

use std::time::Duration;

use fuzz::mcp::sse::{Decoder, Event, TooLarge, encode};
use libfuzzer_sys::fuzz_target;

/// What a stream came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Read {
    events: Vec<Event>,
    last_id: Option<String>,
    retry: Option<Duration>,
}

fuzz_target!(|input: &[u8]| {
    let Some((cuts, stream)) = input.split_first_chunk::<2>() else { return };
    let cuts = u32::from(u16::from_le_bytes(*cuts));
    let (expected, largest) = plain(stream);
    for chunks in [vec![stream], stream.chunks(1).collect(), cut(stream, cuts)] {
        assert_eq!(decode(&chunks, usize::MAX).as_ref(), Ok(&expected));
        assert_eq!(decode(&chunks, largest).as_ref(), Ok(&expected), "no event is larger than {largest}");
        match decode(&chunks, largest / 2) {
            Ok(read) => assert_eq!(read, expected),
            Err(events) => assert!(expected.events.starts_with(&events), "what came before the large event"),
        }
    }
    for event in &expected.events {
        let again = decode(&[&encode(&event.name, &event.data)], usize::MAX).map(|read| read.events);
        assert_eq!(again.as_deref(), Ok(std::slice::from_ref(event)), "what is encoded is decoded");
    }
    resumed(stream, cuts as usize % (stream.len() + 1));
});

/// A stream that breaks off and is taken up again gives the whole events of both parts.
fn resumed(stream: &[u8], at: usize) {
    let (first, second) = stream.split_at(at);
    let mut decoder = Decoder::new(usize::MAX);
    let mut events = Vec::new();
    for part in [first, second] {
        decoder.restart();
        decoder.push(part);
        events.extend(std::iter::from_fn(|| decoder.event().expect("no limit")));
    }
    assert_eq!(events, [plain(first).0.events, plain(second).0.events].concat(), "taken up at {at}");
}

/// The stream in pieces of pseudo-random length up to 8 bytes, some of them empty.
fn cut(mut stream: &[u8], mut state: u32) -> Vec<&[u8]> {
    let mut chunks = Vec::new();
    while !stream.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (chunk, rest) = stream.split_at(stream.len().min((state >> 24) as usize % 9));
        chunks.push(chunk);
        stream = rest;
    }
    chunks
}

fn decode(chunks: &[&[u8]], limit: usize) -> Result<Read, Vec<Event>> {
    let mut decoder = Decoder::new(limit);
    let mut events = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        loop {
            match decoder.event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(TooLarge) => return Err(events),
            }
        }
    }
    Ok(Read { events, last_id: decoder.last_id().map(str::to_owned), retry: decoder.retry() })
}

/// The stream line by line, and the size of its largest event.
fn plain(stream: &[u8]) -> (Read, usize) {
    let mut rest = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let (mut read, mut id, mut name, mut data) = (Read::default(), None, String::new(), Vec::new());
    let (mut largest, mut begin) = (0, rest.len());
    while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
        let line = &rest[..end];
        rest = rest[end..].strip_prefix(b"\r\n").unwrap_or(&rest[end + 1..]);
        if line.is_empty() {
            largest = largest.max(begin - rest.len());
            begin = rest.len();
            read.last_id = id.clone().filter(|id: &String| !id.is_empty());
            let (name, lines) = (std::mem::take(&mut name), std::mem::take(&mut data));
            // Ours alone: an event of empty data is one.
            read.events.extend((!lines.is_empty()).then(|| Event { name, data: lines.join(&b'\n') }));
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = String::from_utf8_lossy(value).into_owned();
        match &line[..colon] {
            b"data" => data.push(value.to_vec()),
            b"event" => name = text,
            // Ours alone: what could not be sent back in a header is no id.
            b"id" if value.iter().all(u8::is_ascii_graphic) => id = Some(text),
            b"retry" if value.iter().all(u8::is_ascii_digit) => read.retry = text.parse().ok().map(Duration::from_millis).or(read.retry),
            _ => {}
        }
    }
    (read, largest.max(begin))
}
