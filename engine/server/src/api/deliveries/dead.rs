//! Which deliveries were given up.

use std::collections::{BTreeMap, BTreeSet};

use posthaste_core::id::{DeliveryId, EndpointId};
use posthaste_core::lane::partition_of;
use posthaste_core::shard::dead_cause_name;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::document::values;
use crate::api::look::{Ahead, Budget, CLOCKS_APART, before};
use crate::config::{Topics, format_rfc3339_millis};
use crate::log::{LogError, Record, TopicPartition};

/// A dead letter as a delivery shows it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = DeliveryDeadLetter)]
pub(super) struct Letter {
    #[schema(value_type = values::DeadCause)]
    pub(super) cause: &'static str,
    pub(super) detail: String,
    #[schema(value_type = values::Time)]
    at: String,
    /// Made when it was given up.
    pub(super) attempts: u32,
    partition: u32,
    offset: u64,
}

/// The letters of these deliveries.
pub(super) struct Letters {
    pub(super) of: BTreeMap<DeliveryId, Letter>,
    /// Whether all letters since the time were read.
    pub(super) complete: bool,
}

impl Letters {
    /// Of none.
    pub(super) fn none() -> Self {
        Self {
            of: BTreeMap::new(),
            complete: true,
        }
    }
}

/// Looks for the letters of these deliveries, written since a time.
pub(super) async fn look(
    api: &Api,
    wanted: &BTreeMap<DeliveryId, EndpointId>,
    since: Timestamp,
    budget: &mut Budget,
) -> Result<Letters, LogError> {
    let partitions = wanted
        .values()
        .map(|id| partition_of(*id, Topics::DEAD_PARTITIONS));
    let partitions: BTreeSet<_> = partitions.collect();
    let place = |partition| TopicPartition {
        topic: api.config.topics.dead(),
        partition,
    };
    let places = partitions.into_iter().map(place).collect();
    let since = before(since, CLOCKS_APART);
    let mut ahead = Ahead::open(&*api.log, places, since, None).await?;
    let mut of = BTreeMap::new();
    while of.len() < wanted.len()
        && let Some(pieces) = ahead.next(budget).await?
    {
        for piece in &pieces {
            let partition = piece.tp.partition;
            let letters = piece.records.iter().filter_map(|r| letter(r, partition));
            of.extend(letters.filter(|(id, _)| wanted.contains_key(id)));
        }
    }
    Ok(Letters {
        of,
        complete: ahead.ended_by.is_none(),
    })
}

/// One for many deliveries names none of them.
fn letter(record: &Record, partition: u32) -> Option<(DeliveryId, Letter)> {
    let dead = proto::Dead::from_value(&record.value).ok()?;
    let delivery = dead.delivery.as_ref()?;
    let id = delivery.delivery_id.as_ref().try_into();
    let letter = Letter {
        cause: dead_cause_name(dead.cause()),
        at: format_rfc3339_millis(match dead.at_ms {
            0 => record.timestamp,
            at => Timestamp::from_millis(at),
        }),
        attempts: delivery.attempt,
        detail: dead.detail,
        partition,
        offset: record.offset,
    };
    Some((DeliveryId::from_bytes(id.ok()?), letter))
}
