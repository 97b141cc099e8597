//! Measures the gateway beside a bare Pingora proxy and nginx, in one run, against the same backend.
//!
//!     cargo build --release -p mcp-gateway && cargo run --release -p bench
//!
//! Absolute times belong to a machine; what is worth keeping is the CPU of a request compared with the bare proxy
//! measured seconds before. Reading order: `row` (what is compared), `stand` (what is started), `rounds` (in which
//! order), `load` and `call` (how, and how answers are checked), `cpu` and `memory`, `table`.

mod answer;
mod bare;
mod call;
mod cpu;
mod gateway;
mod load;
mod memory;
mod nginx;
mod origin;
mod process;
mod redis;
mod rounds;
mod row;
mod stand;
mod table;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use cpu::Cores;
use load::Load;
use row::{Row, Subject};
use stand::Stand;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The allocator of the gateway, for the bare proxy too: an allocator is worth a fifth of a request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// 1,000 connections and their upstream halves, with room to spare.
const DESCRIPTORS: u64 = 4096;

/// Compares the gateway with a bare Pingora proxy and nginx
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Command {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    options: Options,
}

/// What the benchmark starts of itself
#[derive(Subcommand)]
enum Part {
    /// The MCP server behind every proxy
    Origin {
        #[arg(long)]
        port: u16,
    },
    /// A Pingora proxy that only passes on
    Bare(bare::Bare),
}

#[derive(Args)]
struct Options {
    /// The gateway to measure [default: mcp-gateway beside this program]
    #[arg(long, value_name = "PATH")]
    gateway: Option<PathBuf>,
    /// How long each row is measured in each round
    #[arg(long, default_value_t = 1.5)]
    seconds: f64,
    /// Many short rounds compare better than a few long ones where others use the machine too
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Connections that call at the same time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
    /// The rows to measure [default: all]
    #[arg(long, value_name = "ROW,…", value_delimiter = ',')]
    only: Vec<Row>,
    /// Leave out the memory of idle connections and streams
    #[arg(long)]
    no_memory: bool,
}

fn main() -> ExitCode {
    let command = Command::parse();
    let done = match command.part {
        Some(Part::Origin { port }) => origin::serve(port),
        Some(Part::Bare(bare)) => {
            bare::run(&bare);
            Ok(())
        }
        None => run(&command.options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let cores = Cores::choose()?;
    cpu::pin(cores.load)?;
    allow_descriptors()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // Whichever ends first drops the other, and with it every process it started.
        tokio::select! {
            done = compare(options, cores) => done,
            stopped = stopped() => stopped,
        }
    })
}

async fn compare(options: &Options, cores: Cores) -> Result<()> {
    let rows = options.rows();
    let gateway = options.gateway.clone().map_or_else(gateway::beside, Ok)?;
    let stand = Stand::build(gateway, cores).await?;
    let load = Load { connections: options.connections, seconds: options.seconds };
    let measured = rounds::run(&stand, &rows, options.rounds, &load).await?;
    println!("{}", table::lanes(&measured, &rows));
    println!("{}", options.setting());
    println!("{}", table::foreign(&measured));
    if !options.no_memory {
        println!("{}", table::memory(&weigh(&stand, &rows).await?));
    }
    Ok(())
}

/// Memory does not depend on the runtime, so one of the bare rows is enough; what a cache keeps is no memory of connections.
async fn weigh(stand: &Stand, rows: &[Row]) -> Result<Vec<memory::Memory>> {
    let mut all = Vec::new();
    for subject in rounds::subjects(rows) {
        let keeps = matches!(subject, Subject::GatewayCache | Subject::GatewayCacheRedis);
        if subject != Subject::PingoraNosteal && !keeps {
            all.push(memory::measure(stand, subject).await?);
        }
    }
    Ok(all)
}

async fn stopped() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Err("stopped by a signal".into())
}

/// Children inherit the limit.
fn allow_descriptors() -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if hard < DESCRIPTORS {
        return Err(format!("at least {DESCRIPTORS} open files are needed, the limit is {hard}").into());
    }
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.max(DESCRIPTORS), hard)?)
}

impl Options {
    fn setting(&self) -> String {
        let (connections, rounds, seconds) = (self.connections, self.rounds, self.seconds);
        format!(
            "Median (least–most) of {rounds} rounds of {seconds} s, {connections} connections, one core for the proxy. {}.",
            cpu::machine()
        )
    }

    /// In the order of the table, whatever order they were asked for in.
    fn rows(&self) -> Vec<Row> {
        let wanted = |row: &&Row| self.only.is_empty() || self.only.contains(row);
        Row::value_variants().iter().filter(wanted).copied().collect()
    }
}
