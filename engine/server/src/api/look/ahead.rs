//! Partitions read forward as one.

use futures_util::future::try_join_all;
use posthaste_core::limits::LOOK_READ_BYTES;
use posthaste_core::time::Timestamp;

use super::Piece;
use super::parts::{Part, Parts, read};
use crate::log::{Log, LogError, Offset, TopicPartition};

/// The partitions, each from some place on.
pub(in crate::api) type Ahead<'a> = Parts<'a, Forward>;

/// A part of one partition.
#[derive(Debug, Clone)]
pub(in crate::api) struct Stretch {
    pub(in crate::api) tp: TopicPartition,
    /// The next offset to be read.
    pub(in crate::api) next: Offset,
    /// One past the last.
    pub(in crate::api) to: Offset,
}

pub(in crate::api) struct Forward {
    at: Stretch,
    /// Records grew too old before they were read.
    truncated: bool,
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
            let at = Stretch { tp, next, to };
            Ok(Forward::new(at, since))
        });
        Ok(Self::new(log, try_join_all(parts).await?))
    }

    /// Over these, in their order as long as nothing is known of their times.
    pub(in crate::api) fn over(
        log: &'a dyn Log,
        stretches: impl IntoIterator<Item = Stretch>,
    ) -> Self {
        let part = |at| Forward::new(at, Timestamp::default());
        Self::new(log, stretches.into_iter().map(part).collect())
    }

    /// All that is older was read.
    pub(in crate::api) fn reached(&self) -> Option<Timestamp> {
        self.unread().map(|part| part.reached).min()
    }

    /// Whether records grew too old before they were read.
    pub(in crate::api) fn truncated(&self) -> bool {
        self.parts.iter().any(|part| part.truncated)
    }

    /// What follows all that was read of a partition.
    pub(in crate::api) fn next_of(&self, tp: &TopicPartition) -> Option<Offset> {
        let mut parts = self.parts.iter();
        parts
            .find(|part| part.at.tp == *tp)
            .map(|part| part.at.next)
    }
}

impl Forward {
    fn new(at: Stretch, reached: Timestamp) -> Self {
        Self {
            at,
            truncated: false,
            reached,
        }
    }
}

impl Part for Forward {
    fn is_over(&self) -> bool {
        self.at.next >= self.at.to
    }

    fn came(&self) -> u64 {
        self.reached.as_millis()
    }

    async fn read(&mut self, log: &dyn Log) -> Result<Piece, LogError> {
        let Stretch { tp, next: from, to } = &mut self.at;
        let (mut records, next, gone) = read(log, tp, *from, LOOK_READ_BYTES).await?;
        self.truncated |= gone;
        match next > *from {
            true => *from = next.min(*to),
            // It ends before where it ended.
            false => *to = *from,
        }
        records.retain(|record| record.offset < *to);
        if let Some(last) = records.last() {
            self.reached = self.reached.max(last.timestamp);
        }
        let tp = tp.clone();
        Ok(Piece { tp, records })
    }
}
