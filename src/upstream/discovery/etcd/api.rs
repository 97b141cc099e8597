//! etcd's v3 API as its JSON gateway has it: bytes are base64, 64-bit numbers are text, what is zero is left out, and a
//! watch is an answer that goes on, one JSON object in a line.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, header};
use serde::Serialize;
use tokio::sync::Mutex;
use url::Url;

use super::wire::{self, Authenticate, Authenticated, Range, Ranged, Refusal, Streamed, Watch};
use crate::config::discovery::Etcd;
use crate::egress::web::Site;
use crate::egress::{Client, Failure, Incoming};

/// Keys of one page of a list.
const PAGE: u32 = 200;
/// Bytes of the longest answer: a page of values, which are backends and short.
const LONGEST: usize = 32 << 20;
/// A watch tells of its progress every ten minutes; one that is silent for longer is dead.
const SILENCE: Duration = Duration::from_secs(25 * 60);

/// Why etcd is no longer followed.
#[derive(Debug)]
pub enum Fault {
    /// It did not answer, or broke off.
    Unreachable(String),
    /// It answered that it will not.
    Refused(String),
    /// What was to be watched is compacted.
    Compacted,
    /// The watch did not tell what a question did.
    Behind,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(cause) | Self::Refused(cause) => f.write_str(cause),
            Self::Compacted => f.write_str("the revision to watch from is compacted"),
            Self::Behind => f.write_str("the watch is behind"),
        }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Unreachable(failure.to_string())
    }
}

/// All values at one revision, by key.
pub struct List {
    pub revision: i64,
    pub values: BTreeMap<String, Vec<u8>>,
}

/// What happened to a key.
pub enum Event {
    Put(String, Vec<u8>),
    Delete(String),
}

/// What happened up to a revision.
pub struct Events {
    pub revision: i64,
    pub changes: Vec<Event>,
}

/// What is newest at a revision: the last change of a key that is there, and how many there are.
pub struct Tip {
    pub revision: i64,
    pub newest: i64,
    pub count: usize,
}

/// What etcd gave us for name and password; good for all endpoints.
#[derive(Default)]
pub struct Token(Mutex<Option<HeaderValue>>);

/// One endpoint.
pub struct Api<'c> {
    client: &'c Client,
    conf: &'c Etcd,
    token: &'c Token,
    range: Site,
    watch: Site,
    authenticate: Site,
}

impl<'c> Api<'c> {
    /// # Errors
    /// When the CA file cannot be used.
    pub fn new(endpoint: &Url, conf: &'c Etcd, client: &'c Client, token: &'c Token) -> Result<Self, String> {
        let site = |path: &str| {
            let mut url = endpoint.clone();
            url.set_path(&format!("{}/v3/{path}", endpoint.path().trim_end_matches('/')));
            Site::new(&url, conf.ca.as_ref())
        };
        Ok(Self { range: site("kv/range")?, watch: site("watch")?, authenticate: site("auth/authenticate")?, client, conf, token })
    }

    /// Every key below the prefix, as of one revision.
    pub async fn list(&self) -> Result<List, Fault> {
        let end = wire::end_of(self.conf.prefix.as_bytes());
        let mut from = self.conf.prefix.clone().into_bytes();
        let mut list = List { revision: 0, values: BTreeMap::new() };
        loop {
            let page = Range { revision: list.revision, limit: PAGE, ..Range::of(&from, &end) };
            let page: Ranged = self.ask(&self.range, &page).await?;
            if list.revision == 0 {
                list.revision = page.header.revision.0;
            }
            let end_of_page = page.kvs.last().map(|kv| kv.key.0.clone());
            list.values.extend(page.kvs.into_iter().map(|kv| (kv.key.text(), kv.value.0)));
            match end_of_page {
                Some(key) if page.more => from = [key.as_slice(), &[0]].concat(),
                _ => return Ok(list),
            }
        }
    }

    /// What is newest. Not `serializable`: a member that lost its quorum must not answer this.
    pub async fn tip(&self) -> Result<Tip, Fault> {
        let (prefix, end) = (self.conf.prefix.as_bytes(), wire::end_of(self.conf.prefix.as_bytes()));
        let newest = Range { limit: 1, keys_only: true, sort_order: Some("DESCEND"), sort_target: Some("MOD"), ..Range::of(prefix, &end) };
        let found: Ranged = self.ask(&self.range, &newest).await?;
        let newest = found.kvs.first().map_or(0, |kv| kv.mod_revision.0);
        Ok(Tip { revision: found.header.revision.0, newest, count: usize::try_from(found.count.0).unwrap_or_default() })
    }

    /// Watches every key below the prefix from a revision on.
    pub async fn watch(&self, revision: i64) -> Result<Watching<'_>, Fault> {
        let prefix = self.conf.prefix.as_bytes();
        let body = encode(&Watch::from(prefix, &wire::end_of(prefix), revision));
        let mut incoming = self.authorized(&self.watch, &body).await?;
        incoming.set_wait(SILENCE);
        let mut watching = Watching { incoming, read: BytesMut::new() };
        // It begins by saying that it does, or why not.
        tokio::time::timeout(self.conf.timeout.0, watching.next()).await.unwrap_or_else(|_| Err(Failure::TimedOut.into()))?;
        Ok(watching)
    }

    async fn ask<A: for<'d> serde::Deserialize<'d>>(&self, site: &Site, body: &impl Serialize) -> Result<A, Fault> {
        let body = encode(body);
        let asked = async {
            let incoming = self.authorized(site, &body).await?;
            let answer = incoming.collect(LONGEST).await?;
            serde_json::from_slice(&answer).map_err(|_| Fault::Refused("not the answer of an etcd".to_owned()))
        };
        tokio::time::timeout(self.conf.timeout.0, asked).await.unwrap_or_else(|_| Err(Failure::TimedOut.into()))
    }

    /// An answer of 200, with a new token where the old one is refused.
    async fn authorized<'s>(&'s self, site: &'s Site, body: &Bytes) -> Result<Incoming<'s>, Fault> {
        let mut given = self.token.0.lock().await.clone();
        if given.is_none() {
            given = self.log_in(None).await?;
        }
        match self.send(site, body, given.as_ref()).await? {
            Ok(incoming) => Ok(incoming),
            Err(refusal) if refusal.wants_token() && self.conf.username.is_some() => {
                let given = self.log_in(given).await?;
                self.send(site, body, given.as_ref()).await?.map_err(Refusal::into)
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// A token for our name and password, unless somebody got one meanwhile in place of `refused`; none where none is
    /// needed.
    async fn log_in(&self, refused: Option<HeaderValue>) -> Result<Option<HeaderValue>, Fault> {
        let (Some(name), Some(password)) = (&self.conf.username, &self.conf.password) else { return Ok(None) };
        let mut token = self.token.0.lock().await;
        if *token != refused {
            return Ok(token.clone());
        }
        *token = None;
        let body = encode(&Authenticate { name, password: password.expose() });
        let asked = async {
            match self.send(&self.authenticate, &body, None).await? {
                Ok(incoming) => Ok(incoming.collect(LONGEST).await?),
                Err(refusal) if refusal.wants_no_token() => Ok(Bytes::new()),
                Err(refusal) => Err(Fault::from(refusal)),
            }
        };
        let answer = tokio::time::timeout(self.conf.timeout.0, asked).await.unwrap_or_else(|_| Err(Failure::TimedOut.into()))?;
        if answer.is_empty() {
            return Ok(None);
        }
        let fault = || Fault::Refused("authenticate answered with no token".to_owned());
        let given: Authenticated = serde_json::from_slice(&answer).map_err(|_| fault())?;
        let mut value = HeaderValue::from_str(&given.token).map_err(|_| fault())?;
        value.set_sensitive(true);
        *token = Some(value);
        Ok(token.clone())
    }

    async fn send<'s>(&'s self, site: &'s Site, body: &Bytes, token: Option<&HeaderValue>) -> Result<Result<Incoming<'s>, Refusal>, Fault> {
        let mut head = site.request("POST");
        head.header(&header::CONTENT_TYPE, &HeaderValue::from_static("application/json"));
        if let Some(token) = token {
            head.header(&header::AUTHORIZATION, token);
        }
        let wait = self.conf.timeout.0;
        let sent = tokio::time::timeout(wait, site.open(self.client, head, body.clone(), wait));
        let incoming = sent.await.unwrap_or(Err(Failure::TimedOut))?;
        if incoming.status().is_success() {
            return Ok(Ok(incoming));
        }
        let status = incoming.status();
        let told = tokio::time::timeout(wait, incoming.collect(1 << 16)).await;
        Ok(Err(told.ok().and_then(Result::ok).and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_else(|| Refusal::of(status))))
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.to_string())
    }
}

fn encode(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).unwrap_or_default().into()
}

/// A watch that goes on.
pub struct Watching<'c> {
    incoming: Incoming<'c>,
    /// What was read and is not a whole line yet.
    read: BytesMut,
}

impl Watching<'_> {
    /// What happened next.
    ///
    /// # Errors
    /// Why it ended.
    pub async fn next(&mut self) -> Result<Events, Fault> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return events(&line);
            }
            if self.read.len() > LONGEST {
                return Err(Failure::TooLarge.into());
            }
            match self.incoming.chunk().await? {
                Some(piece) => self.read.extend_from_slice(&piece),
                None => return Err(Fault::Unreachable("the watch ended".to_owned())),
            }
        }
    }
}

fn events(line: &[u8]) -> Result<Events, Fault> {
    let streamed: Streamed = serde_json::from_slice(line).map_err(|_| Fault::Refused("not the watch of an etcd".to_owned()))?;
    let told = match (streamed.result, streamed.error) {
        (Some(told), _) => told,
        (None, Some(refusal)) => return Err(refusal.into()),
        (None, None) => return Err(Fault::Refused("not the watch of an etcd".to_owned())),
    };
    if told.compact_revision.0 > 0 {
        return Err(Fault::Compacted);
    }
    if told.canceled {
        return Err(Fault::Refused(format!("the watch was canceled: {}", told.cancel_reason)));
    }
    // What a header says may be ahead of what was sent so far, unless nothing was: then it tells of progress.
    let progress = if told.events.is_empty() && !told.created { told.header.revision.0 } else { 0 };
    let revision = told.events.iter().map(|event| event.kv.mod_revision.0).max().unwrap_or(progress);
    let change = |event: wire::Event| match event.kind.as_deref() {
        Some("DELETE") => Event::Delete(event.kv.key.text()),
        _ => Event::Put(event.kv.key.text(), event.kv.value.0),
    };
    Ok(Events { revision, changes: told.events.into_iter().map(change).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_read_as_etcd_writes_it() {
        let put = br#"{"result":{"header":{"revision":"9"},"events":[{"kv":{"key":"L2IvYQ==","mod_revision":"7","value":"aGVsbG8="}},{"type":"DELETE","kv":{"key":"L2IvYg==","mod_revision":"8"}}]}}"#;
        let told = events(put).unwrap();
        assert_eq!(told.revision, 8, "the header may be ahead of what was sent");
        assert!(matches!(&told.changes[..], [Event::Put(a, value), Event::Delete(b)] if a == "/b/a" && value == b"hello" && b == "/b/b"));
        assert_eq!(events(br#"{"result":{"header":{"revision":"9"}}}"#).unwrap().revision, 9, "progress");
        assert_eq!(events(br#"{"result":{"header":{"revision":"9"},"created":true}}"#).unwrap().revision, 0);
        let compacted = br#"{"result":{"header":{},"canceled":true,"compact_revision":"4"}}"#;
        assert!(matches!(events(compacted), Err(Fault::Compacted)));
        assert!(matches!(events(br#"{"result":{"canceled":true,"cancel_reason":"no"}}"#), Err(Fault::Refused(_))));
        assert!(matches!(events(br#"{"error":{"message":"no"}}"#), Err(Fault::Refused(_))));
        assert!(matches!(events(b"<html>"), Err(Fault::Refused(_))));
    }
}
