//! The log on Apache Kafka.
//!
//! ```text
//!  append, append_audit ---> producer (one each, idempotent, acks=all)
//!  join, follow -----------> member: an OS thread with a BaseConsumer, one
//!                            queue a partition, handed over by credit
//!  read -------------------> fetch: consumers outside any group, pooled
//!  describe, verify, create > topics
//! ```
//!
//! What it refuses to do: commit by itself, commit for an assignment that has
//! ended, reset to anywhere when an offset is gone, or make a topic unasked.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::BoxFuture;
use posthaste_core::time::Timestamp;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::lease::lock;
use super::{
    AppendError, GroupConsumer, Log, LogError, NewRecord, Offset, Record, Start, TopicDescription,
    TopicPartition, TopicSpec,
};
use fetch::{Fetched, Fetchers};
use producer::Producer;
use topics::Topics;

mod client;
mod commits;
mod context;
mod copy;
mod fetch;
mod groups;
mod member;
mod place;
mod producer;
mod topics;

/// How long one question to the brokers may take.
const ASK_WAIT: Duration = Duration::from_secs(10);

/// How to reach Kafka. No `Debug`: a setting may be a password.
#[derive(Clone)]
pub struct KafkaSettings {
    /// Bootstrap servers, comma-separated.
    pub bootstrap: String,
    /// Names this process to the brokers.
    pub client_id: String,
    /// Further librdkafka settings, for TLS, SASL and tuning.
    pub extra: Vec<(String, String)>,
    /// Time after which a silent group member loses its partitions.
    pub session_timeout: Duration,
    /// Static membership: a stable name of this instance.
    pub instance_id: Option<String>,
    /// Replicas of topics made here; 0 for as many as there are brokers, at
    /// most 3.
    pub replication: u16,
}

/// A connection to Kafka. The last one of it and its consumers to go waits
/// until every group is left.
pub struct KafkaLog {
    settings: Arc<KafkaSettings>,
    topics: Arc<Topics>,
    main: Producer,
    audit: Producer,
    fetchers: Arc<Fetchers>,
    threads: Arc<Threads>,
}

/// The threads that serve group members.
#[derive(Default)]
struct Threads(std::sync::Mutex<Vec<JoinHandle<()>>>);

impl Threads {
    fn start(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<std::thread::Thread, LogError> {
        let started = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work);
        let handle =
            started.map_err(|error| LogError::Other(format!("no thread `{name}`: {error}")))?;
        let thread = handle.thread().clone();
        let mut handles = lock(&self.0);
        // Those that have ended need no waiting for.
        handles.retain(|handle| !handle.is_finished());
        handles.push(handle);
        Ok(thread)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for thread in lock(&self.0).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a Kafka consumer thread panicked");
            }
        }
    }
}

impl KafkaLog {
    /// Connects; answers once a broker does. Blocks for up to 10 s.
    ///
    /// # Errors
    /// A setting librdkafka does not know or that Posthaste owns, by name; no
    /// broker within that time, with the servers tried.
    pub fn connect(settings: KafkaSettings) -> Result<Self, LogError> {
        let settings = Arc::new(settings);
        let topics = Arc::new(Topics::connect(&settings)?);
        Ok(Self {
            main: Producer::new(&settings, Arc::clone(&topics))?,
            audit: Producer::small(&settings, Arc::clone(&topics))?,
            fetchers: Arc::new(Fetchers::new(Arc::clone(&settings))),
            threads: Arc::new(Threads::default()),
            topics,
            settings,
        })
    }

    /// Reads where no record follows, or only holes do.
    async fn read_up_to_end(
        &self,
        tp: &TopicPartition,
        from: Offset,
        bytes_max: usize,
    ) -> Result<(Vec<Record>, Offset), LogError> {
        let (start, end) = self.topics.bounds(tp).await?;
        if from < start || from > end {
            return Err(LogError::OutOfRange {
                topic_partition: tp.clone(),
                offset: from,
                start,
                end,
            });
        }
        if from == end {
            return Ok((Vec::new(), end));
        }
        let read = self.fetchers.read(tp.clone(), from, Some(end), bytes_max);
        Ok(match read.await? {
            Fetched::Records(records, next) => (records, next),
            Fetched::Nothing => (Vec::new(), end),
        })
    }

    fn begin(&self, plan: member::Plan) -> Result<Box<dyn GroupConsumer>, LogError> {
        let consumer = member::begin(&self.settings, plan, &self.threads)?;
        Ok(Box::new(consumer))
    }
}

impl Log for KafkaLog {
    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Vec<Result<Offset, AppendError>>> {
        Box::pin(self.main.append(records))
    }

    fn append_audit(
        &self,
        records: Vec<NewRecord>,
    ) -> BoxFuture<'_, Vec<Result<Offset, AppendError>>> {
        Box::pin(self.audit.append(records))
    }

    fn join(
        &self,
        group: &str,
        topics: &[ByteString],
        start: Start,
    ) -> Result<Box<dyn GroupConsumer>, LogError> {
        self.begin(member::Plan::Join {
            group: group.to_owned(),
            topics: topics.to_vec(),
            start,
        })
    }

    fn follow(&self, topic: &ByteString) -> Result<Box<dyn GroupConsumer>, LogError> {
        self.begin(member::Plan::Follow {
            topic: topic.clone(),
        })
    }

    fn read<'a>(
        &'a self,
        tp: &'a TopicPartition,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<(Vec<Record>, Offset), LogError>> {
        Box::pin(async move {
            self.topics.require(tp).await?;
            // Where the log begins and ends matters only if nothing comes.
            match self
                .fetchers
                .read(tp.clone(), from, None, bytes_max)
                .await?
            {
                Fetched::Records(records, next) => Ok((records, next)),
                Fetched::Nothing => self.read_up_to_end(tp, from, bytes_max).await,
            }
        })
    }

    fn bounds<'a>(
        &'a self,
        tp: &'a TopicPartition,
    ) -> BoxFuture<'a, Result<(Offset, Offset), LogError>> {
        Box::pin(self.topics.bounds(tp))
    }

    fn offset_at<'a>(
        &'a self,
        tp: &'a TopicPartition,
        time: Timestamp,
    ) -> BoxFuture<'a, Result<Offset, LogError>> {
        Box::pin(self.topics.offset_at(tp, time))
    }

    fn committed<'a>(
        &'a self,
        group: &'a str,
        topic: &'a ByteString,
    ) -> BoxFuture<'a, Result<Vec<Option<Offset>>, LogError>> {
        Box::pin(async move {
            let partitions = self.topics.describe(topic).await?.partitions;
            let settings = Arc::clone(&self.settings);
            groups::committed(settings, group, topic, partitions).await
        })
    }

    fn describe<'a>(
        &'a self,
        topic: &'a ByteString,
    ) -> BoxFuture<'a, Result<TopicDescription, LogError>> {
        Box::pin(self.topics.describe(topic))
    }

    fn verify<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<(), LogError>> {
        Box::pin(self.topics.verify(topics))
    }

    fn create<'a>(
        &'a self,
        topics: &'a [TopicSpec],
    ) -> BoxFuture<'a, Result<Vec<ByteString>, LogError>> {
        Box::pin(self.topics.create(topics))
    }
}

/// Kafka's word for a failure as ours: whether the client's settings are wrong,
/// the brokers are out of reach, or they answered something else.
fn failure(error: &KafkaError) -> LogError {
    if let Some(refused) = refused_setting(error) {
        return LogError::Settings(refused);
    }
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::MessageTimedOut,
        ) => LogError::Unreachable(error.to_string()),
        _ => LogError::Other(format!("Kafka: {error}")),
    }
}

/// What librdkafka says against a setting. Never the value: it can be a
/// password whose key is mistyped.
fn refused_setting(error: &KafkaError) -> Option<String> {
    match error {
        KafkaError::ClientConfig(_, problem, key, _) => Some(format!(
            "`{}`: {problem}; expected a setting as librdkafka's CONFIGURATION.md lists it",
            key.escape_default()
        )),
        KafkaError::ClientCreation(problem) => Some(problem.clone()),
        KafkaError::Nul(_) => Some("expected no zero byte in a name or value".to_owned()),
        _ => None,
    }
}

/// Kafka's signed offset as ours; its negative values mean no offset.
fn unsigned(offset: i64) -> Option<Offset> {
    Offset::try_from(offset).ok()
}

/// Our offset as Kafka's.
fn signed(offset: Offset) -> i64 {
    i64::try_from(offset).expect("a log of fewer than 2^63 records")
}

/// Our partition as Kafka's.
fn partition(partition: u32) -> i32 {
    i32::try_from(partition).expect("fewer than 2^31 partitions")
}
