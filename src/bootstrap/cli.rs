//! The commands of the binary.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use url::Url;

use super::{doctor, probe, upgrade};
use crate::auth::keys;
use crate::config::{self, Config, Problem, Source, risk};
use crate::extend::Extensions;
use crate::{demo, digest, sidecar};

/// Characters below which a key could be guessed.
const SHORTEST_KEY: usize = 20;

/// One entry point in front of a company's MCP servers.
#[derive(Parser)]
#[command(version, after_help = "Without a command it runs. Without --config it runs on the environment alone (see .env.example).")]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunFlags,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (the default)
    Run(RunFlags),
    /// Replace the gateway that runs by this binary and configuration, without failing a request
    #[command(after_help = UPGRADE)]
    Upgrade(ConfigFlag),
    /// Run the gateway in front of a built-in demo MCP server
    Demo,
    /// Check a configuration: exit 0, or every problem and exit 2; warns of settings that are dangerous
    Check(ConfigFlag),
    /// Ask the gateway that runs on this machine how it is: exit 0, or 1 and why (for health checks of containers)
    Health(HealthFlags),
    /// Reach every backend, store and identity provider of a configuration, and say what is wrong and what to do: exit 0, or 1
    Doctor(ConfigFlag),
    /// Print a completion script for a shell: source <(mcp-gateway completions bash)
    Completions { shell: clap_complete::Shell },
    /// Make API keys, or hash them for the configuration
    #[command(subcommand)]
    Keys(Keys),
    /// Print the OpenAPI 3.1 document
    Openapi,
}

#[derive(Subcommand)]
enum Keys {
    /// Make a key: prints it, and the entry for auth.api_keys.keys with its hash
    New {
        /// Its public name, shown in logs
        id: String,
    },
    /// Hash a key read from standard input, so that it is seen in no process list
    Hash,
}

/// What `upgrade --help` says in the end.
const UPGRADE: &str = "Starts `mcp-gateway run --upgrade` and sends SIGQUIT to the process named in \
    state_dir/mcp-gateway.pid. Exit 0: the new process serves, and the old one finishes what it has under way within \
    server.grace_period. Otherwise the old one keeps serving. Under systemd: systemctl reload mcp-gateway";

#[derive(Args, Clone)]
struct RunFlags {
    #[command(flatten)]
    config: ConfigFlag,
    /// Take over the listeners of the gateway that runs, once that gets SIGQUIT (`mcp-gateway upgrade` does both)
    #[arg(long)]
    upgrade: bool,
}

#[derive(Args)]
struct HealthFlags {
    #[command(flatten)]
    config: ConfigFlag,
    /// Ask /ready, whether traffic should come to it, instead of /health, whether it serves
    #[arg(long)]
    ready: bool,
    /// Where it listens; default: server.listen of the configuration
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
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
pub fn run(cli: Cli, extensions: Extensions) -> ExitCode {
    match cli.command.unwrap_or(Command::Run(cli.run)) {
        Command::Run(flags) => start(flags.config.source(), extensions, flags.upgrade),
        Command::Upgrade(flag) => replace(flag),
        Command::Demo => run_demo(extensions),
        Command::Check(flag) => check(&flag.source()),
        Command::Health(flags) => health(flags),
        Command::Doctor(flag) => examine(&flag.source(), extensions),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "mcp-gateway", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Keys(Keys::New { id }) => new_key(&id),
        Command::Keys(Keys::Hash) => hash_key(),
        Command::Openapi => {
            println!("{}", sidecar::openapi::document(&[], None, &[]));
            ExitCode::SUCCESS
        }
    }
}

fn check(source: &Source) -> ExitCode {
    match source.load() {
        Ok(config) => {
            for risk in risk::risks(&config, source) {
                eprintln!("{}: {risk}", if risk.is_grave { "warning" } else { "note" });
            }
            println!("ok: {} backend(s)", config.backends.len());
            ExitCode::SUCCESS
        }
        Err(problems) => complain(&problems),
    }
}

fn examine(source: &Source, extensions: Extensions) -> ExitCode {
    let config = match source.load() {
        Ok(config) => config,
        Err(problems) => return complain(&problems),
    };
    pingora::tls::install_default_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let findings = match runtime {
        Ok(runtime) => runtime.block_on(doctor::examine(config, extensions)),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for finding in &findings {
        println!("{finding}");
    }
    match findings.iter().filter(|finding| finding.told.is_err()).count() {
        0 => ExitCode::SUCCESS,
        faults => {
            eprintln!("{faults} of {} are not as they should be", findings.len());
            ExitCode::FAILURE
        }
    }
}

fn health(flags: HealthFlags) -> ExitCode {
    let base = flags.url.map_or_else(|| probe::base(flags.config.source().listen()), Ok);
    let ask = if flags.ready { probe::ask_ready } else { probe::ask_health };
    match base.and_then(|base| ask(&base)) {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn new_key(id: &str) -> ExitCode {
    if let Err(message) = config::label(id, "key id") {
        eprintln!("{message}");
        return ExitCode::from(2);
    }
    let (key, secret) = keys::mint();
    println!("key:   {key}");
    println!("entry: {{ id: {id}, hash: \"{}\", tenant: , roles: [] }}", secret.hash);
    println!("Give the key to its holder; it is not stored anywhere. The entry belongs below auth.api_keys.keys.");
    ExitCode::SUCCESS
}

fn hash_key() -> ExitCode {
    let mut key = String::new();
    let read = std::io::stdin().read_line(&mut key);
    let key = key.trim_end();
    // A fast hash protects what cannot be guessed only.
    if read.is_err() || key.len() < SHORTEST_KEY {
        eprintln!("give a key of {SHORTEST_KEY} characters or more on standard input; `mcp-gateway keys new` makes a good one");
        return ExitCode::from(2);
    }
    println!("sha256:{}", digest::hex(&digest::sha256(key.as_bytes())));
    ExitCode::SUCCESS
}

fn complain(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        eprintln!("{problem}");
    }
    eprintln!("{} problem(s) in the configuration", problems.len());
    ExitCode::from(2)
}

fn run_demo(extensions: Extensions) -> ExitCode {
    match demo::start() {
        Ok(address) => start(Source::Demo(address), extensions, false),
        Err(error) => {
            eprintln!("the demo server cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn replace(flag: ConfigFlag) -> ExitCode {
    // Read here first: what is wrong with it is told to whoever asks, and nothing is begun.
    let config = match flag.clone().source().load() {
        Ok(config) => config,
        Err(problems) => return complain(&problems),
    };
    match upgrade::upgrade(flag.config.as_deref(), &config.server.state_dir) {
        Ok(done) => {
            println!("process {} serves; process {} ends when it has finished what is under way", done.new, done.old);
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("not upgraded: {message}");
            ExitCode::FAILURE
        }
    }
}

fn start(source: Source, extensions: Extensions, upgrade: bool) -> ExitCode {
    let config: Config = match source.load() {
        Ok(config) => config,
        Err(problems) => return complain(&problems),
    };
    match super::serve(config, source, extensions, upgrade) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
