//! Partitions read backwards as one, a block of each in turn, always of those
//! that are furthest ahead: the newest comes first, and a look that ends early
//! has seen about the same time of each.

use futures_util::future::try_join_all;
use posthaste_core::limits::{LOOK_READ_BYTES, LOOK_READS_MAX};
use posthaste_core::time::Timestamp;

use super::cursor::Span;
use super::{Bound, Budget, Piece};
use crate::log::{Log, LogError, Offset, Record, TopicPartition};

/// Records of the first block of a partition; later ones hold about
/// [`LOOK_READ_BYTES`]. They can be large: 256 attempts, or a body of 1 MiB. Of
/// each of 64 partitions that must leave most of a look.
const BLOCK_FIRST: u64 = 4;
/// Most of one block.
const BLOCK_MAX: u64 = 4_096;

/// The partitions, each from some place back to another.
pub(in crate::api) struct Back<'a> {
    log: &'a dyn Log,
    parts: Vec<Part>,
    /// What ended it before it had read all.
    pub(in crate::api) ended_by: Option<Bound>,
}

struct Part {
    tp: TopicPartition,
    floor: Offset,
    /// Everything from here on was read.
    low: Offset,
    /// The time of the oldest record read.
    reached: Timestamp,
    block: u64,
}

/// The stretch of a partition that lies between two times.
pub(in crate::api) async fn span(
    log: &dyn Log,
    tp: &TopicPartition,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<Span, LogError> {
    let (start, end) = log.bounds(tp).await?;
    let at = |time: Option<Timestamp>, open: Offset| async move {
        match time {
            Some(time) if start < end => log.offset_at(tp, time).await,
            _ => Ok(open),
        }
    };
    let start = at(since, start).await?.clamp(start, end);
    let high = at(until, end).await?.clamp(start, end);
    Ok(Span {
        start,
        low: high,
        high,
    })
}

impl<'a> Back<'a> {
    /// From `high` of each span back to its floor.
    pub(super) fn over(
        log: &'a dyn Log,
        places: &[TopicPartition],
        spans: &[Span],
        floor: impl Fn(&Span) -> Offset,
    ) -> Self {
        let part = |(tp, span): (&TopicPartition, &Span)| Part {
            tp: tp.clone(),
            floor: floor(span),
            low: span.high,
            reached: Timestamp::from_millis(u64::MAX),
            block: BLOCK_FIRST,
        };
        Self {
            log,
            parts: places.iter().zip(spans).map(part).collect(),
            ended_by: None,
        }
    }

    /// The next blocks; `None` at the end, and when the budget is spent.
    pub(in crate::api) async fn next(
        &mut self,
        budget: &mut Budget,
    ) -> Result<Option<Vec<Piece>>, LogError> {
        let unread = self.parts.iter_mut().filter(|part| part.floor < part.low);
        let mut unread: Vec<_> = unread.collect();
        if unread.is_empty() {
            return Ok(None);
        }
        self.ended_by = budget.spent();
        if self.ended_by.is_some() {
            return Ok(None);
        }
        unread.sort_by_key(|part| std::cmp::Reverse(part.reached));
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

    /// Ends it here: it found enough.
    pub(in crate::api) fn stop(&mut self) {
        self.ended_by = Some(Bound::Found);
    }

    /// Where each partition was read down to.
    pub(super) fn lows(&self) -> impl Iterator<Item = Offset> {
        self.parts.iter().map(|part| part.low)
    }

    /// All that is younger was read; `None` when all was.
    pub(in crate::api) fn reached(&self) -> Option<Timestamp> {
        let unread = self.parts.iter().filter(|part| part.floor < part.low);
        unread.map(|part| part.reached).max()
    }
}

impl Part {
    /// Reads the block below what was read. It stands only as a whole: what is
    /// given up in the middle is read again.
    async fn read(&mut self, log: &dyn Log) -> Result<Piece, LogError> {
        let from = self.low.saturating_sub(self.block).max(self.floor);
        let mut records: Vec<Record> = Vec::new();
        let mut next = from;
        while next < self.low {
            let (read, after) = match log.read(&self.tp, next, LOOK_READ_BYTES).await {
                // Its records grew too old meanwhile.
                Err(LogError::OutOfRange { start, .. }) if start > next => (Vec::new(), start),
                read => read?,
            };
            records.extend(read.into_iter().filter(|r| r.offset < self.low));
            next = after.max(next + 1);
        }
        let bytes: usize = records.iter().map(Record::size).sum();
        if let Some(each) = bytes.checked_div(records.len()) {
            let fit = u64::try_from(LOOK_READ_BYTES / each.max(1)).unwrap_or(1);
            self.block = fit.clamp(1, BLOCK_MAX);
        }
        let oldest = records.iter().map(|record| record.timestamp).min();
        self.reached = oldest.map_or(self.reached, |oldest| oldest.min(self.reached));
        self.low = from;
        Ok(Piece {
            tp: self.tp.clone(),
            records,
        })
    }
}
