//! One assigned source partition: what is read and not yet routed, and which
//! of its offsets are settled.

use std::collections::VecDeque;

use posthaste_core::limits::SOURCE_SPAN_MAX;
use posthaste_core::offsets::Tracker;
use tokio::time::Instant;

use crate::log::{Epoch, Offset, Record, RevokeToken, TopicPartition};

/// A source partition under one assignment.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) tp: TopicPartition,
    pub(super) epoch: Epoch,
    pub(super) tracker: Tracker,
    /// Read, not yet routed. Bounded by the credit the log was given.
    pub(super) backlog: VecDeque<Batch>,
    pub(super) committing: bool,
    pub(super) revoking: Option<Revoking>,
}

/// Records in order, and the position after them.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) records: VecDeque<Record>,
    pub(super) next: Offset,
}

/// The partition is to go to another member.
#[derive(Debug)]
pub(super) struct Revoking {
    /// Dropped when settled and committed.
    pub(super) _token: RevokeToken,
    /// … or then.
    pub(super) until: Instant,
}

impl Source {
    pub(super) fn new(tp: TopicPartition, epoch: Epoch, position: Offset, metadata: &str) -> Self {
        Self {
            tp,
            epoch,
            tracker: Tracker::resume(position, metadata, low16(epoch)),
            backlog: VecDeque::new(),
            committing: false,
            revoking: None,
        }
    }

    /// Whether its unsettled offsets span too far to read on.
    pub(super) fn is_full(&self) -> bool {
        self.tracker.span() >= SOURCE_SPAN_MAX
    }

    /// Whether something is unsettled or uncommitted.
    pub(super) fn is_open(&self) -> bool {
        self.tracker.incomplete() > 0 || self.tracker.dirty() || self.committing
    }

    /// The partition goes: what is not yet routed stays in the log.
    pub(super) fn revoke(&mut self, token: RevokeToken, until: Instant) {
        self.backlog.clear();
        self.revoking = Some(Revoking {
            _token: token,
            until,
        });
    }
}

fn low16(epoch: Epoch) -> u16 {
    u16::try_from(epoch.0 & 0xffff).expect("masked to 16 bits")
}
