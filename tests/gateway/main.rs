//! Tests of the real binary against real parts, one file for each folder of `src` or promise of the README.

mod support;
mod tokens;

mod access;
mod announced;
mod balance;
mod behalf;
mod bodies;
mod cli;
mod clients;
mod conformance;
mod custom;
mod lifecycle;
mod listeners;
mod native;
mod reload;
mod rest;
mod servers;
mod sidecar;
