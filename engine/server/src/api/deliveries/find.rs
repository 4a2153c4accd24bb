//! From a delivery's id to what it is. An id begins with the time of its event,
//! so that the record can be found among those of that time: a delivery's id
//! follows from the record, the endpoint and the generation. One that was brought
//! again, or to an endpoint that is deleted, is found by what was written of it
//! since.

use posthaste_core::delivery::{Generation, delivery_id};
use posthaste_core::event::Origin;
use posthaste_core::id::{DeliveryId, EndpointId};
use posthaste_core::registry::Registry;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;

use super::record;
use crate::api::Api;
use crate::api::look::{Ahead, Budget, CLOCKS_APART, Piece, before, partitions, sources};
use crate::api::problem::Problem;
use crate::log::{LogError, Record, TopicPartition};

/// A delivery, and the event it brings.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its id.
    pub id: DeliveryId,
    /// Where its event was first read.
    pub origin: Origin,
    /// To whom.
    pub endpoint: EndpointId,
    /// Whose event.
    pub tenant: String,
    /// The `webhook-id`.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// In whose name it is brought.
    pub generation: Generation,
}

impl Found {
    /// From when on something of it can be on record: a command's id tells when
    /// it was given.
    pub(super) fn begins(&self, now: Timestamp) -> Timestamp {
        let again = self.generation.time().filter(|time| *time <= now);
        again.map_or(self.id.time(), |again| again.max(self.id.time()))
    }
}

/// Finds it; 404 when nothing of it was found.
pub(super) async fn find(api: &Api, id: DeliveryId) -> Result<Found, Problem> {
    if let Some(found) = in_sources(api, id).await? {
        return Ok(found);
    }
    let (found, is_all) = in_traces(api, id).await?;
    found.ok_or_else(|| not_found(is_all))
}

/// What is said of an id that nothing was found of.
pub(super) fn not_found(is_all: bool) -> Problem {
    Problem::not_found(match is_all {
        true => "no such delivery, or the log no longer has its event",
        false => "no such delivery in what was looked at: the log holds too much since its time",
    })
}

/// Its event among those of its time: almost always in the first few records.
async fn in_sources(api: &Api, id: DeliveryId) -> Result<Option<Found>, LogError> {
    let mut budget = Budget::new();
    let registry = api.endpoints.registry().borrow().clone();
    // Producers' clocks differ: a record can stand behind later ones.
    let only = std::time::Duration::from_millis(1);
    for span in [only, CLOCKS_APART] {
        let places = partitions(&*api.log, &sources(api)).await?;
        let until = Some(id.time().after(span));
        let mut ahead = Ahead::open(&*api.log, places, id.time(), until).await?;
        while let Some(pieces) = ahead.next(&mut budget).await? {
            for Piece { tp, records } in &pieces {
                let mut of_time = records.iter().filter(|r| r.timestamp == id.time());
                let found = of_time.find_map(|r| of_source(api, &registry, tp, r, id));
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
    }
    Ok(None)
}

fn of_source(
    api: &Api,
    registry: &Registry,
    tp: &TopicPartition,
    record: &Record,
    id: DeliveryId,
) -> Option<Found> {
    let event = api.decoder.decode(tp, record).ok()?;
    let mut endpoints = registry.of_tenant(&event.tenant);
    let endpoint = endpoints.find(|e| delivery_id(&event.origin, e.id, &[]) == id)?;
    Some(Found {
        id,
        endpoint: endpoint.id,
        tenant: event.tenant.to_string(),
        event_id: event.id.to_string(),
        event_type: event.event_type.to_string(),
        generation: Generation::default(),
        origin: event.origin,
    })
}

/// What was written of it since: attempts, lane records, dead letters. Answers
/// whether all of that was read.
async fn in_traces(api: &Api, id: DeliveryId) -> Result<(Option<Found>, bool), LogError> {
    let mut budget = Budget::new();
    let topics = &api.config.topics;
    let topics = [topics.attempts(), topics.lane(), topics.dead()];
    let places = partitions(&*api.log, &topics).await?;
    let since = before(id.time(), CLOCKS_APART);
    let mut ahead = Ahead::open(&*api.log, places, since, None).await?;
    while let Some(pieces) = ahead.next(&mut budget).await? {
        let mut records = pieces.iter().flat_map(|piece| &piece.records);
        let found = records.find_map(|record| of_trace(record, id));
        if found.is_some() {
            return Ok((found, true));
        }
    }
    Ok((None, ahead.ended_by.is_none()))
}

fn of_trace(record: &Record, id: DeliveryId) -> Option<Found> {
    match proto::RecordType::of(&record.value).ok()? {
        proto::RecordType::AttemptBatch => {
            let batch = proto::AttemptBatch::from_value(&record.value).ok()?;
            let mut attempts = batch.attempts.into_iter();
            attempts.find_map(|attempt| of_attempt(&attempt, id))
        }
        proto::RecordType::Deliver => {
            // Its body need not be looked at.
            let head = proto::DeliverHead::from_value(&record.value).ok()?;
            let ours = head.delivery_id[..] == id.as_bytes()[..];
            let whole = ours.then(|| proto::Deliver::from_value(&record.value).ok());
            of_deliver(whole??, id)
        }
        proto::RecordType::Dead => {
            let dead = proto::Dead::from_value(&record.value).ok()?;
            of_deliver(dead.delivery?, id)
        }
        _ => None,
    }
}

fn of_attempt(attempt: &proto::Attempt, id: DeliveryId) -> Option<Found> {
    // Spares most of them the hash.
    if Timestamp::from_millis(attempt.origin_ms) != id.time() {
        return None;
    }
    let (origin, endpoint) = (record::origin(attempt)?, record::endpoint(attempt)?);
    let generation = Generation::of(&attempt.generation);
    (delivery_id(&origin, endpoint, generation.as_bytes()) == id).then(|| Found {
        id,
        origin,
        endpoint,
        tenant: attempt.tenant.clone(),
        event_id: attempt.event_id.clone(),
        event_type: attempt.event_type.clone(),
        generation,
    })
}

fn of_deliver(deliver: proto::Deliver, id: DeliveryId) -> Option<Found> {
    if deliver.delivery_id[..] != id.as_bytes()[..] {
        return None;
    }
    Some(Found {
        id,
        endpoint: EndpointId::from_bytes(deliver.endpoint_id.as_ref().try_into().ok()?),
        origin: posthaste_core::delivery::event_of(&deliver).origin,
        generation: Generation::of(&deliver.generation),
        tenant: deliver.tenant,
        event_id: deliver.event_id,
        event_type: deliver.event_type,
    })
}
