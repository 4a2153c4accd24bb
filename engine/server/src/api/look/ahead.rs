//! Partitions read forward as one.

use std::ops::Range;

use futures_util::future::try_join_all;
use posthaste_core::limits::LOOK_READ_BYTES;
use posthaste_core::time::Timestamp;

use super::Piece;
use super::parts::{Part, Parts, read};
use crate::log::{Log, LogError, Offset, TopicPartition};

/// The partitions, each from some place on.
pub(in crate::api) type Ahead<'a> = Parts<'a, Forward>;

pub(in crate::api) struct Forward {
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
            Ok(Forward {
                tp,
                next,
                to,
                reached: since,
            })
        });
        Ok(Self::new(log, try_join_all(parts).await?))
    }

    /// These offsets of one partition.
    pub(super) fn over(log: &'a dyn Log, tp: TopicPartition, offsets: Range<Offset>) -> Self {
        let part = Forward {
            tp,
            next: offsets.start,
            to: offsets.end,
            reached: Timestamp::default(),
        };
        Self::new(log, vec![part])
    }

    /// All that is older was read.
    pub(in crate::api) fn reached(&self) -> Option<Timestamp> {
        self.unread().map(|part| part.reached).min()
    }
}

impl Part for Forward {
    fn is_over(&self) -> bool {
        self.next >= self.to
    }

    fn came(&self) -> u64 {
        self.reached.as_millis()
    }

    async fn read(&mut self, log: &dyn Log) -> Result<Piece, LogError> {
        let (mut records, next) = read(log, &self.tp, self.next, LOOK_READ_BYTES).await?;
        records.retain(|record| record.offset < self.to);
        if let Some(last) = records.last() {
            self.reached = self.reached.max(last.timestamp);
        }
        self.next = next.min(self.to);
        Ok(Piece {
            tp: self.tp.clone(),
            records,
        })
    }
}
