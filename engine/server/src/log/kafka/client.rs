//! How librdkafka's clients are set up, and where their words go.

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

use super::{KafkaSettings, failure};
use crate::log::LogError;

/// Settings that decide whether anything can be lost, each with the reason it
/// is not the operator's to change.
const OWNED: [(&str, &str); 12] = [
    ("bootstrap.servers", "set `log`"),
    ("client.id", "set `instance_id`"),
    ("group.id", "it follows from `topics.prefix`"),
    ("group.instance.id", "set `kafka.group_instance_id`"),
    ("session.timeout.ms", "set `kafka.session_timeout`"),
    ("acks", "a record counts only once all replicas have it"),
    ("enable.idempotence", "the order of records rests on it"),
    ("enable.auto.commit", "only settled offsets are committed"),
    (
        "enable.auto.offset.store",
        "only settled offsets are committed",
    ),
    ("enable.partition.eof", "random reads rest on it"),
    ("auto.offset.reset", "nothing may be skipped unseen"),
    ("partition.assignment.strategy", "it is cooperative-sticky"),
];

/// Handles what a client says about itself.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        told(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        troubled(&error, reason);
    }
}

/// What every client is told.
pub(super) fn base(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.bootstrap)
        .set("client.id", &settings.client_id)
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.max.ms", "2000")
        .set_log_level(RDKafkaLogLevel::Warning);
    for (key, value) in &settings.extra {
        config.set(key, value);
    }
    config
}

/// What every consumer is told.
pub(super) fn consumer(settings: &KafkaSettings, group: &str) -> ClientConfig {
    let mut config = base(settings);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true")
        .set("allow.auto.create.topics", "false")
        .set("fetch.queue.backoff.ms", "10");
    config
}

/// Whether the group is run by the broker (KIP-848), which takes neither a
/// session timeout nor an assignor from its members.
pub(super) fn broker_assigns(settings: &KafkaSettings) -> bool {
    let protocol = settings
        .extra
        .iter()
        .find(|(key, _)| key == "group.protocol");
    protocol.is_some_and(|(_, value)| value == "consumer")
}

/// Refuses settings that are Posthaste's own, and those librdkafka does not
/// know.
pub(super) fn check(settings: &KafkaSettings) -> Result<(), LogError> {
    for (key, _) in &settings.extra {
        let owned = OWNED.iter().find(|(name, _)| name == key);
        if let Some((name, why)) = owned {
            return Err(LogError::Settings(format!("`{name}` cannot be set: {why}")));
        }
    }
    base(settings)
        .create_native_config()
        .map_err(|error| failure(&error))?;
    Ok(())
}

/// Passes librdkafka's log on.
pub(super) fn told(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(target: "librdkafka", facility, "{text}"),
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{text}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{text}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{text}"),
    }
}

/// Passes a client's trouble on. It heals by itself or comes back as the result
/// of what was asked.
pub(super) fn troubled(error: &KafkaError, reason: &str) {
    tracing::warn!(target: "librdkafka", %error, "{reason}");
}
