//! The command line. Everything it starts is in `bootstrap`.

use std::process::ExitCode;

use clap::Parser as _;
use mcp_gateway::bootstrap::cli::{self, Cli};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
