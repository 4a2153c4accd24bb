//! What endpoints of a plan say beside their limits: retry policies, ordering
//! keys; and what a node hears of a lane record, were it not for a planted bug.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use posthaste_core::id::EndpointId;
use posthaste_core::lane::caps::Caps;
use posthaste_core::lane::fold::Fold;
use posthaste_core::lane::settings::{Endpoints, Settings};
use posthaste_core::limits::STANDARD_POLICY;
use posthaste_core::registry::Registry;
use posthaste_core::retry::Policies;
use posthaste_proto as proto;
use posthaste_proto::{Record as _, RecordType};
use proto::progress::Kind;

use super::Node;
use crate::checker::Key;
use crate::plan::Plan;
use crate::plant::Plant;
use crate::world::Outside;

/// The endpoints, none of them ordered: a planted bug.
#[derive(Debug)]
struct Unordered(Arc<Registry>);

impl Endpoints for Unordered {
    fn settings(&self, endpoint: EndpointId) -> Settings {
        Settings {
            ordered: false,
            ..self.0.settings(endpoint)
        }
    }
}

impl Node {
    /// The endpoints as an owner sees them.
    pub(super) fn endpoints(&self, out: &Outside) -> Arc<dyn Endpoints> {
        let registry = Arc::clone(&self.registry);
        if out.planted(Plant::IgnoreKeys) {
            return Arc::new(Unordered(registry));
        }
        registry
    }
}

/// The retry policies of a plan.
pub(super) fn policies(plan: &Plan) -> Arc<Policies> {
    let mut policies = Policies::default();
    for (gaps, number) in plan.policies.iter().zip(1..) {
        let gaps = gaps.iter().copied().map(Duration::from_secs).collect();
        let defined = policies.define(&policy_name(number), gaps);
        assert_eq!(defined, Ok(()), "the plan's policies keep to their bounds");
    }
    Arc::new(policies)
}

/// The name of a policy by its number.
pub(super) fn policy_name(number: usize) -> String {
    match number {
        0 => STANDARD_POLICY.to_owned(),
        number => format!("p{number}"),
    }
}

/// How much a lane partition may have.
pub(super) fn caps(plan: &Plan) -> Caps {
    let or = |planned: usize, known: usize| if planned == 0 { known } else { planned };
    let (planned, known) = (plan.caps, Caps::default());
    Caps {
        timers: or(planned.timers, known.timers),
        timers_per_endpoint: or(planned.timers_per_endpoint, known.timers_per_endpoint),
        part_bytes: or(planned.part_bytes, known.part_bytes),
    }
}

/// The number of a delivery's ordering key, from 0; `None` without keys.
pub(crate) fn order_of(plan: &Plan, key: Key) -> Option<u64> {
    let endpoint = plan.endpoints.get(key.endpoint)?;
    let keys = Some(endpoint.keys).filter(|&keys| keys > 0 && endpoint.ordered)?;
    let partition = u64::try_from(key.partition).unwrap_or(0);
    Some((partition + key.offset) % keys)
}

/// A lane record with its ordering key: shards write none, since events carry
/// none yet.
pub(super) fn keyed(plan: &Plan, value: &Bytes) -> Option<Bytes> {
    let mut record = proto::Deliver::from_value(value).ok()?;
    let order = order_of(plan, Key::of_record(&record)?)?;
    record.ordering_key = format!("k{order}").into();
    Some(record.to_value())
}

/// A lane record as a node reads it.
pub(crate) fn as_read(plant: Option<Plant>, fold: &Fold, offset: u64, value: &Bytes) -> Bytes {
    match (plant, RecordType::of(value)) {
        // A fact says that one attempt more failed, not how many did.
        (Some(Plant::FactsAdd), Ok(RecordType::Progress)) => {
            let Ok(mut record) = proto::Progress::from_value(value) else {
                return value.clone();
            };
            let retries = record.entries.iter_mut();
            for entry in retries.filter(|entry| entry.kind() == Kind::Retry) {
                if let Some(owed) = fold.owed(entry.offset) {
                    entry.attempt = owed.attempts + 1;
                }
            }
            record.to_value()
        }
        (Some(plant @ (Plant::LoseCommands | Plant::CommandsTwice)), Ok(RecordType::Command)) => {
            let Ok(mut record) = proto::Command::from_value(value) else {
                return value.clone();
            };
            if plant == Plant::LoseCommands {
                record.kind = proto::command::Kind::Unspecified.into();
            }
            // Its id is forgotten at once.
            record.id = [[0; 8], offset.to_be_bytes()].concat().into();
            record.to_value()
        }
        // Nothing says that it is of an operation.
        (Some(Plant::TakeCopies), Ok(RecordType::Deliver)) => {
            let Ok(mut record) = proto::Deliver::from_value(value) else {
                return value.clone();
            };
            record.range_offset = 0;
            record.to_value()
        }
        _ => value.clone(),
    }
}

/// A part of a snapshot as a node writes it.
pub(super) fn snapshot_part(plant: Option<Plant>, part: Bytes) -> Bytes {
    match proto::Snapshot::from_value(&part) {
        Ok(mut record) if plant == Some(Plant::ForgetMade) => {
            record.made.clear();
            record.to_value()
        }
        _ => part,
    }
}

/// A record of the endpoints table as a node reads it, if it does.
pub(super) fn table_read(plant: Option<Plant>, key: &Bytes, value: &Bytes) -> Option<Bytes> {
    match plant {
        Some(Plant::IgnoreGates) if key.starts_with(b"g/") => None,
        Some(plant @ (Plant::Narrow | Plant::IgnoreAges)) => {
            let Ok(mut record) = proto::Endpoint::from_value(value) else {
                return Some(value.clone());
            };
            match plant {
                Plant::Narrow => record.max_in_flight = 1,
                _ => record.max_age_ms = 0,
            }
            Some(record.to_value())
        }
        _ => Some(value.clone()),
    }
}
