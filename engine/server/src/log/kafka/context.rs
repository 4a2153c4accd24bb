//! What a consumer's callbacks leave for the thread that serves it. Nothing is
//! done in a callback.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};
use rdkafka::types::RDKafkaRespErr;

use super::client;
use crate::log::lease::lock;
use crate::log::{TopicPartition, names};

/// A change of the assignment that waits to be carried out. librdkafka waits
/// with the next one until it is.
#[derive(Debug)]
pub(super) enum Change {
    Assign(Vec<TopicPartition>),
    Revoke {
        partitions: Vec<TopicPartition>,
        /// They are gone already: another member may have them.
        lost: bool,
    },
}

/// What callbacks leave behind.
#[derive(Default)]
pub(super) struct Context {
    changes: Mutex<VecDeque<Change>>,
    closing: AtomicBool,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        client::told(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // A reader asks for it.
        if !matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            client::troubled(&error, reason);
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assigning = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            // Nobody reads on: only the way out is left.
            let done = if assigning {
                consumer.incremental_assign(list)
            } else {
                consumer.incremental_unassign(list)
            };
            if let Err(error) = done {
                tracing::debug!(%error, "while leaving the group");
            }
            return;
        }
        let partitions = list.elements().iter().filter_map(place_of).collect();
        lock(&self.changes).push_back(if assigning {
            Change::Assign(partitions)
        } else {
            Change::Revoke {
                partitions,
                lost: consumer.assignment_lost(),
            }
        });
    }
}

impl Context {
    /// The oldest change not yet taken.
    pub(super) fn take_change(&self) -> Option<Change> {
        lock(&self.changes).pop_front()
    }

    /// Changes are carried out at once from here on.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

/// The place an element of a list names.
pub(super) fn place_of(element: &TopicPartitionListElem<'_>) -> Option<TopicPartition> {
    Some(TopicPartition {
        topic: names::shared(element.topic()),
        partition: u32::try_from(element.partition()).ok()?,
    })
}
