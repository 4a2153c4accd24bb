//! What the owner appends, and what follows once it stands.

use bytes::Bytes;
use posthaste_core::id::EndpointId;
use posthaste_core::lane::fold::Owed;
use posthaste_core::lane::owner::Expired;
use posthaste_core::lane::partition_of;
use posthaste_core::outcome::Outcome;
use posthaste_core::retry::GiveUpCause;
use posthaste_core::shard::dead_letter;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::{lane, stored};
use crate::log::{NewRecord, Topic};
use crate::node::ingest::DEAD_PARTITIONS;
use crate::node::{Node, Purpose};
use crate::plant::Plant;
use crate::world::{Arrival, Outside};

impl Node {
    pub(super) fn bury(
        &mut self,
        partition: usize,
        offset: u64,
        (attempts, cause, last): (u32, GiveUpCause, Option<Outcome>),
        out: &mut Outside,
    ) {
        let now = self.clock(out);
        let Some(mut record) = stored(partition, offset, out) else {
            return;
        };
        let Some(part) = self.parts.get_mut(&partition) else {
            return;
        };
        record.attempt = attempts;
        let cause = if out.planted(Plant::WrongCause) {
            GiveUpCause::Expired
        } else {
            cause
        };
        if let Some(last) = last {
            record.last_status = last.status.map_or(0, u32::from);
        }
        let epoch = part.epoch;
        let id = <[u8; 16]>::try_from(record.endpoint_id.as_ref()).unwrap_or_default();
        let endpoint = EndpointId::from_bytes(id);
        let letter = dead(endpoint, dead_letter(record, cause, now).to_value());
        if out.planted(Plant::DeadBeforeAck)
            && let Some(owner) = part.owner()
        {
            owner.buried(offset);
        }
        let purpose = Purpose::Bury(partition, epoch, offset);
        out.append(self.id, vec![letter], purpose, 0);
    }

    /// One dead letter for all that expired of what an endpoint holds.
    pub(super) fn bury_range(
        &self,
        (partition, epoch): (usize, u64),
        expired: Expired,
        out: &mut Outside,
    ) {
        let endpoint = expired.endpoint;
        let range = proto::DeadRange {
            cause: proto::DeadCause::Expired.into(),
            endpoint_id: endpoint.as_bytes().to_vec().into(),
            partition: u32::try_from(partition).unwrap_or(u32::MAX),
            from: expired.from,
            to: expired.to,
            count: expired.count,
            at_ms: self.clock(out).as_millis(),
            except: expired.except,
            tenant: String::new(),
        };
        let letter = dead(endpoint, range.to_value());
        let purpose = Purpose::BuryRange(partition, epoch, endpoint);
        out.append(self.id, vec![letter], purpose, 0);
    }

    /// A timer over the caps stands again behind the lane's end, where it is
    /// held.
    pub(super) fn move_behind(
        &mut self,
        partition: usize,
        offset: u64,
        owed: Owed,
        out: &mut Outside,
    ) {
        let Some(mut record) = stored(partition, offset, out) else {
            return;
        };
        let Some(part) = self.parts.get_mut(&partition) else {
            return;
        };
        if out.planted(Plant::DropMoves)
            && let Some(owner) = part.owner()
        {
            return owner.moved(offset, 0);
        }
        record.attempt = owed.attempts;
        record.due_ms = 0;
        record.reason = proto::Reason::Moved.into();
        let purpose = Purpose::Move(partition, part.epoch, offset);
        let record = lane(partition, record.to_value());
        out.append(self.id, vec![record], purpose, 0);
    }

    pub(in crate::node) fn flush_facts(&mut self, partition: usize, epoch: u64, out: &mut Outside) {
        let now = self.clock(out).as_millis();
        let Some(part) = self.part(partition, epoch) else {
            return;
        };
        part.flush_set = false;
        if part.writing {
            return;
        }
        let facts = part.owner().and_then(|owner| owner.take_facts());
        let Some(mut progress) = facts else {
            return;
        };
        part.writing = true;
        if out.planted(Plant::ShortRetries) {
            let now_ms = out.now_ms;
            for entry in progress.entries.iter_mut().filter(|one| one.due_ms > 0) {
                entry.due_ms = now_ms + entry.due_ms.saturating_sub(now_ms) / 2;
            }
        }
        out.check.facts_written(partition, epoch, &progress, now);
        let record = lane(partition, progress.to_value());
        out.append(self.id, vec![record], Purpose::Facts(partition, epoch), 0);
    }

    /// The log answered: what is stored takes effect, what is not is sent
    /// again.
    pub(in crate::node) fn appended(
        &mut self,
        arrival: Arrival,
        results: Vec<Option<u64>>,
        out: &mut Outside,
    ) {
        let stored = results.iter().copied().collect::<Option<Vec<_>>>();
        let first = stored.and_then(|offsets| offsets.first().copied());
        match (arrival.purpose, first) {
            (Purpose::Shard(shard, batch), _) => self.shard_appended(shard, batch, &results, out),
            (Purpose::Made(partition, epoch, id), Some(_)) => {
                let last = results.last().copied().flatten().unwrap_or(0);
                self.made((partition, epoch), id, last, out);
            }
            (purpose, None) => {
                let tries = arrival.tries + 1;
                out.append(self.id, arrival.records, purpose, tries);
            }
            (purpose, Some(offset)) => self.stands(purpose, offset, out),
        }
    }

    /// All records stand, the first at this offset.
    fn stands(&mut self, purpose: Purpose, at: u64, out: &mut Outside) {
        let partition = match purpose {
            Purpose::Claim(partition, epoch) => {
                if let Some(part) = self.part(partition, epoch) {
                    part.claim = Some(at);
                }
                if let Some(owner) = self.owner(partition, epoch) {
                    owner.claimed(at);
                }
                partition
            }
            Purpose::Facts(partition, epoch) => {
                if let Some(part) = self.part(partition, epoch) {
                    part.writing = false;
                }
                partition
            }
            Purpose::Bury(partition, epoch, offset) => {
                if let Some(owner) = self.owner(partition, epoch) {
                    owner.buried(offset);
                }
                partition
            }
            Purpose::BuryRange(partition, epoch, endpoint) => {
                if let Some(owner) = self.owner(partition, epoch) {
                    owner.range_buried(endpoint);
                }
                partition
            }
            Purpose::Move(partition, epoch, offset) => {
                if let Some(owner) = self.owner(partition, epoch) {
                    owner.moved(offset, at);
                }
                partition
            }
            Purpose::Snapshot(partition, epoch) => {
                return self.snapshot_written(partition, epoch, at, out);
            }
            Purpose::Poison(slot, epoch, offset) => {
                self.burials -= 1;
                let closed = posthaste_core::delivery::Closed {
                    slot,
                    epoch,
                    offset,
                };
                self.close(closed, out);
                return self.route(out);
            }
            Purpose::Told(partition, epoch, id) => {
                if let Some(owner) = self.owner(partition, epoch) {
                    owner.operation_told(id);
                }
                partition
            }
            Purpose::Table | Purpose::Shard(..) | Purpose::Made(..) => return,
        };
        self.look(partition, out);
    }
}

/// A dead letter of an endpoint.
fn dead(endpoint: EndpointId, value: Bytes) -> NewRecord {
    let partition = partition_of(endpoint, u32::try_from(DEAD_PARTITIONS).unwrap_or(1));
    NewRecord {
        to: (Topic::Dead, usize::try_from(partition).unwrap_or(0)),
        key: Bytes::new(),
        value,
    }
}
