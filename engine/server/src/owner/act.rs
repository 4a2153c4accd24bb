//! Carries out what the partitions' state machines want.

use posthaste_core::id::EndpointId;
use posthaste_core::lane::fold::Owed;
use posthaste_core::lane::owner as lane;
use posthaste_proto as proto;

use super::OwnerRoom;
use super::writes::{Burial, Range};
use crate::log::{Epoch, Offset, Record};

impl OwnerRoom {
    /// Does what a partition's state machine said.
    pub(super) fn act(&mut self, partition: u32, actions: Vec<lane::Action>) {
        for action in actions {
            let Some(part) = self.parts.get(&partition) else {
                return;
            };
            match action {
                lane::Action::Dispatch { offset, owed } => {
                    match part.bodies.get(&offset).cloned() {
                        Some(record) => self.hand_over(partition, offset, owed, &record),
                        None => self
                            .writes
                            .push(self.writer.read(partition, part.epoch, offset, owed)),
                    }
                }
                lane::Action::Bury {
                    offset,
                    attempts,
                    cause,
                    last,
                } => {
                    self.metrics
                        .dead(proto::DeadCause::from(cause).as_str_name());
                    let known = part.bodies.get(&offset).cloned();
                    let burial = Burial {
                        partition,
                        epoch: part.epoch,
                        offset,
                        attempts,
                        cause,
                        last,
                    };
                    self.writes.push(self.writer.bury(burial, known));
                }
                lane::Action::BuryRange {
                    endpoint,
                    from,
                    to,
                    count,
                } => {
                    let range = Range { endpoint, from, to };
                    let write = self.writer.bury_range(partition, part.epoch, &range, count);
                    self.writes.push(write);
                }
                lane::Action::Read { endpoint, from, to } => {
                    let range = Range { endpoint, from, to };
                    let read = self.writer.page(partition, part.epoch, range);
                    self.writes.push(read);
                }
                lane::Action::Move { offset, owed } => {
                    let write = self.writer.move_behind(partition, part.epoch, offset, owed);
                    self.writes.push(write);
                }
                // Neither gates nor snapshots are written yet: the lane is
                // folded from its start, which is always right.
                other @ (lane::Action::Gate { .. }
                | lane::Action::Disable { .. }
                | lane::Action::Notify(_)
                | lane::Action::Snapshot { .. }
                | lane::Action::Commit { .. }) => {
                    tracing::trace!(partition, ?other, "not carried out");
                }
            }
        }
    }

    /// Puts a delivery into its shard's outbox.
    pub(super) fn hand_over(
        &mut self,
        partition: u32,
        offset: u64,
        owed: Owed,
        record: &proto::Deliver,
    ) {
        let Some(part) = self.parts.get(&partition) else {
            return;
        };
        let known = self.registry.borrow().index(owed.endpoint);
        let Some(endpoint) = known else {
            // Whoever wrote the record knew it, and the index of a deleted
            // endpoint stays: the table is not read as far yet. One of which
            // even the tombstone is gone is told by its deadline.
            return self.bounce(partition, offset);
        };
        let shard = usize::try_from(endpoint.0).unwrap_or(0) % self.outbox.len();
        let delivery = part.delivery(offset, endpoint, owed.attempts, record);
        self.outbox[shard].push(delivery);
    }

    /// A body was read again, `None` where that failed; its delivery may be
    /// settled by now.
    pub(super) fn body_read(
        &mut self,
        partition: u32,
        epoch: Epoch,
        (offset, owed): (Offset, Owed),
        record: Option<Box<proto::Deliver>>,
    ) {
        let Some(part) = self.live(partition, epoch) else {
            return;
        };
        let still = part.owner.fold().is_owed(owed.endpoint, offset);
        match record.filter(|_| still) {
            Some(record) => self.hand_over(partition, offset, owed, &record),
            None => self.bounce(partition, offset),
        }
    }

    /// What was read of the lane for an endpoint that holds something.
    pub(super) fn page(
        &mut self,
        partition: u32,
        epoch: Epoch,
        endpoint: EndpointId,
        (next, records): (Offset, &[Record]),
    ) {
        let now = self.clock.now();
        let Some(part) = self.parts.get_mut(&partition).filter(|p| p.epoch == epoch) else {
            return;
        };
        let mut actions = Vec::new();
        let values = records.iter().map(|record| (record.offset, &record.value));
        let wanted = part.owner.page(endpoint, next, values, now, &mut actions);
        for record in records {
            if wanted.binary_search(&record.offset).is_ok() {
                part.keep(record, &mut self.bodies);
            }
        }
        self.act(partition, actions);
    }
}
