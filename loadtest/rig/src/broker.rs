//! A real Kafka: the one `POSTHASTE_TEST_KAFKA` names, or one started here.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::process::root;

const WAIT: Duration = Duration::from_secs(10);

/// A broker, stopped with its data when it was started here.
pub struct Broker {
    /// Its bootstrap servers.
    pub bootstrap: String,
    dir: Option<String>,
}

impl Broker {
    /// The broker to use.
    pub fn find_or_start() -> anyhow::Result<Self> {
        if let Ok(bootstrap) = std::env::var("POSTHASTE_TEST_KAFKA") {
            return Ok(Self {
                bootstrap,
                dir: None,
            });
        }
        let script = root().join("ops/kafka-local/kafka-local");
        let started = Command::new(&script)
            .arg("start")
            .output()
            .with_context(|| format!("cannot run {}", script.display()))?;
        if !started.status.success() {
            bail!("no broker: {}", String::from_utf8_lossy(&started.stderr));
        }
        let told = String::from_utf8_lossy(&started.stdout).into_owned();
        let value = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name));
            line.map(ToOwned::to_owned)
        };
        Ok(Self {
            bootstrap: value("BOOTSTRAP=").context("the broker has no address")?,
            dir: value("DIR="),
        })
    }

    /// Records of a topic that `group` has not committed, and those the topic
    /// holds.
    pub fn lag(&self, group: &str, topic: &str, partitions: i32) -> anyhow::Result<(i64, i64)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", group)
            .create()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let committed = consumer.committed_offsets(list, WAIT)?;
        let (mut lag, mut held) = (0, 0);
        for element in committed.elements() {
            let (low, high) = consumer.fetch_watermarks(topic, element.partition(), WAIT)?;
            held += high - low;
            lag += match element.offset() {
                Offset::Offset(at) => high - at,
                _ => high - low,
            };
        }
        Ok((lag, held))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir {
            let script = root().join("ops/kafka-local/kafka-local");
            let stop = Command::new(script)
                .args(["stop", "--dir", dir, "--delete"])
                .status();
            if let Err(error) = stop {
                eprintln!("the broker in {dir} still runs: {error}");
            }
        }
    }
}
