//! Follows the attempts topic. What earlier runs left there is passed over.

use std::sync::Arc;

use bytestring::ByteString;
use posthaste_core::time::Timestamp;
use posthaste_proto::{Attempt, AttemptBatch, Record as _};

use crate::log::{GroupConsumer, GroupEvent, Log, LogError, Record};

/// The attempts of this run, as they come to stand in the log.
pub(super) struct Watch {
    consumer: Box<dyn GroupConsumer>,
    since: Timestamp,
    /// Open for as long as it is read.
    _log: Arc<dyn Log>,
}

impl Watch {
    /// Attempts begun at `since` or later.
    pub(super) fn start(
        log: Arc<dyn Log>,
        topic: &ByteString,
        since: Timestamp,
    ) -> Result<Self, LogError> {
        Ok(Self {
            consumer: log.follow(topic)?,
            since,
            _log: log,
        })
    }

    /// The next ones. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Vec<Attempt>, LogError> {
        loop {
            match self.consumer.next().await {
                GroupEvent::Batch {
                    tp, epoch, records, ..
                } => {
                    let size = records.iter().map(Record::size).sum();
                    self.consumer.credit(&tp, epoch, size);
                    let attempts = self.read(&records);
                    if !attempts.is_empty() {
                        return Ok(attempts);
                    }
                }
                GroupEvent::Fatal(error) => return Err(error),
                GroupEvent::Assigned { .. }
                | GroupEvent::Revoking { .. }
                | GroupEvent::Lost { .. } => {}
            }
        }
    }

    fn read(&self, records: &[Record]) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        for record in records
            .iter()
            .filter(|record| record.timestamp >= self.since)
        {
            match AttemptBatch::from_value(&record.value) {
                Ok(batch) => attempts.extend(batch.attempts),
                Err(error) => {
                    tracing::warn!(offset = record.offset, %error, "attempts cannot be read");
                }
            }
        }
        attempts.retain(|attempt| attempt.started_ms >= self.since.as_millis());
        attempts
    }
}
