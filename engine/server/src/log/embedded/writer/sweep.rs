//! Letting old records go: at most once a minute, a few at a time, along with
//! whatever else the transaction carries. Then, while nothing waits, room that
//! has become free is given back to the disk.

use std::sync::{Arc, PoisonError};

use posthaste_core::time::Timestamp;
use rusqlite::params;

use super::super::MINUTE;
use super::super::catalog::{Part, Topic};
use super::super::store::{integer, offset_of, row_of};
use super::Writer;

/// Records deleted in one transaction.
const RECORDS_MAX: i64 = 512;
/// Pages given back to the disk at once.
const PAGES_STEP: i64 = 1_024;
/// Free pages kept, however few are in use: 32 MiB to append to.
const PAGES_FREE_MIN: i64 = 4_096;

/// How far a sweep has come.
#[derive(Default)]
pub(super) struct Sweep {
    at: Option<Timestamp>,
    /// Partitions still to be looked at.
    left: Vec<(Arc<Topic>, u32)>,
    /// First offset after what the transaction deletes.
    trimmed: Option<(Arc<Topic>, u32, u64)>,
    gives_back: bool,
}

impl Sweep {
    pub(super) fn is_running(&self) -> bool {
        !self.left.is_empty() || self.gives_back
    }

    /// The transaction is on disk.
    pub(super) fn publish(&mut self) {
        if let Some((topic, partition, start)) = self.trimmed.take()
            && let Some(part) = topic.part(partition)
        {
            part.set_start(start);
        }
    }

    /// The transaction failed; the next sweep begins anew.
    pub(super) fn abandon(&mut self) {
        self.trimmed = None;
        self.left.clear();
        self.gives_back = false;
    }
}

impl Writer<'_> {
    /// Goes on with a sweep, or begins one that is due.
    pub(super) fn sweep_some(&mut self, idle: bool) -> rusqlite::Result<()> {
        if !self.sweep.is_running() {
            let due = self.sweep.at.is_none_or(|at| self.now.since(at) >= MINUTE);
            if !due {
                return Ok(());
            }
            self.sweep.at = Some(self.now);
            self.sweep.left = self.ageing();
        }
        while let Some((topic, partition)) = self.sweep.left.pop() {
            if self.trim_some(&topic, partition)? {
                self.sweep.left.push((topic, partition));
                self.sweep.gives_back = true;
                return Ok(());
            }
        }
        if self.sweep.gives_back {
            self.sweep.gives_back = idle && self.give_back()?;
        }
        Ok(())
    }

    fn ageing(&self) -> Vec<(Arc<Topic>, u32)> {
        let topics = &self.shared.topics;
        let topics = topics.read().unwrap_or_else(PoisonError::into_inner);
        let mut parts = Vec::new();
        for topic in topics.values().filter(|topic| !topic.is_compacted()) {
            parts.extend((0..topic.partitions()).map(|n| (Arc::clone(topic), n)));
        }
        parts
    }

    /// Deletes the oldest records of a partition, as far as they are too old;
    /// false when none is.
    fn trim_some(&mut self, topic: &Arc<Topic>, partition: u32) -> rusqlite::Result<bool> {
        let (Some(part), Some(retention)) = (topic.part(partition), topic.retention()) else {
            return Ok(false);
        };
        let retention = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        let oldest_kept = integer(self.now.as_millis().saturating_sub(retention));
        let start = self.first_kept(part, oldest_kept)?;
        if start == part.start() {
            return Ok(false);
        }
        self.begin()?;
        let old = params![row_of(part.stream, 0), row_of(part.stream, start)];
        self.db
            .execute("DELETE FROM records WHERE id >= ?1 AND id < ?2", old)?;
        let next = self
            .moved
            .get(&part.stream)
            .map_or(part.end(), |moved| moved.end);
        self.db.execute(
            "UPDATE partitions SET start = ?2, next = ?3 WHERE stream = ?1",
            params![part.stream, integer(start), integer(next)],
        )?;
        self.sweep.trimmed = Some((Arc::clone(topic), partition, start));
        Ok(true)
    }

    /// The first offset that stays, after at most [`RECORDS_MAX`] that go.
    fn first_kept(&self, part: &Part, oldest_kept: i64) -> rusqlite::Result<u64> {
        let mut select = self.db.prepare(
            "SELECT id, ts FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3",
        )?;
        let (start, end) = part.bounds();
        let range = params![
            row_of(part.stream, start),
            row_of(part.stream, end),
            RECORDS_MAX
        ];
        let mut rows = select.query(range)?;
        let mut first = start;
        while let Some(row) = rows.next()? {
            if row.get::<_, i64>(1)? >= oldest_kept {
                break;
            }
            first = offset_of(row.get(0)?) + 1;
        }
        Ok(first)
    }

    /// Shortens the file a little when much of it is free; true when more could
    /// be given back.
    fn give_back(&mut self) -> rusqlite::Result<bool> {
        let count = |what: &str| {
            self.db
                .query_row(&format!("PRAGMA {what}"), [], |row| row.get::<_, i64>(0))
        };
        let (free, all) = (count("freelist_count")?, count("page_count")?);
        if free <= PAGES_FREE_MIN || free < all / 4 {
            return Ok(false);
        }
        let shorten = format!("PRAGMA incremental_vacuum({PAGES_STEP})");
        let mut shorten = self.db.prepare(&shorten)?;
        let mut steps = shorten.query([])?;
        while steps.next()?.is_some() {}
        Ok(true)
    }
}
