//! What one endpoint holds in the lane: deliveries that wait for the endpoint,
//! not for a time. They cost no memory of their own.
//!
//! ```text
//!           cursor           taken          last
//!  settled    |  x   held  x   x  held  held  |
//!  -----------+-------------------------------+---> offsets
//!    chunks:  [      ####      ####  ######## ]
//! ```
//!
//! Everything below the cursor is settled, or a timer; above it, what is in
//! `taken` is. `taken` is bounded by what owners work on at once. Which records
//! of a chunk are the endpoint's, the records themselves say.

use std::collections::BTreeSet;
use std::ops::Range;

use super::chunks::Chunks;

/// Offsets a chunk spans.
pub const CHUNK: u64 = 1_024;

/// What one endpoint holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub(super) cursor: u64,
    pub(super) last: u64,
    pub(super) count: u64,
    pub(super) taken: BTreeSet<u64>,
    pub(super) chunks: Chunks,
}

impl Hold {
    /// The record at this offset, and nothing else.
    pub(super) fn new(offset: u64) -> Self {
        let mut hold = Self::empty(offset, offset, 0);
        hold.add(offset);
        hold
    }

    /// No chunk yet.
    pub(super) fn empty(cursor: u64, last: u64, count: u64) -> Self {
        Self {
            cursor,
            last,
            count,
            taken: BTreeSet::new(),
            chunks: Chunks::default(),
        }
    }

    /// One more at its end.
    pub(super) fn add(&mut self, offset: u64) {
        self.last = offset;
        self.count += 1;
        self.chunks.push(offset / CHUNK);
    }

    /// A record of the endpoint stands here that is not held.
    pub(super) fn leave_out(&mut self, offset: u64) {
        if offset >= self.cursor {
            self.taken.insert(offset);
        }
    }

    /// Whether a record of the endpoint that stands here is held.
    pub fn contains(&self, offset: u64) -> bool {
        (self.cursor..=self.last).contains(&offset)
            && !self.taken.contains(&offset)
            && self.chunks.contains(offset / CHUNK)
    }

    /// One is held no longer. Answers whether it was.
    pub(super) fn take(&mut self, offset: u64) -> bool {
        let held = self.contains(offset);
        if held {
            self.taken.insert(offset);
            self.count = self.count.saturating_sub(1);
        }
        held
    }

    /// Nothing below is held any longer; `count` of it for this reason alone.
    /// Answers whether that is new.
    pub(super) fn pass(&mut self, to: u64, count: u64) -> bool {
        if to <= self.cursor {
            return false;
        }
        self.cursor = to;
        self.taken = self.taken.split_off(&to);
        self.chunks.pass(to / CHUNK);
        self.count = self.count.saturating_sub(count);
        true
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.cursor > self.last
    }

    /// Everything below is settled, or a timer.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The last record.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// How many are held; roughly, where a copy was settled twice.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first stretch of offsets at or after `from` in which records may be
    /// held.
    pub fn stretch(&self, from: u64) -> Option<Range<u64>> {
        let from = from.max(self.cursor);
        let (start, len) = self.chunks.run_from(from / CHUNK)?;
        let stretch = from.max(start * CHUNK)..((start + len) * CHUNK).min(self.last + 1);
        (!stretch.is_empty()).then_some(stretch)
    }

    /// Bytes it occupies.
    pub fn bytes(&self) -> usize {
        // A B-tree's leaf holds 11 keys and is at least half full.
        let taken = self.taken.len() * 2 * size_of::<u64>() + 96;
        size_of::<Self>() + self.chunks.bytes() + taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_read_in_stretches_and_taken_once() {
        let mut hold = Hold::new(2_000);
        hold.add(2_040);
        hold.add(2_050);
        hold.add(9_000);
        assert_eq!(hold.stretch(0), Some(2_000..3_072));
        assert_eq!(hold.stretch(3_072), Some(8_192..9_001));
        assert_eq!(hold.stretch(9_001), None);
        assert!(hold.contains(2_040) && !hold.contains(1_999) && !hold.contains(5_000));
        assert!(hold.take(2_040) && !hold.take(2_040));
        assert_eq!(hold.count(), 3);
        assert!(hold.pass(2_048, 1) && !hold.pass(2_048, 1));
        assert!(hold.taken.is_empty() && hold.contains(2_050) && !hold.contains(2_000));
        assert!(hold.pass(9_001, 2) && hold.is_empty());
        assert_eq!((hold.count(), hold.stretch(0)), (0, None));
    }

    #[test]
    fn ten_million_held_deliveries_cost_kilobytes() {
        const HELD: u64 = 10_000_000;
        const ENDPOINTS: u64 = 100;
        // One endpoint for itself, and a hundred in turn, the worst mixed with
        // chunks of others.
        let mut alone = Hold::new(0);
        (1..HELD).for_each(|offset| alone.add(offset));
        assert_eq!(alone.count(), HELD);
        assert!(alone.bytes() < 1_024, "{}", alone.bytes());
        let mut holds: Vec<_> = (0..ENDPOINTS).map(Hold::new).collect();
        for number in 1..HELD / ENDPOINTS {
            // Every other chunk is somebody else's.
            let offset = number * ENDPOINTS + number * ENDPOINTS / CHUNK * CHUNK;
            for (hold, place) in holds.iter_mut().zip(0..) {
                hold.add(offset + place);
            }
        }
        let bytes: usize = holds.iter().map(Hold::bytes).sum();
        assert!(bytes < 512 * 1_024, "{bytes}");
    }
}
