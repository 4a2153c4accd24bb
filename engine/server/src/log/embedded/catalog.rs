//! Topics and where their partitions begin and end, in memory: what has been
//! committed to disk, never more.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use bytestring::ByteString;

use super::super::lease::lock;
use super::super::{Cleanup, LogError, Offset, TopicPartition};

/// One topic.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) id: i64,
    pub(super) name: ByteString,
    compacted: bool,
    retention_ms: AtomicU64,
    record_bytes_max: AtomicUsize,
    parts: Vec<Part>,
    /// Threads to wake when records come.
    watchers: Mutex<Vec<Thread>>,
}

/// One partition.
#[derive(Debug)]
pub(super) struct Part {
    /// Its number in the file, unlike any other partition's.
    pub(super) stream: i64,
    start: AtomicU64,
    end: AtomicU64,
}

impl Topic {
    pub(super) fn new(
        id: i64,
        name: ByteString,
        cleanup: Cleanup,
        record_bytes_max: usize,
        parts: Vec<Part>,
    ) -> Self {
        let topic = Self {
            id,
            name,
            compacted: cleanup == Cleanup::Compact,
            retention_ms: AtomicU64::new(u64::MAX),
            record_bytes_max: AtomicUsize::new(record_bytes_max),
            parts,
            watchers: Mutex::new(Vec::new()),
        };
        topic.set(cleanup, record_bytes_max);
        topic
    }

    /// Takes over the settings that may change while a topic lives.
    pub(super) fn set(&self, cleanup: Cleanup, record_bytes_max: usize) {
        if let Cleanup::Delete { retention } = cleanup {
            let retention = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
            self.retention_ms.store(retention, Ordering::Relaxed);
        }
        self.record_bytes_max
            .store(record_bytes_max, Ordering::Relaxed);
    }

    pub(super) fn is_compacted(&self) -> bool {
        self.compacted
    }

    /// Age at which records go; nothing in a compacted topic.
    pub(super) fn retention(&self) -> Option<Duration> {
        let retention = self.retention_ms.load(Ordering::Relaxed);
        (!self.compacted).then_some(Duration::from_millis(retention))
    }

    pub(super) fn record_bytes_max(&self) -> usize {
        self.record_bytes_max.load(Ordering::Relaxed)
    }

    pub(super) fn partitions(&self) -> u32 {
        u32::try_from(self.parts.len()).expect("partitions are numbered by u32")
    }

    pub(super) fn part(&self, partition: u32) -> Option<&Part> {
        self.parts.get(usize::try_from(partition).ok()?)
    }

    pub(super) fn place(&self, partition: u32) -> TopicPartition {
        TopicPartition {
            topic: self.name.clone(),
            partition,
        }
    }

    pub(super) fn out_of_range(&self, partition: u32, offset: Offset) -> LogError {
        let (start, end) = self.part(partition).map_or((0, 0), Part::bounds);
        LogError::OutOfRange {
            topic_partition: self.place(partition),
            offset,
            start,
            end,
        }
    }

    pub(super) fn watch(&self, thread: Thread) {
        lock(&self.watchers).push(thread);
    }

    pub(super) fn unwatch(&self, thread: &Thread) {
        lock(&self.watchers).retain(|watcher| watcher.id() != thread.id());
    }

    pub(super) fn wake(&self) {
        for watcher in lock(&self.watchers).iter() {
            watcher.unpark();
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "topic `{}` has partitions 0..{}",
            self.name,
            self.parts.len()
        )
    }
}

impl Part {
    pub(super) fn new(stream: i64, start: Offset, end: Offset) -> Self {
        Self {
            stream,
            start: AtomicU64::new(start),
            end: AtomicU64::new(end),
        }
    }

    pub(super) fn start(&self) -> Offset {
        self.start.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) -> Offset {
        self.end.load(Ordering::Acquire)
    }

    pub(super) fn bounds(&self) -> (Offset, Offset) {
        (self.start(), self.end())
    }

    pub(super) fn set_start(&self, start: Offset) {
        self.start.store(start, Ordering::Release);
    }

    pub(super) fn set_end(&self, end: Offset) {
        self.end.store(end, Ordering::Release);
    }
}
