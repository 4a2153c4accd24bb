//! When a snapshot is written, and what is committed then.

use super::{Action, Owner};
use crate::lane::fold::Change;
use crate::lane::snapshot::{self, SnapshotRef};
use crate::limits::{SNAPSHOT_AGE_MAX, SNAPSHOT_EVERY, SNAPSHOT_TAIL_BYTES_MAX};
use crate::time::Timestamp;

/// What stands behind the last snapshot.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    /// Whether anything changed.
    news: bool,
    /// Bytes read.
    tail: usize,
    /// When the last was taken, or the first tick was.
    last: Option<Timestamp>,
    /// `upto` and parts of the one being written.
    writing: Option<(u64, u32)>,
    /// `upto` of the one written last.
    written: Option<u64>,
}

impl Snapshots {
    /// Notes a record that was folded.
    pub(super) fn read(&mut self, bytes: usize, change: &Change) {
        self.tail = self.tail.saturating_add(bytes);
        self.news |= !matches!(change, Change::Nothing | Change::Claim);
    }

    fn is_due(&mut self, now: Timestamp, draining: bool, next: u64) -> bool {
        if self.writing.is_some() {
            return false;
        }
        let age = now.since(*self.last.get_or_insert(now));
        let soon = draining || age >= SNAPSHOT_EVERY || self.tail >= SNAPSHOT_TAIL_BYTES_MAX;
        let old = age >= SNAPSHOT_AGE_MAX && self.written != Some(next);
        (self.news && soon) || old
    }
}

impl Owner {
    /// Writes a snapshot when one is due; draining, once everything told was
    /// read back.
    pub(super) fn write_snapshot(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let draining = self.draining && self.is_drained() && self.overlay.is_empty();
        if !self.snapshots.is_due(now, draining, self.fold.next()) {
            return;
        }
        let parts = self.snapshot();
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        self.snapshots.writing = Some((self.fold.next(), count));
        self.snapshots.news = false;
        self.snapshots.tail = 0;
        self.snapshots.last = Some(now);
        actions.push(Action::Snapshot { parts });
    }

    /// The parts of a snapshot of the state as it is, to be appended in order.
    pub fn snapshot(&self) -> Vec<bytes::Bytes> {
        let standings = self
            .lines
            .iter()
            .filter_map(|(&endpoint, line)| Some((endpoint, line.save()?)));
        snapshot::write(
            &self.fold,
            self.claimed.unwrap_or(0),
            standings.collect(),
            self.caps.part_bytes,
        )
    }

    /// The log has all parts of the snapshot, the first at this offset: it may
    /// be committed.
    pub fn snapshot_written(&mut self, part0: u64, actions: &mut Vec<Action>) {
        let Some((upto, parts)) = self.snapshots.writing.take() else {
            return;
        };
        self.snapshots.written = Some(upto);
        let at = SnapshotRef {
            owner_epoch: self.claimed.unwrap_or(0),
            part0,
            parts,
        };
        actions.push(Action::Commit {
            upto,
            metadata: at.to_string(),
        });
    }

    /// Whether the state is as the last snapshot says, and none is being
    /// written: a drained owner can be let go.
    pub fn is_saved(&self) -> bool {
        self.snapshots.writing.is_none() && !self.snapshots.news
    }
}
