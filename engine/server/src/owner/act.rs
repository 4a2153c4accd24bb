//! Doing what a partition's state machine said.

use std::sync::Arc;

use posthaste_core::delivery::ReportEnd;
use posthaste_core::id::EndpointId;
use posthaste_core::lane::fold::Owed;
use posthaste_core::lane::owner::{Action, DisableReason, Notice};
use posthaste_proto as proto;

use super::OwnerRoom;
use super::part::Commit;
use super::writes::{Burial, Place, Writing};
use crate::operational::{delivery_of, disabled_text};

impl OwnerRoom {
    /// Does what a partition's state machine said.
    pub(super) fn act(&mut self, place: Place, actions: Vec<Action>) {
        for action in actions {
            if let Some(write) = self.write_for(place, action) {
                self.writes.push(write);
            }
        }
    }

    /// Does one thing, or says what is to be written for it.
    fn write_for(&mut self, place: Place, action: Action) -> Option<Writing> {
        if let Action::Operate(task) = action {
            return self.operation_task(place, task);
        }
        let part = self.parts.get_mut(&place.partition)?;
        let known = |offset: u64| part.bodies.get(offset).cloned();
        Some(match action {
            Action::Dispatch { offset, owed } => match known(offset) {
                Some(record) => {
                    self.hand_over(place, offset, owed, &record);
                    return None;
                }
                None => self.writer.read(place, offset, owed),
            },
            Action::Bury {
                offset,
                attempts,
                cause,
                last,
            } => {
                self.metrics.dead(proto::DeadCause::from(cause), 1);
                let burial = Burial {
                    offset,
                    attempts,
                    cause,
                    last,
                };
                self.writer.bury(place, burial, known(offset))
            }
            Action::BuryRange(expired) => {
                self.metrics.dead(proto::DeadCause::Expired, expired.count);
                let registry = self.registry.borrow();
                let known = registry.find(expired.endpoint);
                let tenant = known.map_or_else(String::new, |known| known.tenant.clone());
                self.writer.bury_range(place, expired, tenant)
            }
            Action::Read { endpoint, from, to } => self.writer.page(place, endpoint, from, to),
            Action::Move { offset, owed } => self.writer.shift(place, offset, owed, known(offset)),
            Action::Gate { endpoint, gate } => self.writer.gate(place, endpoint, &gate),
            Action::Disable { endpoint, reason } => {
                return self.disable(place, endpoint, reason);
            }
            Action::Notify(notice) => {
                let known = delivery_of(notice.kind).and_then(known);
                return self.notify(place, notice, known);
            }
            // Done above.
            Action::Operate(_) => return None,
            Action::Snapshot { parts } => self.writer.snapshot(place, parts),
            Action::Commit { upto, metadata } => {
                part.commit = Some(Commit {
                    upto,
                    metadata,
                    under_way: false,
                });
                self.commit(place);
                return None;
            }
        })
    }

    /// Disables an endpoint that is not so yet, as it was read: whoever changed it
    /// meanwhile goes first, and it is disabled again if it fails on.
    fn disable(
        &self,
        place: Place,
        endpoint: EndpointId,
        reason: DisableReason,
    ) -> Option<Writing> {
        let registry = self.registry.borrow();
        let found = registry.find(endpoint)?;
        if found.disabled {
            return None;
        }
        let mut changed = (**found).clone();
        changed.disabled = true;
        disabled_text(reason).clone_into(&mut changed.disabled_reason);
        tracing::warn!(%endpoint, reason = changed.disabled_reason, "endpoint disabled");
        Some(self.writer.endpoint(place, changed))
    }

    fn notify(
        &self,
        place: Place,
        notice: Notice,
        known: Option<proto::Deliver>,
    ) -> Option<Writing> {
        let registry = self.registry.borrow();
        let endpoint = registry.find(notice.endpoint)?;
        Some(
            self.writer
                .notify(place, notice, Arc::clone(endpoint), known),
        )
    }

    /// Puts a delivery into its shard's outbox.
    pub(super) fn hand_over(
        &mut self,
        place: Place,
        offset: u64,
        owed: Owed,
        record: &proto::Deliver,
    ) {
        let known = self.registry.borrow().index(owed.endpoint);
        let Some(endpoint) = known else {
            // Whoever wrote the record knew it, and the index of a deleted
            // endpoint stays: the table is not read as far yet.
            return self.came_back(place, offset, ReportEnd::Bounced);
        };
        let shard = usize::try_from(endpoint.0).unwrap_or(0) % self.outbox.len();
        if let Some(part) = self.live(place) {
            let delivery = part.delivery(offset, endpoint, owed.attempts, record);
            self.outbox[shard].push(delivery);
        }
    }
}
