//! What operators do: commands in the lane, gates, and dead letters delivered
//! again. Who asks is no node: it knows the lane as it stands, and asks again
//! where it heard no answer.

use bytes::Bytes;
use posthaste_core::delivery::redriven;
use posthaste_core::id::CommandId;
use posthaste_core::lane::partition_of;
use posthaste_core::operation::Wanted;
use posthaste_core::registry::gate_key;
use posthaste_core::rng::Rng;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use proto::command::Kind;
use proto::gate::State;

use super::{Event, World, index};
use crate::log::{NewRecord, Topic, Value};
use crate::node::endpoint_id;
use crate::plan::{Operation, OperationKind};
use crate::seen::Seen;

impl World {
    /// An operator does something for the first time.
    pub(super) fn operate(&mut self, number: usize) {
        let operation = self.out.plan.operations[number];
        self.out.note(&[11, index(number)]);
        let records = match operation.kind {
            OperationKind::Redrive => self.redrive(number, operation.endpoint),
            OperationKind::Pause => {
                self.out.check.seen.note(Seen::PausedByOperator);
                vec![self.gate(operation.endpoint, State::Paused)]
            }
            OperationKind::Resume => vec![self.gate(operation.endpoint, State::Open)],
            OperationKind::Replay(_)
            | OperationKind::OwnerRedrives
            | OperationKind::OwnerCancels
            | OperationKind::OwnerRetries => self.ask(number, operation).into_iter().collect(),
            OperationKind::Halt => self.want(operation.endpoint, Wanted::Pause),
            OperationKind::GoOn => self.want(operation.endpoint, Wanted::Unspecified),
            _ => self.command(number, operation).into_iter().collect(),
        };
        for record in &records {
            self.out.store(record);
        }
        if operation.again_ms > 0 {
            // A gate that is asked for again is another, and so is what is wanted.
            let once = !matches!(
                operation.kind,
                OperationKind::Pause
                    | OperationKind::Resume
                    | OperationKind::Halt
                    | OperationKind::GoOn
            );
            let again = records.into_iter().filter(|_| once);
            let again = Event::Again(again.collect());
            self.out.after(operation.again_ms, again);
        }
    }

    /// The same records stand once more.
    pub(super) fn again(&mut self, records: &[NewRecord]) {
        for record in records {
            if proto::Deliver::from_value(&record.value).is_ok() {
                self.out.check.disrupted();
            }
            self.out.store(record);
        }
    }

    pub(super) fn lane_of(&self, endpoint: usize) -> usize {
        let partitions = u32::try_from(self.out.plan.lane_partitions).unwrap_or(1);
        usize::try_from(partition_of(endpoint_id(endpoint), partitions)).unwrap_or(0)
    }

    fn command(&mut self, number: usize, operation: Operation) -> Option<NewRecord> {
        let partition = self.lane_of(operation.endpoint);
        let owed = self.out.check.lanes[partition].owed_of(operation.endpoint);
        let mut some = |percent: u64| -> Vec<u64> {
            let owed = owed.iter().copied();
            owed.filter(|_| self.operate.below(100) < percent).collect()
        };
        let (kind, offsets, before) = match operation.kind {
            OperationKind::Cancel => (Kind::Cancel, Vec::new(), 0),
            OperationKind::CancelSome(percent) => (Kind::Cancel, some(percent), 0),
            OperationKind::SkipTo(percent) => {
                let part = index(owed.len()) * percent / 100;
                let place = usize::try_from(part).unwrap_or(0);
                (Kind::SkipTo, Vec::new(), owed.get(place).copied()?)
            }
            OperationKind::RetryNow => (Kind::RetryNow, Vec::new(), 0),
            OperationKind::RetrySome(percent) => (Kind::RetryNow, some(percent), 0),
            OperationKind::Probe => (Kind::Probe, Vec::new(), 0),
            _ => return None,
        };
        // None listed would be all.
        let lists = matches!(
            operation.kind,
            OperationKind::CancelSome(_) | OperationKind::RetrySome(_)
        );
        if lists && offsets.is_empty() {
            return None;
        }
        let command = proto::Command {
            id: command_id(number).as_bytes().to_vec().into(),
            endpoint_id: endpoint_id(operation.endpoint).as_bytes().to_vec().into(),
            kind: kind.into(),
            offsets,
            before,
            actor: "operator".to_owned(),
            at_ms: self.out.now_ms,
        };
        Some(NewRecord {
            to: (Topic::Lane, partition),
            key: Bytes::new(),
            value: command.to_value(),
        })
    }

    fn gate(&mut self, endpoint: usize, state: State) -> NewRecord {
        let id = endpoint_id(endpoint);
        let gate = proto::Gate {
            endpoint_id: id.as_bytes().to_vec().into(),
            state: state.into(),
            reason: "an operator".to_owned(),
            owner_epoch: self.out.check.gate_epoch(endpoint),
            at_ms: self.out.now_ms,
        };
        NewRecord {
            to: (Topic::Table, 0),
            key: gate_key(id),
            value: gate.to_value(),
        }
    }

    /// The dead letters of an endpoint stand in the lane again.
    fn redrive(&mut self, number: usize, endpoint: usize) -> Vec<NewRecord> {
        let to = (Topic::Lane, self.lane_of(endpoint));
        let now = Timestamp::from_millis(self.out.now_ms);
        let own = endpoint_id(endpoint);
        let mut records = Vec::new();
        for partition in 0..crate::node::DEAD_PARTITIONS {
            let (letters, _) = self.out.log.read((Topic::Dead, partition), 0, usize::MAX);
            for letter in letters {
                let Value::Bytes(value) = &letter.value else {
                    continue;
                };
                let dead = proto::Dead::from_value(value).ok();
                let again = dead
                    .and_then(|dead| redriven(dead.delivery?, command_id(number), now))
                    .filter(|(endpoint, _)| *endpoint == own);
                if let Some((_, record)) = again {
                    records.push(NewRecord {
                        to,
                        key: Bytes::new(),
                        value: record.to_value(),
                    });
                }
            }
        }
        // A delivery has one dead letter for each owner that wrote one.
        records.sort_by(|one, other| one.value.cmp(&other.value));
        records.dedup_by(|one, other| one.value == other.value);
        records
    }
}

/// The id of an operation's command by its number.
pub(super) fn command_id(number: usize) -> CommandId {
    CommandId::generate(Timestamp::default(), &mut Rng::new(index(number)))
}
