//! Partitions read forward as one: a piece of each in turn, always of those that
//! are furthest behind, so that a look that ends early has seen about the same
//! time of each.

use futures_util::future::try_join_all;
use posthaste_core::limits::{LOOK_READ_BYTES, LOOK_READS_MAX};
use posthaste_core::time::Timestamp;

use super::{Bound, Budget, Piece};
use crate::log::{Log, LogError, Offset, TopicPartition};

/// The partitions, each from the first record of a time on.
pub(in crate::api) struct Ahead<'a> {
    log: &'a dyn Log,
    parts: Vec<Part>,
    /// What ended it before it had read all.
    pub(in crate::api) ended_by: Option<Bound>,
    /// Records grew too old before they were read.
    pub(in crate::api) truncated: bool,
}

/// A part of one partition.
#[derive(Debug, Clone)]
pub(in crate::api) struct Stretch {
    pub(in crate::api) tp: TopicPartition,
    /// The next offset to be read.
    pub(in crate::api) next: Offset,
    /// One past the last.
    pub(in crate::api) to: Offset,
}

struct Part {
    at: Stretch,
    /// The time of the last record read.
    reached: Timestamp,
}

impl<'a> Ahead<'a> {
    /// From the first record of `since` or later to the end, or to the first one
    /// of `until` or later.
    pub(in crate::api) async fn open(
        log: &'a dyn Log,
        places: Vec<TopicPartition>,
        since: Timestamp,
        until: Option<Timestamp>,
    ) -> Result<Self, LogError> {
        let parts = places.into_iter().map(|tp| async move {
            let (start, end) = log.bounds(&tp).await?;
            let next = match start == end {
                true => end,
                false => log.offset_at(&tp, since).await?.clamp(start, end),
            };
            let to = match until {
                Some(until) if next < end => log.offset_at(&tp, until).await?.clamp(next, end),
                _ => end,
            };
            Ok(Part {
                at: Stretch { tp, next, to },
                reached: since,
            })
        });
        Ok(Self::of(log, try_join_all(parts).await?))
    }

    /// Over these, in their order as long as nothing is known of their times.
    pub(in crate::api) fn over(
        log: &'a dyn Log,
        stretches: impl IntoIterator<Item = Stretch>,
    ) -> Self {
        let part = |at| Part {
            at,
            reached: Timestamp::default(),
        };
        Self::of(log, stretches.into_iter().map(part).collect())
    }

    fn of(log: &'a dyn Log, parts: Vec<Part>) -> Self {
        Self {
            log,
            parts,
            ended_by: None,
            truncated: false,
        }
    }

    /// The next pieces; `None` at the end, and when the budget is spent.
    pub(in crate::api) async fn next(
        &mut self,
        budget: &mut Budget,
    ) -> Result<Option<Vec<Piece>>, LogError> {
        let unread = self.parts.iter_mut().filter(|part| part.is_unread());
        let mut unread: Vec<_> = unread.collect();
        if unread.is_empty() {
            return Ok(None);
        }
        self.ended_by = budget.spent();
        if self.ended_by.is_some() {
            return Ok(None);
        }
        unread.sort_by_key(|part| part.reached);
        unread.truncate(LOOK_READS_MAX);
        let log = self.log;
        let reads = unread.into_iter().map(|part| part.read(log));
        let Some(read) = budget.within(try_join_all(reads)).await? else {
            self.ended_by = Some(Bound::Time);
            return Ok(None);
        };
        let mut pieces = Vec::new();
        for (piece, truncated) in read {
            budget.charge(&piece.records);
            self.truncated |= truncated;
            pieces.push(piece);
        }
        Ok(Some(pieces))
    }

    /// All that is older was read.
    pub(in crate::api) fn reached(&self) -> Option<Timestamp> {
        let unread = self.parts.iter().filter(|part| part.is_unread());
        unread.map(|part| part.reached).min()
    }

    /// What follows all that was read of a partition.
    pub(in crate::api) fn next_of(&self, tp: &TopicPartition) -> Option<Offset> {
        let mut parts = self.parts.iter();
        parts
            .find(|part| part.at.tp == *tp)
            .map(|part| part.at.next)
    }
}

impl Part {
    fn is_unread(&self) -> bool {
        self.at.next < self.at.to
    }

    /// The next piece, and whether there were records before it that are gone.
    async fn read(&mut self, log: &dyn Log) -> Result<(Piece, bool), LogError> {
        let Stretch { tp, next: from, to } = &mut self.at;
        let mut truncated = false;
        let (records, next) = match log.read(tp, *from, LOOK_READ_BYTES).await {
            // Its records grew too old meanwhile.
            Err(LogError::OutOfRange { start, .. }) if start > *from => {
                truncated = true;
                (Vec::new(), start)
            }
            read => read?,
        };
        match next > *from {
            true => *from = next.min(*to),
            // It ends before where it ended.
            false => *to = *from,
        }
        let within = records.into_iter().filter(|record| record.offset < *to);
        let records: Vec<_> = within.collect();
        if let Some(last) = records.last() {
            self.reached = self.reached.max(last.timestamp);
        }
        let tp = tp.clone();
        Ok((Piece { tp, records }, truncated))
    }
}
