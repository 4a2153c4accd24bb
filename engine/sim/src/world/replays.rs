//! What operators ask of owners: records of the endpoints table.

use posthaste_core::id::OperationId;
use posthaste_core::operation::{Kind, Operation as Asked, Range, Wanted, operation_key};
use posthaste_core::replay::Buried;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::operations::command_id;
use super::{World, index};
use crate::log::{NewRecord, Topic, Value};
use crate::node::endpoint_id;
use crate::plan::{Operation, OperationKind};
use crate::seen::Seen;

impl World {
    /// Something new is asked of an endpoint's owner.
    pub(super) fn ask(&mut self, number: usize, operation: Operation) -> Option<NewRecord> {
        let endpoint = operation.endpoint;
        let plan = &self.out.plan;
        let (kind, rate, ranges, before) = match operation.kind {
            OperationKind::Replay(rate) => {
                let ranges = self.ranges(Topic::Events, "events", plan.source_partitions);
                (Kind::Replay, rate, ranges, 0)
            }
            OperationKind::OwnerRedrives => {
                let mut ranges = self.ranges(Topic::Dead, "dead", crate::node::DEAD_PARTITIONS);
                ranges.extend(self.buried(endpoint).ranges("lane"));
                (Kind::Redrive, 0, ranges, 0)
            }
            OperationKind::OwnerCancels => {
                let before = self.out.log.end((Topic::Lane, self.lane_of(endpoint)));
                (Kind::Cancel, 0, Vec::new(), before)
            }
            OperationKind::OwnerRetries => (Kind::RetryNow, 0, Vec::new(), 0),
            _ => return None,
        };
        let asked = Asked {
            id: OperationId::from_bytes(*command_id(number).as_bytes()),
            tenant: format!("t{}", plan.endpoints[endpoint].tenant),
            endpoint: endpoint_id(endpoint),
            kind,
            wanted: Wanted::Unspecified,
            actor: "operator".to_owned(),
            created_at: Timestamp::from_millis(self.out.now_ms),
            ranges,
            span: (Timestamp::default(), Timestamp::default()),
            event_types: Vec::new(),
            filter: None,
            any: false,
            rate_per_second: rate,
            dead_cause: String::new(),
            offsets: Vec::new(),
            before,
            version: 1,
        };
        let record = table_record(&asked);
        self.out.check.replays.asked(asked, endpoint);
        Some(record)
    }

    fn ranges(&self, topic: Topic, name: &str, partitions: usize) -> Vec<Range> {
        let range = |partition| Range {
            topic: name.to_owned(),
            partition: u32::try_from(partition).unwrap_or(u32::MAX),
            from: 0,
            to: self.out.log.end((topic, partition)),
            ..Range::default()
        };
        (0..partitions).map(range).collect()
    }

    /// What dead letters for many tell of an endpoint.
    fn buried(&self, endpoint: usize) -> Buried {
        let own = endpoint_id(endpoint);
        let mut buried = Buried::default();
        for partition in 0..crate::node::DEAD_PARTITIONS {
            let (letters, _) = self.out.log.read((Topic::Dead, partition), 0, usize::MAX);
            for letter in letters {
                let Value::Bytes(value) = &letter.value else {
                    continue;
                };
                let many = proto::DeadRange::from_value(value).ok();
                let many = many.filter(|many| many.endpoint_id == own.as_bytes()[..]);
                many.iter().for_each(|many| buried.add(many));
            }
        }
        buried
    }

    /// What was asked of an endpoint's owner is wanted otherwise.
    pub(super) fn want(&mut self, endpoint: usize, wanted: Wanted) -> Vec<NewRecord> {
        if wanted == Wanted::Pause {
            self.out.check.seen.note(Seen::Halted);
        }
        let records = self.out.check.replays.want(endpoint, wanted);
        self.out.note(&[index(records.len())]);
        records.iter().map(table_record).collect()
    }
}

fn table_record(asked: &Asked) -> NewRecord {
    NewRecord {
        to: (Topic::Table, 0),
        key: operation_key(asked.id),
        value: asked.to_proto().to_value(),
    }
}
