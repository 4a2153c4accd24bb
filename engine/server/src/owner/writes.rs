//! What an owner writes to the log, and reads from it out of turn. Every write
//! is repeated until the log has it: a fact may stand twice, never not at all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use posthaste_core::id::EndpointId;
use posthaste_core::lane::partition_of;
use posthaste_core::outcome::Outcome;
use posthaste_core::retry::GiveUpCause;
use posthaste_core::shard::dead_letter;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use crate::clock::Clock;
use crate::config::Topics;
use crate::log::{Epoch, Log, NewRecord, Offset, TopicPartition, append_until_durable};

const FIRST_WAIT: Duration = Duration::from_millis(50);

/// Something the owner asked for is done.
pub(super) enum Written {
    Claimed {
        partition: u32,
        epoch: Epoch,
        offset: Offset,
    },
    Facts {
        partition: u32,
        epoch: Epoch,
        count: u64,
    },
    Buried {
        partition: u32,
        epoch: Epoch,
        offset: Offset,
    },
    /// A delivery's record, `None` when it could not be read just now.
    Read {
        partition: u32,
        epoch: Epoch,
        offset: Offset,
        delivery: Option<Box<proto::Deliver>>,
    },
}

/// A delivery to give up.
pub(super) struct Burial {
    pub(super) partition: u32,
    pub(super) epoch: Epoch,
    pub(super) offset: Offset,
    pub(super) attempts: u32,
    pub(super) cause: GiveUpCause,
    pub(super) last: Option<Outcome>,
}

/// Writes for all partitions.
#[derive(Clone)]
pub(super) struct Writer {
    log: Arc<dyn Log>,
    topics: Topics,
    instance_id: String,
    clock: Clock,
}

impl Writer {
    pub(super) fn new(
        log: Arc<dyn Log>,
        topics: Topics,
        instance_id: String,
        clock: Clock,
    ) -> Self {
        Self {
            log,
            topics,
            instance_id,
            clock,
        }
    }

    fn lane(&self, partition: u32) -> TopicPartition {
        TopicPartition {
            topic: self.topics.lane(),
            partition,
        }
    }

    /// Claims a partition.
    pub(super) fn claim(&self, partition: u32, epoch: Epoch) -> BoxFuture<'static, Written> {
        let claim = proto::Claim {
            instance_id: self.instance_id.clone(),
            at_ms: self.clock.now().as_millis(),
        };
        let record = plain(self.lane(partition), claim.to_value());
        let log = Arc::clone(&self.log);
        async move {
            let offset = append_until_durable(&*log, record, FIRST_WAIT).await;
            Written::Claimed {
                partition,
                epoch,
                offset,
            }
        }
        .boxed()
    }

    /// Writes facts.
    pub(super) fn facts(
        &self,
        partition: u32,
        epoch: Epoch,
        progress: proto::Progress,
    ) -> BoxFuture<'static, Written> {
        let count = u64::try_from(progress.entries.len()).unwrap_or(u64::MAX);
        let record = plain(self.lane(partition), progress.to_value());
        let log = Arc::clone(&self.log);
        async move {
            append_until_durable(&*log, record, FIRST_WAIT).await;
            Written::Facts {
                partition,
                epoch,
                count,
            }
        }
        .boxed()
    }

    /// Reads a delivery's record.
    pub(super) fn read(
        &self,
        partition: u32,
        epoch: Epoch,
        offset: Offset,
    ) -> BoxFuture<'static, Written> {
        let this = self.clone();
        async move {
            Written::Read {
                partition,
                epoch,
                offset,
                delivery: this.record(partition, offset).await.map(Box::new),
            }
        }
        .boxed()
    }

    async fn record(&self, partition: u32, offset: Offset) -> Option<proto::Deliver> {
        let tp = self.lane(partition);
        let read = self.log.read(&tp, offset, 1).await;
        let records = match read {
            Ok((records, _)) => records,
            Err(error) => {
                tracing::warn!(%tp, offset, %error, "cannot read a delivery, trying again");
                return None;
            }
        };
        let record = records.into_iter().find(|record| record.offset == offset)?;
        proto::Deliver::from_value(&record.value).ok()
    }

    /// Writes a dead letter; reads the record first where it is not at hand.
    pub(super) fn bury(
        &self,
        burial: Burial,
        known: Option<proto::Deliver>,
    ) -> BoxFuture<'static, Written> {
        let this = self.clone();
        async move {
            let mut record = known;
            let mut wait = FIRST_WAIT;
            let mut record = loop {
                if let Some(found) = record.take() {
                    break found;
                }
                record = this.record(burial.partition, burial.offset).await;
                if record.is_none() {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(crate::log::APPEND_WAIT_MAX);
                }
            };
            record.attempt = burial.attempts;
            if let Some(last) = burial.last {
                record.last_status = last.status.map_or(0, u32::from);
                record.last_cause = last.cause.map_or("", |cause| cause.code()).to_owned();
            }
            let letter = this.dead_record(record, burial.cause);
            append_until_durable(&*this.log, letter, FIRST_WAIT).await;
            Written::Buried {
                partition: burial.partition,
                epoch: burial.epoch,
                offset: burial.offset,
            }
        }
        .boxed()
    }

    fn dead_record(&self, record: proto::Deliver, cause: GiveUpCause) -> NewRecord {
        let key = record.endpoint_id.clone();
        let id = <[u8; 16]>::try_from(key.as_ref()).unwrap_or_default();
        let partition = partition_of(EndpointId::from_bytes(id), Topics::DEAD_PARTITIONS);
        let dead = dead_letter(record, cause, self.clock.now());
        NewRecord {
            to: TopicPartition {
                topic: self.topics.dead(),
                partition,
            },
            key,
            value: dead.to_value(),
            headers: Vec::new(),
        }
    }
}

fn plain(to: TopicPartition, value: Bytes) -> NewRecord {
    NewRecord {
        to,
        key: Bytes::new(),
        value,
        headers: Vec::new(),
    }
}
