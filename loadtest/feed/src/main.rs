//! The load test's producer: fills a topic, or a server's HTTP ingest, with the
//! canonical workload, and registers its endpoints.

use std::num::NonZeroU64;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use crate::endpoints::Register;
use crate::http::Server;
use crate::kafka::Topic;
use crate::progress::Progress;
use crate::workload::Workload;

mod endpoints;
mod http;
mod kafka;
mod progress;
mod publish;
mod workload;

const AFTER_HELP: &str = "\
Event n is `<run>-<n>`, of type `load.e<k>` for endpoint k = n % endpoints. Ends once every event
is acknowledged, with a JSON summary on stdout.

Examples:
  posthaste-feed endpoints --server http://127.0.0.1:8400 --sink 127.0.0.1:9000 --secret whsec_...
  posthaste-feed --bootstrap 127.0.0.1:9092 --topic events --partitions 4 --events 1000000
  posthaste-feed --http http://127.0.0.1:8400 --events 10000 --rate 500

Exit codes: 0 all acknowledged; 1 not all, stderr says why; 2 wrong usage.";

/// The load test's producer: fills Kafka or the embedded log with the canonical
/// workload.
#[derive(Debug, Parser)]
#[command(name = "posthaste-feed", version, after_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    fill: Fill,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Registers the workload's endpoints with a running server.
    Endpoints(Register),
}

#[derive(Debug, Args)]
struct Fill {
    #[command(flatten)]
    workload: Workload,
    /// Events to send.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    events: u64,
    /// Number of the first event.
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// Events a second; as fast as possible without.
    #[arg(long, value_name = "R", value_parser = rate, default_value = "0")]
    rate: Rate,
    /// End early, as if `--events` were reached, once standard input closes.
    #[arg(long)]
    until_stdin_closes: bool,
    /// Kafka brokers, as host:port,...
    #[arg(
        long,
        value_name = "BROKERS",
        required_unless_present = "http",
        conflicts_with = "http"
    )]
    bootstrap: Option<String>,
    #[command(flatten)]
    topic: Topic,
    /// A server to POST events to instead, as http://host:port.
    #[arg(long, value_name = "URL")]
    http: Option<Server>,
    /// Connections to that server.
    #[arg(long, value_name = "N", default_value_t = 64, conflicts_with = "bootstrap",
          value_parser = clap::value_parser!(u16).range(1..=1_000))]
    connections: u16,
}

/// Events a second, or no limit.
#[derive(Debug, Clone, Copy)]
struct Rate(Option<NonZeroU64>);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Some(Command::Endpoints(register)) => endpoints::register(register),
        None => fill(&cli.fill),
    };
    match result {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("posthaste-feed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn fill(fill: &Fill) -> anyhow::Result<serde_json::Value> {
    let workload = fill.workload.clone().checked()?;
    let run = Run {
        workload: &workload,
        numbers: fill.from..fill.from.saturating_add(fill.events),
        rate: fill.rate.0,
        over: Arc::default(),
        progress: Progress::new(fill.events),
    };
    if fill.until_stdin_closes {
        let over = Arc::clone(&run.over);
        std::thread::spawn(move || {
            // Unreadable is as good as closed.
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            over.store(true, Ordering::Relaxed);
        });
    }
    let start = Instant::now();
    let sent = run
        .progress
        .shown_while(|| match (&fill.bootstrap, &fill.http) {
            (Some(brokers), _) => kafka::fill(brokers, &fill.topic, &run),
            (None, Some(server)) => publish::fill(server, fill.connections, &run),
            (None, None) => Err(anyhow::anyhow!("expected --bootstrap or --http")),
        })?;
    let seconds = start.elapsed().as_secs_f64();
    let body_bytes = u64::try_from(workload.body_bytes).unwrap_or(u64::MAX);
    Ok(json!({
        "run": workload.run,
        "from": fill.from,
        "events": sent.events,
        "seconds": seconds,
        "bytes": sent.events.saturating_mul(body_bytes),
        "retried": sent.retried,
    }))
}

/// What is to be sent.
pub(crate) struct Run<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) numbers: Range<u64>,
    rate: Option<NonZeroU64>,
    over: Arc<AtomicBool>,
    pub(crate) progress: Progress,
}

/// What was sent, and acknowledged.
pub(crate) struct Sent {
    pub(crate) events: u64,
    /// How often one was sent again.
    pub(crate) retried: u64,
}

/// When an event may be sent, counted from when the sender was ready.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    start: Instant,
    rate: Option<NonZeroU64>,
}

impl Run<'_> {
    /// Whether no further event is wanted.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The sender is ready.
    pub(crate) fn pace(&self) -> Pace {
        Pace {
            start: Instant::now(),
            rate: self.rate,
        }
    }
}

impl Pace {
    /// Waits until the `nth` event of the run is due. A sender that fell behind
    /// catches up.
    pub(crate) fn wait_for(&self, nth: u64) {
        let Some(rate) = self.rate else {
            return;
        };
        let due_ns = u128::from(nth) * 1_000_000_000 / u128::from(rate.get());
        let due = std::time::Duration::from_nanos(u64::try_from(due_ns).unwrap_or(u64::MAX));
        let ahead = due.saturating_sub(self.start.elapsed());
        // Sleeping is not exact below this, and catching up evens it out.
        if ahead.as_millis() > 0 {
            std::thread::sleep(ahead);
        }
    }
}

fn rate(text: &str) -> Result<Rate, String> {
    text.parse()
        .map(|rate| Rate(NonZeroU64::new(rate)))
        .map_err(|_| "expected whole events a second, 0 for no limit".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wants_one_place_to_send_to() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("feed").is_err());
        assert!(parse("feed --bootstrap a:1 --http http://a:1").is_err());
        assert!(parse("feed --bootstrap a:1 --connections 3").is_err());
        assert!(parse("feed --bootstrap a:1 --topic t --events 5 --rate 0").is_ok());
        assert!(parse("feed --http http://127.0.0.1:1 --connections 3").is_ok());
        assert!(parse("feed endpoints --server http://127.0.0.1:1 --sink 127.0.0.1:2").is_ok());
    }

    #[test]
    fn the_pace_is_kept() {
        let start = Instant::now();
        let pace = Pace {
            start,
            rate: NonZeroU64::new(1_000),
        };
        for nth in 0..50 {
            pace.wait_for(nth);
        }
        assert!(start.elapsed().as_millis() >= 48);
    }
}
