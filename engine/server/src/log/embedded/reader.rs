//! Reading: stretches of a partition, and offsets by time.

use std::sync::Arc;

use posthaste_core::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Statement, params};
use tokio::sync::oneshot;

use super::super::{LogError, Offset, Record};
use super::catalog::{Part, Topic};
use super::store::{self, integer, offset_of, row_of};
use super::thread::{self, Inbox, Shared};

/// Records taken in one read outside a group, however small they are.
const READ_RECORDS_MAX: usize = 4_096;

/// A question to a reading thread.
pub(super) enum Ask {
    Read {
        topic: Arc<Topic>,
        partition: u32,
        from: Offset,
        bytes_max: usize,
        reply: oneshot::Sender<Result<(Vec<Record>, Offset), LogError>>,
    },
    OffsetAt {
        topic: Arc<Topic>,
        partition: u32,
        time: Timestamp,
        reply: oneshot::Sender<Result<Offset, LogError>>,
    },
    Committed {
        topic: Arc<Topic>,
        group: String,
        reply: oneshot::Sender<Result<Vec<Option<Offset>>, LogError>>,
    },
}

/// Answers questions until the log closes.
pub(super) fn run(shared: &Shared, mut asks: Inbox<Ask>) {
    let opened = store::open_reader(&shared.file);
    let opened = opened.map_err(|error| shared.trouble(&error));
    let waker = thread::waker();
    while !shared.is_closing() {
        let Some(ask) = asks.wait(&waker, super::MINUTE) else {
            continue;
        };
        let db = opened.as_ref().map_err(Clone::clone);
        match ask {
            Ask::Read {
                topic,
                partition,
                from,
                bytes_max,
                reply,
            } => {
                let read = db.and_then(|db| {
                    let select = db.prepare(store::SELECT);
                    let mut select = select.map_err(|error| shared.trouble(&error))?;
                    let want = Want {
                        from,
                        bytes_max,
                        records_max: READ_RECORDS_MAX,
                    };
                    read(shared, &mut select, &topic, partition, want)
                });
                // Whoever asked may have given up.
                let _ = reply.send(read);
            }
            Ask::OffsetAt {
                topic,
                partition,
                time,
                reply,
            } => {
                let found = db.and_then(|db| {
                    let Some(part) = topic.part(partition) else {
                        return Err(LogError::NoSuchTopic(topic.name.clone()));
                    };
                    let found = first_at(db, part, part.end(), time);
                    found.map_err(|error| shared.trouble(&error))
                });
                let _ = reply.send(found);
            }
            Ask::Committed {
                topic,
                group,
                reply,
            } => {
                let found = db.and_then(|db| {
                    let found = committed(db, &topic, &group);
                    found.map_err(|error| shared.trouble(&error))
                });
                let _ = reply.send(found);
            }
        }
    }
}

/// What to read of a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    pub(super) from: Offset,
    /// Exceeded only by a first record that is larger.
    pub(super) bytes_max: usize,
    pub(super) records_max: usize,
}

/// Reads a stretch; answers it and the position after it. `select` is
/// [`store::SELECT`].
pub(super) fn read(
    shared: &Shared,
    select: &mut Statement<'_>,
    topic: &Topic,
    partition: u32,
    want: Want,
) -> Result<(Vec<Record>, Offset), LogError> {
    let Some(part) = topic.part(partition) else {
        return Err(LogError::NoSuchTopic(topic.name.clone()));
    };
    let (start, end) = part.bounds();
    if want.from < start || want.from > end {
        return Err(topic.out_of_range(partition, want.from));
    }
    if want.from == end {
        return Ok((Vec::new(), end));
    }
    let found = stretch(select, part.stream, want, end);
    let (records, next) = found.map_err(|error| shared.trouble(&error))?;
    // Records that grew too old since the bounds were looked at left a gap no
    // reader may step over unknowing.
    let first = records.first().map_or(next, |record| record.offset);
    if first != want.from && !topic.is_compacted() {
        return Err(topic.out_of_range(partition, want.from));
    }
    Ok((records, next))
}

fn stretch(
    select: &mut Statement<'_>,
    stream: i64,
    want: Want,
    end: Offset,
) -> rusqlite::Result<(Vec<Record>, Offset)> {
    let limit = i64::try_from(want.records_max).unwrap_or(i64::MAX);
    let range = params![row_of(stream, want.from), row_of(stream, end), limit];
    let mut rows = select.query(range)?;
    let mut records: Vec<Record> = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let record = store::record(row)?;
        bytes += record.size();
        if let Some(last) = records.last()
            && bytes > want.bytes_max
        {
            let next = last.offset + 1;
            return Ok((records, next));
        }
        records.push(record);
    }
    let next = match records.last() {
        Some(last) if records.len() == want.records_max => last.offset + 1,
        _ => end,
    };
    Ok((records, next))
}

/// Where a group stands in each partition.
fn committed(db: &Connection, topic: &Topic, group: &str) -> rusqlite::Result<Vec<Option<Offset>>> {
    let mut stands = db.prepare(store::STANDS)?;
    let parts = (0..topic.partitions()).filter_map(|number| topic.part(number));
    let mut at = |part: &Part| {
        let place = params![group, part.stream];
        let found = stands.query_row(place, |row| row.get(0)).optional();
        Ok(found?.map(store::unsigned))
    };
    parts.map(&mut at).collect()
}

/// The first offset at or after `time`, or `end`.
pub(super) fn first_at(
    db: &Connection,
    part: &Part,
    end: Offset,
    time: Timestamp,
) -> rusqlite::Result<Offset> {
    let mut probe =
        db.prepare("SELECT id, ts FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1")?;
    let wanted = integer(time.as_millis());
    // All records before `low` are older, the first record from `high` on is not.
    let (mut low, mut high) = (part.start(), end);
    while low < high {
        let middle = low + (high - low) / 2;
        let range = params![row_of(part.stream, middle), row_of(part.stream, high)];
        let found: Option<(i64, i64)> = probe
            .query_row(range, |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match found {
            Some((row, ts)) if ts < wanted => low = offset_of(row) + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}
