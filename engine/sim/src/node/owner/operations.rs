//! Operations, as the server's owner carries them out.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use posthaste_core::content::View;
use posthaste_core::id::OperationId;
use posthaste_core::lane::owner::{Found, Task};
use posthaste_core::lane::partition_of;
use posthaste_core::operation::{Known, Operation, operation_key, progress_key};
use posthaste_core::replay::{self, Place};
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::{Record as _, RecordType};

use super::{Part, lane};
use crate::log::{NewRecord, Record, Topic, Value};
use crate::node::lines::keyed;
use crate::node::{Happening, Node, Purpose};
use crate::plant::Plant;
use crate::seen::Seen;
use crate::world::Outside;

/// Records read at once at most.
const READ_RECORDS: usize = 60;

impl Node {
    /// Tells a partition of its operations.
    pub(super) fn tell_operations(&mut self, partition: usize, out: &mut Outside) {
        let partitions = u32::try_from(out.plan.lane_partitions).unwrap_or(1);
        let own = u32::try_from(partition).unwrap_or(u32::MAX);
        let of = |known: &Known| partition_of(known.operation.endpoint, partitions) == own;
        let known = self.operations.iter().map(|(_, known)| known);
        let known: Vec<_> = known.filter(|known| of(known)).cloned().collect();
        if let Some(owner) = self.parts.get_mut(&partition).and_then(Part::owner) {
            owner.set_operations(known);
        }
        self.look(partition, out);
    }

    /// Does something for an operation.
    pub(super) fn operate(
        &mut self,
        (partition, epoch): (usize, u64),
        task: Task,
        out: &mut Outside,
    ) {
        match task {
            Task::Read {
                id,
                range,
                from,
                to,
            } => {
                let wait = out.fetch_ms();
                let read = Happening::LookUp(partition, epoch, id, range, from..to);
                out.tell(wait, self.id, read);
            }
            Task::Append { id, deliveries } => {
                let values = deliveries.iter().map(|deliver| {
                    let value = deliver.to_value();
                    keyed(&out.plan, &value).unwrap_or(value)
                });
                let records: Vec<_> = values.map(|value| lane(partition, value)).collect();
                let purpose = Purpose::Made(partition, epoch, id);
                out.append(self.id, records, purpose, 0);
                if out.planted(Plant::MadeBeforeAck)
                    && let Some(owner) = self.owner(partition, epoch)
                {
                    owner.operation_written(id, 0);
                }
            }
            Task::Command { id, command } => {
                let records = vec![lane(partition, command.to_value())];
                let purpose = Purpose::Made(partition, epoch, id);
                out.append(self.id, records, purpose, 0);
            }
            Task::Tell { id, progress } => {
                let told = vec![(progress_key(id), progress.to_proto(id).to_value())];
                self.tell_table(told, Purpose::Told(partition, epoch, id), out);
            }
            Task::Forget { id } => {
                let told = vec![
                    (operation_key(id), Bytes::new()),
                    (progress_key(id), Bytes::new()),
                ];
                self.tell_table(told, Purpose::Table, out);
            }
        }
    }

    fn tell_table(&self, told: Vec<(Bytes, Bytes)>, purpose: Purpose, out: &mut Outside) {
        let records = told.into_iter().map(|(key, value)| NewRecord {
            to: (Topic::Table, 0),
            key,
            value,
        });
        out.append(self.id, records.collect(), purpose, 0);
    }

    /// What an operation made stands, the last of it there.
    pub(super) fn made(
        &mut self,
        (partition, epoch): (usize, u64),
        id: OperationId,
        last: u64,
        out: &mut Outside,
    ) {
        if let Some(owner) = self.owner(partition, epoch) {
            owner.operation_written(id, last);
        }
        self.look(partition, out);
    }

    /// Records were read for an operation.
    pub(in crate::node) fn look_up(
        &mut self,
        (partition, epoch): (usize, u64),
        id: OperationId,
        (range, stretch): (u32, Range<u64>),
        out: &mut Outside,
    ) {
        let now = self.clock(out);
        let Some(owner) = self.owner(partition, epoch) else {
            return;
        };
        let Some(operation) = owner.operation(id).map(Arc::clone) else {
            return;
        };
        let cut = out.cut_until(self.id).is_some();
        let found = if cut || out.strikes(out.plan.log.read_fail_permille) {
            out.check.seen.note(Seen::SourceUnreadable);
            Found::Unreadable
        } else {
            self.find(&operation, range, stretch, now, out)
        };
        if let Some(owner) = self.owner(partition, epoch) {
            owner.operation_read(id, found, now);
        }
        self.look(partition, out);
    }

    fn find(
        &self,
        operation: &Operation,
        range: u32,
        stretch: Range<u64>,
        now: Timestamp,
        out: &mut Outside,
    ) -> Found {
        let place = usize::try_from(range).unwrap_or(usize::MAX);
        let named = &operation.ranges[place];
        let topic = match named.topic.as_str() {
            "events" => Topic::Events,
            "lane" => Topic::Lane,
            _ => Topic::Dead,
        };
        let from = (
            topic,
            usize::try_from(named.partition).unwrap_or(usize::MAX),
        );
        let most = 1 + crate::plan::below(&mut out.rng, READ_RECORDS);
        let (records, next) = out.log.read(from, stretch.start, most);
        let (mut scanned, mut skipped) = (0, 0);
        let mut deliveries = Vec::new();
        for record in records.iter().filter(|one| one.offset < stretch.end) {
            scanned += 1;
            let at = Place {
                range,
                offset: record.offset,
            };
            match self.made_of(operation, record, at, now) {
                Some(made) => deliveries.extend(made),
                None => skipped += 1,
            }
        }
        if out.planted(Plant::SkipReplayed) {
            deliveries.pop();
        }
        Found::Records {
            deliveries,
            next,
            scanned,
            skipped,
        }
    }

    /// What an operation makes of a record; `None` of one that holds nothing.
    fn made_of(
        &self,
        operation: &Operation,
        record: &Record,
        at: Place,
        now: Timestamp,
    ) -> Option<Option<proto::Deliver>> {
        match &record.value {
            Value::Event(event) => {
                let known = self.registry.index(operation.endpoint);
                let endpoint = known.and_then(|ix| self.registry.endpoint(ix))?;
                let view = View {
                    event_type: &event.event_type,
                    headers: &[],
                    body: &event.body,
                };
                let wanted = replay::is_wanted(operation, endpoint, &event.tenant, &view);
                Some(wanted.then(|| replay::replayed(operation, event, at, now)))
            }
            Value::Poison => None,
            Value::Bytes(value) if RecordType::of(value) == Ok(RecordType::DeadRange) => Some(None),
            Value::Bytes(value) if named_in_lane(operation, at) => {
                let held = proto::Deliver::from_value(value).ok();
                Some(held.and_then(|held| replay::held_again(operation, held, at, now)))
            }
            Value::Bytes(value) => {
                let letter = proto::Dead::from_value(value).ok()?;
                replay::revived(operation, letter, at, now).ok()
            }
        }
    }
}

fn named_in_lane(operation: &Operation, at: Place) -> bool {
    let place = usize::try_from(at.range).unwrap_or(usize::MAX);
    let range = operation.ranges.get(place);
    range.is_some_and(|range| range.topic == "lane")
}
