//! The load test's receiver: verifies, counts, and misbehaves on command.
//!
//! It is lean so that a load test measures the sender: hand-read HTTP/1.1, two
//! event loops, one recv and one send a request.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::ledger::Ledger;
use crate::server::Shared;
use crate::verify::{Share, Verification};

mod behave;
mod control;
mod latency;
mod ledger;
mod request;
mod server;
mod tally;
mod verify;

/// Exit code when something expected did not come, or came wrongly signed.
const EXIT_NOT_CLEAN: u8 = 3;

const AFTER_HELP: &str = "\
Prints {\"listening\":\"ADDRESS\"} as its first line; ends on SIGTERM or SIGINT with the report.
Commands by HTTP on the same port:
  GET  /_sink/report?from=0&to=1000&endpoints=20   counts, what is missing of 0..1000
  GET  /_sink/cpu                                  CPU time used so far
  POST /_sink/behave?path=/e/7&do=status:503&for=3 see loadtest/README.md
  POST /_sink/latency                              how old stamped events were since last asked
  POST /_sink/reset                                zero counts, no rules

Examples:
  posthaste-sink --listen 0.0.0.0:9000 --verify 1/100 --secret whsec_...
  posthaste-sink --journal received.log --expect 0..100000
  curl -X POST 'http://127.0.0.1:9000/_sink/behave?do=delay:200'

Exit codes: 0 ended by a signal; 1 cannot listen, or cannot write the journal; 2 wrong usage;
3 ended by a signal, but something of --expect is missing or a signature was wrong.";

/// The load test's receiver: lean, verifying, and misbehaving on command.
#[derive(Debug, Parser)]
#[command(name = "posthaste-sink", version, after_help = AFTER_HELP)]
struct Cli {
    /// Where to listen; 0.0.0.0 takes every 127.x.y.z, so that each endpoint can
    /// have its own address.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Event loops.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
    /// Signatures to check: all, none or 1/N. A wrong one is answered 401.
    #[arg(long, default_value = "none")]
    verify: Share,
    /// The secret of every endpoint.
    #[arg(long, value_name = "whsec_...")]
    secret: Option<String>,
    /// Endpoints of the workload, which sends event n to endpoint n % E; 1 when
    /// every path gets every event.
    #[arg(long, value_name = "E", default_value_t = 100,
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    endpoints: u64,
    /// Appends a line for each delivery before it is answered; what stands in
    /// the file is counted at the start.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Looks for the time of sending in bodies (the feed's --stamp).
    #[arg(long)]
    latency: bool,
    /// Event numbers the last report looks for, as FROM..TO (TO excluded).
    #[arg(long, value_name = "FROM..TO", value_parser = range)]
    expect: Option<Range<u64>>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("posthaste-sink: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let verification =
        Verification::new(cli.verify, cli.secret.as_deref()).map_err(|error| anyhow!(error))?;
    let ledger = match &cli.journal {
        None => Ledger::new(cli.endpoints),
        Some(path) => Ledger::with_journal(cli.endpoints, path)
            .with_context(|| format!("journal {}", path.display()))?,
    };
    let shared = Arc::new(Shared::new(ledger, verification, cli.latency));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(serve(cli, &shared))?;
    let mut question = control::question();
    question.expected.clone_from(&cli.expect);
    let report = control::report(&shared, &question);
    println!("{}", serde_json::to_string(&report)?);
    Ok(if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_NOT_CLEAN)
    })
}

/// Serves until a signal.
async fn serve(cli: &Cli, shared: &Arc<Shared>) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (fatal, mut failures) = tokio::sync::mpsc::channel(1);
    let bound = server::start(cli.listen, usize::from(cli.threads), shared, &fatal)
        .with_context(|| format!("cannot listen on {}", cli.listen))?;
    println!("{}", serde_json::json!({"listening": bound.to_string()}));
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        Some(error) = failures.recv() => Err(error).context("an event loop ended"),
    }
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("expected FROM..TO")?;
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("`{text}` is not a whole number"))
    };
    let range = number(from)?..number(to)?;
    if range.start > range.end || range.end - range.start > control::EXPECTED_MAX {
        return Err(format!("must rise by at most {}", control::EXPECTED_MAX));
    }
    Ok(range)
}
