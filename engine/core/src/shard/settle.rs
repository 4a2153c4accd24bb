//! What becomes of a delivery that leaves a shard: closed, written to the lane
//! or the dead letters, or reported to its owner.

use bytes::Bytes;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::{Action, Append, AppendKind, Shard};
use crate::delivery::{
    Delivery, Report, ReportEnd, Room, Ticket, Waiting, lane_record, too_old_at,
};
use crate::id::EndpointId;
use crate::outcome::{Outcome, Verdict};
use crate::retry::{Decision, GiveUpCause};
use crate::time::Timestamp;

impl Shard {
    /// Answers when the next attempt is due, where the shard decides that.
    pub(super) fn settle(
        &mut self,
        delivery: Delivery,
        outcome: Outcome,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> Option<Timestamp> {
        if delivery.ticket.room == Room::Owner {
            actions.push(Action::Report(Report {
                ticket: delivery.ticket,
                end: ReportEnd::Attempted(outcome),
            }));
            return None;
        }
        if outcome.verdict == Verdict::Delivered {
            actions.push(Action::Close(delivery.ticket));
            return None;
        }
        let mut waiting = self.waiting(&delivery, proto::Reason::Retry, now);
        let (attempts, deadline) = (delivery.attempts + 1, waiting.deadline());
        let rules = self.registry.rules(delivery.endpoint);
        (waiting.attempts, waiting.due) =
            match rules.decide(attempts, &outcome, now, deadline, &mut self.rng) {
                Decision::RetryAt(due) => (attempts, Some(due)),
                Decision::PauseUntil(due) => (delivery.attempts, Some(due)),
                // Its owner asks once more, and alone may disable the endpoint.
                Decision::GiveUp(GiveUpCause::Gone) => (attempts, None),
                Decision::GiveUp(cause) => {
                    self.append_dead(delivery, cause, Some(&outcome), now, actions);
                    return None;
                }
            };
        self.append_lane(delivery, waiting, Some(&outcome), actions);
        waiting.due
    }

    /// What a lane record says of a delivery that waits from now on, for nothing.
    fn waiting(&self, delivery: &Delivery, reason: proto::Reason, now: Timestamp) -> Waiting {
        let endpoint = self.registry.endpoint(delivery.endpoint);
        let max_age = endpoint.and_then(|endpoint| endpoint.max_age);
        Waiting {
            reason,
            attempts: delivery.attempts,
            first_at: now,
            due: None,
            too_old_at: too_old_at(&delivery.event.origin, max_age),
        }
    }

    /// No room for it here and now.
    pub(super) fn overflow(
        &mut self,
        delivery: Delivery,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        self.aside(delivery, proto::Reason::Overflow, now, actions);
    }

    /// To the lane if it came from the source, back if it came from the lane.
    pub(super) fn aside(
        &mut self,
        delivery: Delivery,
        reason: proto::Reason,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        match delivery.ticket.room {
            Room::Ingest => self.put_in_lane(delivery, reason, now, actions),
            Room::Owner => actions.push(Action::Report(Report {
                ticket: delivery.ticket,
                end: ReportEnd::Bounced,
            })),
        }
    }

    pub(super) fn put_in_lane(
        &mut self,
        delivery: Delivery,
        reason: proto::Reason,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let waiting = self.waiting(&delivery, reason, now);
        self.append_lane(delivery, waiting, None, actions);
    }

    fn append_lane(
        &mut self,
        delivery: Delivery,
        waiting: Waiting,
        last: Option<&Outcome>,
        actions: &mut Vec<Action>,
    ) {
        let Some(endpoint) = self.registry.id(delivery.endpoint) else {
            unreachable!("an index is never taken back");
        };
        let mut record = lane_record(&delivery.event, endpoint, waiting, last);
        // Each timer would remember its key's hash: beyond the 64 bytes it may
        // cost, for what only an ordered endpoint's owner asks.
        let found = self.registry.endpoint(delivery.endpoint);
        if !found.is_some_and(|endpoint| endpoint.ordered) {
            record.ordering_key = Bytes::new();
        }
        self.append(
            AppendKind::Lane(waiting.reason),
            endpoint,
            record.to_value(),
            delivery.ticket,
            actions,
        );
    }

    /// `outcome`: of the attempt that was made, if one was.
    pub(super) fn append_dead(
        &mut self,
        delivery: Delivery,
        cause: GiveUpCause,
        outcome: Option<&Outcome>,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let Some(endpoint) = self.registry.id(delivery.endpoint) else {
            unreachable!("an index is never taken back");
        };
        let mut waiting = self.waiting(&delivery, proto::Reason::Retry, now);
        waiting.attempts += u32::from(outcome.is_some());
        let record = lane_record(&delivery.event, endpoint, waiting, outcome);
        let dead = dead_letter(record, cause, now);
        let kind = AppendKind::Dead(cause.into());
        self.append(kind, endpoint, dead.to_value(), delivery.ticket, actions);
    }

    fn append(
        &mut self,
        kind: AppendKind,
        endpoint: EndpointId,
        value: Bytes,
        ticket: Ticket,
        actions: &mut Vec<Action>,
    ) {
        let charge = value.len();
        self.unacked_bytes += charge;
        actions.push(Action::Append(Append {
            kind,
            endpoint,
            value,
            ticket,
            charge,
        }));
    }

    /// The endpoint takes no deliveries any more.
    pub(super) fn cancel(&self, delivery: Delivery, actions: &mut Vec<Action>) {
        actions.push(match delivery.ticket.room {
            Room::Ingest => Action::Close(delivery.ticket),
            Room::Owner => Action::Report(Report {
                ticket: delivery.ticket,
                end: ReportEnd::Cancelled,
            }),
        });
    }
}

/// The dead letter of a delivery that is given up.
pub fn dead_letter(record: proto::Deliver, cause: GiveUpCause, now: Timestamp) -> proto::Dead {
    proto::Dead {
        cause: proto::DeadCause::from(cause).into(),
        detail: cause.text().to_owned(),
        origin: record.origin.clone(),
        delivery: Some(record),
        record: Bytes::new(),
        at_ms: now.as_millis(),
    }
}

/// The causes of dead letters and their stable names.
pub const DEAD_CAUSES: [(proto::DeadCause, &str); 6] = [
    (proto::DeadCause::Exhausted, "exhausted"),
    (proto::DeadCause::Expired, "expired"),
    (proto::DeadCause::Poison, "poison"),
    (proto::DeadCause::Oversize, "oversize"),
    (proto::DeadCause::Gone, "gone"),
    (proto::DeadCause::Rejected, "rejected"),
];

/// The stable name of a dead letter's cause.
pub fn dead_cause_name(cause: proto::DeadCause) -> &'static str {
    let named = DEAD_CAUSES.iter().find(|(known, _)| *known == cause);
    named.map_or("unknown", |(_, name)| name)
}

impl From<GiveUpCause> for proto::DeadCause {
    fn from(cause: GiveUpCause) -> Self {
        match cause {
            GiveUpCause::Exhausted => Self::Exhausted,
            GiveUpCause::Expired => Self::Expired,
            GiveUpCause::Gone => Self::Gone,
            GiveUpCause::Rejected => Self::Rejected,
        }
    }
}
