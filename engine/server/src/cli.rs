//! The command line.
//!
//! Exit codes: 0 done; 1 failed; 2 the command's own words are wrong; 64 the
//! configuration is wrong (`EX_USAGE`); 69 the server or the log cannot be
//! reached (`EX_UNAVAILABLE`).

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, LogUrl};
use crate::log::LogError;
use crate::send::EgressError;
use crate::telemetry;

mod client;
pub mod dev;
mod endpoints;
mod publish;
mod table;

use client::ClientError;

/// Posthaste delivers domain events as signed webhooks.
#[derive(Debug, Parser)]
#[command(name = "posthaste", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  posthaste dev                                  see events delivered, with nothing set up
  posthaste serve --config posthaste.toml        run an instance
  posthaste topics create --config posthaste.toml
  posthaste endpoints create --tenant acme --url https://example.com/hooks --types 'invoice.*'
  posthaste publish --tenant acme --type invoice.paid --data '{\"id\": 7}'";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an instance.
    Serve {
        /// The configuration file; the embedded log with defaults without one.
        #[arg(long, short)]
        config: Option<PathBuf>,
        /// Write logs as JSON.
        #[arg(long)]
        json: bool,
    },
    /// See events delivered: the embedded log, a receiver that verifies, sample
    /// events, and a live table.
    Dev(dev::Options),
    /// Make, list and delete endpoints.
    #[command(subcommand)]
    Endpoints(endpoints::Command),
    /// Publish one event or a file of them.
    Publish(publish::Options),
    /// Make the topics Posthaste needs.
    #[command(subcommand)]
    Topics(Topics),
}

#[derive(Debug, Subcommand)]
enum Topics {
    /// Make those that do not exist, then check all of them.
    Create {
        /// The configuration file.
        #[arg(long, short)]
        config: PathBuf,
        /// Make the source topics too.
        #[arg(long)]
        sources: bool,
    },
}

/// Runs a command to its exit code.
pub fn run(cli: Cli) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = runtime
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(execute(cli.command)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("posthaste: {error:#}");
            exit_code(&error)
        }
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    let log = error.downcast_ref::<LogError>();
    let misconfigured = error.is::<ConfigError>()
        || error.is::<EgressError>()
        || matches!(log, Some(LogError::Settings(_) | LogError::NoStart { .. }));
    if misconfigured {
        return ExitCode::from(64);
    }
    let unreachable = matches!(log, Some(LogError::Unreachable(_)))
        || matches!(
            error.downcast_ref::<ClientError>(),
            Some(ClientError::Unreachable { .. })
        );
    if unreachable {
        return ExitCode::from(69);
    }
    ExitCode::FAILURE
}

async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve { config, json } => {
            telemetry::install_logs(json);
            serve(load(config)?).await
        }
        Command::Dev(options) => dev::run(options).await,
        Command::Endpoints(command) => endpoints::run(command).await,
        Command::Publish(options) => publish::run(options).await,
        Command::Topics(Topics::Create { config, sources }) => {
            create_topics(&Config::load(&config)?, sources).await
        }
    }
}

fn load(path: Option<PathBuf>) -> anyhow::Result<Config> {
    match path {
        Some(path) => Ok(Config::load(&path)?),
        None => Ok(Config::default()),
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let deadline = config.drain_deadline;
    let shards = config.shard_count();
    let log = match &config.log {
        LogUrl::Embedded(dir) => format!("embedded in {}", dir.display()),
        LogUrl::Kafka(servers) => format!("Kafka at {servers}"),
    };
    let app = App::start(config, telemetry::install_metrics()?).await?;
    tracing::info!(api = %app.listening, log, shards, "posthaste is running");
    app.run(stop_signal()?, deadline).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Resolves on SIGTERM or Ctrl-C.
pub(crate) fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn create_topics(config: &Config, sources: bool) -> anyhow::Result<()> {
    let log = crate::app::open_log(config, &Clock::start()).await?;
    let mut specs = config.topics.specs();
    if sources {
        let names = config.ingest.topics.iter();
        specs.extend(names.map(|name| config.topics.source_spec(name)));
    }
    let made = log.create(&specs).await?;
    if sources {
        crate::app::verify_topics(config, &*log).await?;
    } else {
        log.verify(&specs).await?;
    }
    let mut rows = Vec::new();
    for spec in &specs {
        let state = if made.contains(&spec.name) {
            "created"
        } else {
            "was there"
        };
        let partitions = log.describe(&spec.name).await?.partitions;
        rows.push(vec![
            spec.name.to_string(),
            partitions.to_string(),
            state.to_owned(),
        ]);
    }
    print!("{}", table::render(&["topic", "partitions", ""], rows));
    Ok(())
}
