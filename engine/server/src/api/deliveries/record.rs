//! Attempts as they stand on record, and how they are shown.

use posthaste_core::delivery::{Generation, delivery_id};
use posthaste_core::event::Origin;
use posthaste_core::id::{AttemptId, DeliveryId, EndpointId};
use posthaste_core::limits::LOOK_FOUND_MAX;
use posthaste_core::outcome::Cause;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::document::values;
use crate::api::look::{Ahead, Bound, Budget, CLOCKS_APART, Piece, before, partitions};
use crate::config::format_rfc3339_millis;
use crate::log::LogError;

/// An attempt, and where it stands.
#[derive(Debug)]
pub(in crate::api) struct Recorded {
    pub(in crate::api) id: AttemptId,
    pub(in crate::api) delivery: DeliveryId,
    pub(in crate::api) attempt: proto::Attempt,
}

/// What was found of attempts.
#[derive(Debug)]
pub(in crate::api) struct Trace {
    /// In the order they were made.
    pub(in crate::api) attempts: Vec<Recorded>,
    /// What ended the look before all were found.
    pub(in crate::api) ended_by: Option<Bound>,
}

/// An attempt as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub(in crate::api) struct Shown {
    id: String,
    delivery: String,
    tenant: String,
    endpoint: Option<String>,
    event: String,
    #[serde(rename = "type")]
    event_type: String,
    /// From 1; one that failed on our side is not counted, so its number comes
    /// again.
    number: u32,
    /// Why it was made.
    trigger: &'static str,
    #[schema(value_type = values::Time)]
    at: String,
    duration_us: u64,
    /// `null` without a response.
    status: Option<u32>,
    /// `null` when it was delivered.
    error: Option<Failure>,
    /// `null` where there is none, or only the endpoint's owner knows.
    #[schema(value_type = Option<values::Time>)]
    next_attempt_at: Option<String>,
    /// The response's first bytes.
    response_excerpt: Option<String>,
}

/// What went wrong, and who has to act.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::api) struct Failure {
    pub(in crate::api) code: String,
    blame: Option<&'static str>,
    pub(in crate::api) text: &'static str,
}

impl Failure {
    /// Of a cause's stable name, which a newer version may have written.
    pub(in crate::api) fn of(code: &str) -> Option<Self> {
        let cause = Cause::from_code(code);
        (!code.is_empty()).then(|| Self {
            code: code.to_owned(),
            blame: cause.map(|cause| cause.blame().name()),
            text: cause.map_or("", Cause::text),
        })
    }
}

/// Where its event was first read; an older version did not write that.
pub(in crate::api) fn origin(attempt: &proto::Attempt) -> Option<Origin> {
    (!attempt.origin_topic.is_empty()).then(|| Origin {
        topic: attempt.origin_topic.as_str().into(),
        partition: attempt.origin_partition,
        offset: attempt.origin_offset,
        timestamp: Timestamp::from_millis(attempt.origin_ms),
    })
}

/// To whom it was made.
pub(in crate::api) fn endpoint(attempt: &proto::Attempt) -> Option<EndpointId> {
    let id = attempt.endpoint_id.as_ref().try_into().ok()?;
    Some(EndpointId::from_bytes(id))
}

/// Of which delivery it is.
pub(in crate::api) fn delivery(attempt: &proto::Attempt) -> Option<DeliveryId> {
    let (origin, endpoint) = (origin(attempt)?, endpoint(attempt)?);
    let generation = Generation::of(&attempt.generation);
    Some(delivery_id(&origin, endpoint, generation.as_bytes()))
}

/// The attempts of records that are wanted. What cannot be read is passed over:
/// nothing depends on it.
pub(in crate::api) fn recorded(
    piece: &Piece,
    wanted: impl Fn(&proto::Attempt) -> bool,
) -> Vec<Recorded> {
    let mut all = Vec::new();
    for record in &piece.records {
        let batch = proto::AttemptBatch::from_value(&record.value).unwrap_or_default();
        for (attempt, index) in batch.attempts.into_iter().zip(0..) {
            if wanted(&attempt)
                && let Some(delivery) = delivery(&attempt)
            {
                let id = AttemptId::at(piece.tp.partition, record.offset, index);
                all.push(Recorded {
                    id,
                    delivery,
                    attempt,
                });
            }
        }
    }
    all
}

/// The attempts that are wanted, of those made since a time. `ends`: nothing
/// comes after one that was delivered.
pub(in crate::api) async fn trace(
    api: &Api,
    since: Timestamp,
    wanted: impl Fn(&proto::Attempt) -> bool,
    ends: bool,
    budget: &mut Budget,
) -> Result<Trace, LogError> {
    let places = partitions(&*api.log, &[api.config.topics.attempts()]).await?;
    let since = before(since, CLOCKS_APART);
    let mut ahead = Ahead::open(&*api.log, places, since, None).await?;
    let mut attempts = Vec::new();
    let mut ended_by = None;
    while let Some(pieces) = ahead.next(budget).await? {
        attempts.extend(pieces.iter().flat_map(|piece| recorded(piece, &wanted)));
        if attempts.len() > LOOK_FOUND_MAX {
            attempts.truncate(LOOK_FOUND_MAX);
            ended_by = Some(Bound::Found);
            break;
        }
        // A second copy of it may have been on its way.
        let delivered = attempts.iter().find(|found| found.is_delivered());
        let over = delivered.map(|found| found.at().after(CLOCKS_APART));
        if ends && over.is_some_and(|over| ahead.reached().is_none_or(|at| at > over)) {
            break;
        }
    }
    attempts.sort_by_key(|found| (found.at(), found.attempt.number));
    Ok(Trace {
        attempts,
        ended_by: ended_by.or(ahead.ended_by),
    })
}

impl Recorded {
    pub(in crate::api) fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.attempt.started_ms)
    }

    pub(in crate::api) fn is_delivered(&self) -> bool {
        self.attempt.cause.is_empty()
    }

    pub(in crate::api) fn shown(&self) -> Shown {
        let attempt = &self.attempt;
        let excerpt = String::from_utf8_lossy(&attempt.response_excerpt);
        Shown {
            id: self.id.to_string(),
            delivery: self.delivery.to_string(),
            tenant: attempt.tenant.clone(),
            endpoint: endpoint(attempt).map(|id| id.to_string()),
            event: attempt.event_id.clone(),
            event_type: attempt.event_type.clone(),
            number: attempt.number,
            trigger: trigger(attempt.number, &attempt.generation),
            at: format_rfc3339_millis(self.at()),
            duration_us: attempt.duration_us,
            status: (attempt.status > 0).then_some(attempt.status),
            error: Failure::of(&attempt.cause),
            next_attempt_at: time(attempt.next_due_ms),
            response_excerpt: (!excerpt.is_empty()).then(|| excerpt.into_owned()),
        }
    }
}

fn trigger(number: u32, generation: &[u8]) -> &'static str {
    match (number, generation) {
        (0 | 1, []) => "initial",
        (0 | 1, _) => "resend",
        _ => "retry",
    }
}

/// A time as it is shown, where there is one.
pub(in crate::api) fn time(millis: u64) -> Option<String> {
    (millis > 0).then(|| format_rfc3339_millis(Timestamp::from_millis(millis)))
}
