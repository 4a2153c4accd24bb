//! Partitions read backwards as one, a block of each in turn: the newest comes
//! first.

use posthaste_core::limits::LOOK_READ_BYTES;
use posthaste_core::time::Timestamp;

use super::cursor::Span;
use super::parts::{Part, Parts, read};
use super::{Bound, Piece};
use crate::log::{Log, LogError, Offset, Record, TopicPartition};

/// Records of the first block of a partition; later ones hold about
/// [`LOOK_READ_BYTES`]. They can be large: 256 attempts, or a body of 1 MiB. Of
/// each of 64 partitions that must leave most of a look.
const BLOCK_FIRST: u64 = 4;
/// Most of one block.
const BLOCK_MAX: u64 = 4_096;

/// The partitions, each from some place back to another.
pub(in crate::api) type Back<'a> = Parts<'a, Backward>;

pub(in crate::api) struct Backward {
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
        let part = |(tp, span): (&TopicPartition, &Span)| Backward {
            tp: tp.clone(),
            floor: floor(span),
            low: span.high,
            reached: Timestamp::from_millis(u64::MAX),
            block: BLOCK_FIRST,
        };
        Self::new(log, places.iter().zip(spans).map(part).collect())
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
        self.unread().map(|part| part.reached).max()
    }
}

impl Part for Backward {
    fn is_over(&self) -> bool {
        self.floor >= self.low
    }

    fn came(&self) -> u64 {
        u64::MAX - self.reached.as_millis()
    }

    /// Reads the block below what was read. It stands only as a whole.
    async fn read(&mut self, log: &dyn Log) -> Result<Piece, LogError> {
        let from = self.low.saturating_sub(self.block).max(self.floor);
        let mut records: Vec<Record> = Vec::new();
        let mut next = from;
        while next < self.low {
            let (read, after, _) = read(log, &self.tp, next, LOOK_READ_BYTES).await?;
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
