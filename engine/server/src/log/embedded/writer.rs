//! The one thread that writes. It takes what waits, up to a bound, into one
//! transaction, and answers when that is on disk.
//!
//! It is also the judge of commits: an assignment reads where the group stands
//! in the same order in which commits are applied, and a commit whose lease has
//! ended by then is refused, so no commit is overtaken by the next reader.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use bytestring::ByteString;
use posthaste_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Statement, params};
use tokio::sync::oneshot;

use super::super::lease::Lease;
use super::super::{
    AppendError, CommitError, LogError, NewRecord, Offset, Start, TopicPartition, TopicSpec,
};
use super::catalog::Topic;
use super::store::{STANDS, encode_headers, integer, row_of, unsigned};
use super::thread::{self, Inbox, Shared};
use super::{MINUTE, reader};
use sweep::Sweep;

mod create;
mod sweep;

/// Requests in one transaction.
const TRANSACTION_OPS_MAX: usize = 4_096;
/// Bytes in one transaction, exceeded only by a single request.
const TRANSACTION_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of commit metadata taken, as Kafka's `offset.metadata.max.bytes` by
/// default.
const METADATA_BYTES_MAX: usize = 4_096;
/// Write-ahead log in bytes past which readers are waited for, so that it can
/// begin anew; it shrinks to 64 MiB then.
const WAL_BYTES_MAX: u64 = 128 * 1024 * 1024;

type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// A record whose topic and partition are known to exist.
pub(super) struct Resolved {
    pub(super) topic: Arc<Topic>,
    pub(super) record: NewRecord,
    pub(super) bytes: usize,
}

/// A request to the writer.
pub(super) enum Op {
    Append {
        records: Vec<Result<Resolved, AppendError>>,
        reply: oneshot::Sender<Vec<Result<Offset, AppendError>>>,
    },
    Commit {
        group: String,
        lease: Arc<Lease>,
        at: Offset,
        metadata: String,
        reply: Reply<(), CommitError>,
    },
    /// Where a group stands in a partition, or has to start.
    Assign {
        group: String,
        tp: TopicPartition,
        start: Start,
        reply: Reply<(Offset, String), LogError>,
    },
    Create {
        topics: Vec<TopicSpec>,
        /// Compare those that exist already.
        verify: bool,
        reply: Reply<Vec<ByteString>, LogError>,
    },
    /// Bounds the file's size, for tests of a full disk.
    #[cfg(test)]
    PagesMax(i64),
}

impl Op {
    fn bytes(&self) -> usize {
        let Self::Append { records, .. } = self else {
            return 0;
        };
        records.iter().flatten().map(|record| record.bytes).sum()
    }
}

/// Tells whoever asked, once the transaction has come to its end: well, or
/// with what went wrong.
type Answer = Box<dyn FnOnce(Option<&str>)>;

/// Serves requests until the log closes, then moves the write-ahead log into
/// the main file.
pub(super) fn run(
    shared: &Shared,
    db: &Connection,
    mut ops: Inbox<Op>,
    ready: &SyncSender<Result<(), LogError>>,
) {
    let mut writer = match Writer::new(shared, db) {
        Ok(writer) => writer,
        Err(error) => {
            let _ = ready.send(Err(shared.trouble(&error)));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    let waker = thread::waker();
    let mut taken: VecDeque<Op> = VecDeque::new();
    loop {
        if taken.is_empty() {
            let op = if writer.sweep.is_running() || shared.is_finishing() {
                ops.now()
            } else {
                ops.wait(&waker, MINUTE)
            };
            taken.extend(op);
        }
        take_more(&mut ops, &mut taken);
        if taken.is_empty() && shared.is_finishing() {
            break;
        }
        writer.transact(&mut taken);
    }
    drop(writer);
    let checkpoint = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(error) = checkpoint {
        // Nothing is lost: the next to open the file reads the log beside it.
        tracing::warn!(%error, file = %shared.file.display(), "no checkpoint at closing");
    }
}

/// Takes what waits already, as far as one transaction holds it.
fn take_more(ops: &mut Inbox<Op>, taken: &mut VecDeque<Op>) {
    let mut bytes: usize = taken.iter().map(Op::bytes).sum();
    while taken.len() < TRANSACTION_OPS_MAX && bytes < TRANSACTION_BYTES_MAX {
        let Some(op) = ops.now() else { return };
        bytes += op.bytes();
        taken.push_back(op);
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    db: &'a Connection,
    sql: Statements<'a>,
    sweep: Sweep,
    /// The clock, read once a transaction.
    now: Timestamp,
    /// What the transaction changes, made known once it is on disk.
    moved: BTreeMap<i64, Moved>,
    made: Vec<Arc<Topic>>,
}

/// A partition that grew.
struct Moved {
    topic: Arc<Topic>,
    partition: u32,
    end: Offset,
}

struct Statements<'a> {
    begin: Statement<'a>,
    commit: Statement<'a>,
    insert: Statement<'a>,
    older: Statement<'a>,
    newest: Statement<'a>,
    delete: Statement<'a>,
    stands: Statement<'a>,
    stand: Statement<'a>,
}

impl<'a> Writer<'a> {
    fn new(shared: &'a Shared, db: &'a Connection) -> rusqlite::Result<Self> {
        let sql = Statements {
            begin: db.prepare("BEGIN IMMEDIATE")?,
            commit: db.prepare("COMMIT")?,
            insert: db.prepare("INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5)")?,
            older: db.prepare("SELECT id FROM newest WHERE stream = ?1 AND key = ?2")?,
            newest: db.prepare("INSERT OR REPLACE INTO newest VALUES (?1, ?2, ?3)")?,
            delete: db.prepare("DELETE FROM records WHERE id = ?1")?,
            stands: db.prepare(STANDS)?,
            stand: db.prepare("INSERT OR REPLACE INTO groups VALUES (?1, ?2, ?3, ?4)")?,
        };
        Ok(Self {
            shared,
            db,
            sql,
            sweep: Sweep::default(),
            now: (shared.clock)(),
            moved: BTreeMap::new(),
            made: Vec::new(),
        })
    }

    /// Applies requests from the front. Those after one that fails are left for
    /// another transaction.
    fn transact(&mut self, ops: &mut VecDeque<Op>) {
        self.now = (self.shared.clock)();
        let mut answers = Vec::with_capacity(ops.len());
        match self.apply_all(ops, &mut answers) {
            Ok(()) => {
                self.publish();
                answers.into_iter().for_each(|answer| answer(None));
            }
            Err(error) => {
                self.roll_back();
                let why = super::trouble(&self.shared.file, &error);
                tracing::error!(%why, "the log could not write");
                answers.into_iter().for_each(|answer| answer(Some(&why)));
            }
        }
        self.bound_wal();
    }

    fn apply_all(
        &mut self,
        ops: &mut VecDeque<Op>,
        answers: &mut Vec<Answer>,
    ) -> rusqlite::Result<()> {
        while let Some(op) = ops.pop_front() {
            let (answer, done) = self.apply(op);
            answers.push(answer);
            done?;
        }
        self.sweep_some(answers.is_empty())?;
        if !self.db.is_autocommit() {
            self.sql.commit.execute([])?;
        }
        Ok(())
    }

    fn begin(&mut self) -> rusqlite::Result<()> {
        if self.db.is_autocommit() {
            self.sql.begin.execute([])?;
        }
        Ok(())
    }

    fn publish(&mut self) {
        for topic in self.made.drain(..) {
            self.shared.add(topic);
        }
        let mut woken: BTreeMap<i64, Arc<Topic>> = BTreeMap::new();
        for (_, moved) in std::mem::take(&mut self.moved) {
            if let Some(part) = moved.topic.part(moved.partition) {
                part.set_end(moved.end);
            }
            woken.insert(moved.topic.id, moved.topic);
        }
        woken.values().for_each(|topic| topic.wake());
        self.sweep.publish();
    }

    fn roll_back(&mut self) {
        self.moved.clear();
        self.made.clear();
        self.sweep.abandon();
        if !self.db.is_autocommit()
            && let Err(error) = self.db.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "the log could not roll back");
        }
    }

    fn apply(&mut self, op: Op) -> (Answer, rusqlite::Result<()>) {
        let begun = self.begin();
        match op {
            Op::Append { records, reply } => self.append(begun, records, reply),
            Op::Commit {
                group,
                lease,
                at,
                metadata,
                reply,
            } => {
                let done = begun.and_then(|()| self.commit(&group, &lease, at, &metadata));
                answer(reply, done, |why| CommitError::Failed(why.into()))
            }
            Op::Assign {
                group,
                tp,
                start,
                reply,
            } => {
                let done = begun.and_then(|()| self.assign(&group, tp, start));
                answer(reply, done, |why| LogError::Other(why.into()))
            }
            Op::Create {
                topics,
                verify,
                reply,
            } => {
                let done = begun.and_then(|()| self.create(topics, verify));
                answer(reply, done, |why| LogError::Other(why.into()))
            }
            #[cfg(test)]
            Op::PagesMax(pages) => {
                let set = format!("PRAGMA max_page_count = {pages}");
                let done = self.db.query_row(&set, [], |_| Ok(()));
                (Box::new(|_| ()), done)
            }
        }
    }

    fn append(
        &mut self,
        mut done: rusqlite::Result<()>,
        records: Vec<Result<Resolved, AppendError>>,
        reply: oneshot::Sender<Vec<Result<Offset, AppendError>>>,
    ) -> (Answer, rusqlite::Result<()>) {
        let not_written = || AppendError::Unknown(String::new());
        let mut answers = Vec::with_capacity(records.len());
        for record in records {
            let written = record.and_then(|record| {
                if done.is_err() {
                    return Err(not_written());
                }
                self.insert(&record).map_err(|error| {
                    done = Err(error);
                    not_written()
                })
            });
            answers.push(written);
        }
        let answer = Box::new(move |failure: Option<&str>| {
            if let Some(why) = failure {
                for answer in &mut answers {
                    if let Ok(_) | Err(AppendError::Unknown(_)) = answer {
                        *answer = Err(AppendError::Unknown(why.into()));
                    }
                }
            }
            // Whoever asked may have given up.
            let _ = reply.send(answers);
        });
        (answer, done)
    }

    fn insert(&mut self, resolved: &Resolved) -> rusqlite::Result<Offset> {
        let Resolved { topic, record, .. } = resolved;
        let partition = record.to.partition;
        let part = topic.part(partition);
        let part = part.expect("a record is resolved against its topic");
        let moved = self.moved.entry(part.stream).or_insert_with(|| Moved {
            topic: Arc::clone(topic),
            partition,
            end: part.end(),
        });
        let offset = moved.end;
        let row = row_of(part.stream, offset);
        let key = record.key.as_ref();
        if topic.is_compacted() {
            let place = params![part.stream, key];
            let older: Option<i64> = self
                .sql
                .older
                .query_row(place, |row| row.get(0))
                .optional()?;
            if let Some(older) = older {
                self.sql.delete.execute([older])?;
            }
            self.sql.newest.execute(params![part.stream, key, row])?;
        }
        self.sql.insert.execute(params![
            row,
            integer(self.now.as_millis()),
            key,
            record.value.as_ref(),
            encode_headers(&record.headers),
        ])?;
        moved.end += 1;
        Ok(offset)
    }

    fn commit(
        &mut self,
        group: &str,
        lease: &Lease,
        at: Offset,
        metadata: &str,
    ) -> rusqlite::Result<Result<(), CommitError>> {
        if !lease.is_live() {
            return Ok(Err(CommitError::Stale));
        }
        if metadata.len() > METADATA_BYTES_MAX {
            return Ok(Err(CommitError::MetadataTooLarge));
        }
        let topic = self.shared.topic(&lease.tp.topic);
        let part = topic
            .as_ref()
            .and_then(|topic| topic.part(lease.tp.partition));
        let Some(part) = part else {
            return Ok(Err(CommitError::Stale));
        };
        let stand = params![group, part.stream, integer(at), metadata];
        self.sql.stand.execute(stand)?;
        Ok(Ok(()))
    }

    fn assign(
        &mut self,
        group: &str,
        tp: TopicPartition,
        start: Start,
    ) -> rusqlite::Result<Result<(Offset, String), LogError>> {
        let topic = self.shared.topic(&tp.topic);
        let Some(part) = topic.as_ref().and_then(|topic| topic.part(tp.partition)) else {
            return Ok(Err(LogError::NoSuchTopic(tp.topic)));
        };
        let place = params![group, part.stream];
        let stands: Option<(i64, String)> = self
            .sql
            .stands
            .query_row(place, |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((at, metadata)) = stands {
            return Ok(Ok((unsigned(at), metadata)));
        }
        let end = self
            .moved
            .get(&part.stream)
            .map_or(part.end(), |moved| moved.end);
        let at = match start {
            Start::Earliest => part.start(),
            Start::Latest => end,
            Start::At(time) => reader::first_at(self.db, part, end, time)?,
            Start::Unset => {
                return Ok(Err(LogError::NoStart {
                    group: group.into(),
                    topic_partition: tp,
                }));
            }
        };
        let stand = params![group, part.stream, integer(at), ""];
        self.sql.stand.execute(stand)?;
        Ok(Ok((at, String::new())))
    }

    /// Lets the write-ahead log begin anew when readers kept it growing.
    fn bound_wal(&self) {
        let mut wal = self.shared.file.clone().into_os_string();
        wal.push("-wal");
        let bytes = std::fs::metadata(wal).map_or(0, |wal| wal.len());
        if bytes > WAL_BYTES_MAX {
            let restart = "PRAGMA wal_checkpoint(RESTART)";
            if let Err(error) = self.db.query_row(restart, [], |_| Ok(())) {
                tracing::warn!(%error, bytes, "the write-ahead log could not be shortened");
            }
        }
    }
}

/// The answer to a request, and whether the transaction can go on.
fn answer<T: 'static, E: 'static>(
    reply: Reply<T, E>,
    done: rusqlite::Result<Result<T, E>>,
    failed: fn(&str) -> E,
) -> (Answer, rusqlite::Result<()>) {
    let (result, done) = match done {
        Ok(result) => (Some(result), Ok(())),
        Err(error) => (None, Err(error)),
    };
    let answer = Box::new(move |failure: Option<&str>| {
        let result = match (result, failure) {
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(value)), None) => Ok(value),
            (_, why) => Err(failed(why.unwrap_or("the log could not write"))),
        };
        // Whoever asked may have given up.
        let _ = reply.send(result);
    });
    (answer, done)
}
