//! `posthaste dev`: the whole engine on a machine with nothing set up. It runs
//! on the embedded log, publishes sample events, receives their deliveries and
//! verifies them, and shows all of that. Started again with the same folder it
//! goes on where it stopped.
//!
//! Refused: addresses that are not on this machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use posthaste_core::time::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::WrongUse;
use crate::app::Opened;
use crate::config::{ApiConfig, Auth, Config, EgressConfig, HttpConfig, LogUrl};
use crate::telemetry;
use board::{Board, Shared};
use publisher::Publisher;
use receiver::Receiver;
use screen::Face;
use show::Show;
use view::Head;
use watch::Watch;

mod board;
mod demo;
mod publisher;
mod receiver;
mod row;
mod samples;
mod screen;
mod show;
mod view;
mod watch;

/// Time to finish what is in flight.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// The log file begins anew past this many bytes.
const LOG_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Where the command line expects the API.
const LISTEN: &str = "127.0.0.1:8400";

/// What `posthaste dev` can be told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  posthaste dev                             watch sample events being delivered
  posthaste dev --rate 200                  more of them
  posthaste dev --rate 0                    only the events you publish
  posthaste dev --events 100 --json         deliver 100, verify them, exit 0

Ctrl-C ends it. What is owed stays in the log: the next start with the same --data delivers it.")]
pub struct Options {
    /// The folder of the embedded log; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "posthaste-data")]
    data: PathBuf,
    /// Where the API listens, on this machine.
    #[arg(long, value_name = "ADDR", default_value = LISTEN)]
    listen: SocketAddr,
    /// Sample events a second; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    rate: u32,
    /// Stop after so many sample events are delivered and verified.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,
    /// Print a JSON line an attempt instead of the table.
    #[arg(long)]
    json: bool,
    /// Where the demo's receiver listens, on this machine; port 0 for any.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    receiver: SocketAddr,
}

/// Runs the demo until it is told to stop, or has delivered what it should.
pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let config = config(&options)?;
    let attempts_topic = config.topics.attempts();
    let face = Face::choose(options.json);
    install_logs(face, &options.data)?;

    let listener = TcpListener::bind(options.receiver).await;
    let listener =
        listener.with_context(|| format!("--receiver: cannot listen on {}", options.receiver))?;
    let receiver_at = listener.local_addr()?;
    let opened = Opened::open(config).await.map_err(|error| {
        anyhow!(
            "{error:#}; beside another `posthaste`, give this one its own `--data DIR` and \
             `--listen 127.0.0.1:0`"
        )
    })?;
    let clock = opened.clock.clone();
    let since = clock.now();
    let demos = demo::ensure(&opened, receiver_at).await?;
    let endpoints = demos.iter().map(|demo| demo.endpoint.clone());
    let board = Shared::new(Board::new(endpoints));
    let receiver = Receiver::new(demos, board.clone(), clock.clone());
    tokio::spawn(receiver.serve(listener));
    let watch = Watch::start(opened.log.clone(), &attempts_topic, since)?;
    let app = opened.start(telemetry::install_metrics()?)?;

    let stop = CancellationToken::new();
    let head = head(&options, app.listening, receiver_at, since);
    if options.rate > 0 {
        let publisher = Publisher {
            api: app.listening,
            rate: options.rate,
            limit: options.events,
            board: board.clone(),
            clock: clock.clone(),
            stop: stop.clone(),
        };
        tokio::spawn(publisher.run());
    }
    let house = app.run(stop.clone().cancelled_owned(), DRAIN_DEADLINE);
    let show = Show {
        face,
        head,
        board: board.clone(),
        clock,
        wanted: options.events,
        stop,
    };
    Box::pin(show.run(watch, house)).await?;

    let settled = board.lock().settled;
    match options.events {
        Some(wanted) if settled < wanted => {
            bail!("stopped with {settled} of {wanted} sample events delivered and verified")
        }
        _ => Ok(()),
    }
}

fn config(options: &Options) -> anyhow::Result<Config> {
    if !options.receiver.ip().is_loopback() {
        let at = options.receiver;
        return Err(WrongUse(format!("--receiver {at}: expected a loopback address")).into());
    }
    if options.rate == 0 && options.events.is_some() {
        let wanted = "--events counts sample events: expected a --rate above 0";
        return Err(WrongUse(wanted.to_owned()).into());
    }
    let config = Config {
        log: LogUrl::Embedded(options.data.clone()),
        egress: EgressConfig {
            allow_http: true,
            allow_private_names: true,
            allow: vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
            ..EgressConfig::default()
        },
        http: HttpConfig {
            listen: options.listen,
            ..HttpConfig::default()
        },
        // Nothing to set up; `check` holds the listener to this machine.
        api: ApiConfig {
            auth: Some(Auth::None),
        },
        drain_deadline: DRAIN_DEADLINE,
        ..Config::default()
    };
    config.check()?;
    Ok(config)
}

/// Logs go to standard error, unless they would be drawn over.
fn install_logs(face: Face, data: &Path) -> anyhow::Result<()> {
    if face != Face::Table {
        telemetry::install_logs(face == Face::Json);
        return Ok(());
    }
    let file = data.join("posthaste.log");
    let large = std::fs::metadata(&file).is_ok_and(|meta| meta.len() > LOG_FILE_BYTES_MAX);
    let open = std::fs::create_dir_all(data).and_then(|()| {
        let mut open = std::fs::OpenOptions::new();
        if large {
            open.write(true).truncate(true);
        } else {
            open.append(true);
        }
        open.create(true).open(&file)
    });
    let open = open.with_context(|| format!("cannot write {}", file.display()))?;
    telemetry::install_logs_to(Mutex::new(open), false, false);
    Ok(())
}

fn head(options: &Options, api: SocketAddr, receiver: SocketAddr, since: Timestamp) -> Head {
    Head {
        api: format!("http://{api}"),
        data: options.data.display().to_string(),
        receiver: format!("http://{receiver}"),
        program: std::env::args()
            .next()
            .unwrap_or_else(|| "posthaste".to_owned()),
        api_is_default: api.to_string() == LISTEN,
        since,
        colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    }
}
