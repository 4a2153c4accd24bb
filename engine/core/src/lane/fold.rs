//! The state that the facts of one lane partition add up to.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use posthaste_proto as proto;
use posthaste_proto::{Record as _, RecordError, RecordType};
use proto::progress::Kind;

use crate::id::{DeliveryId, EndpointId};
use crate::time::Timestamp;

/// One delivery that is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owed {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// To whom.
    pub endpoint: EndpointId,
    /// Attempts made so far.
    pub attempts: u32,
    /// Next attempt; the epoch for "as soon as the endpoint takes it".
    pub due: Timestamp,
    /// Given up after this.
    pub deadline: Timestamp,
}

/// What one record changed.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that matters here.
    Nothing,
    /// A delivery is owed from now on.
    Owed(Owed),
    /// A second copy of a delivery that is still owed: dropped.
    Duplicate,
    /// Facts about these offsets.
    Facts(Vec<Fact>),
    /// A claim.
    Claim,
}

/// What a fact changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// It is settled.
    Settled(u64),
    /// An attempt failed; the next is due then.
    Retry(u64, Owed),
    /// The fold knew as much already.
    Absorbed(u64),
}

/// The deliveries of one partition that are owed, by the offset of their
/// `Deliver` record.
#[derive(Debug, Default)]
pub struct Fold {
    owed: BTreeMap<u64, Owed>,
    by_delivery: HashMap<DeliveryId, u64>,
    next: u64,
    author: Option<u64>,
}

impl Fold {
    /// An empty state from which the record at `next` is folded first.
    pub fn new(next: u64) -> Self {
        Self {
            next,
            ..Self::default()
        }
    }

    /// Folds the record at `offset`. Offsets only rise.
    pub fn apply(&mut self, offset: u64, value: &Bytes) -> Result<Change, RecordError> {
        assert!(offset >= self.next, "a record was folded twice");
        let change = match RecordType::of(value)? {
            RecordType::Deliver => self.deliver(offset, &proto::Deliver::from_value(value)?),
            RecordType::Progress => Ok(self.progress(&proto::Progress::from_value(value)?)),
            RecordType::Claim => Ok(Change::Claim),
            RecordType::Endpoint
            | RecordType::Gate
            | RecordType::AttemptBatch
            | RecordType::Dead => Err(RecordError::Malformed("not a lane record".to_owned())),
        }?;
        self.next = offset + 1;
        Ok(change)
    }

    /// The position moved without records.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    fn deliver(&mut self, offset: u64, record: &proto::Deliver) -> Result<Change, RecordError> {
        let owed = Owed {
            delivery: DeliveryId::from_bytes(bytes16(&record.delivery_id)?),
            endpoint: EndpointId::from_bytes(bytes16(&record.endpoint_id)?),
            attempts: record.attempt,
            due: Timestamp::from_millis(record.due_ms),
            deadline: Timestamp::from_millis(record.deadline_ms),
        };
        if self.by_delivery.contains_key(&owed.delivery) {
            return Ok(Change::Duplicate);
        }
        self.by_delivery.insert(owed.delivery, offset);
        self.owed.insert(offset, owed);
        Ok(Change::Owed(owed))
    }

    fn progress(&mut self, record: &proto::Progress) -> Change {
        self.author = Some(record.owner_epoch);
        Change::Facts(
            record
                .entries
                .iter()
                .map(|entry| self.fact(entry))
                .collect(),
        )
    }

    /// Settling absorbs everything; of two retries the one with more attempts
    /// wins, of equal ones the first.
    fn fact(&mut self, entry: &proto::progress::Entry) -> Fact {
        let offset = entry.offset;
        let Some(owed) = self.owed.get_mut(&offset) else {
            return Fact::Absorbed(offset);
        };
        match entry.kind() {
            Kind::Retry => {
                if entry.attempt <= owed.attempts {
                    return Fact::Absorbed(offset);
                }
                owed.attempts = entry.attempt;
                owed.due = Timestamp::from_millis(entry.due_ms);
                Fact::Retry(offset, *owed)
            }
            Kind::Done | Kind::Dead | Kind::Cancelled | Kind::Expired | Kind::Moved => {
                let delivery = owed.delivery;
                self.owed.remove(&offset);
                self.by_delivery.remove(&delivery);
                Fact::Settled(offset)
            }
            // A kind of a newer version: what it settles we cannot know, so the
            // delivery stays owed.
            Kind::Unspecified => Fact::Absorbed(offset),
        }
    }

    /// The owner epoch of the facts folded last.
    pub fn author(&self) -> Option<u64> {
        self.author
    }

    /// What is owed at an offset.
    pub fn owed(&self, offset: u64) -> Option<&Owed> {
        self.owed.get(&offset)
    }

    /// How many deliveries are owed.
    pub fn len(&self) -> usize {
        self.owed.len()
    }

    /// Whether nothing is owed.
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// The position after the last record folded.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Everything below is settled: a fold that starts here misses nothing,
    /// since the facts about a delivery always follow it. It may owe a second
    /// copy of what is settled already; see [`lane`](super).
    pub fn floor(&self) -> u64 {
        self.owed
            .first_key_value()
            .map_or(self.next, |(&offset, _)| offset)
    }

    /// Everything owed, in offset order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Owed)> {
        self.owed.iter().map(|(&offset, owed)| (offset, owed))
    }
}

fn bytes16(bytes: &Bytes) -> Result<[u8; 16], RecordError> {
    bytes
        .as_ref()
        .try_into()
        .map_err(|_| RecordError::Malformed("an id is not 16 bytes long".to_owned()))
}

#[cfg(test)]
mod tests;
