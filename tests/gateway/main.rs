//! Tests of the real binary against real parts, one file for each folder of `src` or promise of the README.

mod support;
mod tokens;

mod access;
mod ambiguity;
mod announced;
mod balance;
mod behalf;
mod bodies;
mod cache;
mod cli;
mod clients;
mod compression;
mod conformance;
mod custom;
mod discovery;
mod external;
mod faults;
mod keys;
mod lifecycle;
mod limits;
mod listeners;
mod metrics;
mod native;
mod network;
mod oauth;
mod permissions;
mod reload;
mod rest;
mod routes;
mod servers;
mod sidecar;
mod tracing;
mod transform;
mod upgrade;
mod versions;
