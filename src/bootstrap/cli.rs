//! The commands of the binary.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Problem, Source};
use crate::{demo, sidecar};

/// One entry point in front of a company's MCP servers.
#[derive(Parser)]
#[command(version, after_help = "Without a command it runs. Without --config it runs on the environment alone (see .env.example).")]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    config: ConfigFlag,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (the default)
    Run(ConfigFlag),
    /// Run the gateway in front of a built-in demo MCP server
    Demo,
    /// Check a configuration: exit 0, or every problem and exit 2
    Check(ConfigFlag),
    /// Print the OpenAPI 3.1 document
    Openapi,
}

#[derive(Args, Clone)]
struct ConfigFlag {
    /// The YAML file; also from MCP_GATEWAY_CONFIG
    #[arg(short, long, value_name = "PATH", env = "MCP_GATEWAY_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigFlag {
    fn source(self) -> Source {
        Source::File(self.config)
    }
}

/// Runs a command to its end.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command.unwrap_or(Command::Run(cli.config)) {
        Command::Run(flag) => start(flag.source()),
        Command::Demo => run_demo(),
        Command::Check(flag) => check(&flag.source()),
        Command::Openapi => {
            println!("{}", sidecar::openapi::document(&[]));
            ExitCode::SUCCESS
        }
    }
}

fn check(source: &Source) -> ExitCode {
    match source.load() {
        Ok(config) => {
            println!("ok: {} backend(s)", config.backends.len());
            ExitCode::SUCCESS
        }
        Err(problems) => complain(&problems),
    }
}

fn complain(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        eprintln!("{problem}");
    }
    eprintln!("{} problem(s) in the configuration", problems.len());
    ExitCode::from(2)
}

fn run_demo() -> ExitCode {
    match demo::start() {
        Ok(address) => start(Source::Demo(address)),
        Err(error) => {
            eprintln!("the demo server cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(source: Source) -> ExitCode {
    let config: Config = match source.load() {
        Ok(config) => config,
        Err(problems) => return complain(&problems),
    };
    match super::serve(config, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
