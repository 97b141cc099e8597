//! API keys: found by the digest of what was sent, so that nothing about the stored ones can be timed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use subtle::ConstantTimeEq as _;

use crate::config::identity::Standing;
use crate::principal::{Identity, Principal, Way};

/// Who vouches for a key's identity.
const ISSUER: &str = "api_key";

/// One key, ready to be recognised.
pub struct Entry {
    pub id: String,
    pub principal: Arc<Principal>,
    expires: Option<i64>,
    /// Unix time of the last use; 0 for never.
    used: AtomicI64,
}

impl Entry {
    pub fn new(id: &str, standing: &Standing, expires: Option<i64>) -> Arc<Self> {
        let identity = Identity {
            issuer: ISSUER.to_owned(),
            subject: id.to_owned(),
            tenant: standing.tenant.clone(),
            roles: standing.roles.clone(),
            tier: standing.tier.clone(),
            ..Identity::default()
        };
        let principal = Principal::new(Way::ApiKey, identity);
        Arc::new(Self { id: id.to_owned(), principal, expires, used: AtomicI64::new(0) })
    }

    /// The principal.
    ///
    /// # Errors
    /// When the key is expired at `now` (Unix seconds).
    pub fn admit(&self, now: i64) -> Result<Arc<Principal>, &'static str> {
        if self.expires.is_some_and(|end| end <= now) {
            return Err("the key is expired");
        }
        self.note(now);
        Ok(Arc::clone(&self.principal))
    }

    pub fn note(&self, at: i64) {
        // A plain load first: many workers writing one line of memory for every request would be a cost.
        if self.used.load(Ordering::Relaxed) < at {
            self.used.store(at, Ordering::Relaxed);
        }
    }

    pub fn used(&self) -> Option<i64> {
        Some(self.used.load(Ordering::Relaxed)).filter(|at| *at > 0)
    }
}

/// Keys by the SHA-256 of their text.
#[derive(Default)]
pub struct Table(HashMap<[u8; 32], Arc<Entry>>);

impl Table {
    pub fn add(&mut self, hash: [u8; 32], entry: Arc<Entry>) {
        self.0.insert(hash, entry);
    }

    pub fn find(&self, digest: &[u8; 32]) -> Option<&Arc<Entry>> {
        // The map's own comparison may stop early, but what it compares is a digest nobody can steer; the last word has
        // a comparison in constant time.
        self.0.get_key_value(digest).filter(|(hash, _)| bool::from(hash.ct_eq(digest))).map(|(_, entry)| entry)
    }

    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.0.values()
    }
}
