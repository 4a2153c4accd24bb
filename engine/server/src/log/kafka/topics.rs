//! Topics as they are, as they must be, and making them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use dashmap::DashMap;
use posthaste_core::time::Timestamp;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use super::client::Quiet;
use super::context::Context;
use super::{ASK_WAIT, KafkaSettings, client, failure, partition, unsigned};
use crate::log::{
    AppendError, Cleanup, LogError, Offset, TopicDescription, TopicPartition, TopicSpec,
};

/// Most replicas of a topic made here, unless the settings say otherwise.
const REPLICAS_MAX: usize = 3;
/// How long a new topic may take until every broker knows it.
const MAKE_WAIT: Duration = Duration::from_secs(15);

/// Asks about topics. What it learned of each is kept: partitions and bounds
/// are fixed for the life of a topic, or nearly so.
pub(super) struct Topics {
    client: Arc<BaseConsumer<Context>>,
    admin: AdminClient<Quiet>,
    known: DashMap<ByteString, TopicDescription>,
    replication: u16,
    bootstrap: String,
}

type Settings = BTreeMap<String, String>;

impl Topics {
    /// Connects, and waits for a broker to answer.
    pub(super) fn connect(settings: &KafkaSettings) -> Result<Self, LogError> {
        client::check(settings)?;
        let failed = |error: KafkaError| failure(&error);
        let config = client::base(settings);
        let client: BaseConsumer<Context> = config
            .create_with_context(Context::default())
            .map_err(failed)?;
        let admin = config.create_with_context(Quiet).map_err(failed)?;
        client.fetch_metadata(None, ASK_WAIT).map_err(|error| {
            LogError::Unreachable(format!(
                "no broker at `{}` within {ASK_WAIT:?} ({error}); `log` names the bootstrap servers",
                settings.bootstrap
            ))
        })?;
        Ok(Self {
            client: Arc::new(client),
            admin,
            known: DashMap::new(),
            replication: settings.replication,
            bootstrap: settings.bootstrap.clone(),
        })
    }

    /// Runs a question that blocks.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer<Context>) -> T + Send + 'static,
    ) -> Result<T, LogError> {
        let client = Arc::clone(&self.client);
        tokio::task::spawn_blocking(move || question(&client))
            .await
            .map_err(|error| LogError::Other(error.to_string()))
    }

    fn failed(&self, error: &KafkaError) -> LogError {
        match failure(error) {
            LogError::Unreachable(detail) => {
                LogError::Unreachable(format!("Kafka at `{}`: {detail}", self.bootstrap))
            }
            other => other,
        }
    }

    async fn partitions(&self, topic: &ByteString) -> Result<u32, LogError> {
        let name = topic.clone();
        let asked = self.ask(move |client| count(client, &name));
        asked
            .await?
            .map_err(|error| self.failed(&error))?
            .ok_or_else(|| LogError::NoSuchTopic(topic.clone()))
    }

    async fn settings(&self, topic: &ByteString) -> Result<Settings, LogError> {
        let asked = [ResourceSpecifier::Topic(topic)];
        let described = self.admin.describe_configs(&asked, &options()).await;
        let described = described.map_err(|error| self.failed(&error))?;
        let resource = described.into_iter().next().ok_or_else(|| {
            LogError::Other(format!("topic `{topic}`: the broker described nothing"))
        })?;
        let resource = resource.map_err(|code| {
            LogError::Other(format!(
                "topic `{topic}`: cannot describe its settings: {code}"
            ))
        })?;
        let entries = resource.entries.into_iter();
        Ok(entries
            .filter_map(|entry| Some((entry.name, entry.value?)))
            .collect())
    }

    /// A topic as it is now.
    pub(super) async fn describe(&self, topic: &ByteString) -> Result<TopicDescription, LogError> {
        let partitions = self.partitions(topic).await?;
        let settings = self.settings(topic).await?;
        let compacted = settings
            .get("cleanup.policy")
            .is_some_and(|p| p == "compact");
        let description = TopicDescription {
            partitions,
            record_bytes_max: number(&settings, "max.message.bytes")
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(usize::MAX),
            retention: number(&settings, "retention.ms")
                .filter(|_| !compacted)
                .and_then(|millis| u64::try_from(millis).ok())
                .map(Duration::from_millis),
        };
        self.known.insert(topic.clone(), description.clone());
        Ok(description)
    }

    async fn known(&self, topic: &ByteString) -> Result<TopicDescription, LogError> {
        if let Some(known) = self.known.get(topic) {
            return Ok(known.clone());
        }
        self.describe(topic).await
    }

    /// Whether a record of so many bytes can go there at all.
    pub(super) async fn check(&self, to: &TopicPartition, bytes: usize) -> Result<(), AppendError> {
        let topic = match self.known(&to.topic).await {
            // The bound may have been raised meanwhile.
            Ok(known) if bytes > known.record_bytes_max => self.describe(&to.topic).await,
            other => other,
        };
        let topic = topic.map_err(|error| match error {
            LogError::NoSuchTopic(_) => AppendError::Refused(error.to_string()),
            other => AppendError::Unknown(other.to_string()),
        })?;
        if to.partition >= topic.partitions {
            return Err(AppendError::Refused(format!(
                "{to} does not exist: the topic has {} partitions",
                topic.partitions
            )));
        }
        if bytes > topic.record_bytes_max {
            return Err(AppendError::TooLarge {
                topic: to.topic.clone(),
                bytes,
            });
        }
        Ok(())
    }

    /// The partition exists.
    pub(super) async fn require(&self, tp: &TopicPartition) -> Result<(), LogError> {
        let topic = self.known(&tp.topic).await?;
        if tp.partition < topic.partitions {
            return Ok(());
        }
        Err(LogError::Other(format!(
            "{tp} does not exist: the topic has {} partitions",
            topic.partitions
        )))
    }

    /// First and next-to-be-written offset.
    pub(super) async fn bounds(&self, tp: &TopicPartition) -> Result<(Offset, Offset), LogError> {
        self.require(tp).await?;
        let place = tp.clone();
        let asked = self.ask(move |client| {
            client.fetch_watermarks(&place.topic, partition(place.partition), ASK_WAIT)
        });
        let (low, high) = asked.await?.map_err(|error| self.failed(&error))?;
        Ok((unsigned(low).unwrap_or(0), unsigned(high).unwrap_or(0)))
    }

    /// The first offset at or after `time`, or the end.
    pub(super) async fn offset_at(
        &self,
        tp: &TopicPartition,
        time: Timestamp,
    ) -> Result<Offset, LogError> {
        self.require(tp).await?;
        let place = tp.clone();
        let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let asked = self.ask(move |client| first_at(client, &place, millis));
        match asked.await?.map_err(|error| self.failed(&error))? {
            Some(offset) => Ok(offset),
            None => Ok(self.bounds(tp).await?.1),
        }
    }

    /// Compares; the first difference is the error.
    pub(super) async fn verify(&self, specs: &[TopicSpec]) -> Result<(), LogError> {
        for spec in specs {
            let partitions = self.partitions(&spec.name).await?;
            let settings = self.settings(&spec.name).await?;
            compare(spec, partitions, &settings)?;
        }
        Ok(())
    }

    /// Makes what does not exist.
    pub(super) async fn create(&self, specs: &[TopicSpec]) -> Result<Vec<ByteString>, LogError> {
        let brokers = self.ask(brokers).await?;
        let brokers = brokers.map_err(|error| self.failed(&error))?;
        let replicas = match self.replication {
            0 => brokers.min(REPLICAS_MAX),
            wanted => usize::from(wanted),
        };
        let mut made = Vec::new();
        for spec in specs {
            if self.make(spec, replicas).await? {
                self.await_topic(spec).await?;
                made.push(spec.name.clone());
            }
        }
        Ok(made)
    }

    async fn make(&self, spec: &TopicSpec, replicas: usize) -> Result<bool, LogError> {
        let settings = settings_of(spec, replicas);
        let replication = TopicReplication::Fixed(i32::try_from(replicas).unwrap_or(1));
        let topic = NewTopic::new(&spec.name, partition(spec.partitions), replication);
        let topic = settings
            .iter()
            .fold(topic, |topic, (key, value)| topic.set(key, value));
        let made = self.admin.create_topics([&topic], &options()).await;
        let made = made.map_err(|error| self.failed(&error))?;
        match made.into_iter().next() {
            Some(Ok(_)) => Ok(true),
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
            Some(Err((name, code))) => Err(LogError::Other(format!(
                "cannot create topic `{name}` with {replicas} replicas: {code}"
            ))),
            None => Err(LogError::Other(format!("no answer about `{}`", spec.name))),
        }
    }

    /// Waits until the brokers know a topic they were asked to make.
    async fn await_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        let until = Instant::now() + MAKE_WAIT;
        loop {
            match self.describe(&spec.name).await {
                Ok(topic) if topic.partitions == spec.partitions => return Ok(()),
                Err(error) if Instant::now() >= until => return Err(error),
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(ASK_WAIT))
        .operation_timeout(Some(ASK_WAIT))
}

/// How many partitions a topic has, all of them with a leader; `None` when
/// there is no such topic.
pub(super) fn count(client: &BaseConsumer<Context>, name: &str) -> KafkaResult<Option<u32>> {
    let metadata = client.fetch_metadata(Some(name), ASK_WAIT)?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return Ok(None);
    };
    match topic.error() {
        None => Ok(u32::try_from(topic.partitions().len()).ok()),
        Some(
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
        ) => Ok(None),
        Some(code) => Err(KafkaError::MetadataFetch(code.into())),
    }
}

fn brokers(client: &BaseConsumer<Context>) -> KafkaResult<usize> {
    Ok(client.fetch_metadata(None, ASK_WAIT)?.brokers().len())
}

/// The first offset at or after a time, in milliseconds; `None` for later than
/// all.
pub(super) fn first_at(
    client: &BaseConsumer<Context>,
    tp: &TopicPartition,
    millis: i64,
) -> KafkaResult<Option<Offset>> {
    let mut list = TopicPartitionList::new();
    let asked = KafkaOffset::Offset(millis);
    list.add_partition_offset(&tp.topic, partition(tp.partition), asked)?;
    let found = client.offsets_for_times(list, ASK_WAIT)?;
    let elements = found.elements();
    let Some(element) = elements.first() else {
        return Ok(None);
    };
    element.error()?;
    Ok(match element.offset() {
        KafkaOffset::Offset(offset) => unsigned(offset),
        _ => None,
    })
}

fn number(settings: &Settings, key: &str) -> Option<i64> {
    settings.get(key)?.parse().ok()
}

/// What a topic is made with.
fn settings_of(spec: &TopicSpec, replicas: usize) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("max.message.bytes", spec.record_bytes_max.to_string()),
        ("compression.type", "producer".to_owned()),
        ("message.timestamp.type", "LogAppendTime".to_owned()),
        ("unclean.leader.election.enable", "false".to_owned()),
        (
            "min.insync.replicas",
            replicas.div_ceil(2).max(1).to_string(),
        ),
    ];
    match spec.cleanup {
        Cleanup::Delete { retention } => settings.extend([
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", retention.as_millis().to_string()),
            ("retention.bytes", "-1".to_owned()),
        ]),
        Cleanup::Compact => settings.extend([
            ("cleanup.policy", "compact".to_owned()),
            ("min.cleanable.dirty.ratio", "0.1".to_owned()),
            ("segment.ms", "3600000".to_owned()),
            ("max.compaction.lag.ms", "86400000".to_owned()),
        ]),
    }
    settings
}

fn compare(spec: &TopicSpec, partitions: u32, settings: &Settings) -> Result<(), LogError> {
    let found = |key: &str| settings.get(key).cloned().unwrap_or_default();
    let wrong = |setting, found: String, wanted: String, why| {
        Err(LogError::WrongSetting {
            topic: spec.name.clone(),
            setting,
            found,
            wanted,
            why,
        })
    };
    if partitions != spec.partitions {
        return wrong(
            "partitions",
            partitions.to_string(),
            spec.partitions.to_string(),
            "a key's records would be spread over two partitions",
        );
    }
    let policy = match spec.cleanup {
        Cleanup::Delete { .. } => "delete",
        Cleanup::Compact => "compact",
    };
    if found("cleanup.policy") != policy {
        return wrong(
            "cleanup.policy",
            found("cleanup.policy"),
            policy.to_owned(),
            "records would go that are still needed, or stay for ever",
        );
    }
    let bytes = number(settings, "max.message.bytes").unwrap_or(0);
    let least = i64::try_from(spec.record_bytes_max).unwrap_or(i64::MAX);
    if bytes < least {
        return wrong(
            "max.message.bytes",
            bytes.to_string(),
            format!("at least {least}"),
            "large events would find no place in it",
        );
    }
    let Cleanup::Delete { retention } = spec.cleanup else {
        return Ok(());
    };
    if number(settings, "retention.bytes") != Some(-1) {
        return wrong(
            "retention.bytes",
            found("retention.bytes"),
            "-1".to_owned(),
            "a cap by size deletes records that are still needed",
        );
    }
    let kept = number(settings, "retention.ms").unwrap_or(0);
    let least = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    if kept >= 0 && kept < least {
        return wrong(
            "retention.ms",
            kept.to_string(),
            format!("at least {least}"),
            "records go before they are settled",
        );
    }
    Ok(())
}
