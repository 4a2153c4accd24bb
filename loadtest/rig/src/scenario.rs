//! What the engine must show, one file a promise.

use std::path::PathBuf;
use std::time::Duration;

use crate::broker::Broker;
use crate::engine::{LogKind, Setup};
use crate::feed::Feed;
use crate::process;
use crate::sink::Sink;

pub mod canonical;
pub mod dead;
pub mod deliver;
pub mod kill;

/// Longest wait for the last event.
const LAST_WAIT: Duration = Duration::from_secs(300);

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

    fn log(&self) -> LogKind {
        match &self.broker {
            Some(broker) => LogKind::Kafka(broker.bootstrap.clone()),
            None => LogKind::Embedded,
        }
    }

    /// A scene whose sink checks `verify` of the signatures.
    pub fn scene(&self, verify: &str) -> anyhow::Result<Scene> {
        Ok(Scene {
            setup: Setup::new(&self.programs, self.log())?,
            sink: Sink::start(&self.programs, verify)?,
            feed: Feed::new(&self.programs),
        })
    }
}
