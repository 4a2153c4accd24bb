//! `posthaste-rig`: what the engine must show, one command each.

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use posthaste_rig::scenario::dead::{self, Death};
use posthaste_rig::scenario::recover::{self, Recovery};
use posthaste_rig::scenario::storm::{self, Storm};
use posthaste_rig::scenario::{Rig, canonical, deliver, failover, kill, replay};

/// The load test's rig: real broker, engine, sink and producer as processes.
#[derive(Debug, Parser)]
#[command(name = "posthaste-rig", version, after_help = EXAMPLES)]
struct Cli {
    /// Which log the engine runs on.
    #[arg(long, value_enum, default_value = "kafka", global = true)]
    log: LogChoice,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Kafka is the one POSTHASTE_TEST_KAFKA names, or one started for the run (Java 17, Maven).

Examples:
  cargo run --release -p posthaste-rig -- deliver
  cargo run --release -p posthaste-rig -- kill --log embedded
  cargo run --release -p posthaste-rig -- dead --how hang
  cargo run --release -p posthaste-rig -- canonical
  cargo run --release -p posthaste-rig -- storm --seed 7

Exit codes: 0 shown; 1 not shown, stderr says what failed; 2 wrong usage.";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogChoice {
    Kafka,
    Embedded,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every event once, verified, committed.
    Deliver {
        /// Events.
        #[arg(long, default_value_t = 200_000)]
        events: u64,
    },
    /// The engine is killed while events flow: nothing missing, few twice.
    Kill {
        /// Events.
        #[arg(long, default_value_t = 200_000)]
        events: u64,
        /// Kills.
        #[arg(long, default_value_t = 20)]
        kills: u32,
        /// Events a second.
        #[arg(long, default_value_t = 2_500)]
        rate: u64,
    },
    /// One endpoint of 100 is dead: the others keep their pace.
    Dead {
        /// Events.
        #[arg(long, default_value_t = 200_000)]
        events: u64,
        /// How it is dead.
        #[arg(long, value_enum, default_value = "hang")]
        how: Death,
        /// Pairs of runs.
        #[arg(long, default_value_t = 3)]
        pairs: u32,
    },
    /// Engines and broker fail in every way while endpoints misbehave: nothing
    /// missing, few twice. Always on a broker of its own, which it restarts.
    Storm {
        /// Events.
        #[arg(long, default_value_t = 500_000)]
        events: u64,
        /// Events a second.
        #[arg(long, default_value_t = 1_500)]
        rate: u64,
        /// Decides what befalls whom, and when.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// One endpoint of 20 is down while events for it are fed, then mended: all
    /// of them come, at its pace.
    Recover {
        /// Events for it.
        #[arg(long, default_value_t = 1_000_000)]
        held: u64,
        /// … a second, 0 for no limit.
        #[arg(long, default_value_t = 5_000)]
        held_rate: u64,
        /// Events a second for all others together.
        #[arg(long, default_value_t = 500)]
        live_rate: u64,
    },
    /// Events of a while ago are replayed, their owner is killed on the way: each
    /// comes again, few twice, and no offset of the source's group moves.
    Replay {
        /// Events.
        #[arg(long, default_value_t = 100_000)]
        events: u64,
        /// Deliveries a second.
        #[arg(long, default_value_t = 4_000)]
        rate: u64,
        /// Kills.
        #[arg(long, default_value_t = 2)]
        kills: u32,
    },
    /// The owner of waiting retries is killed: another makes them in time.
    Failover {
        /// Kills.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
    },
    /// Deliveries and their CPU over wrk's.
    Canonical {
        /// Events a run.
        #[arg(long, default_value_t = 200_000)]
        events: u64,
        /// Pairs of runs.
        #[arg(long, default_value_t = 5)]
        pairs: u32,
    },
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("posthaste-rig: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let rig = match (cli.log, &cli.command) {
        (LogChoice::Kafka, Command::Storm { .. }) => Rig::own_kafka()?,
        (LogChoice::Kafka, _) => Rig::kafka()?,
        (LogChoice::Embedded, _) => Rig::embedded()?,
    };
    match cli.command {
        Command::Storm { events, rate, seed } => {
            let outcome = storm::run(&rig, Storm { events, rate, seed })?;
            eprint!("{}", outcome.table());
            println!("{:#}", outcome.report);
            outcome.ensure_kept()?;
        }
        Command::Recover {
            held,
            held_rate,
            live_rate,
        } => {
            let recovery = Recovery {
                held,
                held_rate,
                live_rate,
            };
            println!("{:#}", recover::run(&rig, recovery)?);
        }
        Command::Replay {
            events,
            rate,
            kills,
        } => println!("{:?}", replay::run(&rig, events, rate, kills)?),
        Command::Failover { rounds } => {
            println!("{:?}", failover::run(&rig, rounds)?);
        }
        Command::Deliver { events } => {
            println!("{:?}", deliver::run(&rig, events)?);
        }
        Command::Kill {
            events,
            kills,
            rate,
        } => println!("{:?}", kill::run(&rig, events, rate, kills)?),
        Command::Dead { events, how, pairs } => {
            let outcome = dead::run(&rig, events, how, pairs)?;
            println!("{outcome:?}");
            println!("median ratio {:.2}", outcome.median());
        }
        Command::Canonical { events, pairs } => {
            canonical::conclude(&canonical::run(&rig, events, pairs)?);
        }
    }
    Ok(())
}
