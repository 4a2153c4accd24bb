//! Records that cannot be read become dead letters, with the reason and the
//! position.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use posthaste_core::event::EventError;
use posthaste_core::limits::DEAD_RECORD_BYTES_MAX;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use crate::clock::Clock;
use crate::log::{Log, NewRecord, Record, TopicPartition, append_until_durable};

/// Writes dead letters of records that never became events.
#[derive(Clone)]
pub struct Undertaker {
    /// Where to write.
    pub log: Arc<dyn Log>,
    /// The dead-letter topic.
    pub dead: bytestring::ByteString,
    /// Its partitions.
    pub partitions: u32,
    /// For the time of death.
    pub clock: Clock,
}

/// What a dead letter of a record that is no event names as its cause.
pub fn cause_of(error: &EventError) -> proto::DeadCause {
    match error {
        EventError::TooLong { field: "body", .. } => proto::DeadCause::Oversize,
        _ => proto::DeadCause::Poison,
    }
}

impl Undertaker {
    /// A future that ends once the dead letter is in the log.
    pub fn bury(
        &self,
        tp: &TopicPartition,
        record: &Record,
        error: &EventError,
    ) -> BoxFuture<'static, ()> {
        let cause = cause_of(error);
        let kept = record.value.len().min(DEAD_RECORD_BYTES_MAX);
        let dead = proto::Dead {
            cause: cause.into(),
            detail: error.to_string(),
            delivery: None,
            origin: Some(proto::Origin {
                topic: tp.topic.to_string(),
                partition: tp.partition,
                offset: record.offset,
                timestamp_ms: record.timestamp.as_millis(),
            }),
            record: record.value.slice(..kept),
            at_ms: self.clock.now().as_millis(),
        };
        let letter = NewRecord {
            to: TopicPartition {
                topic: self.dead.clone(),
                partition: tp.partition % self.partitions,
            },
            key: Bytes::new(),
            value: dead.to_value(),
            headers: Vec::new(),
        };
        let log = Arc::clone(&self.log);
        async move {
            append_until_durable(&*log, letter, Duration::from_millis(100)).await;
        }
        .boxed()
    }
}
