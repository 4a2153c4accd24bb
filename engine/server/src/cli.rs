//! The command line.
//!
//! Exit codes: 0 done; 1 failed; 2 the command's own words are wrong; 64 the
//! configuration is wrong (`EX_USAGE`); 69 the server or the log cannot be
//! reached (`EX_UNAVAILABLE`); 141 nobody reads standard output any further (as
//! a shell says of SIGPIPE). `--help` says the same.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::document;
use crate::app::App;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, LogUrl};
use crate::log::LogError;
use crate::send::EgressError;
use crate::telemetry;
use crate::vault::VaultError;

mod audit;
mod client;
mod completions;
mod dead;
mod deliveries;
pub mod dev;
mod endpoints;
mod event_types;
mod events;
mod filters;
mod follow;
mod keys;
mod operations;
mod out;
mod pages;
mod progress;
mod publish;
mod records;
mod replay;
mod retry_policies;
mod secrets;
mod sources;
mod table;
mod tenants;

use client::ClientError;

/// Posthaste delivers domain events as signed webhooks.
#[derive(Debug, Parser)]
#[command(name = "posthaste", version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  posthaste dev                                  see events delivered, with nothing set up
  posthaste topics create --config posthaste.toml --sources
  posthaste serve --config posthaste.toml        run an instance
  posthaste endpoints create --tenant acme --url https://example.com/hooks --types 'invoice.*'
  posthaste deliveries list --tenant acme --status failing
  posthaste publish --tenant acme --type invoice.paid --data '{\"amount\": 7}'

Environment:
  POSTHASTE_SERVER  the server that all but `serve`, `api`, `dev` and `topics` speak to
  POSTHASTE_API_KEY the key they speak with
  POSTHASTE_LOG     what `serve`, `api` and `dev` log, such as debug or info,librdkafka=debug
  NO_COLOR          any text turns colours off

Exit codes: 0 done; 1 failed, stderr says why; 2 wrong usage; 64 the configuration is wrong;
69 the server or the log cannot be reached; 141 nobody reads standard output any further.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an instance.
    #[command(after_help = "\
Examples:
  posthaste serve                              on the embedded log, in ./posthaste-data
  posthaste serve --config posthaste.toml
  POSTHASTE_LOG=debug posthaste serve --json   logs for a machine, more of them

Runs until SIGTERM or Ctrl-C, then finishes what is under way within `drain_deadline`. Logs go
to stderr. ops/posthaste.toml names every setting.")]
    Serve {
        /// The configuration file; the embedded log with defaults without one.
        #[arg(long, short)]
        config: Option<PathBuf>,
        /// Write logs as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run the API alone, beside instances that deliver.
    #[command(after_help = "\
Example:
  posthaste api --config posthaste.toml

Takes events and changes, and answers what is asked, on the same log as `posthaste serve`, and
delivers nothing. As many as are wanted run side by side on Kafka; the embedded log has one holder.
Runs until SIGTERM or Ctrl-C, then answers what is under way.")]
    Api {
        /// The configuration file.
        #[arg(long, short)]
        config: PathBuf,
        /// Write logs as JSON.
        #[arg(long)]
        json: bool,
    },
    /// See events delivered: the embedded log, a receiver that verifies, sample
    /// events, and a live table.
    Dev(dev::Options),
    /// Make, list, pause, enable and delete endpoints.
    #[command(subcommand)]
    Endpoints(endpoints::Command),
    /// Say what tenants are, and list them.
    #[command(subcommand)]
    Tenants(tenants::Command),
    /// Say what event types mean and what their events look like.
    #[command(subcommand)]
    EventTypes(event_types::Command),
    /// Make the schedules of retries that endpoints can name.
    #[command(subcommand)]
    RetryPolicies(retry_policies::Command),
    /// Make, list and revoke the API's keys.
    #[command(subcommand)]
    Keys(keys::Command),
    /// See who changed what, and when.
    Audit(audit::Options),
    /// Find out why an event did not arrive.
    #[command(subcommand)]
    Deliveries(deliveries::Command),
    /// Look at single attempts.
    #[command(subcommand)]
    Attempts(deliveries::Attempts),
    /// Find out why an event did not come in.
    #[command(subcommand)]
    Sources(sources::Command),
    /// Look at events as the log has them.
    #[command(subcommand)]
    Events(events::Command),
    /// List and redrive what was given up.
    #[command(subcommand)]
    Dead(dead::Command),
    /// Look at what was asked of endpoints' owners, and steer it.
    #[command(subcommand)]
    Operations(operations::Command),
    /// Bring an endpoint past events again.
    Replay(replay::Replay),
    /// Send an endpoint one event again.
    Resend(replay::Resend),
    /// Look after endpoints' signing secrets.
    #[command(subcommand)]
    Secrets(secrets::Command),
    /// Try a filter on an event, or on those of the last hours.
    #[command(subcommand)]
    Filters(filters::Command),
    /// Publish one event or a file of them.
    Publish(publish::Options),
    /// Print the API's description (OpenAPI 3.1).
    #[command(after_help = "\
Example:
  posthaste openapi > openapi.json

A running instance serves the same as /v1/openapi.json, and for people as /docs.")]
    Openapi,
    /// Make the topics Posthaste needs.
    #[command(subcommand)]
    Topics(Topics),
    /// Print a script that completes these words in a shell.
    Completions(completions::Options),
}

#[derive(Debug, Subcommand)]
enum Topics {
    /// Make those that do not exist, then check all of them.
    #[command(after_help = "\
Example:
  posthaste topics create --config posthaste.toml --sources

Changes no topic that is there; one that does not fit is named, with what would fit. On Kafka
`posthaste serve` makes no topics, so this comes first; the embedded log needs none of it.")]
    Create {
        /// The configuration file.
        #[arg(long, short)]
        config: PathBuf,
        /// Make the source topics too.
        #[arg(long)]
        sources: bool,
    },
}

/// Options that each are well-formed and do not fit.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongUse(String);

/// Time for what still runs when a command has ended: groups are left.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// Runs a command to its exit code.
pub fn run(cli: Cli) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let result = runtime
        .context("cannot start the runtime")
        .and_then(|runtime| {
            let result = runtime.block_on(execute(cli.command));
            // What did not end by now would keep the process for ever.
            runtime.shutdown_timeout(LAST_WAIT);
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Said to nobody.
        Err(error) if out::is_closed(&error) => ExitCode::from(141),
        Err(error) => {
            eprintln!("posthaste: {error:#}");
            exit_code(&error)
        }
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    let log = error.downcast_ref::<LogError>();
    let client = error.downcast_ref::<ClientError>();
    let misconfigured = error.is::<ConfigError>()
        || error.is::<EgressError>()
        || error.is::<VaultError>()
        || matches!(log, Some(LogError::Settings(_) | LogError::NoStart { .. }));
    if misconfigured {
        return ExitCode::from(64);
    }
    if matches!(
        client,
        Some(ClientError::BadServer(_) | ClientError::BadKey | ClientError::Tls(_))
    ) || error.is::<WrongUse>()
    {
        return ExitCode::from(2);
    }
    let unreachable = matches!(log, Some(LogError::Unreachable(_)))
        || matches!(client, Some(ClientError::Unreachable { .. }));
    if unreachable {
        return ExitCode::from(69);
    }
    ExitCode::FAILURE
}

async fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve { config, json } => {
            telemetry::install_logs(json);
            serve(load(config)?, Rooms::All).await
        }
        Command::Api { config, json } => {
            telemetry::install_logs(json);
            serve(Config::load(&config)?, Rooms::Api).await
        }
        Command::Dev(options) => dev::run(options).await,
        Command::Endpoints(command) => endpoints::run(command).await,
        Command::Tenants(command) => tenants::run(command).await,
        Command::EventTypes(command) => event_types::run(command).await,
        Command::RetryPolicies(command) => retry_policies::run(command).await,
        Command::Keys(command) => keys::run(command).await,
        Command::Audit(options) => audit::run(options).await,
        Command::Deliveries(command) => deliveries::run(command).await,
        Command::Attempts(command) => deliveries::run_attempts(command).await,
        Command::Sources(command) => sources::run(command).await,
        Command::Events(command) => events::run(command).await,
        Command::Dead(command) => dead::run(command).await,
        Command::Operations(command) => operations::run(command).await,
        Command::Replay(options) => replay::replay(options).await,
        Command::Resend(options) => replay::resend(options).await,
        Command::Secrets(command) => secrets::run(command).await,
        Command::Filters(command) => filters::run(command).await,
        Command::Publish(options) => publish::run(options).await,
        Command::Completions(options) => completions::run(&options),
        Command::Openapi => Ok(out::write(document::text())?),
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

/// What runs in an instance.
#[derive(Debug, Clone, Copy)]
enum Rooms {
    All,
    Api,
}

async fn start(config: Config, rooms: Rooms) -> anyhow::Result<App> {
    let metrics = telemetry::install_metrics()?;
    match rooms {
        Rooms::All => App::start(config, metrics).await,
        Rooms::Api => App::start_api(config, metrics).await,
    }
}

async fn serve(config: Config, rooms: Rooms) -> anyhow::Result<()> {
    let deadline = config.drain_deadline;
    let shards = match rooms {
        Rooms::All => config.shard_count(),
        Rooms::Api => 0,
    };
    let log = match &config.log {
        LogUrl::Embedded(dir) => format!("embedded in {}", dir.display()),
        LogUrl::Kafka(servers) => format!("Kafka at {servers}"),
    };
    // From the first moment on: a signal that nobody waits for ends the process
    // in the middle of whatever it does.
    let mut stop = std::pin::pin!(stop_signal()?);
    let app = tokio::select! {
        started = start(config, rooms) => started?,
        () = &mut stop => {
            tracing::info!("stopped before it ran");
            return Ok(());
        }
    };
    tracing::info!(api = %app.listening, log, shards, "posthaste is running");
    app.run(stop, deadline).await?;
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
    out::write(&table::render(&["topic", "partitions", ""], rows))?;
    Ok(())
}
