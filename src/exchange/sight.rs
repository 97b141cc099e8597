//! What of a server a caller sees, held apart from the request so that a stream can outlive what it was judged by.

use std::sync::Arc;

use crate::auth::permit::View;
use crate::call::Kind;
use crate::principal::Principal;
use crate::snapshot::Snapshot;

/// A restricted sight of one server.
#[derive(Clone)]
pub struct Sight {
    snapshot: Arc<Snapshot>,
    principal: Arc<Principal>,
    server: Arc<str>,
}

impl Sight {
    /// `None` if the caller sees everything.
    pub fn of(snapshot: &Arc<Snapshot>, principal: &Arc<Principal>, server: &Arc<str>) -> Option<Self> {
        match snapshot.permits.view(principal, server) {
            View::Whole => None,
            View::Part(_) => Some(Self { snapshot: Arc::clone(snapshot), principal: Arc::clone(principal), server: Arc::clone(server) }),
        }
    }

    /// Whether the caller may use the tool, prompt or resource.
    pub fn keeps(&self, kind: Kind, name: &str) -> bool {
        match self.snapshot.permits.view(&self.principal, &self.server) {
            View::Whole => true,
            View::Part(part) => part.keeps(kind, name),
        }
    }
}
