//! Random reads, outside any group: a few consumers, each lent to one read at a
//! time.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::Semaphore;

use super::context::Context;
use super::copy::{self, Names};
use super::{KafkaSettings, client, failure, partition, signed};
use crate::log::lease::lock;
use crate::log::{LogError, Offset, Record, TopicPartition};

/// Reads at once. Further ones wait.
const FETCHERS_MAX: usize = 4;
/// Longest time without a single record.
const READ_WAIT: Duration = Duration::from_secs(10);
/// A name for consumers that never join or commit; librdkafka wants one.
pub(super) const READER_GROUP: &str = "posthaste.reader";

/// The consumers.
pub(super) struct Fetchers {
    settings: Arc<KafkaSettings>,
    idle: Mutex<Vec<Fetcher>>,
    turns: Semaphore,
}

type Fetcher = BaseConsumer<Context>;

/// What a read came to.
pub(super) enum Fetched {
    /// Records, and where the next would stand.
    Records(Vec<Record>, Offset),
    /// No record there: the log's end, holes up to it, or outside of it.
    Nothing,
}

impl Fetchers {
    pub(super) fn new(settings: Arc<KafkaSettings>) -> Self {
        Self {
            settings,
            idle: Mutex::default(),
            turns: Semaphore::new(FETCHERS_MAX),
        }
    }

    /// Reads from `from`, no further than `end` where that is given.
    pub(super) async fn read(
        self: &Arc<Self>,
        tp: TopicPartition,
        from: Offset,
        end: Option<Offset>,
        bytes_max: usize,
    ) -> Result<Fetched, LogError> {
        let turn = self.turns.acquire().await;
        let this = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let fetcher = this.take()?;
            let read = read(&fetcher, &tp, from, end, bytes_max);
            if fetcher.unassign().is_ok() {
                lock(&this.idle).push(fetcher);
            }
            read
        });
        let read = read.await;
        drop(turn);
        read.unwrap_or_else(|error| Err(LogError::Other(error.to_string())))
    }

    fn take(&self) -> Result<Fetcher, LogError> {
        if let Some(idle) = lock(&self.idle).pop() {
            return Ok(idle);
        }
        let mut config = client::consumer(&self.settings, READER_GROUP);
        config
            .set("enable.partition.eof", "true")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "2048")
            .set("fetch.wait.max.ms", "5")
            .set("fetch.message.max.bytes", "1048576");
        config
            .create_with_context(Context::default())
            .map_err(|error| failure(&error))
    }
}

fn read(
    fetcher: &Fetcher,
    tp: &TopicPartition,
    from: Offset,
    end: Option<Offset>,
    bytes_max: usize,
) -> Result<Fetched, LogError> {
    let end = end.unwrap_or(Offset::MAX);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(
        &tp.topic,
        partition(tp.partition),
        KafkaOffset::Offset(signed(from)),
    )
    .and_then(|()| fetcher.assign(&list))
    .map_err(|error| failure(&error))?;
    let mut names = Names::default();
    let mut records: Vec<Record> = Vec::new();
    let mut bytes = 0;
    let mut next = from;
    let until = Instant::now() + READ_WAIT;
    while bytes < bytes_max.max(1) && next < end {
        match fetcher.poll(Duration::from_millis(50)) {
            Some(Ok(message)) if message.topic() == &*tp.topic => {
                let record = copy::record(&message, &mut names);
                if record.offset < next {
                    continue;
                }
                next = record.offset + 1;
                bytes += record.size();
                records.push(record);
            }
            // The end as it is now, at or beyond the one that was asked for;
            // what lies between are holes. Or there is no such place.
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(error)) if is_outside(&error) => break,
            Some(Err(error)) if passes(&error) => {}
            Some(Err(error)) => return Err(failure(&error)),
            Some(Ok(_)) | None => {}
        }
        if records.is_empty() && next < end && Instant::now() >= until {
            return Err(LogError::Unreachable(format!("no answer from {tp}")));
        }
    }
    Ok(if records.is_empty() {
        Fetched::Nothing
    } else {
        Fetched::Records(records, next)
    })
}

/// Whether the log has no such offset; a reader is never sent elsewhere.
fn is_outside(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}

/// Whether librdkafka tries again by itself.
fn passes(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
        )
    )
}
