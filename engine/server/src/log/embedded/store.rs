//! The file: its tables, and how records lie in them.
//!
//! A record's row number is its partition's number and its offset in one, so a
//! partition's records lie side by side in a plain table: a third of the pages
//! an index-organised table of three key columns needs, which keeps only about
//! an eighth of a page per row and puts the rest on a page of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use posthaste_core::time::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, Row, params};

use super::super::{Cleanup, LogError, Offset, Record};
use super::catalog::{Part, Topic};

/// Bits of a row number that are the offset; the rest number the partition.
const OFFSET_BITS: u32 = 44;
/// Offsets end here: 55 years at 10,000 records a second.
pub(super) const OFFSET_MAX: Offset = (1 << OFFSET_BITS) - 1;
/// Partitions of all topics together.
pub(super) const STREAMS_MAX: i64 = (1 << (63 - OFFSET_BITS)) - 1;

/// The layout this program reads and writes.
const VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE topics (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, compacted INTEGER NOT NULL,
    retention_ms INTEGER NOT NULL, record_bytes_max INTEGER NOT NULL
);
-- `next` is written when records go, so that offsets never come twice.
CREATE TABLE partitions (
    stream INTEGER PRIMARY KEY, topic INTEGER NOT NULL REFERENCES topics(id),
    part INTEGER NOT NULL, start INTEGER NOT NULL, next INTEGER NOT NULL,
    UNIQUE (topic, part)
);
CREATE TABLE records (
    id INTEGER PRIMARY KEY, ts INTEGER NOT NULL,
    key BLOB NOT NULL, val BLOB NOT NULL, headers BLOB
);
-- The row each key of a compacted topic has; other topics pay nothing for it.
CREATE TABLE newest (
    stream INTEGER NOT NULL, key BLOB NOT NULL, id INTEGER NOT NULL,
    PRIMARY KEY (stream, key)
) WITHOUT ROWID;
CREATE TABLE groups (
    grp TEXT NOT NULL, stream INTEGER NOT NULL, off INTEGER NOT NULL, meta TEXT NOT NULL,
    PRIMARY KEY (grp, stream)
) WITHOUT ROWID;
-- For the eyes of whoever opens the file with `sqlite3`.
CREATE VIEW log AS
    SELECT t.name AS topic, p.part, r.id - (p.stream << 44) AS off,
           r.ts, r.key, r.val, r.headers
    FROM topics t JOIN partitions p ON p.topic = t.id
    JOIN records r ON r.id >= p.stream << 44 AND r.id < (p.stream + 1) << 44;
PRAGMA user_version = 1;
";

/// Pages of 8 KiB hold records of 1 KiB without waste; write-ahead log, synced
/// at every commit, moved to the main file after 16 MiB.
const PRAGMAS: &str = "
PRAGMA page_size = 8192;
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA synchronous = FULL;
PRAGMA fullfsync = ON;
PRAGMA checkpoint_fullfsync = ON;
PRAGMA wal_autocheckpoint = 2048;
PRAGMA journal_size_limit = 67108864;
PRAGMA cache_size = -16384;
";

/// The row of an offset.
pub(super) fn row_of(stream: i64, offset: Offset) -> i64 {
    (stream << OFFSET_BITS) + integer(offset.min(OFFSET_MAX))
}

/// The offset of a row.
pub(super) fn offset_of(row: i64) -> Offset {
    unsigned(row) & OFFSET_MAX
}

/// SQLite's integers are signed; nothing stored here comes near their end.
pub(super) fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// Opens the file to write, makes the tables in a new one, and answers the
/// topics in it.
pub(super) fn open(file: &Path) -> Result<(Connection, Vec<Arc<Topic>>), LogError> {
    let opened = (|| {
        let db = Connection::open(file)?;
        db.busy_timeout(Duration::from_millis(250))?;
        db.execute_batch(PRAGMAS)?;
        let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((db, mode, version))
    })();
    let trouble = |error: rusqlite::Error| LogError::Other(super::trouble(file, &error));
    let (db, mode, version) = opened.map_err(trouble)?;
    if mode != "wal" {
        return Err(LogError::Other(format!(
            "`{}` lies where no write-ahead log can be kept; it must lie on a local disk",
            file.display()
        )));
    }
    match version {
        0 => db
            .execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;"))
            .map_err(trouble)?,
        VERSION => {}
        other => {
            return Err(LogError::Other(format!(
                "`{}` has layout {other}, this program knows {VERSION}",
                file.display()
            )));
        }
    }
    let topics = load(&db).map_err(trouble)?;
    Ok((db, topics))
}

/// Opens the file for one thread that only reads.
pub(super) fn open_reader(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(file, flags)?;
    db.busy_timeout(Duration::from_secs(5))?;
    Ok(db)
}

fn load(db: &Connection) -> rusqlite::Result<Vec<Arc<Topic>>> {
    let mut select = db.prepare(
        "SELECT id, name, compacted, retention_ms, record_bytes_max FROM topics ORDER BY id",
    )?;
    let topics = select.query_map([], |row| {
        let id: i64 = row.get(0)?;
        let name: String = row.get(1)?;
        let cleanup = if row.get(2)? {
            Cleanup::Compact
        } else {
            let retention = Duration::from_millis(unsigned(row.get(3)?));
            Cleanup::Delete { retention }
        };
        let record_bytes_max = usize::try_from(row.get::<_, i64>(4)?).unwrap_or(usize::MAX);
        let parts = load_parts(db, id)?;
        Ok(Arc::new(Topic::new(
            id,
            name.into(),
            cleanup,
            record_bytes_max,
            parts,
        )))
    })?;
    topics.collect()
}

fn load_parts(db: &Connection, topic: i64) -> rusqlite::Result<Vec<Part>> {
    let mut select =
        db.prepare("SELECT stream, start, next FROM partitions WHERE topic = ?1 ORDER BY part")?;
    let mut last = db.prepare("SELECT max(id) FROM records WHERE id >= ?1 AND id < ?2")?;
    let parts = select.query_map([topic], |row| {
        let stream: i64 = row.get(0)?;
        let range = params![row_of(stream, 0), row_of(stream + 1, 0)];
        let last: Option<i64> = last.query_row(range, |row| row.get(0))?;
        let after_last = last.map_or(0, |row| offset_of(row) + 1);
        let next = unsigned(row.get(2)?).max(after_last);
        Ok(Part::new(stream, unsigned(row.get(1)?), next))
    })?;
    parts.collect()
}

/// Selects where a group stands in one partition, and its metadata.
pub(super) const STANDS: &str = "SELECT off, meta FROM groups WHERE grp = ?1 AND stream = ?2";

/// Selects a stretch of one partition; see [`record`] for its columns.
pub(super) const SELECT: &str = "SELECT id, ts, key, val, headers FROM records \
     WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3";

/// A row of [`SELECT`] as a record.
pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let headers: Option<Vec<u8>> = row.get(4)?;
    Ok(Record {
        offset: offset_of(row.get(0)?),
        timestamp: Timestamp::from_millis(unsigned(row.get(1)?)),
        key: row.get::<_, Vec<u8>>(2)?.into(),
        value: row.get::<_, Vec<u8>>(3)?.into(),
        headers: match headers {
            None => Vec::new(),
            Some(headers) => decode_headers(headers.into()).ok_or_else(|| {
                let what = "the headers of a record are damaged";
                rusqlite::Error::FromSqlConversionFailure(4, Type::Blob, what.into())
            })?,
        },
    })
}

/// Headers as they are stored: length and bytes of each name and value.
pub(super) fn encode_headers(headers: &[(ByteString, Bytes)]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut encoded = BytesMut::new();
    for (name, value) in headers {
        for bytes in [name.as_bytes(), value] {
            encoded.put_u64_le(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            encoded.put_slice(bytes);
        }
    }
    Some(encoded.into())
}

fn decode_headers(mut encoded: Bytes) -> Option<Vec<(ByteString, Bytes)>> {
    let mut headers = Vec::new();
    while !encoded.is_empty() {
        let name = ByteString::try_from(field(&mut encoded)?).ok()?;
        headers.push((name, field(&mut encoded)?));
    }
    Some(headers)
}

fn field(encoded: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(encoded.try_get_u64_le().ok()?).ok()?;
    (len <= encoded.len()).then(|| encoded.split_to(len))
}
