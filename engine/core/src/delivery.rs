//! A delivery: the duty to bring one event to one endpoint, and the ticket it
//! carries until it is settled.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use posthaste_proto as proto;

use crate::breaker::Pass;
use crate::event::{Event, JSON, Origin};
use crate::id::{CommandId, DeliveryId, EndpointId};
use crate::limits::DELIVERY_AGE_MAX;
use crate::outcome::{Cause, Outcome};
use crate::registry::EndpointIx;
use crate::time::Timestamp;

/// The duty to bring one event to one endpoint.
#[derive(Debug)]
pub struct Delivery {
    /// What to bring, shared by all deliveries of one event.
    pub event: Arc<Event>,
    /// Where.
    pub endpoint: EndpointIx,
    /// Attempts made so far.
    pub attempts: u32,
    /// What the last of them came to, where it is known.
    pub last_cause: Option<Cause>,
    /// In whose name it is brought again.
    pub generation: Generation,
    /// When its attempt in flight began.
    pub started: Timestamp,
    /// How that attempt was admitted.
    pub flight: Flight,
    /// What waits for it to settle.
    pub ticket: Ticket,
}

/// In whose name a delivery is brought: its source's, or that of a command or a
/// replay that brings it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Generation(Option<[u8; 16]>);

/// What a shard knew when it began an attempt, so that its end is counted as its
/// beginning was.
#[derive(Debug, Clone, Copy, Default)]
pub struct Flight {
    pub(crate) pass: Pass,
    pub(crate) class: Class,
    /// Whether its endpoint answers at once: only then it counts for the pace.
    pub(crate) prompt: bool,
}

/// How long an endpoint's attempts take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Class {
    /// Less than [`SLOW_MS`](crate::limits::SLOW_MS), or not yet known.
    #[default]
    Quick,
    /// Longer.
    Slow,
    /// Longer than [`VERY_SLOW_MS`](crate::limits::VERY_SLOW_MS).
    VerySlow,
}

/// The claim on a position of the log that a delivery carries until it is
/// settled. It cannot be copied: whoever holds it owes it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a ticket that is dropped keeps its position from ever being committed"]
pub struct Ticket {
    /// Who is owed.
    pub room: Room,
    /// The room's own index of the partition.
    pub slot: u32,
    /// The assignment the position belongs to.
    pub epoch: u64,
    /// The position.
    pub offset: u64,
}

/// What is left of a ticket once it is closed: the position that is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// The room's own index of the partition.
    pub slot: u32,
    /// The assignment the position belongs to.
    pub epoch: u64,
    /// The position.
    pub offset: u64,
}

/// Where a delivery came from, hence who hears what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// From a source partition: first attempts.
    Ingest,
    /// From a lane partition: everything after.
    Owner,
}

/// What an owner hears of a delivery it handed out.
#[derive(Debug)]
pub struct Report {
    /// The ticket, given back.
    pub ticket: Ticket,
    /// What came of it.
    pub end: ReportEnd,
}

/// What came of a delivery an owner handed out.
#[derive(Debug)]
pub enum ReportEnd {
    /// An attempt was made.
    Attempted(Outcome),
    /// No attempt counts: there was no room, the process stops, or the way out is
    /// broken on our side.
    Bounced,
    /// The endpoint is gone or disabled.
    Cancelled,
}

impl Delivery {
    /// One that waits for its attempt.
    pub fn new(event: Arc<Event>, endpoint: EndpointIx, attempts: u32, ticket: Ticket) -> Self {
        Self {
            event,
            endpoint,
            attempts,
            last_cause: None,
            generation: Generation::default(),
            started: Timestamp::default(),
            flight: Flight::default(),
            ticket,
        }
    }
}

impl Generation {
    /// As a record names it; what no version writes stands for the source's.
    pub fn of(record: &[u8]) -> Self {
        Self(record.try_into().ok())
    }

    /// The time its id begins with, as ids of commands do.
    pub fn time(&self) -> Option<Timestamp> {
        self.0.map(|id| DeliveryId::from_bytes(id).time())
    }

    /// As a record names it: empty, or 16 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |id| id)
    }
}

impl From<Ticket> for Closed {
    fn from(ticket: Ticket) -> Self {
        Self {
            slot: ticket.slot,
            epoch: ticket.epoch,
            offset: ticket.offset,
        }
    }
}

/// When an event is too old for an endpoint that takes none older than that. One
/// whose time its log does not know never is.
pub fn too_old_at(origin: &Origin, max_age: Option<Duration>) -> Option<Timestamp> {
    let known = origin.timestamp > Timestamp::default();
    max_age
        .filter(|_| known)
        .map(|age| origin.timestamp.after(age))
}

/// The id of the delivery of one source record to one endpoint: the same
/// however often the record is read, so that a second copy can be told. It begins
/// with the record's time. `generation` is empty, or a replay job's or a
/// command's id.
pub fn delivery_id(origin: &Origin, endpoint: EndpointId, generation: &[u8]) -> DeliveryId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(origin.topic.as_bytes());
    hasher.update(&[0]);
    hasher.update(&origin.partition.to_be_bytes());
    hasher.update(&origin.offset.to_be_bytes());
    hasher.update(endpoint.as_bytes());
    hasher.update(generation);
    let mut hash = [0; 16];
    hasher.finalize_xof().fill(&mut hash);
    DeliveryId::derived(origin.timestamp, hash)
}

/// What a lane record says beside the event.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Why it is in the lane.
    pub reason: proto::Reason,
    /// Attempts made so far.
    pub attempts: u32,
    /// When the first attempt was made, or would have been.
    pub first_at: Timestamp,
    /// Next attempt; `None` as soon as the endpoint takes it.
    pub due: Option<Timestamp>,
    /// When its event is too old; `None` for never.
    pub too_old_at: Option<Timestamp>,
}

impl Waiting {
    /// When it is given up.
    pub fn deadline(&self) -> Timestamp {
        let end = self.first_at.after(DELIVERY_AGE_MAX);
        self.too_old_at.map_or(end, |at| at.min(end))
    }
}

/// The lane record of a delivery. Its deadline is fixed here, once.
pub fn lane_record(
    event: &Event,
    endpoint: EndpointId,
    waiting: Waiting,
    last: Option<&Outcome>,
) -> proto::Deliver {
    proto::Deliver {
        delivery_id: delivery_id(&event.origin, endpoint, &[])
            .as_bytes()
            .to_vec()
            .into(),
        endpoint_id: endpoint.as_bytes().to_vec().into(),
        tenant: event.tenant.to_string(),
        event_id: event.id.to_string(),
        event_type: event.event_type.to_string(),
        origin: Some(origin_record(&event.origin)),
        generation: bytes::Bytes::new(),
        attempt: waiting.attempts,
        first_at_ms: waiting.first_at.as_millis(),
        deadline_ms: waiting.deadline().as_millis(),
        due_ms: waiting.due.map_or(0, Timestamp::as_millis),
        reason: waiting.reason.into(),
        last_status: last.and_then(|o| o.status).map_or(0, u32::from),
        last_cause: last
            .and_then(|o| o.cause)
            .map_or_else(String::new, |cause| cause.code().to_owned()),
        content_type: if event.content_type == JSON {
            String::new()
        } else {
            event.content_type.to_string()
        },
        body: event.body.clone(),
        ordering_key: event.ordering_key.clone(),
        range: 0,
        range_offset: 0,
        range_after: 0,
    }
}

/// The lane record that brings a given-up delivery again, as `command` said,
/// and to whom: attempts and age begin anew, its event is never too old, for it
/// was asked for, and its id is of that command.
/// `None` when it names no endpoint.
pub fn redriven(
    record: proto::Deliver,
    command: CommandId,
    now: Timestamp,
) -> Option<(EndpointId, proto::Deliver)> {
    let endpoint = record.endpoint_id.as_ref().try_into();
    let endpoint = EndpointId::from_bytes(endpoint.ok()?);
    let generation = command.as_bytes();
    let id = delivery_id(&event_of(&record).origin, endpoint, generation);
    let again = proto::Deliver {
        delivery_id: id.as_bytes().to_vec().into(),
        generation: generation.to_vec().into(),
        attempt: 0,
        first_at_ms: now.as_millis(),
        deadline_ms: now.after(DELIVERY_AGE_MAX).as_millis(),
        due_ms: 0,
        reason: proto::Reason::Resend.into(),
        last_status: 0,
        last_cause: String::new(),
        range: 0,
        range_offset: 0,
        range_after: 0,
        ..record
    };
    Some((endpoint, again))
}

/// An origin as a record carries it.
pub fn origin_record(origin: &Origin) -> proto::Origin {
    proto::Origin {
        topic: origin.topic.to_string(),
        partition: origin.partition,
        offset: origin.offset,
        timestamp_ms: origin.timestamp.as_millis(),
    }
}

/// The event a lane record carries.
pub fn event_of(record: &proto::Deliver) -> Event {
    let origin = record.origin.clone().unwrap_or_default();
    Event {
        id: ByteString::from(record.event_id.as_str()),
        tenant: ByteString::from(record.tenant.as_str()),
        event_type: ByteString::from(record.event_type.as_str()),
        content_type: if record.content_type.is_empty() {
            JSON
        } else {
            ByteString::from(record.content_type.as_str())
        },
        body: record.body.clone(),
        ordering_key: record.ordering_key.clone(),
        origin: Origin {
            topic: ByteString::from(origin.topic),
            partition: origin.partition,
            offset: origin.offset,
            timestamp: Timestamp::from_millis(origin.timestamp_ms),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    #[test]
    fn the_id_depends_on_origin_endpoint_and_generation_alone() {
        let event = sample("a", "acme", "t");
        let one = EndpointId::from_bytes([1; 16]);
        let two = EndpointId::from_bytes([2; 16]);
        let id = delivery_id(&event.origin, one, &[]);
        assert_eq!(id, delivery_id(&sample("b", "acme", "u").origin, one, &[]));
        assert_ne!(id, delivery_id(&event.origin, two, &[]));
        assert_ne!(id, delivery_id(&event.origin, one, b"job"));
        let mut elsewhere = event.origin;
        assert_eq!(id.time(), elsewhere.timestamp);
        elsewhere.offset += 1;
        assert_ne!(id, delivery_id(&elsewhere, one, &[]));
        elsewhere.timestamp = Timestamp::from_millis(2);
        assert!(
            id < delivery_id(&elsewhere, one, &[]),
            "the later is greater"
        );
    }

    #[test]
    fn a_generation_reads_back_from_its_record() {
        for record in [&[][..], &[7; 16]] {
            assert_eq!(Generation::of(record).as_bytes(), record);
        }
        assert_eq!(Generation::of(b"short"), Generation::default());
    }

    #[test]
    fn a_redriven_delivery_begins_anew_with_the_same_event() {
        let event = sample("a", "acme", "t");
        let endpoint = EndpointId::from_bytes([1; 16]);
        let waiting = Waiting {
            reason: proto::Reason::Retry,
            attempts: 10,
            first_at: Timestamp::from_millis(10),
            due: Some(Timestamp::from_millis(99)),
            too_old_at: Some(Timestamp::from_millis(100)),
        };
        let failed = Outcome::response(500, None, waiting.first_at);
        let record = lane_record(&event, endpoint, waiting, Some(&failed));
        let now = Timestamp::from_millis(1_000_000);
        let mut rng = crate::rng::Rng::new(1);
        let command = CommandId::generate(now, &mut rng);
        let (whose, again) = redriven(record.clone(), command, now).unwrap();
        assert_eq!(whose, endpoint);
        assert_eq!((again.attempt, again.due_ms, again.last_status), (0, 0, 0));
        assert_eq!(
            (&*again.last_cause, again.reason()),
            ("", proto::Reason::Resend)
        );
        assert_eq!(again.first_at_ms, 1_000_000);
        assert_eq!(again.deadline_ms, 1_000_000 + 72 * 3_600_000);
        let (before, after) = (event_of(&record), event_of(&again));
        assert_eq!((&before.id, &before.body), (&after.id, &after.body));
        assert_eq!(before.origin, after.origin);
        // Asked for twice it is one delivery; under another command, another.
        assert_eq!(redriven(again.clone(), command, now).unwrap().1, again);
        let other = CommandId::generate(now, &mut rng);
        let (_, other) = redriven(record.clone(), other, now).unwrap();
        assert_ne!(again.delivery_id, record.delivery_id);
        assert_ne!(again.delivery_id, other.delivery_id);
        let nobody = proto::Deliver::default();
        assert_eq!(redriven(nobody, command, now), None);
    }

    #[test]
    fn an_event_reads_back_from_its_lane_record() {
        let mut event = sample("a", "acme", "t");
        event.content_type = "text/plain".into();
        event.body = vec![0xff, 0x00].into();
        event.ordering_key = "invoice-7".into();
        let waiting = Waiting {
            reason: proto::Reason::Retry,
            attempts: 1,
            first_at: Timestamp::from_millis(10),
            due: None,
            too_old_at: None,
        };
        let record = lane_record(&event, EndpointId::from_bytes([1; 16]), waiting, None);
        let again = event_of(&record);
        assert_eq!((&again.id, &again.body), (&event.id, &event.body));
        assert_eq!(again.content_type, event.content_type);
        assert_eq!(again.ordering_key, event.ordering_key);
        assert_eq!(again.origin, event.origin);
        assert_eq!(record.deadline_ms, 10 + 72 * 3_600_000);
    }

    #[test]
    fn the_deadline_is_the_sooner_of_72_hours_and_the_events_age() {
        let mut origin = sample("a", "acme", "t").origin;
        origin.timestamp = Timestamp::from_millis(1_000);
        let hour = Duration::from_secs(3_600);
        let deadline = |origin: &Origin, max_age: Option<Duration>| {
            let waiting = Waiting {
                reason: proto::Reason::Retry,
                attempts: 1,
                first_at: Timestamp::from_millis(5_000),
                due: None,
                too_old_at: too_old_at(origin, max_age),
            };
            waiting.deadline().as_millis()
        };
        let most = 5_000 + 72 * 3_600_000;
        assert_eq!(deadline(&origin, None), most);
        assert_eq!(deadline(&origin, Some(hour * 73)), most);
        assert_eq!(deadline(&origin, Some(hour)), 1_000 + 3_600_000);
        assert_eq!(deadline(&origin, Some(hour / 3_600)), 2_000, "it is over");
        origin.timestamp = Timestamp::default();
        assert_eq!(deadline(&origin, Some(hour)), most, "nobody knows its age");
    }
}
