//! What the engine must show, one file a promise.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use crate::broker::Broker;
use crate::engine::{Engine, LogKind, Setup, Shape, patiently};
use crate::feed::{Feed, Workload};
use crate::process;
use crate::sink::Sink;

pub mod canonical;
pub mod dead;
pub mod deliver;
pub mod failover;
pub mod kill;
pub mod recover;
pub mod replay;
pub mod storm;

/// Longest wait for the last event.
const LAST_WAIT: Duration = Duration::from_secs(300);
/// The engine commits once a second; this is that, and the time a commit takes
/// on a busy machine.
const COMMIT_WINDOW: Duration = Duration::from_millis(1_500);

/// Deliveries the lane owes, as an engine counts its own.
const OWED: &str = "posthaste_owner_owed_deliveries";

/// The programs, and a broker where one is wanted.
pub struct Rig {
    programs: PathBuf,
    broker: Option<Broker>,
}

/// Everything but the engine.
pub struct Scene {
    /// How to run the engine.
    pub setup: Setup,
    /// The receiver.
    pub sink: Sink,
    /// The producer.
    pub feed: Feed,
}

impl Rig {
    /// On the embedded log.
    pub fn embedded() -> anyhow::Result<Self> {
        Ok(Self {
            programs: process::programs()?,
            broker: None,
        })
    }

    /// On Kafka.
    pub fn kafka() -> anyhow::Result<Self> {
        let programs = process::programs()?;
        Ok(Self {
            programs,
            broker: Some(Broker::find_or_start()?),
        })
    }

    /// On a Kafka of its own, which may be stopped.
    pub fn own_kafka() -> anyhow::Result<Self> {
        Ok(Self {
            programs: process::programs()?,
            broker: Some(Broker::start()?),
        })
    }

    /// The broker.
    ///
    /// # Errors
    /// The log is the embedded one, which is one instance's own.
    fn kafka_broker(&self) -> anyhow::Result<&Broker> {
        self.broker.as_ref().context("it needs --log kafka")
    }

    fn log(&self) -> LogKind {
        match &self.broker {
            Some(broker) => LogKind::Kafka(broker.bootstrap.clone()),
            None => LogKind::Embedded,
        }
    }

    /// The canonical scene; its sink checks `verify` of the signatures.
    pub fn scene(&self, verify: &str) -> anyhow::Result<Scene> {
        self.scene_of(verify, Shape::default(), Workload::default())
    }

    /// A scene of engines and a workload of another kind.
    pub fn scene_of(
        &self,
        verify: &str,
        shape: Shape,
        workload: Workload,
    ) -> anyhow::Result<Scene> {
        Ok(Scene {
            setup: Setup::new(&self.programs, self.log(), shape)?,
            sink: Sink::start(&self.programs, verify, &workload)?,
            feed: Feed::new(&self.programs, workload),
        })
    }
}

/// Waits until every engine knows so many endpoints: one that does not matches
/// nothing.
fn registered(engines: &[Engine], endpoints: u64) -> anyhow::Result<()> {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let least = endpoints as f64;
    engines
        .iter()
        .try_for_each(|engine| engine.wait_metric("posthaste_control_endpoints", least, LAST_WAIT))
}

/// Waits until every engine has its share of both groups' partitions.
fn settled(rig: &Rig, setup: &Setup) -> anyhow::Result<()> {
    let broker = rig.kafka_broker()?;
    let wanted = setup.shape.instances;
    for group in ["ingest", "owner"] {
        let name = format!("{}.{group}", setup.prefix);
        patiently(LAST_WAIT, "every instance has its share", || {
            let members = broker.members(&name)?.unwrap_or_default();
            let all_have = members.len() == wanted && members.values().all(|&has| has > 0);
            Ok(all_have.then_some(()))
        })?;
    }
    Ok(())
}
