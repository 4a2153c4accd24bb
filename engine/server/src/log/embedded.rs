//! The log on SQLite, for those who run without Kafka.
//!
//! One process owns the folder. One thread writes: it takes whatever waits,
//! puts it into one transaction, and answers once that is on disk, so the price
//! of a sync is shared by all who wait for it. Every group member reads with a
//! thread and a connection of its own; two more answer random reads.
//!
//! Offsets are dense in topics that lose records by age, and have holes in
//! compacted ones, where an append deletes the older record of its key.
//! Timestamps are given here, so times are found by halving; should the clock
//! step back, a time between the two readings finds a later offset.
//!
//! Refused on purpose: a second process, a network, replicas.

use std::fmt;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc as channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytestring::ByteString;
use futures_util::future::BoxFuture;
use posthaste_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::lease::lock;
use super::{
    AppendError, GroupConsumer, Log, LogError, NewRecord, Offset, Record, Start, TopicDescription,
    TopicPartition, TopicSpec,
};
use catalog::Topic;
use group::Groups;
use reader::Ask;
use thread::{Inbox, Shared};
use writer::{Op, Resolved};

mod catalog;
mod consumer;
mod group;
mod reader;
mod store;
mod thread;
mod writer;

/// Tells the time records are stamped with.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Requests waiting for the writer. At the bound those who append wait.
const OPS_MAX: usize = 1_024;
/// Requests waiting for one of the reading threads. At the bound readers wait.
const ASKS_MAX: usize = 256;
/// Threads that answer random reads.
const READERS: usize = 2;

/// The durable log in one folder; cheap to clone. The last clone to go closes
/// it, and waits for what that takes.
#[derive(Clone)]
pub struct EmbeddedLog {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    asks: Vec<mpsc::Sender<Ask>>,
    turn: AtomicUsize,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Held for as long as the folder is ours.
    lock: Mutex<Option<File>>,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, or makes one there. `clock` stamps records and
    /// decides what has grown too old.
    ///
    /// # Errors
    /// When the folder cannot be made, another process holds it, or what lies
    /// there is damaged or newer than this program; the text names the file.
    pub fn open(dir: &Path, clock: Clock) -> Result<Self, LogError> {
        let lock = claim(dir)?;
        let file = dir.join("posthaste.db");
        let (db, topics) = store::open(&file)?;
        let (ops, received) = mpsc::channel(OPS_MAX);
        let shared = Arc::new(Shared::new(file, clock, topics, ops));
        let (ready, is_ready) = channel::sync_channel(1);
        let writer = {
            let shared = Arc::clone(&shared);
            thread::start("log-writer", move || {
                writer::run(&shared, &db, Inbox::new(received), &ready);
            })?
        };
        let mut handle = Handle {
            shared,
            asks: Vec::with_capacity(READERS),
            turn: AtomicUsize::new(0),
            writer: Mutex::new(Some(writer)),
            lock: Mutex::new(Some(lock)),
        };
        is_ready
            .recv()
            .unwrap_or_else(|_| Err(LogError::Other("the log's writer did not start".into())))?;
        for _ in 0..READERS {
            let (asks, received) = mpsc::channel(ASKS_MAX);
            let shared = Arc::clone(&handle.shared);
            handle.shared.start("log-reader", move || {
                reader::run(&shared, Inbox::new(received));
            })?;
            handle.asks.push(asks);
        }
        Ok(Self {
            handle: Arc::new(handle),
        })
    }

    /// Ends every thread, moves all that was written into the main file, and
    /// gives the folder free. Blocks for that long. Group members that still
    /// live hear a fatal event, appends are not acknowledged any more.
    pub fn close(&self) {
        self.handle.close();
    }

    fn topic(&self, name: &ByteString) -> Result<Arc<Topic>, LogError> {
        let found = self.handle.shared.topic(name);
        found.ok_or_else(|| LogError::NoSuchTopic(name.clone()))
    }

    fn part(&self, tp: &TopicPartition) -> Result<Arc<Topic>, LogError> {
        let topic = self.topic(&tp.topic)?;
        if topic.part(tp.partition).is_none() {
            return Err(LogError::Other(format!("{tp} does not exist: {topic}")));
        }
        Ok(topic)
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, LogError>>) -> Ask,
    ) -> Result<T, LogError> {
        let (reply, answer) = oneshot::channel();
        let turn = self.handle.turn.fetch_add(1, Ordering::Relaxed);
        let reader = &self.handle.asks[turn % self.handle.asks.len()];
        if reader.send(question(reply)).await.is_err() {
            return Err(closed());
        }
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    async fn make(&self, topics: &[TopicSpec], verify: bool) -> Result<Vec<ByteString>, LogError> {
        let (reply, answer) = oneshot::channel();
        let op = Op::Create {
            topics: topics.to_vec(),
            verify,
            reply,
        };
        if self.handle.shared.ops.send(op).await.is_err() {
            return Err(closed());
        }
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    fn resolve(&self, record: NewRecord) -> Result<Resolved, AppendError> {
        let name = &record.to.topic;
        let Some(topic) = self.handle.shared.topic(name) else {
            return Err(AppendError::Refused(format!(
                "topic `{name}` does not exist"
            )));
        };
        let Some(part) = topic.part(record.to.partition) else {
            return Err(AppendError::Refused(format!(
                "{} does not exist: {topic}",
                record.to
            )));
        };
        let headers = record.headers.iter().map(|(n, v)| n.len() + v.len());
        let bytes = record.key.len() + record.value.len() + headers.sum::<usize>();
        if bytes > topic.record_bytes_max() {
            let topic = name.clone();
            return Err(AppendError::TooLarge { topic, bytes });
        }
        if topic.is_compacted() && record.key.is_empty() {
            return Err(AppendError::Refused(format!(
                "topic `{name}` is compacted, its records need a key"
            )));
        }
        if part.end() >= store::OFFSET_MAX {
            return Err(AppendError::Refused(format!("{} is full", record.to)));
        }
        Ok(Resolved {
            topic,
            record,
            bytes,
        })
    }
}

impl Log for EmbeddedLog {
    fn append(&self, records: Vec<NewRecord>) -> BoxFuture<'_, Vec<Result<Offset, AppendError>>> {
        Box::pin(async move {
            let count = records.len();
            let records: Vec<_> = records.into_iter().map(|r| self.resolve(r)).collect();
            let (reply, answer) = oneshot::channel();
            let op = Op::Append { records, reply };
            if self.handle.shared.ops.send(op).await.is_ok()
                && let Ok(answers) = answer.await
            {
                return answers;
            }
            vec![Err(AppendError::Unknown(closed().to_string())); count]
        })
    }

    fn append_audit(
        &self,
        records: Vec<NewRecord>,
    ) -> BoxFuture<'_, Vec<Result<Offset, AppendError>>> {
        self.append(records)
    }

    fn join(
        &self,
        group: &str,
        topics: &[ByteString],
        start: Start,
    ) -> Result<Box<dyn GroupConsumer>, LogError> {
        let topics: Result<Vec<_>, _> = topics.iter().map(|name| self.topic(name)).collect();
        consumer::join(&self.handle.shared, group, topics?, start)
    }

    fn follow(&self, topic: &ByteString) -> Result<Box<dyn GroupConsumer>, LogError> {
        consumer::follow(&self.handle.shared, self.topic(topic)?)
    }

    fn read<'a>(
        &'a self,
        tp: &'a TopicPartition,
        from: Offset,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<(Vec<Record>, Offset), LogError>> {
        Box::pin(async move {
            let topic = self.part(tp)?;
            let partition = tp.partition;
            self.ask(|reply| Ask::Read {
                topic,
                partition,
                from,
                bytes_max,
                reply,
            })
            .await
        })
    }

    fn bounds<'a>(
        &'a self,
        tp: &'a TopicPartition,
    ) -> BoxFuture<'a, Result<(Offset, Offset), LogError>> {
        Box::pin(async move {
            let topic = self.part(tp)?;
            let bounds = topic.part(tp.partition).map(catalog::Part::bounds);
            bounds.ok_or_else(|| LogError::NoSuchTopic(tp.topic.clone()))
        })
    }

    fn offset_at<'a>(
        &'a self,
        tp: &'a TopicPartition,
        time: Timestamp,
    ) -> BoxFuture<'a, Result<Offset, LogError>> {
        Box::pin(async move {
            let topic = self.part(tp)?;
            let partition = tp.partition;
            self.ask(|reply| Ask::OffsetAt {
                topic,
                partition,
                time,
                reply,
            })
            .await
        })
    }

    fn committed<'a>(
        &'a self,
        group: &'a str,
        topic: &'a ByteString,
    ) -> BoxFuture<'a, Result<Vec<Option<Offset>>, LogError>> {
        Box::pin(async move {
            let (topic, group) = (self.topic(topic)?, group.to_owned());
            self.ask(|reply| Ask::Committed {
                topic,
                group,
                reply,
            })
            .await
        })
    }

    fn describe<'a>(
        &'a self,
        topic: &'a ByteString,
    ) -> BoxFuture<'a, Result<TopicDescription, LogError>> {
        Box::pin(async move {
            let topic = self.topic(topic)?;
            Ok(TopicDescription {
                partitions: topic.partitions(),
                record_bytes_max: topic.record_bytes_max(),
                retention: topic.retention(),
            })
        })
    }

    fn verify<'a>(&'a self, topics: &'a [TopicSpec]) -> BoxFuture<'a, Result<(), LogError>> {
        Box::pin(async move { self.make(topics, true).await.map(|_| ()) })
    }

    fn create<'a>(
        &'a self,
        topics: &'a [TopicSpec],
    ) -> BoxFuture<'a, Result<Vec<ByteString>, LogError>> {
        Box::pin(self.make(topics, false))
    }
}

impl Handle {
    fn close(&self) {
        self.shared.stop_all();
        if let Some(writer) = lock(&self.writer).take() {
            self.shared.stop_writer();
            writer.thread().unpark();
            if writer.join().is_err() {
                tracing::error!(file = %self.shared.file.display(), "the log's writer panicked");
            }
        }
        lock(&self.lock).take();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.handle.shared.file;
        f.debug_tuple("EmbeddedLog").field(file).finish()
    }
}

/// Takes the folder for this process.
fn claim(dir: &Path) -> Result<File, LogError> {
    let failed = |what: &str, error: std::io::Error| {
        let dir = dir.display();
        LogError::Other(format!(
            "`{dir}` {what}: {error}; expected a folder on a local disk that this user may write to"
        ))
    };
    let made = std::fs::create_dir_all(dir);
    made.map_err(|error| failed("cannot be made a folder for the log", error))?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dir.join("posthaste.lock"))
        .map_err(|error| failed("cannot be written to", error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(LogError::Other(format!(
                "`{}` is in use: one process at a time may hold an embedded log; expected another \
                 folder, or that process stopped",
                dir.display()
            )));
        }
        Err(TryLockError::Error(error)) => return Err(failed("cannot be locked", error)),
    }
    // A folder made just now must itself outlive a power loss.
    for made in [Some(dir), dir.parent()].into_iter().flatten() {
        if made.as_os_str().is_empty() {
            continue;
        }
        let synced = File::open(made).and_then(|made| made.sync_all());
        synced.map_err(|error| failed("cannot be synced", error))?;
    }
    Ok(lock)
}

fn closed() -> LogError {
    LogError::Other("the log is closed".into())
}

/// What went wrong with the file, in words that say what to do about it.
fn trouble(file: &Path, error: &rusqlite::Error) -> String {
    let file = file.display();
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => {
            format!("the disk that holds `{file}` is full; it goes on when there is room")
        }
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            format!("`{file}` is damaged, or is not Posthaste's log: {error}")
        }
        _ => format!("`{file}`: {error}"),
    }
}

impl Shared {
    fn new(file: PathBuf, clock: Clock, topics: Vec<Arc<Topic>>, ops: mpsc::Sender<Op>) -> Self {
        let topics = topics.into_iter().map(|topic| (topic.name.clone(), topic));
        Self {
            file,
            clock,
            ops,
            topics: std::sync::RwLock::new(topics.collect()),
            groups: Mutex::new(Groups::default()),
            closing: false.into(),
            finishing: false.into(),
            threads: Mutex::new(Vec::new()),
        }
    }

    fn trouble(&self, error: &rusqlite::Error) -> LogError {
        LogError::Other(trouble(&self.file, error))
    }
}

/// How long an idle thread sleeps at most, and how often old records are
/// looked for.
const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
