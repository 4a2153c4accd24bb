//! Commits, one after the other on a thread of their own: librdkafka's
//! asynchronous commit reports nothing to whoever reads its events, and its
//! synchronous one blocks until the coordinator answers. One partition each,
//! since the error of one of several can stay unsaid.

use std::sync::Arc;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use super::context::Context;
use super::{partition, signed};
use crate::log::lease::Lease;
use crate::log::{CommitError, Offset, TopicPartition};

/// Commits waiting; every partition asks for one at a time.
pub(super) const COMMITS_MAX: usize = 4_096;

/// A commit somebody waits for.
pub(super) struct Commit {
    pub(super) lease: Arc<Lease>,
    pub(super) at: Offset,
    pub(super) metadata: String,
    pub(super) answer: oneshot::Sender<Result<(), CommitError>>,
}

/// Carries out commits until nobody can ask for more.
pub(super) fn run(native: &BaseConsumer<Context>, mut asked: mpsc::Receiver<Commit>) {
    while let Some(commit) = asked.blocking_recv() {
        // The broker does not look whose the partition is: this is the only
        // guard against a commit for an assignment that has ended.
        let result = if commit.lease.is_live() {
            let list = list(&commit.lease.tp, commit.at, &commit.metadata);
            list.and_then(|list| native.commit(&list, CommitMode::Sync))
                .map_err(|error| refusal(&error))
        } else {
            Err(CommitError::Stale)
        };
        // Whoever asked may have given up.
        let _ = commit.answer.send(result);
    }
}

fn list(tp: &TopicPartition, at: Offset, metadata: &str) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(1);
    let mut place = list.add_partition(&tp.topic, partition(tp.partition));
    place.set_offset(KafkaOffset::Offset(signed(at)))?;
    place.set_metadata(metadata);
    Ok(list)
}

fn refusal(error: &KafkaError) -> CommitError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::OffsetMetadataTooLarge) => CommitError::MetadataTooLarge,
        _ => CommitError::Failed(error.to_string()),
    }
}
