//! Operations, as far as they are IO: reading sources outside any group,
//! appending what is made of them, publishing how far they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use posthaste_core::content::View;
use posthaste_core::endpoint::Endpoint;
use posthaste_core::event::{Event, EventError};
use posthaste_core::id::OperationId;
use posthaste_core::lane::owner::{Found, Owner, Task};
use posthaste_core::lane::partition_of;
use posthaste_core::limits::OPERATION_READ_BYTES;
use posthaste_core::operation::{Kind, Known, Operation, Progress, operation_key, progress_key};
use posthaste_core::replay::{self, Place as At};
use posthaste_proto as proto;
use posthaste_proto::{Record as _, RecordType};

use super::OwnerRoom;
use super::part::Part;
use super::writes::{Done, FIRST_WAIT, Place, Writer, Writing, plain};
use crate::log::{APPEND_WAIT_MAX, LogError, Offset, Record, TopicPartition};
use crate::operational::{self, Told};

/// Reads the event that a source's record holds, as ingest does.
pub type Decode = Arc<dyn Fn(&TopicPartition, &Record) -> Result<Event, EventError> + Send + Sync>;

/// What became of something that was done for an operation.
pub(super) enum Came {
    Read(Found),
    /// It stands in the lane, the last of it there.
    Written(Offset),
    Told,
}

impl OwnerRoom {
    /// The operations changed: each partition hears of its own.
    pub(super) fn operations_changed(&mut self) {
        let known = Arc::clone(&self.operations.borrow_and_update());
        let mut of: BTreeMap<u32, Vec<Known>> = BTreeMap::new();
        for (_, known) in known.iter() {
            let partition = partition_of(known.operation.endpoint, self.writer.lanes());
            of.entry(partition).or_default().push(known.clone());
        }
        let places = self.parts.values().map(Part::place).collect::<Vec<_>>();
        for place in places {
            let known = of.remove(&place.partition).unwrap_or_default();
            if let Some(owner) = self.live(place).and_then(Part::owner) {
                owner.set_operations(known);
            }
            self.operate(place);
        }
    }

    /// Does what a partition's operations have to do now.
    pub(super) fn operate(&mut self, place: Place) {
        let now = self.clock.now();
        let mut actions = Vec::new();
        if let Some(owner) = self.live(place).and_then(Part::owner) {
            owner.operate(now, &mut actions);
        }
        self.act(place, actions);
    }

    /// Something that was done for an operation is done.
    pub(super) fn operated(&mut self, place: Place, id: OperationId, came: Came) {
        let now = self.clock.now();
        if let Some(owner) = self.live(place).and_then(Part::owner) {
            match came {
                Came::Read(found) => owner.operation_read(id, found, now),
                Came::Written(at) => owner.operation_written(id, at),
                Came::Told => owner.operation_told(id),
            }
        }
        self.operate(place);
    }

    /// What is to be written or read for an operation.
    pub(super) fn operation_task(&mut self, place: Place, task: Task) -> Option<Writing> {
        let asked = |owner: &mut Owner, id| owner.operation(id).cloned();
        Some(match task {
            Task::Read {
                id,
                range,
                from,
                to,
            } => {
                let operation = asked(self.live(place)?.owner()?, id)?;
                let registry = self.registry.borrow();
                let endpoint = registry.find(operation.endpoint).cloned();
                let stretch = Stretch { range, from, to };
                self.writer.look_up(place, operation, endpoint, stretch)
            }
            Task::Append { id, deliveries } => {
                let values = deliveries.iter().map(proto::Deliver::to_value).collect();
                self.writer.append_in_order(place, id, values)
            }
            Task::Command { id, command } => {
                let values = vec![command.to_value()];
                self.writer.append_in_order(place, id, values)
            }
            Task::Tell { id, progress } => {
                let operation = asked(self.live(place)?.owner()?, id)?;
                let registry = self.registry.borrow();
                let endpoint = registry.find(operation.endpoint).cloned();
                let ended = endpoint.zip(operational::ended(&operation, &progress));
                self.writer.progressed(place, id, &progress, ended)
            }
            Task::Forget { id } => {
                // In this order: progress without its operation means nothing,
                // an operation without its progress begins again.
                let records = vec![
                    (operation_key(id), Bytes::new()),
                    (progress_key(id), Bytes::new()),
                ];
                self.writer.tell(place, id, records)
            }
        })
    }
}

/// A part of one range.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    range: u32,
    from: Offset,
    to: Offset,
}

impl Writer {
    fn look_up(
        &self,
        place: Place,
        operation: Arc<Operation>,
        endpoint: Option<Arc<Endpoint>>,
        stretch: Stretch,
    ) -> Writing {
        self.run(place, move |this| async move {
            let found = match endpoint {
                Some(endpoint) => this.find(&operation, &endpoint, stretch).await,
                // The table is not read as far.
                None => Found::Unreadable,
            };
            Done::Operated(operation.id, Came::Read(found))
        })
    }

    async fn find(&self, operation: &Operation, endpoint: &Endpoint, stretch: Stretch) -> Found {
        let Stretch { range, from, to } = stretch;
        let place = usize::try_from(range).ok();
        let Some(named) = place.and_then(|place| operation.ranges.get(place)) else {
            return Found::Never("a range that is not one of its own".to_owned());
        };
        let tp = TopicPartition {
            topic: named.topic.as_str().into(),
            partition: named.partition,
        };
        let (records, next) = match self.log.read(&tp, from, OPERATION_READ_BYTES).await {
            Ok((_, next)) if next <= from => return Found::Unreadable,
            Ok(read) => read,
            Err(LogError::OutOfRange { start, .. }) if start > from => {
                return Found::Passed(start);
            }
            // The log is shorter than it was: its topic was made anew.
            Err(LogError::OutOfRange { .. }) => return Found::Passed(to),
            Err(error @ LogError::NoSuchTopic(_)) => return Found::Never(error.to_string()),
            Err(error) => {
                let id = operation.id;
                tracing::warn!(%tp, from, %error, operation = %id, "cannot read, trying again");
                return Found::Unreadable;
            }
        };
        let mut deliveries = Vec::new();
        let (mut scanned, mut skipped) = (0, 0);
        for record in records.iter().filter(|record| record.offset < to) {
            scanned += 1;
            let at = At {
                range,
                offset: record.offset,
            };
            match self.made_of(operation, endpoint, &tp, record, at) {
                Ok(made) => deliveries.extend(made),
                Err(Unusable) => skipped += 1,
            }
        }
        Found::Records {
            deliveries,
            next,
            scanned,
            skipped,
        }
    }

    /// The delivery that an operation makes of a record, if it is one it wants.
    fn made_of(
        &self,
        operation: &Operation,
        endpoint: &Endpoint,
        tp: &TopicPartition,
        record: &Record,
        at: At,
    ) -> Result<Option<proto::Deliver>, Unusable> {
        let now = self.clock.now();
        if tp.topic == self.topics.lane() {
            let held = proto::Deliver::from_value(&record.value).ok();
            return Ok(held.and_then(|held| replay::held_again(operation, held, at, now)));
        }
        if operation.kind == Kind::Redrive {
            // One for many has none of them in it: the operation names where they
            // stand in the lane.
            if RecordType::of(&record.value) == Ok(RecordType::DeadRange) {
                return Ok(None);
            }
            let letter = proto::Dead::from_value(&record.value).map_err(|_| Unusable)?;
            return replay::revived(operation, letter, at, now).map_err(|_| Unusable);
        }
        let event = (self.decode)(tp, record).map_err(|_| Unusable)?;
        let view = View {
            event_type: &event.event_type,
            headers: &record.headers,
            body: &event.body,
        };
        let wanted = replay::is_wanted(operation, endpoint, &event.tenant, &view);
        Ok(wanted.then(|| replay::replayed(operation, &event, at, now)))
    }

    /// Appends values to the lane, each only where all before it stand: one that
    /// the log has not acknowledged is appended again, and all behind it.
    fn append_in_order(&self, place: Place, id: OperationId, values: Vec<Bytes>) -> Writing {
        self.run(place, move |this| async move {
            let lane = this.lane(place.partition);
            let mut wait = FIRST_WAIT;
            let (mut done, mut last) = (0, 0);
            while done < values.len() {
                let rest = values[done..].iter().cloned();
                let records = rest.map(|value| plain(lane.clone(), value)).collect();
                for result in this.log.append(records).await {
                    match result {
                        Ok(offset) => {
                            last = offset;
                            done += 1;
                        }
                        Err(error) => {
                            tracing::error!(%lane, %error, operation = %id, "append failed, trying again in {wait:?}");
                            tokio::time::sleep(wait).await;
                            wait = (wait * 2).min(APPEND_WAIT_MAX);
                            break;
                        }
                    }
                }
            }
            Done::Operated(id, Came::Written(last))
        })
    }

    /// Writes how far an operation is, and tells what it came to.
    fn progressed(
        &self,
        place: Place,
        id: OperationId,
        progress: &Progress,
        ended: Option<(Arc<Endpoint>, Told)>,
    ) -> Writing {
        let (at, value) = (progress.at, progress.to_proto(id).to_value());
        self.run(place, move |this| async move {
            this.put(progress_key(id), value).await;
            if let Some((endpoint, told)) = ended {
                this.announce(&endpoint, at, told).await;
            }
            Done::Operated(id, Came::Told)
        })
    }

    /// Writes records of the endpoints table, one after the other.
    fn tell(&self, place: Place, id: OperationId, records: Vec<(Bytes, Bytes)>) -> Writing {
        self.run(place, move |this| async move {
            for (key, value) in records {
                this.put(key, value).await;
            }
            Done::Operated(id, Came::Told)
        })
    }
}

/// A record that holds nothing to be delivered.
struct Unusable;
