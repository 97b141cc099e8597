//! What the fuzz targets share: the gateway's sans-I/O half, and a JSON reader that has nothing in common with it.
//!
//! The half is compiled here from the gateway's own files, because instrumenting the whole gateway for its sake would take
//! a minute instead of seconds; `tests/layers.rs` holds that `mcp` needs no more. Its own tests run with the gateway.

pub mod json;

#[cfg(not(test))]
#[path = "../../../src/call.rs"]
pub mod call;
#[cfg(not(test))]
#[path = "../../../src/coding/mod.rs"]
pub mod coding;
#[path = "../../../src/copy.rs"]
pub mod copy;
#[cfg(not(test))]
#[path = "../../../src/auth/credential.rs"]
pub mod credential;
#[cfg(not(test))]
#[path = "../../../src/mcp/mod.rs"]
pub mod mcp;
#[cfg(not(test))]
#[path = "../../../src/reject.rs"]
pub mod reject;
#[cfg(not(test))]
#[path = "../../../src/verbatim.rs"]
pub mod verbatim;
