//! Lane and dead-letter records of one shard on their way to the log. A ticket
//! closes only when its record is acknowledged; what fails is appended again
//! until it is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste_core::lane::partition_of;
use posthaste_core::limits::{APPEND_BATCH_BYTES, APPEND_BATCH_RECORDS};
use posthaste_core::shard::{Append, AppendKind};
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use tokio::sync::Notify;

use super::Parts;
use super::desk::Desk;
use crate::config::Topics;
use crate::log::{APPEND_WAIT_MAX, AppendError, Log, NewRecord, TopicPartition};
use crate::telemetry;

/// The shard's way to the log. Bounded by the shard's own bound on
/// unacknowledged bytes.
pub(super) struct Appender {
    queue: Rc<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: RefCell<VecDeque<Append>>,
    filled: Notify,
}

impl Appender {
    /// Starts the task that appends for `desk`.
    pub(super) fn start(parts: &Parts, desk: Weak<Desk>) -> Self {
        let queue = Rc::new(Queue::default());
        let task = Task {
            queue: Rc::clone(&queue),
            log: Arc::clone(&parts.log),
            topics: parts.topics.clone(),
            desk,
        };
        tokio::task::spawn_local(task.run());
        Self { queue }
    }

    pub(super) fn push(&self, append: Append) {
        let (kind, reason) = match append.kind {
            AppendKind::Lane(reason) => ("lane", reason.as_str_name()),
            AppendKind::Dead(cause) => ("dead", cause.as_str_name()),
        };
        telemetry::appended(kind, reason);
        self.queue.waiting.borrow_mut().push_back(append);
        self.queue.filled.notify_one();
    }
}

impl Queue {
    /// What goes to the log at once; empty when nothing waits.
    fn take_batch(&self) -> Vec<Append> {
        let mut waiting = self.waiting.borrow_mut();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < APPEND_BATCH_RECORDS && bytes < APPEND_BATCH_BYTES {
            let Some(append) = waiting.pop_front() else {
                break;
            };
            bytes += append.value.len();
            batch.push(append);
        }
        batch
    }

    /// What failed goes first: a lane keeps its order as far as it can.
    fn put_back(&self, failed: Vec<Append>) {
        let mut waiting = self.waiting.borrow_mut();
        for append in failed.into_iter().rev() {
            waiting.push_front(append);
        }
        self.filled.notify_one();
    }
}

struct Task {
    queue: Rc<Queue>,
    log: Arc<dyn Log>,
    topics: Topics,
    desk: Weak<Desk>,
}

impl Task {
    async fn run(self) {
        let mut wait = Duration::ZERO;
        loop {
            let batch = self.next_batch().await;
            let records = batch.iter().map(|append| self.record(append)).collect();
            let results = self.log.append(records).await;
            let Some(desk) = self.desk.upgrade() else {
                return;
            };
            let mut failed = Vec::new();
            for (append, result) in batch.into_iter().zip(results) {
                match result {
                    Ok(_) => {
                        desk.close_ticket(append.ticket.into());
                        desk.acknowledged(append.charge);
                    }
                    Err(error) => failed.push(self.again(append, &error)),
                }
            }
            if failed.is_empty() {
                wait = Duration::ZERO;
                continue;
            }
            self.queue.put_back(failed);
            wait = (wait * 2).clamp(Duration::from_millis(50), APPEND_WAIT_MAX);
            tokio::time::sleep(wait).await;
        }
    }

    async fn next_batch(&self) -> Vec<Append> {
        loop {
            let batch = self.queue.take_batch();
            if !batch.is_empty() {
                return batch;
            }
            self.queue.filled.notified().await;
        }
    }

    fn record(&self, append: &Append) -> NewRecord {
        let (topic, partitions) = match append.kind {
            AppendKind::Lane(_) => (self.topics.lane(), self.topics.lane_partitions),
            AppendKind::Dead(_) => (self.topics.dead(), Topics::DEAD_PARTITIONS),
        };
        NewRecord {
            to: TopicPartition {
                topic,
                partition: partition_of(append.endpoint, partitions),
            },
            key: Bytes::copy_from_slice(append.endpoint.as_bytes()),
            value: append.value.clone(),
            headers: Vec::new(),
        }
    }

    /// What to append instead of what failed: the same, or, where the log will
    /// never take it for its size, a dead letter that says so.
    fn again(&self, append: Append, error: &AppendError) -> Append {
        tracing::error!(endpoint = %append.endpoint, %error, "append failed, trying again");
        let AppendError::TooLarge { .. } = error else {
            return append;
        };
        let Ok(record) = proto::Deliver::from_value(&append.value) else {
            return append;
        };
        let dead = proto::Dead {
            cause: proto::DeadCause::Oversize.into(),
            detail: error.to_string(),
            origin: record.origin.clone(),
            delivery: Some(proto::Deliver {
                body: Bytes::new(),
                ..record
            }),
            record: Bytes::new(),
            at_ms: 0,
        };
        Append {
            kind: AppendKind::Dead(proto::DeadCause::Oversize),
            value: dead.to_value(),
            ..append
        }
    }
}
