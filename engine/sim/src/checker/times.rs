//! When a retry may be due: the published schedule, written down once more, and
//! those of the plan.

use std::time::Duration;

use crate::plan::Plan;

/// Standard Webhooks' table, the last gap shortened so that the last attempt
/// lies within 72 hours; in seconds.
const STANDARD_S: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 72_000];
/// The last attempt is due this long before the deadline at the latest …
const MARGIN_MS: u64 = 300_000;
/// A delivery is given up after so long.
const DELIVERY_MS: u64 = 72 * 3_600_000;

/// The gaps of a policy in seconds: the standard one, or the plan's of that
/// number, from 1.
pub(super) fn gaps(plan: &Plan, policy: usize) -> Vec<u64> {
    let named = policy.checked_sub(1).and_then(|one| plan.policies.get(one));
    named.map_or_else(|| STANDARD_S.to_vec(), Clone::clone)
}

/// Attempts a schedule has.
pub(super) fn attempts(gaps: &[u64]) -> u32 {
    u32::try_from(gaps.len() + 1).unwrap_or(u32::MAX)
}

/// A retry and what it follows.
#[derive(Debug)]
pub(super) struct Due<'a> {
    /// The schedule.
    pub(super) gaps: &'a [u64],
    /// The attempt that failed.
    pub(super) number: u32,
    /// When it ended: then at the earliest, and then at the latest.
    pub(super) end_ms: (u64, u64),
    /// When the next is due.
    pub(super) due_ms: u64,
    /// The `Retry-After`.
    pub(super) asked_ms: u64,
    /// The delivery's.
    pub(super) deadline_ms: u64,
    /// How old its event may be.
    pub(super) max_age_ms: u64,
}

impl Due<'_> {
    /// Within 20 % of the schedule, never below it for the first two gaps; a
    /// longer `Retry-After` wins with 10 % on top; nothing too near the
    /// deadline.
    pub(super) fn check(&self) -> Result<(), String> {
        let place = usize::try_from(self.number).unwrap_or(usize::MAX);
        let Some(gap) = self.gaps.get(place.wrapping_sub(1)) else {
            return Err(format!("attempt {} has no successor", self.number));
        };
        let gap = gap * 1_000;
        // A clock can have gone back meanwhile.
        let (one, other) = self.end_ms;
        let least = if self.number <= 2 { gap } else { gap - gap / 5 };
        let least = one.min(other) + least.max(self.asked_ms);
        let most = (gap + gap / 5).max(self.asked_ms + self.asked_ms / 10);
        let most = one.max(other) + most;
        let last = expires_from(self.deadline_ms, self.max_age_ms);
        if (least.min(last)..=most.min(last)).contains(&self.due_ms) {
            return Ok(());
        }
        Err(format!("{self:?}, expected {least}..={most}"))
    }
}

/// The earliest moment something may be given up for its age. Of an endpoint
/// that takes no old events the margin is at most a tenth of their age.
pub(super) fn expires_from(deadline_ms: u64, max_age_ms: u64) -> u64 {
    let margin_ms = match max_age_ms {
        0 => MARGIN_MS,
        age_ms => MARGIN_MS.min(age_ms / 10),
    };
    deadline_ms.saturating_sub(margin_ms)
}

/// When an event is too old for an endpoint.
pub(super) fn too_old_ms(event_ms: u64, max_age_ms: u64) -> Option<u64> {
    (max_age_ms > 0).then(|| event_ms + max_age_ms)
}

/// The deadline a lane record must have. What was asked for again has its 72
/// hours, however old its event.
pub(super) fn deadline_ms(record: &posthaste_proto::Deliver, max_age_ms: u64) -> u64 {
    let end_ms = record.first_at_ms + DELIVERY_MS;
    let event = record.origin.as_ref();
    event
        .filter(|_| record.generation.is_empty())
        .and_then(|event| too_old_ms(event.timestamp_ms, max_age_ms))
        .map_or(end_ms, |at| at.min(end_ms))
}

/// A span as milliseconds.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
