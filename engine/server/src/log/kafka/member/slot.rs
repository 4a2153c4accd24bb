//! One assigned partition: its queue, and how far it was read.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;

use super::Native;
use crate::log::kafka::context::Context;
use crate::log::kafka::copy::{self, Names};
use crate::log::kafka::partition;
use crate::log::kafka::place::Place;
use crate::log::lease::{Lease, Reader};
use crate::log::{LogError, Offset, Record};

/// Records in one batch.
const BATCH_RECORDS_MAX: usize = 256;
/// Bytes in one batch, exceeded only by a single record.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// One assigned partition.
pub(super) struct Slot {
    pub(super) lease: Arc<Lease>,
    queue: PartitionQueue<Context>,
    names: Names,
    pub(super) next: Offset,
    pub(super) draining: bool,
}

impl Slot {
    /// Takes the partition's queue before the partition is assigned, so that
    /// nothing of it comes by another.
    pub(super) fn open(
        native: &Arc<Native>,
        place: &Place,
        reader: &Arc<Reader>,
    ) -> Result<Self, LogError> {
        let tp = &place.tp;
        let queue = native.split_partition_queue(&tp.topic, partition(tp.partition));
        let mut queue = queue
            .ok_or_else(|| LogError::Other(format!("{tp}: librdkafka has no queue for it")))?;
        let wakes = Arc::clone(reader);
        queue.set_nonempty_callback(move || wakes.wake());
        Ok(Self {
            lease: Arc::new(Lease::new(tp.clone())),
            queue,
            names: Names::default(),
            next: place.position,
            draining: false,
        })
    }

    /// What has come, as far as credit goes.
    pub(super) fn read(&mut self) -> Result<Vec<Record>, KafkaError> {
        let Some(credit) = self.lease.credit().filter(|_| !self.draining) else {
            return Ok(Vec::new());
        };
        let bytes_max = credit.min(BATCH_BYTES_MAX);
        let mut bytes = 0;
        let mut records: Vec<Record> = Vec::new();
        while bytes < bytes_max && records.len() < BATCH_RECORDS_MAX {
            let message = match self.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => message,
                // It comes again if it lasts.
                Some(Err(_)) if !records.is_empty() => break,
                Some(Err(error)) => return Err(error),
            };
            let record = copy::record(&message, &mut self.names);
            bytes += record.size();
            records.push(record);
        }
        if let Some(last) = records.last() {
            self.next = last.offset + 1;
        }
        self.lease.take(bytes);
        Ok(records)
    }
}
