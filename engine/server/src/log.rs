//! The log: the only truth. Everything else is a fold of it.
//!
//! [`Log`] is the whole of what Posthaste asks of a log: durable append, group
//! consumption with epochs and explicit commits, random reads, look-up by time.
//! Two implementations serve it, [`kafka::KafkaLog`] and
//! [`embedded::EmbeddedLog`], and one contract suite holds both to it.
//!
//! Kept out on purpose: transactions, producer ids, pause and resume,
//! partitioners, automatic commits.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::future::BoxFuture;
use posthaste_core::time::Timestamp;

pub mod embedded;
pub mod kafka;
mod lease;
mod names;

/// A position in one partition.
pub type Offset = u64;

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: ByteString,
    /// The partition, from 0.
    pub partition: u32,
}

/// One assignment of a partition to this process. A new one at every
/// assignment, never reused within a process: work and commits carry it, so
/// what belongs to a lost assignment can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A record as it was read.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its position.
    pub offset: Offset,
    /// When the log took it, or its producer made it, as the topic is set.
    pub timestamp: Timestamp,
    /// The key; empty when there is none.
    pub key: Bytes,
    /// The value; empty for a tombstone.
    pub value: Bytes,
    /// Headers in the order they were written. Names that are not UTF-8 do not
    /// occur in Kafka's protocol.
    pub headers: Vec<(ByteString, Bytes)>,
}

/// A record to append.
#[derive(Debug, Clone)]
pub struct NewRecord {
    /// Where it goes.
    pub to: TopicPartition,
    /// The key; empty for none.
    pub key: Bytes,
    /// The value; empty for a tombstone.
    pub value: Bytes,
    /// Headers.
    pub headers: Vec<(ByteString, Bytes)>,
}

impl Record {
    /// Bytes this record holds in memory, for budgets.
    pub fn size(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.key.len() + self.value.len() + headers + 64
    }
}

/// Why a record was not, or may not have been, appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// It may be stored all the same: append it again. Every record Posthaste
    /// writes may stand twice.
    #[error("the log did not acknowledge the record: {0}")]
    Unknown(String),
    /// It is larger than the topic takes: appending it again cannot help.
    #[error("record of {bytes} bytes is larger than topic `{topic}` takes")]
    TooLarge {
        /// The topic.
        topic: ByteString,
        /// The record's size.
        bytes: usize,
    },
    /// The log refuses it for good.
    #[error("the log refuses the record: {0}")]
    Refused(String),
}

/// Why a read or another question to the log failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The log cannot be reached, or does not answer in time.
    #[error("the log does not answer: {0}")]
    Unreachable(String),
    /// The topic does not exist.
    #[error("topic `{0}` does not exist; `posthaste topics create` makes what Posthaste needs")]
    NoSuchTopic(ByteString),
    /// The offset is no longer (or not yet) in the log.
    #[error("offset {offset} of {topic_partition} is outside the log ({start}..{end})")]
    OutOfRange {
        /// Where.
        topic_partition: TopicPartition,
        /// What was asked for.
        offset: Offset,
        /// The first offset kept.
        start: Offset,
        /// One past the last offset.
        end: Offset,
    },
    /// A group has no committed offset and nothing says where to start.
    #[error(
        "group `{group}` has no committed offset for {topic_partition}; set `ingest.start` to \
         \"earliest\", \"latest\" or a time (RFC 3339), once"
    )]
    NoStart {
        /// The group.
        group: String,
        /// Where.
        topic_partition: TopicPartition,
    },
    /// A setting of a topic is wrong.
    #[error("topic `{topic}`: `{setting}` is {found}, must be {wanted}: {why}")]
    WrongSetting {
        /// The topic.
        topic: ByteString,
        /// The setting's name in Kafka's words.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What would be right.
        wanted: String,
        /// What would go wrong otherwise.
        why: &'static str,
    },
    /// The log's client takes a setting of the configuration not as it is.
    #[error("kafka.settings: {0}")]
    Settings(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Where a group starts in a partition it has never committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first record kept.
    Earliest,
    /// At the end: only what comes from now on.
    Latest,
    /// At the first record of that time or later.
    At(Timestamp),
    /// Nowhere: a missing commit is an error. A group that ran before and lost
    /// its offsets must not skip silently.
    Unset,
}

/// What a group member hears.
#[derive(Debug)]
pub enum GroupEvent {
    /// The partition is ours from here on. `position` is the first offset it
    /// will read; `metadata` is what was committed with it (empty if nothing).
    /// When the group had no committed offset, [`Start`] was applied and the
    /// resulting position committed before this event.
    Assigned {
        /// Where.
        tp: TopicPartition,
        /// This assignment.
        epoch: Epoch,
        /// The first offset to be read.
        position: Offset,
        /// Committed metadata.
        metadata: String,
    },
    /// Records in offset order. `next` is the position after them; it can lie
    /// beyond the last record's offset + 1 where the log has holes. `records`
    /// can be empty when only the position moved.
    Batch {
        /// Where.
        tp: TopicPartition,
        /// Of this assignment.
        epoch: Epoch,
        /// The records.
        records: Vec<Record>,
        /// The position after them.
        next: Offset,
    },
    /// The partition is about to go to another member: finish, commit, then
    /// drop `done`. The log waits for that, within a bound.
    Revoking {
        /// Where.
        tp: TopicPartition,
        /// This assignment.
        epoch: Epoch,
        /// Dropped when drained.
        done: RevokeToken,
    },
    /// The partition is gone without warning: forget it, commit nothing.
    Lost {
        /// Where.
        tp: TopicPartition,
        /// This assignment.
        epoch: Epoch,
    },
    /// The group cannot go on.
    Fatal(LogError),
}

/// Held while a revoked partition drains; dropping it lets the partition go.
#[derive(Debug)]
pub struct RevokeToken {
    _released_by_drop: tokio::sync::oneshot::Sender<()>,
}

impl RevokeToken {
    /// A token and the receiver that resolves (with an error) when it drops.
    pub fn new() -> (Self, tokio::sync::oneshot::Receiver<()>) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        (
            Self {
                _released_by_drop: sender,
            },
            receiver,
        )
    }
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The assignment it carries is no longer ours: nothing was committed.
    #[error("the partition is no longer assigned to this process")]
    Stale,
    /// The metadata is longer than the log takes; commit again with less.
    #[error("the commit metadata is too large")]
    MetadataTooLarge,
    /// It failed; the next commit supersedes it.
    #[error("the commit failed: {0}")]
    Failed(String),
}

/// One topic, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Number of partitions.
    pub partitions: u32,
    /// Largest record the topic takes, in bytes.
    pub record_bytes_max: usize,
    /// Age at which records may go; `None` when they stay.
    pub retention: Option<Duration>,
}

/// A topic Posthaste needs, as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name.
    pub name: ByteString,
    /// Partitions, fixed for life.
    pub partitions: u32,
    /// How old records go.
    pub cleanup: Cleanup,
    /// Largest record.
    pub record_bytes_max: usize,
}

/// How a topic loses old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// By age alone; a cap by size would delete what is still needed.
    Delete {
        /// Age at which records may go.
        retention: Duration,
    },
    /// The newest value of each key stays for ever.
    Compact,
}

/// A durable, partitioned log.
pub trait Log: Send + Sync + 'static {
    /// Appends; answers in the order given, each `Ok` only once the record is
    /// durable (`acks=all`, or on disk). Records for one partition keep their
    /// order.
    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Vec<Result<Offset, AppendError>>>;

    /// As [`append`](Self::append), for the attempts topic: its own producer
    /// and buffers, so that a slow audit never holds the lane back.
    fn append_audit(
        &self,
        records: Vec<NewRecord>,
    ) -> BoxFuture<'_, Vec<Result<Offset, AppendError>>>;

    /// Joins a consumer group.
    fn join(
        &self,
        group: &str,
        topics: &[ByteString],
        start: Start,
    ) -> Result<Box<dyn GroupConsumer>, LogError>;

    /// Reads every partition of `topic` from its first record on, outside any
    /// group: assigned at once, never revoked, commits refused.
    fn follow(&self, topic: &ByteString) -> Result<Box<dyn GroupConsumer>, LogError>;

    /// Reads from `from`, outside any group, up to about `bytes_max` (at least
    /// one record where there is one). Answers the records and the next
    /// position.
    fn read<'a>(
        &'a self,
        tp: &'a TopicPartition,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<(Vec<Record>, Offset), LogError>>;

    /// First and next-to-be-written offset.
    fn bounds<'a>(
        &'a self,
        tp: &'a TopicPartition,
    ) -> BoxFuture<'a, Result<(Offset, Offset), LogError>>;

    /// The first offset at or after `time`, or the end.
    fn offset_at<'a>(
        &'a self,
        tp: &'a TopicPartition,
        time: Timestamp,
    ) -> BoxFuture<'a, Result<Offset, LogError>>;

    /// Where a group stands in each partition of a topic: what it committed last,
    /// or nothing where it never did.
    fn committed<'a>(
        &'a self,
        group: &'a str,
        topic: &'a ByteString,
    ) -> BoxFuture<'a, Result<Vec<Option<Offset>>, LogError>>;

    /// A topic as it is.
    fn describe<'a>(
        &'a self,
        topic: &'a ByteString,
    ) -> BoxFuture<'a, Result<TopicDescription, LogError>>;

    /// Compares topics with what they must be; the first difference is the
    /// error. A log that owns its topics makes them instead.
    fn verify<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<(), LogError>>;

    /// Makes the topics that do not exist; answers the names made.
    fn create<'a>(
        &'a self,
        topics: &'a [TopicSpec],
    ) -> BoxFuture<'a, Result<Vec<ByteString>, LogError>>;
}

/// One member of a consumer group. Dropping it leaves the group.
pub trait GroupConsumer: Send {
    /// The next event; records come only for partitions with credit.
    /// Cancel-safe.
    fn next(&mut self) -> BoxFuture<'_, GroupEvent>;

    /// Lets about that many more bytes of the partition be handed over. Each
    /// assignment begins with [`CREDIT_BYTES`]; the consumer of a batch gives
    /// back what it took ([`Record::size`]) when it has room again. Unread data
    /// stays in the log.
    fn credit(&self, tp: &TopicPartition, epoch: Epoch, bytes: usize);

    /// Commits a position with metadata. A stale epoch is refused locally.
    fn commit(
        &self,
        tp: &TopicPartition,
        epoch: Epoch,
        at: Offset,
        metadata: String,
    ) -> BoxFuture<'static, Result<(), CommitError>>;
}

/// Appends one record again and again until it is durable. Backs off up to 5 s;
/// a record the log refuses for good is logged each time, never dropped.
pub async fn append_until_durable(
    log: &dyn Log,
    record: NewRecord,
    first_wait: Duration,
) -> Offset {
    let mut wait = first_wait;
    loop {
        let result = log.append(vec![record.clone()]).await.pop();
        match result {
            Some(Ok(offset)) => return offset,
            Some(Err(error)) => {
                tracing::error!(to = %record.to, %error, "append failed, trying again in {wait:?}");
            }
            None => tracing::error!(to = %record.to, "append gave no answer, trying again"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(APPEND_WAIT_MAX);
    }
}

/// Longest pause between two tries to append.
pub const APPEND_WAIT_MAX: Duration = Duration::from_secs(5);

/// Credit each assignment begins with, in bytes.
pub const CREDIT_BYTES: usize = 2 * 1024 * 1024;
