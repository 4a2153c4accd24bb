//! One owned lane partition: the core's state machine and the bodies it keeps
//! at hand.

use std::collections::BTreeMap;

use posthaste_core::delivery::{Delivery, Flight, Room, Ticket, event_of};
use posthaste_core::lane::fold::{Change, Fact};
use posthaste_core::lane::owner::Owner;
use posthaste_core::registry::EndpointIx;
use posthaste_core::rng::Rng;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::{Record as _, RecordError};
use tokio::time::Instant;

use crate::clock::random_seed;
use crate::log::{Epoch, LogError, Offset, Record, RevokeToken, TopicPartition};

/// A lane partition under one assignment.
pub(super) struct Part {
    pub(super) tp: TopicPartition,
    pub(super) epoch: Epoch,
    pub(super) owner: Owner,
    /// Records of deliveries that wait, as far as the budget goes.
    pub(super) bodies: BTreeMap<Offset, proto::Deliver>,
    pub(super) committed: Option<Offset>,
    pub(super) committing: bool,
    /// Facts are on their way to the log.
    pub(super) writing: bool,
    pub(super) revoking: Option<(RevokeToken, Instant)>,
}

/// Bytes of bodies all partitions may keep.
pub(super) struct Budget {
    left: usize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { left: bytes }
    }

    fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.left;
        if fits {
            self.left -= bytes;
        }
        fits
    }

    fn give(&mut self, bytes: usize) {
        self.left += bytes;
    }
}

fn charge(record: &proto::Deliver) -> usize {
    record.body.len() + 512
}

impl Part {
    pub(super) fn new(tp: TopicPartition, epoch: Epoch, position: Offset) -> Self {
        Self {
            tp,
            epoch,
            owner: Owner::new(position, Rng::new(random_seed())),
            bodies: BTreeMap::new(),
            committed: Some(position),
            committing: false,
            writing: false,
            revoking: None,
        }
    }

    /// Folds records. One of a type this version does not know stops the
    /// partition: skipping it could lose what it settles or owes.
    pub(super) fn fold(
        &mut self,
        records: Vec<Record>,
        next: Offset,
        budget: &mut Budget,
    ) -> Result<(), LogError> {
        for record in records {
            let change = self
                .owner
                .record(record.offset, &record.value)
                .map_err(|error| self.stuck(record.offset, &error))?;
            match change {
                Change::Owed(_) => self.keep(&record, budget),
                Change::Facts(facts) => {
                    for fact in facts {
                        if let Fact::Settled(offset) = fact
                            && let Some(body) = self.bodies.remove(&offset)
                        {
                            budget.give(charge(&body));
                        }
                    }
                }
                Change::Duplicate | Change::Claim | Change::Nothing => {}
            }
        }
        self.owner.skip_to(next);
        Ok(())
    }

    fn stuck(&self, offset: Offset, error: &RecordError) -> LogError {
        LogError::Other(format!("{} offset {offset}: {error}", self.tp))
    }

    fn keep(&mut self, record: &Record, budget: &mut Budget) {
        if let Ok(deliver) = proto::Deliver::from_value(&record.value)
            && budget.take(charge(&deliver))
        {
            self.bodies.insert(record.offset, deliver);
        }
    }

    /// Gives its bodies' bytes back.
    pub(super) fn release(self, budget: &mut Budget) {
        budget.give(self.bodies.values().map(charge).sum());
    }

    /// The delivery of a record, with a ticket back to this partition.
    pub(super) fn delivery(
        &self,
        offset: Offset,
        endpoint: EndpointIx,
        attempts: u32,
        record: &proto::Deliver,
    ) -> Delivery {
        Delivery {
            event: event_of(record).into(),
            endpoint,
            attempts,
            started: Timestamp::default(),
            flight: Flight::default(),
            ticket: Ticket {
                room: Room::Owner,
                slot: self.tp.partition,
                epoch: self.epoch.0,
                offset,
            },
        }
    }

    /// Nothing is out, nothing waits to be written.
    pub(super) fn is_drained(&self) -> bool {
        self.owner.is_drained() && !self.writing
    }
}
