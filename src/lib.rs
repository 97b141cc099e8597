//! mcp-gateway: one entry point in front of a company's MCP servers, on Cloudflare Pingora.
//!
//! # Reading order
//! `proxy::admit` is the page that says what is asked of every request. From there: `route` and `access` (where to, from
//! where), `auth` (who, and may they), `limit` and `overload` (how often, how much), `cache` (what need not be asked again), `coding` (how answers are compressed), `transform` (what is changed on the way), `mcp` (what the bytes mean), `exchange` (asking a backend), `upstream` (who the backends are and how they
//! are), `snapshot` (what a request is served by), `config` (what the operator wrote), `bootstrap` (how it all starts,
//! reloads and stops), `analytics` (what was asked, in PostgreSQL), `sidecar` (what we tell about ourselves, `sidecar::console` to people).
//!
//! # Layers
//! Imports point down only; `tests/layers.rs` holds us to it.
//! ```text
//! 5  bootstrap  demo
//! 4  proxy      sidecar
//! 3  exchange
//! 2  snapshot
//! 1  access  analytics  auth  cache  limit  overload  route  transform  upstream
//! 0  call  coding  condition  digest  principal  reject  page  room  schema  config  egress  store  extend  observe  mcp
//! ```
//!
//! # Words
//! *Downstream* and *upstream* are directions. A **server** is an MCP server, our process is the **gateway**, a
//! **backend** is one instance that serves servers, a **pool** is a server's backends, a **peer** is what Pingora dials.
//! The **era** of a message is legacy (with sessions) or modern (stateless, 2026-07-28). A **lane** is how a request is
//! served: passed through, translated, or answered from what is known.

pub mod access;
pub mod analytics;
pub mod auth;
pub mod bootstrap;
pub mod cache;
pub mod call;
pub mod coding;
pub mod condition;
pub mod config;
pub mod copy;
pub mod demo;
pub mod digest;
pub mod egress;
pub mod exchange;
pub mod extend;
pub mod limit;
pub mod mcp;
pub mod observe;
pub mod overload;
pub mod page;
pub mod pattern;
pub mod principal;
pub mod proxy;
pub mod reject;
pub mod room;
pub mod route;
pub mod schema;
pub mod sidecar;
pub mod snapshot;
pub mod store;
pub mod transform;
pub mod turn;
pub mod upstream;
pub mod verbatim;
