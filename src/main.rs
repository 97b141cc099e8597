//! The command line. Everything it starts is in `bootstrap`.

use std::process::ExitCode;

use clap::Parser as _;
use mcp_gateway::bootstrap::cli::{self, Cli};
use mcp_gateway::extend::Extensions;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(Cli::parse(), Extensions::default())
}
