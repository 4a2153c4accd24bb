//! A real Kafka: the one `POSTHASTE_TEST_KAFKA` names, or one started here.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::groups::GroupMemberInfo;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

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
        match std::env::var("POSTHASTE_TEST_KAFKA") {
            Ok(bootstrap) => Ok(Self {
                bootstrap,
                dir: None,
            }),
            Err(_) => Self::start(),
        }
    }

    /// A broker of one's own, which may be stopped.
    pub fn start() -> anyhow::Result<Self> {
        let started = kafka_local()
            .arg("start")
            .output()
            .context("cannot run ops/kafka-local/kafka-local")?;
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

    /// How to stop it and start it again with its data, at its address.
    ///
    /// # Errors
    /// It was not started here.
    pub fn restart(&self) -> anyhow::Result<Command> {
        let dir = self.dir.as_ref().context("the broker is somebody else's")?;
        let mut restart = kafka_local();
        restart.args(["restart", "--dir", dir]);
        Ok(restart)
    }

    /// How many partitions each member of a settled group has, by client id;
    /// nothing while it settles.
    pub fn members(&self, group: &str) -> anyhow::Result<Option<BTreeMap<String, usize>>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .create()?;
        let list = consumer.fetch_group_list(Some(group), WAIT)?;
        let found = list.groups().first().filter(|g| g.state() == "Stable");
        let shares = found.map(|group| {
            let share = |member: &GroupMemberInfo| {
                let assigned = member.assignment().and_then(assigned_partitions);
                (member.client_id().to_owned(), assigned.unwrap_or(0))
            };
            group.members().iter().map(share).collect()
        });
        Ok(shares)
    }

    /// What a group has committed of a topic, by partition.
    pub fn committed(
        &self,
        group: &str,
        topic: &str,
        partitions: i32,
    ) -> anyhow::Result<Vec<Option<i64>>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", group)
            .create()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let committed = consumer.committed_offsets(list, WAIT)?;
        let offset = |element: &TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(at) => Some(at),
            _ => None,
        };
        Ok(committed.elements().iter().map(offset).collect())
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
            let stop = kafka_local()
                .args(["stop", "--dir", dir, "--delete"])
                .status();
            if let Err(error) = stop {
                eprintln!("the broker in {dir} still runs: {error}");
            }
        }
    }
}

fn kafka_local() -> Command {
    Command::new(root().join("ops/kafka-local/kafka-local"))
}

/// Partitions in a member's assignment (`ConsumerProtocolAssignment.json` of
/// Apache Kafka): version, topics, each a name and its partitions.
fn assigned_partitions(assignment: &[u8]) -> Option<usize> {
    let mut rest = assignment;
    let mut take = |bytes: usize| {
        let (front, back) = rest.split_at_checked(bytes)?;
        rest = back;
        let digits = front
            .iter()
            .fold(0_usize, |n, &byte| n << 8 | usize::from(byte));
        Some(digits)
    };
    take(2)?;
    let mut partitions = 0;
    for _ in 0..take(4)? {
        let name_bytes = take(2)?;
        for _ in 0..name_bytes {
            take(1)?;
        }
        let here = take(4)?;
        for _ in 0..here {
            take(4)?;
        }
        partitions += here;
    }
    Some(partitions)
}

#[cfg(test)]
mod tests {
    use super::assigned_partitions;

    #[test]
    fn an_assignment_is_counted_and_a_cut_one_is_not() {
        let whole = b"\0\x03\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x01\0\x02bc\0\0\0\x01\0\0\0\x07\xff\xff\xff\xff";
        assert_eq!(assigned_partitions(whole), Some(3));
        for len in 0..whole.len() - 4 {
            assert_eq!(assigned_partitions(&whole[..len]), None, "{len}");
        }
    }
}
