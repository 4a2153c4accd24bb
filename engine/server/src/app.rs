//! The house: opens the log, starts the rooms, and stops them in order. Only
//! here are rooms spawned.
//!
//! Stopping: readiness ends and intake stops; shards send to the lane what
//! waits and finish what is in flight; owners write their facts; the last
//! positions are committed. All within the drain deadline. The API goes last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytestring::ByteString;
use metrics_exporter_prometheus::PrometheusHandle;
use posthaste_core::delivery::{Closed, Delivery, Report};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api};
use crate::clock::Clock;
use crate::config::{Auth, Config, LogUrl};
use crate::control::{By, Endpoints};
use crate::dispatch;
use crate::ingest::decode::Decoder;
use crate::ingest::poison::Undertaker;
use crate::ingest::{self, Ingest};
use crate::listen::{Identity, Listener};
use crate::log::embedded::EmbeddedLog;
use crate::log::kafka::{KafkaLog, KafkaSettings};
use crate::log::{Log, Start};
use crate::owner::{self, OwnerRoom};
use crate::send::{Egress, EgressSettings};
use crate::telemetry::{IngestMetrics, OwnerMetrics};
use crate::vault::{Vault, VaultError};

mod topics;

pub(crate) use topics::verify as verify_topics;

/// How often metrics are tidied up.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// Time for the API's requests that are under way when all else has stopped.
const REQUESTS_WAIT: Duration = Duration::from_secs(2);
/// How often the clock is compared with the wall.
const REANCHOR_EVERY: Duration = Duration::from_secs(60);

/// A running instance.
pub struct App {
    /// Where the API listens.
    pub listening: SocketAddr,
    /// The log.
    pub log: Arc<dyn Log>,
    rooms: Vec<(&'static str, JoinHandle<anyhow::Result<()>>)>,
    shards: Vec<std::thread::JoinHandle<()>>,
    api: JoinHandle<()>,
    stop: CancellationToken,
    shards_end: CancellationToken,
    api_end: CancellationToken,
    helpers_end: CancellationToken,
}

/// An instance before anything moves in it: its log and its endpoints may be
/// read and written, nothing is delivered yet.
pub struct Opened {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The endpoints table.
    pub endpoints: Endpoints,
    /// The instance's time.
    pub clock: Clock,
    /// The keys to endpoints' secrets.
    pub vault: Arc<Vault>,
    config: Config,
    listener: Listener,
    egress: Arc<Egress>,
    decoder: Decoder,
    sources: topics::Sources,
    helpers_end: CancellationToken,
}

/// Opens the log a configuration names.
pub async fn open_log(config: &Config, clock: &Clock) -> anyhow::Result<Arc<dyn Log>> {
    match &config.log {
        LogUrl::Embedded(dir) => {
            let clock = clock.clone();
            let log = EmbeddedLog::open(dir, Arc::new(move || clock.now()));
            Ok(Arc::new(log.context("log")?))
        }
        LogUrl::Kafka(bootstrap) => {
            let settings = KafkaSettings {
                bootstrap: bootstrap.clone(),
                client_id: config.instance_id.clone(),
                extra: config.kafka.settings.clone().into_iter().collect(),
                session_timeout: config.kafka.session_timeout,
                instance_id: config.kafka.group_instance_id.clone(),
                replication: config.topics.replication,
            };
            let log = tokio::task::spawn_blocking(move || KafkaLog::connect(settings)).await??;
            Ok(Arc::new(log))
        }
    }
}

/// The endpoints table alone: for a change made on the log itself.
pub struct Desk {
    /// The table.
    pub endpoints: Endpoints,
    /// The time.
    pub clock: Clock,
    _end: tokio_util::sync::DropGuard,
}

/// Opens the endpoints table of the log a configuration names.
pub async fn open_desk(config: &Config) -> anyhow::Result<Desk> {
    let clock = Clock::start();
    let log = open_log(config, &clock).await?;
    log.verify(&config.topics.specs()).await?;
    let end = CancellationToken::new();
    let endpoints = Endpoints::open(log, config, end.clone()).await?;
    Ok(Desk {
        endpoints,
        clock,
        _end: end.drop_guard(),
    })
}

impl App {
    /// Starts everything; answers once the instance works.
    pub async fn start(config: Config, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        Opened::open(config).await?.start(metrics)
    }

    /// Starts the API alone: events and endpoints in, which other instances on the
    /// same log deliver by.
    pub async fn start_api(config: Config, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        Opened::open(config).await?.start_api(metrics)
    }

    /// Runs until `shutdown` resolves or a room fails, then stops within
    /// `deadline`. An error is the first room's that failed.
    pub async fn run(
        mut self,
        shutdown: impl Future<Output = ()>,
        deadline: Duration,
    ) -> anyhow::Result<()> {
        let failed = tokio::select! {
            () = shutdown => None,
            failed = first_end(&mut self.rooms), if !self.rooms.is_empty() => Some(failed),
        };
        tracing::info!("stopping");
        self.stop.cancel();
        let rooms = std::mem::take(&mut self.rooms);
        let (waits_for, at) = watch::channel("");
        let rest = async {
            let mut result = Ok(());
            for (name, room) in rooms {
                waits_for.send_replace(name);
                let ended = room.await.context("a room panicked").and_then(|r| r);
                result = result.and(ended.with_context(|| name));
            }
            waits_for.send_replace("shards");
            self.shards_end.cancel();
            let shards = std::mem::take(&mut self.shards);
            let joined = tokio::task::spawn_blocking(move || {
                shards.into_iter().all(|shard| shard.join().is_ok())
            });
            if !joined.await.unwrap_or(false) {
                bail!("a shard panicked");
            }
            result
        };
        // A second for the last joins beyond what each room was given.
        let stopped = tokio::time::timeout(deadline + Duration::from_secs(1), rest).await;
        self.api_end.cancel();
        if tokio::time::timeout(REQUESTS_WAIT, self.api).await.is_err() {
            tracing::warn!("requests under way are cut off");
        }
        self.helpers_end.cancel();
        match (failed, stopped) {
            (Some((name, error)), _) => Err(error.context(name)),
            (None, Ok(result)) => result,
            (None, Err(_)) => bail!(
                "not stopped within {deadline:?}, {} still run; nothing is lost, what was in flight is sent again",
                *at.borrow()
            ),
        }
    }
}

impl Opened {
    /// Binds the API's address, opens the log, and reads the endpoints.
    pub async fn open(mut config: Config) -> anyhow::Result<Self> {
        let clock = Clock::start();
        let identity = config.http.tls.as_ref().map(Identity::read).transpose()?;
        let listener = Listener::bind(config.http.listen, identity)
            .await
            .with_context(|| format!("http.listen: cannot listen on {}", config.http.listen))?;
        if config.instance_id.is_empty() {
            let port = listener.local_addr()?.port();
            config.instance_id = format!("{}:{port}", hostname());
        }
        let egress = Egress::new(EgressSettings::from(&config.egress))?;
        let keys = Vault::configured(&config)?;
        let decoder = Decoder::new(&config)?;
        let log = open_log(&config, &clock).await?;
        let sources = verify_topics(&config, &*log).await?;
        let helpers_end = CancellationToken::new();
        let endpoints = Endpoints::open(Arc::clone(&log), &config, helpers_end.clone()).await?;
        let vault = match (keys, &config.log) {
            (None, LogUrl::Embedded(dir)) => Vault::beside(dir)?,
            (None, LogUrl::Kafka(_)) => return Err(VaultError::NoKey.into()),
            (Some(vault), _) => vault,
        };
        let vault = Arc::new(vault);
        let stale = vault.judge(&endpoints.registry().borrow(), clock.now())?;
        if stale > 0 {
            tracing::warn!(
                endpoints = stale,
                "secrets stand in the clear or under an older key: `posthaste secrets reseal` \
                 seals them"
            );
        }
        Ok(Self {
            log,
            endpoints,
            clock,
            egress: Arc::new(egress.with_vault(Arc::clone(&vault))),
            vault,
            config,
            listener,
            decoder,
            sources,
            helpers_end,
        })
    }

    /// Posthaste itself, changing something now.
    pub fn by_system(&self) -> By {
        By::system(self.clock.now())
    }

    /// Starts the rooms.
    pub fn start(self, metrics: PrometheusHandle) -> anyhow::Result<App> {
        let listening = self.listener.local_addr()?;
        let stop = CancellationToken::new();
        let shards_end = CancellationToken::new();
        let (closed, closed_seen) = mpsc::channel(dispatch::REPORTS_MAX);
        let (share, share_seen) = watch::channel((0, self.sources.all));
        let (reports, reports_seen) = mpsc::channel(dispatch::REPORTS_MAX);
        let doors = dispatch::start(
            self.config.shard_count(),
            &dispatch::Parts {
                log: Arc::clone(&self.log),
                topics: self.config.topics.clone(),
                registry: self.endpoints.registry(),
                egress: Arc::clone(&self.egress),
                share: share_seen,
                clock: self.clock.clone(),
                audit: self.config.audit,
                closed,
                reports,
                drain: stop.clone(),
                end: shards_end.clone(),
            },
        )?;
        let rooms = Rooms {
            config: &self.config,
            log: &self.log,
            endpoints: &self.endpoints,
            clock: &self.clock,
            stop: &stop,
        };
        let spawned = vec![
            rooms.ingest(self.decoder.clone(), doors.ingest, closed_seen, share)?,
            rooms.owner(self.decoder.clone(), doors.owner, reports_seen)?,
        ];
        let api_end = CancellationToken::new();
        Ok(App {
            listening,
            log: Arc::clone(&self.log),
            rooms: spawned,
            shards: doors.threads,
            helpers_end: self.helpers_end.clone(),
            api: self.serve(metrics, stop.clone(), api_end.clone()),
            stop,
            shards_end,
            api_end,
        })
    }

    /// Starts the API and no room.
    fn start_api(self, metrics: PrometheusHandle) -> anyhow::Result<App> {
        let (stop, api_end) = (CancellationToken::new(), CancellationToken::new());
        Ok(App {
            listening: self.listener.local_addr()?,
            log: Arc::clone(&self.log),
            rooms: Vec::new(),
            shards: Vec::new(),
            helpers_end: self.helpers_end.clone(),
            api: self.serve(metrics, stop.clone(), api_end.clone()),
            stop,
            shards_end: CancellationToken::new(),
            api_end,
        })
    }

    fn say_who_gets_in(&self) {
        if self.config.auth() == Auth::None {
            return;
        }
        if self.endpoints.keys().iter().len() == 0 {
            tracing::warn!(
                "there is no API key yet, so nobody gets in: `posthaste keys create --config`"
            );
        }
        if !self.config.http.listen.ip().is_loopback() && !self.listener.is_tls() {
            tracing::warn!(
                http_listen = %self.config.http.listen,
                "the API speaks plain HTTP: keys cross the network unprotected unless something \
                 ends TLS in front of it; [http.tls] ends it here"
            );
        }
    }

    /// Starts the API and the housekeeping.
    fn serve(
        self,
        metrics: PrometheusHandle,
        stop: CancellationToken,
        end: CancellationToken,
    ) -> JoinHandle<()> {
        tokio::spawn(housekeeping(
            metrics.clone(),
            self.clock.clone(),
            self.helpers_end.clone(),
        ));
        self.say_who_gets_in();
        let api = Api::new(api::Parts {
            log: self.log,
            endpoints: self.endpoints,
            decoder: self.decoder,
            config: self.config,
            egress: self.egress,
            vault: self.vault,
            clock: self.clock,
            event_partitions: self.sources.first,
            metrics,
            stop,
        });
        tokio::spawn(self.listener.serve(api.routes(), end))
    }
}

/// The first room that ends before it was told to.
async fn first_end(
    rooms: &mut Vec<(&'static str, JoinHandle<anyhow::Result<()>>)>,
) -> (&'static str, anyhow::Error) {
    let handles = rooms.iter_mut().map(|(_, handle)| handle);
    let (ended, place, _) = futures_util::future::select_all(handles).await;
    let (name, _) = rooms.remove(place);
    let error = match ended {
        Ok(Ok(())) => anyhow::anyhow!("ended of itself"),
        Ok(Err(error)) => error,
        Err(panic) => panic.into(),
    };
    (name, error)
}

/// What the rooms share.
struct Rooms<'a> {
    config: &'a Config,
    log: &'a Arc<dyn Log>,
    endpoints: &'a Endpoints,
    clock: &'a Clock,
    stop: &'a CancellationToken,
}

type Spawned = (&'static str, JoinHandle<anyhow::Result<()>>);

impl Rooms<'_> {
    fn ingest(
        &self,
        decoder: Decoder,
        mailboxes: Vec<mpsc::Sender<Vec<Delivery>>>,
        closed: mpsc::Receiver<Vec<Closed>>,
        share: watch::Sender<(u32, u32)>,
    ) -> anyhow::Result<Spawned> {
        let config = self.config;
        let names = config.ingest.topics.iter();
        let mut topics: Vec<_> = names.map(|name| ByteString::from(name.as_str())).collect();
        topics.push(config.topics.operational());
        let group = config.topics.ingest_group();
        // The embedded log begins empty and is ours: nothing to choose.
        let start = match (&config.log, config.ingest.start.0) {
            (LogUrl::Embedded(_), Start::Unset) => Start::Earliest,
            (_, start) => start,
        };
        let room = Ingest::new(ingest::Parts {
            consumer: self.log.join(&group, &topics, start)?,
            decoder,
            registry: self.endpoints.registry(),
            mailboxes,
            closed,
            undertaker: Undertaker {
                log: Arc::clone(self.log),
                dead: config.topics.dead(),
                partitions: crate::config::Topics::DEAD_PARTITIONS,
                clock: self.clock.clone(),
            },
            metrics: IngestMetrics::default(),
            share,
        });
        let run = room.run(self.stop.clone(), config.drain_deadline);
        Ok(("ingest", tokio::spawn(async { Ok(run.await?) })))
    }

    fn owner(
        &self,
        decoder: Decoder,
        mailboxes: Vec<mpsc::Sender<Vec<Delivery>>>,
        reports: mpsc::Receiver<Vec<Report>>,
    ) -> anyhow::Result<Spawned> {
        let config = self.config;
        let group = format!("{}.owner", config.topics.prefix);
        let lane = [config.topics.lane()];
        let room = OwnerRoom::new(owner::Parts {
            // Without a commit everything is folded: always right, only slower.
            consumer: self.log.join(&group, &lane, Start::Earliest)?,
            log: Arc::clone(self.log),
            topics: config.topics.clone(),
            decode: Arc::new(move |tp, record| decoder.decode(tp, record)),
            instance_id: config.instance_id.clone(),
            registry: self.endpoints.registry(),
            endpoints: self.endpoints.clone(),
            mailboxes,
            reports,
            clock: self.clock.clone(),
            metrics: OwnerMetrics::default(),
        });
        let run = room.run(self.stop.clone(), config.drain_deadline);
        Ok(("owner", tokio::spawn(async { Ok(run.await?) })))
    }
}

async fn housekeeping(metrics: PrometheusHandle, clock: Clock, end: CancellationToken) {
    let mut upkeep = tokio::time::interval(UPKEEP_EVERY);
    let mut reanchor = tokio::time::interval(REANCHOR_EVERY);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            _ = upkeep.tick() => metrics.run_upkeep(),
            _ = reanchor.tick() => {
                let correction_ms = clock.reanchor();
                if correction_ms != 0 {
                    tracing::warn!(correction_ms, "the wall clock moved, followed it");
                }
            }
        }
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "posthaste".to_owned(), |name| name.trim().to_owned())
}
