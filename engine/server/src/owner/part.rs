//! One owned lane partition: the core's state machine, once its state is read,
//! and the bodies it keeps at hand.

use std::sync::Arc;

use posthaste_core::delivery::{Delivery, Generation, Room, Ticket, event_of};
use posthaste_core::id::EndpointId;
use posthaste_core::lane::fold::Change;
use posthaste_core::lane::owner::{Action, Owner};
use posthaste_core::lane::snapshot::Loaded;
use posthaste_core::outcome::Cause;
use posthaste_core::registry::{EndpointIx, Registry};
use posthaste_core::rng::Rng;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::RecordError;
use tokio::time::Instant;

use super::bodies::{Bodies, Budget};
use super::writes::Place;
use crate::clock::random_seed;
use crate::log::{Epoch, LogError, Offset, Record, RevokeToken, TopicPartition};

/// A lane partition under one assignment.
pub(super) struct Part {
    pub(super) tp: TopicPartition,
    pub(super) epoch: Epoch,
    stage: Stage,
    pub(super) bodies: Bodies,
    /// What is to be committed, until it is.
    pub(super) commit: Option<Commit>,
    /// Facts are on their way to the log.
    pub(super) writing: bool,
    pub(super) revoking: Option<(RevokeToken, Instant)>,
}

enum Stage {
    /// Its state is being read; what comes meanwhile waits, within the credit.
    Opening(Vec<Batch>),
    Open(Box<Owner>),
}

/// Records as the group hands them over.
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) next: Offset,
}

/// A position to be committed.
pub(super) struct Commit {
    pub(super) upto: Offset,
    pub(super) metadata: String,
    /// On its way.
    pub(super) under_way: bool,
}

impl Batch {
    pub(super) fn size(&self) -> usize {
        self.records.iter().map(Record::size).sum()
    }
}

impl Part {
    pub(super) fn new(tp: TopicPartition, epoch: Epoch) -> Self {
        Self {
            tp,
            epoch,
            stage: Stage::Opening(Vec::new()),
            bodies: Bodies::default(),
            commit: None,
            writing: false,
            revoking: None,
        }
    }

    pub(super) fn place(&self) -> Place {
        Place {
            partition: self.tp.partition,
            epoch: self.epoch,
        }
    }

    /// The state machine, once there is one.
    pub(super) fn owner(&mut self) -> Option<&mut Owner> {
        match &mut self.stage {
            Stage::Opening(_) => None,
            Stage::Open(owner) => Some(owner),
        }
    }

    /// Goes on from a state; answers what came meanwhile and is to be folded
    /// now.
    pub(super) fn open(&mut self, loaded: Loaded, endpoints: Arc<Registry>) -> Vec<Batch> {
        let rng = Rng::new(random_seed());
        let mut owner = Owner::load(loaded, endpoints, rng);
        if self.revoking.is_some() {
            owner.drain();
        }
        match std::mem::replace(&mut self.stage, Stage::Open(Box::new(owner))) {
            Stage::Opening(early) => early,
            Stage::Open(_) => Vec::new(),
        }
    }

    /// Folds records, or keeps them until the state is read; answers how many
    /// bytes it is done with. A record of a type this version does not know
    /// stops the partition: skipping it could lose what it settles or owes.
    pub(super) fn fold(
        &mut self,
        batch: Batch,
        now: Timestamp,
        budget: &mut Budget,
    ) -> Result<usize, LogError> {
        let owner = match &mut self.stage {
            Stage::Open(owner) => owner,
            Stage::Opening(early) => {
                early.push(batch);
                return Ok(0);
            }
        };
        let bytes = batch.size();
        for record in batch.records {
            let change = owner
                .record(record.offset, &record.value, now)
                .map_err(|error| stuck(&self.tp, record.offset, &error))?;
            match change {
                Change::Owed(_) => self.bodies.keep(&record, budget),
                Change::Held(head) if owner.has_read(head.owed.endpoint, record.offset) => {
                    self.bodies.keep(&record, budget);
                }
                Change::Facts(facts) => {
                    for fact in &facts {
                        self.bodies.follow(fact, owner.fold(), budget);
                    }
                }
                _ => {}
            }
        }
        owner.skip_to(batch.next);
        Ok(bytes)
    }

    /// Hands the owner a part of the lane, and keeps what it will ask for.
    pub(super) fn page(
        &mut self,
        endpoint: EndpointId,
        records: &[Record],
        next: Offset,
        now: Timestamp,
        budget: &mut Budget,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let Stage::Open(owner) = &mut self.stage else {
            return actions;
        };
        let values = records.iter().map(|record| (record.offset, &record.value));
        let wanted = owner.page(endpoint, next, values, now, &mut actions);
        let mut wanted = wanted.into_iter().peekable();
        for record in records {
            if wanted.next_if_eq(&record.offset).is_some() {
                self.bodies.keep(record, budget);
            }
        }
        actions
    }

    /// Gives its bodies' bytes back.
    pub(super) fn release(mut self, budget: &mut Budget) {
        self.bodies.clear(budget);
    }

    /// The delivery of a record, with a ticket back to this partition.
    pub(super) fn delivery(
        &self,
        offset: Offset,
        endpoint: EndpointIx,
        attempts: u32,
        record: &proto::Deliver,
    ) -> Delivery {
        let ticket = Ticket {
            room: Room::Owner,
            slot: self.tp.partition,
            epoch: self.epoch.0,
            offset,
        };
        let mut delivery = Delivery::new(event_of(record).into(), endpoint, attempts, ticket);
        delivery.generation = Generation::of(&record.generation);
        // The record tells of the attempt it was written after, of no later one.
        if record.attempt == attempts {
            delivery.last_cause = Cause::from_code(&record.last_cause);
        }
        delivery
    }

    /// Nothing is out, nothing waits to be written, and a successor finds the
    /// state as it is.
    pub(super) fn is_drained(&self) -> bool {
        let owner = match &self.stage {
            Stage::Opening(_) => return true,
            Stage::Open(owner) => owner,
        };
        owner.is_drained() && !self.writing && owner.is_saved() && self.commit.is_none()
    }
}

fn stuck(tp: &TopicPartition, offset: Offset, error: &RecordError) -> LogError {
    LogError::Other(format!("{tp} offset {offset}: {error}"))
}
