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
}

struct Part {
    tp: TopicPartition,
    next: Offset,
    to: Offset,
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
                tp,
                next,
                to,
                reached: since,
            })
        });
        Ok(Self {
            log,
            parts: try_join_all(parts).await?,
            ended_by: None,
        })
    }

    /// The next pieces; `None` at the end, and when the budget is spent.
    pub(in crate::api) async fn next(
        &mut self,
        budget: &mut Budget,
    ) -> Result<Option<Vec<Piece>>, LogError> {
        let mut unread: Vec<_> = self.parts.iter_mut().filter(|p| p.next < p.to).collect();
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
        let Some(pieces) = budget.within(try_join_all(reads)).await? else {
            self.ended_by = Some(Bound::Time);
            return Ok(None);
        };
        for piece in &pieces {
            budget.charge(&piece.records);
        }
        Ok(Some(pieces))
    }

    /// All that is older was read.
    pub(in crate::api) fn reached(&self) -> Option<Timestamp> {
        let unread = self.parts.iter().filter(|part| part.next < part.to);
        unread.map(|part| part.reached).min()
    }
}

impl Part {
    async fn read(&mut self, log: &dyn Log) -> Result<Piece, LogError> {
        let (records, next) = match log.read(&self.tp, self.next, LOOK_READ_BYTES).await {
            // Its records grew too old meanwhile.
            Err(LogError::OutOfRange { start, .. }) if start > self.next => (Vec::new(), start),
            read => read?,
        };
        let within = records.into_iter().filter(|r| r.offset < self.to);
        let records: Vec<_> = within.collect();
        if let Some(last) = records.last() {
            self.reached = self.reached.max(last.timestamp);
        }
        self.next = next.max(self.next + 1).min(self.to);
        Ok(Piece {
            tp: self.tp.clone(),
            records,
        })
    }
}
