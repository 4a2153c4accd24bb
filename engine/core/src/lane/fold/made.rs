//! What operations made so far: taken from their deliveries as they are read,
//! so that whoever folds the lane knows where to go on.
//!
//! ```text
//!  range 0:   offset 4 <-- offset 9 <-- offset 12     each names the one before it
//!                             ^-- one of a replaced owner, after offset 4 as
//!                                 well: it follows nothing that is the last
//! ```
//!
//! A delivery that does not name the last one of its range changes nothing: it is
//! a copy, or stands where one before it was not appended. Whoever wrote it goes
//! on behind the last one.

use std::collections::BTreeMap;

use bytes::Bytes;
use posthaste_proto as proto;
use posthaste_proto::RecordError;

use super::bytes16;
use crate::id::OperationId;
use crate::limits::{MADE_MAX, MADE_RANGES_MAX, SNAPSHOT_RUNS_MAX};

/// What one operation made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// How many deliveries.
    count: u64,
    /// Where the last of them stands.
    at: u64,
    /// Of each range: one more than the offset its last delivery is of.
    next: BTreeMap<u32, u64>,
}

/// The operations that made deliveries, no more than [`MADE_MAX`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::lane) struct Operations {
    by_id: BTreeMap<OperationId, Made>,
    /// By where their last delivery stands.
    by_place: BTreeMap<u64, OperationId>,
    /// Ranges of all.
    ranges: usize,
    /// Whether whatever was made before the fold began is known.
    whole: Whole,
}

/// Whether a fold knows of everything. No part of what it knows.
#[derive(Debug, Default, Clone, Copy)]
struct Whole(bool);

impl PartialEq for Whole {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Whole {}

/// Where a delivery stands in its operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    operation: OperationId,
    range: u32,
    at: u64,
    after: u64,
}

impl Made {
    /// How many deliveries.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// One more than the offset that the last delivery of a range is of; 0 where
    /// it has none.
    pub fn next(&self, range: u32) -> u64 {
        self.next.get(&range).copied().unwrap_or(0)
    }
}

impl Link {
    /// `None` of a delivery that no operation made, or that stands again.
    pub(super) fn of(record: &proto::DeliverHead) -> Result<Option<Self>, RecordError> {
        let made = matches!(
            record.reason(),
            proto::Reason::Replay | proto::Reason::Resend
        );
        if !made || record.range_offset == 0 {
            return Ok(None);
        }
        Ok(Some(Self {
            operation: OperationId::from_bytes(bytes16(&record.generation)?),
            range: record.range,
            at: record.range_offset,
            after: record.range_after,
        }))
    }
}

impl Operations {
    pub(super) fn new(whole: bool) -> Self {
        Self {
            whole: Whole(whole),
            ..Self::default()
        }
    }

    /// Whatever was made before is known from here on.
    pub(super) fn is_whole(&mut self) {
        self.whole = Whole(true);
    }

    pub(super) fn get(&self, operation: OperationId) -> Option<&Made> {
        self.by_id.get(&operation)
    }

    /// The delivery at `offset` of the lane. Answers whether it follows the last
    /// of its range.
    pub(super) fn follow(&mut self, offset: u64, link: Link) -> bool {
        let known = self.by_id.get(&link.operation);
        let last = known.map_or(0, |made| made.next(link.range));
        // What came before it may be older than the log.
        let unknown = last == 0 && !self.whole.0;
        if link.at <= last || (link.after != last && !unknown) {
            return false;
        }
        let made = self.by_id.entry(link.operation).or_default();
        self.by_place.remove(&made.at);
        made.at = offset;
        made.count += 1;
        self.ranges += usize::from(made.next.insert(link.range, link.at).is_none());
        self.by_place.insert(offset, link.operation);
        self.forget();
        true
    }

    fn forget(&mut self) {
        while (self.by_id.len() > MADE_MAX || self.ranges > MADE_RANGES_MAX)
            && let Some((_, oldest)) = self.by_place.pop_first()
        {
            if let Some(made) = self.by_id.remove(&oldest) {
                self.ranges -= made.next.len();
            }
        }
    }

    /// As a snapshot has them.
    pub(in crate::lane) fn pieces(&self) -> impl Iterator<Item = proto::snapshot::Made> {
        let known = |id: &OperationId| self.by_id.get(id).map(|made| (*id, made));
        self.by_place
            .values()
            .filter_map(known)
            .flat_map(|(id, made)| {
                let mut ranges = made.next.iter().peekable();
                std::iter::from_fn(move || {
                    ranges.peek()?;
                    let some = ranges.by_ref().take(SNAPSHOT_RUNS_MAX);
                    let (ranges, next) = some.map(|(&range, &next)| (range, next)).unzip();
                    Some(proto::snapshot::Made {
                        operation: Bytes::copy_from_slice(id.as_bytes()),
                        at: made.at,
                        count: made.count,
                        ranges,
                        next,
                    })
                })
            })
    }

    /// One piece of one of them; answers whether it can be.
    pub(super) fn restore(&mut self, piece: &proto::snapshot::Made) -> bool {
        let Ok(id) = bytes16(&piece.operation) else {
            return false;
        };
        let id = OperationId::from_bytes(id);
        if self
            .by_place
            .insert(piece.at, id)
            .is_some_and(|it| it != id)
            || piece.ranges.len() != piece.next.len()
        {
            return false;
        }
        let made = self.by_id.entry(id).or_default();
        made.at = piece.at;
        made.count = piece.count;
        for (&range, &next) in piece.ranges.iter().zip(&piece.next) {
            self.ranges += usize::from(made.next.insert(range, next).is_none());
        }
        self.forget();
        true
    }
}

#[cfg(test)]
mod tests {
    use posthaste_proto::Record as _;

    use super::super::{Change, Fold};
    use super::*;

    fn link(operation: u8, range: u32, at: u64, after: u64) -> Bytes {
        proto::Deliver {
            delivery_id: vec![1; 16].into(),
            endpoint_id: vec![2; 16].into(),
            generation: vec![operation; 16].into(),
            reason: proto::Reason::Replay.into(),
            range,
            range_offset: at,
            range_after: after,
            ..Default::default()
        }
        .to_value()
    }

    fn folds(fold: &mut Fold, value: &Bytes) -> bool {
        let change = fold.apply(fold.next(), value).unwrap();
        assert!(matches!(change, Change::Held(_) | Change::Duplicate));
        change != Change::Duplicate
    }

    fn made(fold: &Fold, operation: u8) -> (u64, u64, u64) {
        let made = fold.made(OperationId::from_bytes([operation; 16])).unwrap();
        (made.count(), made.next(0), made.next(1))
    }

    #[test]
    fn a_delivery_counts_once_and_only_behind_the_one_before_it() {
        let mut fold = Fold::new(0);
        for (range, at, after, wanted) in [
            // One before it was not appended.
            (0, 5, 3, false),
            (0, 3, 0, true),
            (0, 5, 3, true),
            // Copies, of a replaced owner too.
            (0, 5, 3, false),
            (0, 3, 0, false),
            (0, 9, 3, false),
            (0, 9, 5, true),
            // Another range, another line.
            (1, 1, 0, true),
        ] {
            let value = link(7, range, at, after);
            assert_eq!(folds(&mut fold, &value), wanted, "{range} {at} {after}");
        }
        assert_eq!(made(&fold, 7), (4, 9, 1));
        assert_eq!(fold.len(), 4);
        // One that stands again for another reason is no copy.
        let moved = proto::Deliver {
            reason: proto::Reason::Moved.into(),
            ..proto::Deliver::from_value(&link(7, 0, 9, 5)).unwrap()
        };
        assert!(folds(&mut fold, &moved.to_value()));
        assert_eq!(made(&fold, 7), (4, 9, 1));
    }

    #[test]
    fn a_fold_that_begins_late_believes_the_first_it_sees() {
        let mut fold = Fold::new(100);
        assert!(folds(&mut fold, &link(7, 0, 5, 3)));
        assert!(folds(&mut fold, &link(7, 1, 8, 2)));
        assert!(!folds(&mut fold, &link(7, 0, 9, 3)));
        let mut fold = Fold::new(100);
        fold.knows_all();
        assert!(!folds(&mut fold, &link(7, 0, 5, 3)));
    }

    #[test]
    fn the_one_longest_untouched_is_forgotten() {
        let mut operations = Operations::new(true);
        let id = |number: usize| {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            OperationId::from_bytes(id)
        };
        let mut follow = |number: usize, offset: u64, at: u64, after: u64| {
            let link = Link {
                operation: id(number),
                range: 0,
                at,
                after,
            };
            operations.follow(offset, link)
        };
        for (number, offset) in (0..MADE_MAX).zip(0..) {
            assert!(follow(number, offset, 1, 0));
        }
        assert!(follow(0, 5_000, 2, 1));
        assert!(follow(MADE_MAX, 5_001, 1, 0));
        assert_eq!(operations.by_id.len(), MADE_MAX);
        assert_eq!(operations.ranges, MADE_MAX);
        assert!(operations.get(id(0)).is_some());
        assert!(operations.get(id(1)).is_none());
    }
}
