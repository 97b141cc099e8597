//! The requests the load generator sends and the proof that each answer is the right one.
//!
//! Every call carries its own number, as JSON-RPC id, as request id, and as an argument the tool repeats: an answer that was
//! mixed up, cut or made up does not pass. Where answers are to come from a cache the argument is a tag that many share.

use std::net::SocketAddr;

use crate::Result;
use crate::answer::{self, VERSION};
use crate::row::{Lane, Size, What};
use crate::wire::Head;

/// Stands where the number goes; as long as every number, so that lengths stay the same.
const BLANK: &str = "########";
/// Stands where the tag goes.
const TAG: &str = "%%%%%%%%";
const FIRST: u32 = 10_000_000;
const LAST: u32 = 99_999_999;
/// What the guarded gateway knows the load generator by.
pub const KEY: &str = "mgk_bench-key-that-is-long-enough-0123456789";
/// The number stands early in every right answer; there is no need to search 64 KB for it.
const NEAR: usize = 512;

/// One call, written once and stamped with a new number each time it is sent.
pub struct Call {
    bytes: Vec<u8>,
    spots: Vec<usize>,
    tags: Vec<usize>,
    what: What,
    number: u32,
    right: Right,
}

/// What a right answer looks like.
enum Right {
    /// The native form hands the backend's bytes through.
    Length(usize),
    /// The REST form wraps the content; `response_time` makes its length vary, and only the header tells the number.
    Envelope { least: usize, most: usize },
}

impl Call {
    /// `begin` is where a connection begins to count, so that another round does not ask again what this one asked.
    pub fn new(lane: Lane, what: What, size: Size, host: SocketAddr, connection: u32, begin: u32) -> Self {
        let method = if what == What::List { "tools/list" } else { "tools/call" };
        // Of long ones memory holds fewer still, and all of them must be there before anything counts.
        let what = match what {
            What::Turns(turns) if size == Size::Large => What::Turns(turns / 10),
            what => what,
        };
        let bytes = match lane {
            Lane::Native => native(host, method, "", &native_call(what, size)),
            Lane::Guarded => native(host, method, &format!("X-API-Key: {KEY}\r\n"), &native_call(what, size)),
            Lane::Rest => post(host, "/api/mcp/bench", "", &rest_call(what, size)),
        };
        let (spots, tags) = (spots(&bytes, BLANK), spots(&bytes, TAG));
        // Apart by more than a connection sends in a run, so that no two answers look alike.
        let number = FIRST + connection * 1_000_000 + begin % 500_000;
        Self { bytes, spots, tags, what, number, right: Right::of(lane, what, size) }
    }

    /// The argument of the call last sent.
    fn tag(&self) -> u32 {
        match self.what {
            What::Own => self.number,
            What::Same | What::List => FIRST,
            // Each connection at another place, so that what one asks for is not what the others just asked for.
            What::Turns(turns) => FIRST + (self.number + self.number / 1_000_000 * 157) % turns,
        }
    }

    /// The bytes of the next call.
    pub fn next(&mut self) -> &[u8] {
        self.number = if self.number < LAST { self.number + 1 } else { FIRST };
        for (spots, number) in [(&self.spots, self.number), (&self.tags, self.tag())] {
            let digits = number.to_string();
            for &spot in spots {
                self.bytes[spot..spot + digits.len()].copy_from_slice(digits.as_bytes());
            }
        }
        &self.bytes
    }

    /// Is this the answer to the call last sent?
    pub fn check(&self, head: &Head, body: &[u8]) -> Result<()> {
        let number = self.number.to_string();
        let tag = self.tag().to_string();
        let near = &body[..body.len().min(NEAR)];
        let told = |number: &str| near.windows(number.len()).any(|w| w == number.as_bytes());
        let in_head = matches!(self.right, Right::Envelope { .. });
        let fault = if head.subject() != "200" {
            "status"
        } else if !self.right.fits(body) {
            "length"
        } else if if in_head { !head.text().contains(&number) } else { !told(&number) } {
            "number"
        } else if self.what != What::List && !told(&tag) {
            "tag"
        } else {
            return Ok(());
        };
        let (head, near) = (head.text(), String::from_utf8_lossy(near));
        Err(format!("wrong answer to call {number} ({fault}): {} bytes\n{head}{near}", body.len()).into())
    }
}

impl Right {
    fn of(lane: Lane, what: What, size: Size) -> Self {
        match (lane, what) {
            (Lane::Native | Lane::Guarded, What::List) => Self::Length(answer::list(BLANK).len()),
            (Lane::Native | Lane::Guarded, _) => Self::Length(answer::echo(BLANK, size.text(), BLANK).len()),
            (Lane::Rest, _) => {
                let content = if what == What::List { answer::tools().len() } else { answer::content(size.text(), BLANK).len() };
                Self::Envelope { least: content + 40, most: content + 200 }
            }
        }
    }

    fn fits(&self, body: &[u8]) -> bool {
        match *self {
            Self::Length(length) => body.len() == length,
            Self::Envelope { least, most } => (least..=most).contains(&body.len()),
        }
    }
}

/// A modern request for a stream that stays open.
pub fn listen(host: SocketAddr) -> Vec<u8> {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{{"notifications":{{"toolsListChanged":true}},{}}}}}"#,
        meta()
    );
    native(host, "subscriptions/listen", "", &body)
}

/// The stream of the revisions before it.
pub fn get(host: SocketAddr) -> Vec<u8> {
    format!("GET /mcp/bench HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\nMCP-Protocol-Version: 2025-11-25\r\n\r\n").into_bytes()
}

fn native(host: SocketAddr, method: &str, credential: &str, body: &str) -> Vec<u8> {
    let name = if method == "tools/call" { "Mcp-Name: echo\r\n" } else { "" };
    let headers = format!("MCP-Protocol-Version: {VERSION}\r\nMcp-Method: {method}\r\n{name}{credential}");
    post(host, "/mcp/bench", &headers, body)
}

fn post(host: SocketAddr, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let (accept, headers) = if headers.is_empty() {
        ("application/json", format!("X-Request-ID: {BLANK}\r\n"))
    } else {
        ("application/json, text/event-stream", headers.to_owned())
    };
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nContent-Type: application/json\r\nAccept: {accept}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn native_call(what: What, size: Size) -> String {
    let (size, meta) = (size.text(), meta());
    let asked = match what {
        What::List => format!(r#""method":"tools/list","params":{{{meta}}}"#),
        _ => format!(r#""method":"tools/call","params":{{"name":"echo","arguments":{{"size":{size},"tag":"{TAG}"}},{meta}}}"#),
    };
    format!(r#"{{"jsonrpc":"2.0","id":{BLANK},{asked}}}"#)
}

fn rest_call(what: What, size: Size) -> String {
    let size = size.text();
    match what {
        What::List => r#"{"method":"list_tools"}"#.to_owned(),
        _ => format!(r#"{{"method":"call_tool","params":{{"tool_name":"echo","arguments":{{"size":{size},"tag":"{TAG}"}}}}}}"#),
    }
}

fn meta() -> String {
    format!(
        r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"{VERSION}","io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/clientInfo":{{"name":"bench","version":"1"}}}}"#
    )
}

fn spots(bytes: &[u8], blank: &str) -> Vec<usize> {
    let blanks = bytes.windows(blank.len()).enumerate();
    blanks.filter(|(_, window)| *window == blank.as_bytes()).map(|(spot, _)| spot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_json_with_its_own_number_and_a_true_length() {
        let host = "127.0.0.1:1".parse().unwrap();
        for (lane, places) in [(Lane::Native, 2), (Lane::Rest, 1)] {
            let mut call = Call::new(lane, What::Own, Size::Small, host, 3, 0);
            let text = String::from_utf8(call.next().to_vec()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert_eq!(body.matches("13000001").count(), places);
            assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
            serde_json::from_str::<serde_json::Value>(body).unwrap();
        }
    }
}
