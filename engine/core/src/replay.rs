//! Which records an operation brings to its endpoint again, and as what.

use posthaste_proto as proto;
use proto::Reason;

use crate::content::{Filter, Truth, View};
use crate::delivery::{Waiting, delivery_id, lane_record, redriven};
use crate::endpoint::Endpoint;
use crate::event::Event;
use crate::id::{CommandId, EndpointId};
use crate::operation::Operation;
use crate::shard::dead_cause_name;
use crate::time::Timestamp;

/// Where a record stands that an operation reads.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Which of the operation's ranges.
    pub range: u32,
    /// Its offset.
    pub offset: u64,
}

/// Whether an operation brings an event to its endpoint again: the operation
/// wants it, and, unless somebody named it, so does the endpoint. A filter that
/// cannot be decided lets nothing pass, as for first attempts.
pub fn is_wanted(
    operation: &Operation,
    endpoint: &Endpoint,
    tenant: &str,
    event: &View<'_>,
) -> bool {
    let types = &operation.event_types;
    let event_type = event.event_type;
    operation.tenant == tenant
        && (types.is_empty() || types.iter().any(|one| one.matches(event_type)))
        && passes(operation.filter.as_ref(), event)
        && (operation.any || is_for(endpoint, tenant, event))
}

/// Whether an event is one for the endpoint, be it disabled or paused. A filter
/// that cannot be decided lets nothing pass, as for first attempts.
pub fn is_for(endpoint: &Endpoint, tenant: &str, event: &View<'_>) -> bool {
    endpoint.tenant == tenant
        && endpoint.wants(event.event_type)
        && passes(endpoint.filter.as_ref(), event)
}

fn passes(filter: Option<&Filter>, event: &View<'_>) -> bool {
    filter.is_none_or(|filter| filter.judge(event) == Truth::Yes)
}

/// The delivery that brings an event again. The owner says what it follows.
pub fn replayed(
    operation: &Operation,
    event: &Event,
    place: Place,
    now: Timestamp,
) -> proto::Deliver {
    let waiting = Waiting {
        reason: if operation.any {
            Reason::Resend
        } else {
            Reason::Replay
        },
        attempts: 0,
        first_at: now,
        due: None,
        // It was asked for, however old it is.
        too_old_at: None,
    };
    let endpoint = operation.endpoint;
    let generation = operation.id.as_bytes();
    let id = delivery_id(&event.origin, endpoint, generation);
    placed(
        proto::Deliver {
            delivery_id: id.as_bytes().to_vec().into(),
            generation: generation.to_vec().into(),
            ..lane_record(event, endpoint, waiting, None)
        },
        place,
    )
}

/// The delivery that brings a dead letter again, if the operation wants it.
///
/// # Errors
/// The letter has nothing to deliver.
pub fn revived(
    operation: &Operation,
    letter: proto::Dead,
    place: Place,
    now: Timestamp,
) -> Result<Option<proto::Deliver>, NothingLeft> {
    let at = Timestamp::from_millis(letter.at_ms);
    let cause = letter.cause();
    let Some(delivery) = letter.delivery else {
        return Ok(None);
    };
    let (since, until) = operation.span;
    let in_span = since <= at && (until == Timestamp::default() || at < until);
    let of_cause =
        operation.dead_cause.is_empty() || operation.dead_cause == dead_cause_name(cause);
    if !in_span || !of_cause || delivery.endpoint_id != operation.endpoint.as_bytes()[..] {
        return Ok(None);
    }
    if cause == proto::DeadCause::Oversize {
        return Err(NothingLeft);
    }
    Ok(made_anew(operation, delivery, place, now))
}

/// A dead letter whose event is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event is not kept")]
pub struct NothingLeft;

/// The delivery that brings a record of the lane again, if it was held there for
/// the operation's endpoint, and given up with the others of its range.
pub fn held_again(
    operation: &Operation,
    record: proto::Deliver,
    place: Place,
    now: Timestamp,
) -> Option<proto::Deliver> {
    let range = usize::try_from(place.range).ok();
    let range = range.and_then(|range| operation.ranges.get(range))?;
    let held = record.due_ms == 0
        && record.endpoint_id == operation.endpoint.as_bytes()[..]
        && range.except.binary_search(&place.offset).is_err();
    held.then(|| made_anew(operation, record, place, now))?
}

fn made_anew(
    operation: &Operation,
    record: proto::Deliver,
    place: Place,
    now: Timestamp,
) -> Option<proto::Deliver> {
    let command = CommandId::from_bytes(*operation.id.as_bytes());
    let (endpoint, again): (EndpointId, _) = redriven(record, command, now)?;
    (endpoint == operation.endpoint).then(|| placed(again, place))
}

fn placed(record: proto::Deliver, place: Place) -> proto::Deliver {
    proto::Deliver {
        range: place.range,
        range_offset: place.offset + 1,
        ..record
    }
}

mod buried;

pub use buried::Buried;

#[cfg(test)]
mod tests;
