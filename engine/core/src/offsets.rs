//! Which offsets of a source partition are settled, hence how far it may be
//! committed.
//!
//! Deliveries settle out of order; what is committed is the lowest offset not
//! settled, with metadata that says which later ones are. After a crash only
//! what is truly open is attempted again.
//!
//! What it refuses to do: move the committable position past anything open,
//! or trust metadata that does not check out.

use std::collections::BTreeMap;

mod bits;
mod metadata;
#[cfg(test)]
mod tests;

use bits::Bits;

/// The offsets of one source partition under one assignment.
///
/// ```text
///   settled | open, settled, open ... | known from before | unknown
///           low                      next               horizon
/// ```
#[derive(Debug)]
pub struct Tracker {
    epoch: u16,
    /// A set bit is settled. Bits below `low` mean nothing.
    bits: Bits,
    low: u64,
    next: u64,
    /// Offsets from `next` to here were read by a predecessor; set bits among
    /// them were settled then.
    horizon: u64,
    open: usize,
    /// Deliveries still owed, of offsets that owe more than one.
    owing: BTreeMap<u64, u32>,
    dirty: bool,
    untouched: bool,
}

impl Tracker {
    /// A partition of which nothing is known but the position. `epoch` is kept
    /// in the metadata, for people who debug.
    pub fn new(position: u64, epoch: u16) -> Self {
        Self {
            epoch,
            bits: Bits::new(position),
            low: position,
            next: position,
            horizon: position,
            open: 0,
            owing: BTreeMap::new(),
            dirty: false,
            untouched: true,
        }
    }

    /// A partition as it was committed. Metadata that is missing, cut or
    /// damaged costs duplicates, nothing else.
    pub fn resume(position: u64, metadata: &str, epoch: u16) -> Self {
        let mut tracker = Self::new(position, epoch);
        if let Some((bits, horizon)) = metadata::decode(position, metadata) {
            tracker.bits = bits;
            tracker.horizon = horizon;
        }
        tracker
    }

    /// Whether the offset was settled, by us or by a predecessor.
    pub fn is_done(&self, offset: u64) -> bool {
        offset < self.low || (offset < self.next.max(self.horizon) && self.bits.get(offset))
    }

    /// The record at `offset` was read and owes `deliveries`; none settles it
    /// at once. Offsets that were skipped hold nothing and are settled. Offsets
    /// only rise: an earlier one changes nothing.
    pub fn seen(&mut self, offset: u64, deliveries: u32) {
        if offset < self.next {
            return;
        }
        self.skip_to(offset);
        self.untouched = false;
        self.next = offset + 1;
        self.dirty = true;
        if deliveries == 0 {
            self.bits.set(offset);
            self.advance();
            return;
        }
        self.bits.clear(offset);
        self.open += 1;
        if deliveries > 1 {
            self.owing.insert(offset, deliveries);
        }
    }

    /// Nothing below `next` is still to be read.
    pub fn skip_to(&mut self, next: u64) {
        if next <= self.next {
            return;
        }
        // The log does not begin where it was committed: what the metadata
        // says may be about other records.
        if self.untouched {
            self.bits = Bits::new(self.next);
            self.horizon = self.next;
            self.untouched = false;
        }
        self.bits.set_range(self.next, next);
        self.next = next;
        self.dirty = true;
        self.advance();
    }

    /// One delivery of the offset is settled. Answers whether the offset now
    /// is.
    pub fn done(&mut self, offset: u64) -> bool {
        if offset < self.low || offset >= self.next || self.bits.get(offset) {
            return false;
        }
        if let Some(owed) = self.owing.get_mut(&offset) {
            *owed -= 1;
            if *owed > 0 {
                return false;
            }
            self.owing.remove(&offset);
        }
        self.bits.set(offset);
        self.open -= 1;
        self.dirty = true;
        if offset == self.low {
            self.advance();
        }
        true
    }

    fn advance(&mut self) {
        self.low = self.bits.first_clear(self.low, self.next);
        self.bits.forget_below(self.low);
    }

    /// The position to commit: the lowest offset not settled.
    pub fn committable(&self) -> u64 {
        self.low
    }

    /// The position after the last record read.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Offsets from the lowest open one to the newest.
    pub fn span(&self) -> u64 {
        self.next - self.low
    }

    /// Offsets that are open.
    pub fn incomplete(&self) -> usize {
        self.open
    }

    /// What to commit with [`committable`](Self::committable), in at most
    /// `budget` characters: as much as fits, from the front.
    pub fn metadata(&self, budget: usize) -> String {
        let end = self.next.max(self.horizon);
        metadata::encode(&self.bits, self.low, end, self.epoch, budget)
    }

    /// Whether there is something new to commit.
    pub fn dirty(&self) -> bool {
        self.dirty
    }

    /// A commit is on its way.
    pub fn mark_committed(&mut self) {
        self.dirty = false;
    }

    /// The commit failed: commit again.
    pub fn mark_dirty(&mut self) {
        self.dirty = true;
    }
}
