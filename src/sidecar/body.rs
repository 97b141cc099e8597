//! The body of an administrator's request, read whole within bounds.

use std::time::Duration;

use bytes::Bytes;
use pingora::protocols::http::ServerSession;

use crate::reject::{Code, Reject, Verdict};

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
