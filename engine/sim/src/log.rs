//! The log: partitions that never lose what they acknowledged, and fetches of
//! them. What may go wrong on the way there and back is the world's.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use posthaste_core::event::Event;

/// The topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// The users' events.
    Events,
    /// The lane.
    Lane,
    /// Dead letters.
    Dead,
    /// The endpoints table.
    Table,
}

/// One partition of one topic.
pub type Tp = (Topic, usize);

/// What a record holds.
#[derive(Debug, Clone)]
pub enum Value {
    /// A source record that reads as this event.
    Event(Arc<Event>),
    /// A source record that cannot be read.
    Poison,
    /// One of ours.
    Bytes(Bytes),
}

/// A record in the log.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its position.
    pub offset: u64,
    /// When the log took it.
    pub at_ms: u64,
    /// Its key; only the table has keys.
    pub key: Bytes,
    /// What it holds.
    pub value: Value,
}

/// A record to append.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// Where.
    pub to: Tp,
    /// Its key.
    pub key: Bytes,
    /// What it holds.
    pub value: Bytes,
}

#[derive(Debug, Default)]
struct Partition {
    records: Vec<Record>,
    end: u64,
}

/// A reader that waits for a partition's next record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// The node.
    pub node: usize,
    /// The life it belongs to.
    pub life: u64,
    /// The assignment.
    pub epoch: u64,
}

/// All partitions.
#[derive(Debug, Default)]
pub struct Log {
    partitions: BTreeMap<Tp, Partition>,
    waiters: BTreeMap<Tp, Vec<Waiter>>,
}

impl Log {
    /// Appends; answers the offset.
    pub fn append(&mut self, to: Tp, key: Bytes, value: Value, now_ms: u64) -> u64 {
        let partition = self.partitions.entry(to).or_default();
        let offset = partition.end;
        partition.end += 1;
        partition.records.push(Record {
            offset,
            at_ms: now_ms,
            key,
            value,
        });
        offset
    }

    /// A hole, as transaction markers and compaction leave them.
    pub fn gap(&mut self, at: Tp) {
        self.partitions.entry(at).or_default().end += 1;
    }

    /// One past the last offset.
    pub fn end(&self, of: Tp) -> u64 {
        self.partitions
            .get(&of)
            .map_or(0, |partition| partition.end)
    }

    /// Up to `most` records from an offset on, and the position after them,
    /// which skips holes.
    pub fn read(&self, of: Tp, from: u64, most: usize) -> (&[Record], u64) {
        let Some(partition) = self.partitions.get(&of) else {
            return (&[], from);
        };
        let records = &partition.records;
        let first = records.partition_point(|record| record.offset < from);
        let last = records.len().min(first.saturating_add(most));
        let next = records
            .get(last)
            .map_or(partition.end, |record| record.offset);
        (&records[first..last], next.max(from))
    }

    /// A lane partition's records from an offset on.
    pub fn lane(&self, partition: usize, from: u64) -> Vec<(u64, Bytes)> {
        let (records, _) = self.read((Topic::Lane, partition), from, usize::MAX);
        let bytes = |record: &Record| match &record.value {
            Value::Bytes(value) => Some((record.offset, value.clone())),
            Value::Event(_) | Value::Poison => None,
        };
        records.iter().filter_map(bytes).collect()
    }

    /// Lets a reader be called at the next record.
    pub fn wait(&mut self, of: Tp, waiter: Waiter) {
        let waiters = self.waiters.entry(of).or_default();
        if !waiters.contains(&waiter) {
            waiters.push(waiter);
        }
    }

    /// Who is to be called.
    pub fn take_waiters(&mut self, of: Tp) -> Vec<Waiter> {
        self.waiters.remove(&of).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_skips_holes() {
        let mut log = Log::default();
        let lane = (Topic::Lane, 0);
        let put = |log: &mut Log, at_ms| log.append(lane, Bytes::new(), Value::Poison, at_ms);
        assert_eq!(put(&mut log, 0), 0);
        log.gap(lane);
        assert_eq!(put(&mut log, 10), 2);
        log.gap(lane);
        let (records, next) = log.read(lane, 0, 1);
        assert_eq!((records.len(), next), (1, 2));
        let (records, next) = log.read(lane, 2, 9);
        assert_eq!((records.len(), next), (1, 4));
        assert_eq!(log.read(lane, 4, 9).1, 4);
    }
}
