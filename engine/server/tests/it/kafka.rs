//! The log on a real Kafka broker, held to the contract. The broker is named by
//! `POSTHASTE_TEST_KAFKA`; without one these tests say so and pass, unless
//! `POSTHASTE_REQUIRE_KAFKA=1` forbids it.

use std::time::Duration;

use posthaste::config::Config;
use posthaste::log::kafka::{KafkaLog, KafkaSettings};
use posthaste::log::{Log, LogError, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use crate::contract::Harness;

/// The broker to test with.
pub(crate) fn broker() -> Option<String> {
    let broker = std::env::var("POSTHASTE_TEST_KAFKA").ok();
    if broker.is_none() {
        let required = std::env::var("POSTHASTE_REQUIRE_KAFKA").is_ok_and(|value| value == "1");
        assert!(!required, "POSTHASTE_TEST_KAFKA names no broker");
        eprintln!("skipped: POSTHASTE_TEST_KAFKA names no broker");
    }
    broker
}

pub(crate) fn settings(bootstrap: &str) -> KafkaSettings {
    KafkaSettings {
        bootstrap: bootstrap.to_owned(),
        client_id: "it".to_owned(),
        extra: Vec::new(),
        session_timeout: Duration::from_secs(10),
        instance_id: None,
        replication: 1,
    }
}

/// Makes every topic a configuration needs, its source topics among them.
pub(crate) async fn make(bootstrap: String, config: &Config) {
    let harness = KafkaHarness::connect(bootstrap).await;
    let mut specs = config.topics.specs();
    let sources = config.ingest.topics.iter();
    specs.extend(sources.map(|name| config.topics.source_spec(name)));
    harness.log.create(&specs).await.unwrap();
    tokio::task::spawn_blocking(move || drop(harness))
        .await
        .unwrap();
}

/// Deletes what stands before an offset, as retention does.
pub(crate) async fn delete_before(bootstrap: &str, tp: &TopicPartition, offset: u64) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let mut before = TopicPartitionList::new();
    let partition = tp.partition.try_into().unwrap();
    let offset = rdkafka::Offset::Offset(offset.try_into().unwrap());
    before
        .add_partition_offset(&tp.topic, partition, offset)
        .unwrap();
    let options = AdminOptions::new();
    admin.delete_records(&before, &options).await.unwrap();
}

struct KafkaHarness {
    bootstrap: String,
    log: KafkaLog,
}

contract!(KafkaHarness);

impl KafkaHarness {
    async fn connect(bootstrap: String) -> Self {
        let settings = settings(&bootstrap);
        let connecting = tokio::task::spawn_blocking(move || KafkaLog::connect(settings));
        let log = connecting.await.unwrap().unwrap();
        Self { bootstrap, log }
    }
}

impl Harness for KafkaHarness {
    const PATIENCE: Duration = Duration::from_secs(60);
    const QUIET: Duration = Duration::from_secs(1);

    fn available() -> bool {
        broker().is_some()
    }

    async fn fresh() -> Self {
        Self::connect(broker().unwrap()).await
    }

    fn log(&self) -> &dyn Log {
        &self.log
    }

    async fn reopen(self) -> Self {
        let Self { bootstrap, log } = self;
        tokio::task::spawn_blocking(move || drop(log))
            .await
            .unwrap();
        Self::connect(bootstrap).await
    }

    async fn trim(&self, tp: &TopicPartition) -> bool {
        let (_, end) = self.log.bounds(tp).await.unwrap();
        delete_before(&self.bootstrap, tp, end).await;
        true
    }
}

/// Refused settings name themselves.
#[test]
fn settings_that_are_not_the_operators_are_refused() {
    let refused = |key: &str, value: &str| {
        let mut settings = settings("127.0.0.1:1");
        settings.extra = vec![(key.to_owned(), value.to_owned())];
        match KafkaLog::connect(settings) {
            Err(error @ LogError::Settings(_)) => error.to_string(),
            other => panic!("{key}: {:?}", other.err()),
        }
    };
    assert!(refused("acks", "1").contains("`acks` cannot be set"));
    assert!(refused("enable.auto.commit", "true").contains("only settled offsets"));
    assert!(refused("fetch.wait.mx.ms", "1").contains("fetch.wait.mx.ms"));
    assert!(refused("fetch.wait.max.ms", "soon").contains("fetch.wait.max.ms"));
    let mistyped = refused("sasl.pasword", "hunter2");
    assert!(mistyped.contains("kafka.settings: `sasl.pasword`"));
    assert!(!mistyped.contains("hunter2"), "a password is shown");
}

/// Nobody listens there.
#[test]
fn a_broker_out_of_reach_is_named() {
    match KafkaLog::connect(settings("127.0.0.1:1")) {
        Err(LogError::Unreachable(text)) => assert!(text.contains("`127.0.0.1:1`"), "{text}"),
        other => panic!("{:?}", other.err()),
    }
}
