//! The body of an administrator's request, read whole within bounds.

use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::http::ServerSession;
use serde::Deserialize;
use serde_json::json;

use crate::mcp::members::Members;
use crate::mcp::message::{explain, must_be_object};
use crate::reject::{Code, Reject, Verdict, clip};
use crate::verbatim::Verbatim;

/// Bytes of the longest request.
const MAX: usize = 64 << 10;
/// How long an administrator may take to send one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the body.
///
/// # Errors
/// When it is too long, too late or breaks off.
pub async fn read(client: &mut ServerSession) -> Verdict<Bytes> {
    let late = || Reject::new(Code::RequestTimeout, "the request body did not arrive in time");
    tokio::time::timeout(PATIENCE, gather(client)).await.map_err(|_| late())?
}

async fn gather(client: &mut ServerSession) -> Verdict<Bytes> {
    let mut body = Vec::new();
    let broken = |e| Reject::new(Code::InvalidRequest, "the request body broke off").because(e);
    while let Some(chunk) = client.read_request_body().await.map_err(broken)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX {
            return Err(Reject::new(Code::BodyTooLarge, "the request body exceeds 64 KiB"));
        }
    }
    Ok(body.into())
}

/// Reads a JSON object; what is wrong with it is told with the member that it is about.
///
/// # Errors
/// `invalid_request`, or `parse_error`.
pub fn parse<T: for<'d> Deserialize<'d>>(body: &[u8]) -> Verdict<T> {
    must_be_object(body)?;
    let members: Members<'_> = serde_json::from_slice(body).map_err(|e| explain(&e))?;
    serde_json::from_slice(body).map_err(|e| {
        // Which member it is, serde does not say.
        let text = e.to_string();
        let reason = text.split(" at line ").next().unwrap_or_default();
        let alone = |name: &str, value: Verbatim<'_>| serde_json::from_str::<T>(&format!("{{{}:{}}}", json!(name), value.get()));
        let told = |e: serde_json::Error| e.to_string().starts_with(reason);
        let wrong = members.0.iter().find(|(name, value)| alone(name, *value).is_err_and(told));
        let place = wrong.map(|(name, _)| format!("`{}`: ", clip(name))).unwrap_or_default();
        Reject::new(Code::InvalidRequest, format!("{place}{reason}"))
    })
}
