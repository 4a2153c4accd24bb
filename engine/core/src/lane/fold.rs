//! The state that the facts of one lane partition add up to: timers, holds, and
//! the commands that took effect.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use posthaste_proto as proto;
use posthaste_proto::{Record as _, RecordError, RecordType};
use proto::progress::{Entry, Kind};
use xxhash_rust::xxh3::xxh3_64;

use super::hold::Hold;
use crate::id::{DeliveryId, EndpointId, OperationId};
use crate::time::Timestamp;
pub use crate::timers::Owed;
use crate::timers::Timers;

mod command;
mod made;

pub use command::Commanded;
pub use made::Made;
use made::{Link, Operations};

/// What one record changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that matters here.
    Nothing,
    /// A delivery is owed at a time from now on.
    Owed(Owed),
    /// A delivery is held from now on: as soon as its endpoint takes it.
    Held(Head),
    /// A second copy of a delivery that waits for its time, or one that does not
    /// follow what its operation made before: dropped.
    Duplicate,
    /// Facts about these offsets.
    Facts(Vec<Fact>),
    /// A claim.
    Claim,
    /// A command took effect.
    Commanded(Commanded),
}

/// What a fact changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// It is settled.
    Settled(u64, EndpointId),
    /// An attempt failed; the next is due then.
    Retry(u64, Owed),
    /// The fold knew as much already.
    Absorbed(u64),
    /// It was moved, but where it stands again it is settled already: it stays
    /// owed here.
    Kept(u64),
    /// Nothing of the endpoint is held any longer below this offset, so many for
    /// this reason alone.
    Passed(u64, EndpointId, u64),
}

/// What a `Deliver` record says to the fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What is owed.
    pub owed: Owed,
    /// The hash of its ordering key, 0 without one.
    pub order: u64,
}

/// The state of one partition: what is owed, by the offset of its `Deliver`
/// record.
#[derive(Debug, Default)]
pub struct Fold {
    timers: Timers,
    holds: BTreeMap<EndpointId, Hold>,
    /// Ordering keys of timers that have one.
    orders: BTreeMap<u64, u64>,
    commands: VecDeque<[u8; 16]>,
    /// What each came to.
    counts: HashMap<[u8; 16], u64>,
    made: Operations,
    next: u64,
    author: Option<u64>,
}

impl Head {
    /// Of a `Deliver` record's value. Its body is not looked at.
    pub fn read(value: &Bytes) -> Result<Self, RecordError> {
        Self::of(&proto::DeliverHead::from_value(value)?)
    }

    /// Of a record that is read already.
    pub(super) fn of(record: &proto::DeliverHead) -> Result<Self, RecordError> {
        Ok(Self {
            owed: Owed {
                delivery: DeliveryId::from_bytes(bytes16(&record.delivery_id)?),
                endpoint: EndpointId::from_bytes(bytes16(&record.endpoint_id)?),
                attempts: record.attempt,
                due: Timestamp::from_millis(record.due_ms),
                deadline: Timestamp::from_millis(record.deadline_ms),
            },
            order: match record.ordering_key.as_ref() {
                [] => 0,
                // 0 means none.
                key => xxh3_64(key).max(1),
            },
        })
    }

    /// Whether it waits for its endpoint, not for a time.
    pub fn is_held(&self) -> bool {
        self.owed.due == Timestamp::default()
    }
}

impl Fold {
    /// An empty state from which the record at `next` is folded first.
    pub fn new(next: u64) -> Self {
        Self {
            next,
            made: Operations::new(next == 0),
            ..Self::default()
        }
    }

    /// Folds the record at `offset`. Offsets only rise.
    pub fn apply(&mut self, offset: u64, value: &Bytes) -> Result<Change, RecordError> {
        assert!(offset >= self.next, "a record was folded twice");
        let change = match RecordType::of(value)? {
            RecordType::Deliver => self.deliver(offset, &proto::DeliverHead::from_value(value)?)?,
            RecordType::Progress => self.progress(&proto::Progress::from_value(value)?)?,
            RecordType::Claim => Change::Claim,
            RecordType::Command => self.command(offset, &proto::Command::from_value(value)?)?,
            // Whose snapshot counts, the commit says.
            RecordType::Snapshot => Change::Nothing,
            RecordType::Endpoint
            | RecordType::Gate
            | RecordType::AttemptBatch
            | RecordType::Dead
            | RecordType::DeadRange
            | RecordType::ApiKey
            | RecordType::Change
            | RecordType::Operation
            | RecordType::OperationProgress
            | RecordType::Tenant
            | RecordType::EventType
            | RecordType::Answered => {
                return Err(RecordError::Malformed("not a lane record".to_owned()));
            }
        };
        self.next = offset + 1;
        Ok(change)
    }

    /// The position moved without records.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Held deliveries are told from their copies only where an operation made
    /// them: of others is known where they stand.
    fn deliver(&mut self, offset: u64, record: &proto::DeliverHead) -> Result<Change, RecordError> {
        let head = Head::of(record)?;
        if let Some(link) = Link::of(record)?
            && !self.made.follow(offset, link)
        {
            if let Some(hold) = self.holds.get_mut(&head.owed.endpoint) {
                hold.leave_out(offset);
            }
            return Ok(Change::Duplicate);
        }
        let Head { owed, order } = head;
        if head.is_held() {
            self.hold(owed.endpoint, offset);
            return Ok(Change::Held(head));
        }
        if !self.timers.insert(offset, owed) {
            return Ok(Change::Duplicate);
        }
        if order != 0 {
            self.orders.insert(offset, order);
        }
        Ok(Change::Owed(owed))
    }

    fn hold(&mut self, endpoint: EndpointId, offset: u64) {
        self.holds
            .entry(endpoint)
            .and_modify(|hold| hold.add(offset))
            .or_insert_with(|| Hold::new(offset));
    }

    fn progress(&mut self, record: &proto::Progress) -> Result<Change, RecordError> {
        let malformed = |entry: &&Entry| !matches!(entry.endpoint_id.len(), 0 | 16);
        if record.entries.iter().any(|entry| malformed(&entry)) {
            return Err(RecordError::Malformed(
                "an id is not 16 bytes long".to_owned(),
            ));
        }
        self.author = Some(record.owner_epoch);
        let facts = record.entries.iter().map(|entry| self.fact(entry));
        Ok(Change::Facts(facts.collect()))
    }

    /// Settling absorbs everything; of two retries the one with more attempts
    /// wins, of equal ones the first; a cursor only rises.
    fn fact(&mut self, entry: &Entry) -> Fact {
        let offset = entry.offset;
        let held_by = bytes16(&entry.endpoint_id).ok().map(EndpointId::from_bytes);
        match entry.kind() {
            Kind::Retry => self.retry(entry, held_by),
            Kind::Moved => self.moved(entry),
            Kind::Done | Kind::Dead | Kind::Cancelled | Kind::Expired => {
                let settled = self
                    .settle_timer(offset)
                    .or_else(|| held_by.filter(|endpoint| self.take_held(*endpoint, offset)));
                settled.map_or(Fact::Absorbed(offset), |endpoint| {
                    Fact::Settled(offset, endpoint)
                })
            }
            Kind::Passed => match held_by {
                Some(endpoint) if self.pass(endpoint, offset, entry.count) => {
                    Fact::Passed(offset, endpoint, entry.count)
                }
                _ => Fact::Absorbed(offset),
            },
            // A kind of a newer version: what it settles we cannot know, so the
            // delivery stays owed.
            Kind::Unspecified => Fact::Absorbed(offset),
        }
    }

    fn retry(&mut self, entry: &Entry, held_by: Option<EndpointId>) -> Fact {
        let offset = entry.offset;
        let due = Timestamp::from_millis(entry.due_ms);
        if let Some(owed) = self.timers.get(offset) {
            if entry.attempt <= owed.attempts {
                return Fact::Absorbed(offset);
            }
            self.timers.retry(offset, entry.attempt, due);
            return self
                .timers
                .get(offset)
                .map_or(Fact::Absorbed(offset), |owed| Fact::Retry(offset, owed));
        }
        let (Some(endpoint), Ok(delivery)) = (held_by, bytes16(&entry.delivery_id)) else {
            return Fact::Absorbed(offset);
        };
        if !self.take_held(endpoint, offset) {
            return Fact::Absorbed(offset);
        }
        let owed = Owed {
            delivery: DeliveryId::from_bytes(delivery),
            endpoint,
            attempts: entry.attempt,
            due,
            deadline: Timestamp::from_millis(entry.deadline_ms),
        };
        // A copy of it waits for its time: that one is left to settle it.
        if !self.timers.insert(offset, owed) {
            return Fact::Settled(offset, endpoint);
        }
        if entry.order != 0 {
            self.orders.insert(offset, entry.order);
        }
        Fact::Retry(offset, owed)
    }

    /// A second copy that fails is settled while the first one's timer stands,
    /// which is left to settle the delivery. The fact that it was moved can come
    /// after that: then nothing else of it is owed.
    fn moved(&mut self, entry: &Entry) -> Fact {
        let offset = entry.offset;
        let Some(owed) = self.timers.get(offset) else {
            return Fact::Absorbed(offset);
        };
        let hold = self.hold_of(owed.endpoint);
        let stands = hold.is_some_and(|hold| hold.contains(entry.moved_to));
        // An older version does not say where.
        if entry.moved_to > 0 && !stands {
            return Fact::Kept(offset);
        }
        self.settle_timer(offset);
        Fact::Settled(offset, owed.endpoint)
    }

    fn settle_timer(&mut self, offset: u64) -> Option<EndpointId> {
        let owed = self.timers.remove(offset)?;
        self.orders.remove(&offset);
        Some(owed.endpoint)
    }

    fn take_held(&mut self, endpoint: EndpointId, offset: u64) -> bool {
        self.holds
            .get_mut(&endpoint)
            .is_some_and(|hold| hold.take(offset))
    }

    fn pass(&mut self, endpoint: EndpointId, to: u64, count: u64) -> bool {
        let Some(hold) = self.holds.get_mut(&endpoint) else {
            return false;
        };
        let news = hold.pass(to, count);
        if hold.is_empty() {
            self.holds.remove(&endpoint);
        }
        news
    }

    /// A timer out of a snapshot. Answers whether it was taken.
    pub(super) fn restore_timer(&mut self, offset: u64, owed: Owed, order: u64) -> bool {
        if order != 0 {
            self.orders.insert(offset, order);
        }
        self.timers.insert(offset, owed)
    }

    /// A hold out of a snapshot, its chunks and settled offsets still to come.
    pub(super) fn restore_hold(
        &mut self,
        endpoint: EndpointId,
        piece: &proto::snapshot::Hold,
    ) -> &mut Hold {
        self.holds
            .entry(endpoint)
            .or_insert_with(|| Hold::empty(piece.cursor, piece.last, piece.count))
    }

    /// What an operation made so far; `None` where it made nothing.
    pub fn made(&self, operation: OperationId) -> Option<&Made> {
        self.made.get(operation)
    }

    pub(super) fn operations(&self) -> &Operations {
        &self.made
    }

    /// Whatever operations made before `next` is known, once it is restored.
    pub(super) fn knows_all(&mut self) {
        self.made.is_whole();
    }

    /// Out of a snapshot.
    pub(super) fn restore_made(&mut self, piece: &proto::snapshot::Made) -> bool {
        self.made.restore(piece)
    }

    /// The owner epoch of the facts folded last.
    pub fn author(&self) -> Option<u64> {
        self.author
    }

    /// What is owed at an offset, if it waits for a time.
    pub fn owed(&self, offset: u64) -> Option<Owed> {
        self.timers.get(offset)
    }

    /// The hash of the ordering key of what waits for a time there; 0 for none.
    pub fn order(&self, offset: u64) -> u64 {
        self.orders.get(&offset).copied().unwrap_or(0)
    }

    /// Whether a record of this endpoint is owed: it waits for a time, or is
    /// held.
    pub fn is_owed(&self, endpoint: EndpointId, offset: u64) -> bool {
        self.timers.contains(offset)
            || self
                .hold_of(endpoint)
                .is_some_and(|hold| hold.contains(offset))
    }

    /// What an endpoint holds.
    pub fn hold_of(&self, endpoint: EndpointId) -> Option<&Hold> {
        self.holds.get(&endpoint)
    }

    /// What waits for its time.
    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    pub(super) fn timers_mut(&mut self) -> &mut Timers {
        &mut self.timers
    }

    /// Everything that is held, by endpoint.
    pub fn holds(&self) -> impl Iterator<Item = (EndpointId, &Hold)> {
        self.holds.iter().map(|(&endpoint, hold)| (endpoint, hold))
    }

    /// How many deliveries are owed.
    pub fn len(&self) -> usize {
        let held: u64 = self.holds.values().map(Hold::count).sum();
        self.timers.len() + usize::try_from(held).unwrap_or(usize::MAX)
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty() && self.holds.is_empty()
    }

    /// The position after the last record folded.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Everything that waits for a time, in offset order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Owed)> {
        self.timers.iter()
    }
}

/// Two folds are equal that owe the same and stand at the same position,
/// whatever was handed out meanwhile.
impl PartialEq for Fold {
    fn eq(&self, other: &Self) -> bool {
        self.next == other.next
            && self.holds == other.holds
            && self.orders == other.orders
            && self.commands == other.commands
            && self.counts == other.counts
            && self.made == other.made
            && self.timers.iter().eq(other.timers.iter())
    }
}

pub(super) fn bytes16(bytes: &Bytes) -> Result<[u8; 16], RecordError> {
    bytes
        .as_ref()
        .try_into()
        .map_err(|_| RecordError::Malformed("an id is not 16 bytes long".to_owned()))
}

#[cfg(test)]
mod tests;
