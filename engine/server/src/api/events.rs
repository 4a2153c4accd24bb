//! Events by HTTP: `POST /v1/tenants/{tenant}/events`, answered 202 only once
//! the event is durable.
//!
//! The request is read as a record of a source topic is: routing headers with
//! any body, CloudEvents in both modes, or the JSON envelope.
//!
//! With an `Idempotency-Key` the event's id follows from tenant and key, so a
//! repeated request is the same event to every receiver, also across restarts;
//! within the window of one process it is not even written twice.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use posthaste_core::event::{Event, check_tenant};
use posthaste_core::id::{event_id_from, generate_event_id};
use posthaste_core::limits::{IDEMPOTENCY_KEY_BYTES_MAX, IDEMPOTENCY_KEYS_MAX};
use posthaste_core::rng::Rng;
use posthaste_core::time::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::body::Whole;
use super::document::codes;
use super::document::values::{EventHeaders, JsonEvent};
use super::problem::{Problem, Segments};
use crate::clock::random_seed;
use crate::ingest::decode::record_of;
use crate::log::{AppendError, NewRecord, TopicPartition};
use crate::telemetry;

pub mod again;
pub mod read;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// How long a key is remembered.
const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(24 * 3_600);

/// An answer to give again.
pub struct Remembered {
    body_hash: [u8; 32],
    accepted: Option<Accepted>,
    at: Timestamp,
}

/// A durable event.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = AcceptedEvent)]
pub struct Accepted {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    tenant: String,
    topic: String,
    partition: u32,
    offset: u64,
}

/// Takes one event.
#[utoipa::path(
    post,
    path = "/v1/tenants/{tenant}/events",
    operation_id = "publish_event",
    tag = "Events",
    params(EventHeaders),
    request_body(
        content(
            (JsonEvent = "application/json"),
            (serde_json::Value = "application/cloudevents+json"),
            (serde_json::Value = "*/*"),
        ),
        description = "An envelope, a CloudEvent, or any body with the routing headers.",
    ),
    responses(
        (status = 202, description = "The log has it.", body = Accepted),
        codes::InProgress,
        codes::Invalid,
        codes::SchemaNotSatisfied,
        codes::Unavailable,
    ),
)]
pub async fn publish(
    State(api): State<Arc<Api>>,
    Segments(tenant): Segments<String>,
    headers: HeaderMap,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    check_tenant(&tenant)?;
    let key = idempotency_key(&headers)?;
    let Some(key) = key else {
        let id = generate_event_id(api.clock.now(), &mut Rng::new(random_seed()));
        let accepted = append(&api, &tenant, &headers, body, &id).await?;
        return Ok(answer(&accepted));
    };
    let scoped = blake3::hash(format!("{tenant}\0{key}").as_bytes());
    let body_hash = *blake3::hash(&body).as_bytes();
    if let Some(before) = reserve(&api, *scoped.as_bytes(), body_hash)? {
        return Ok(answer(&before));
    }
    let reserved = Reserved {
        api: &api,
        key: *scoped.as_bytes(),
    };
    let mut id = [0; 16];
    id.copy_from_slice(&scoped.as_bytes()[..16]);
    let accepted = append(&api, &tenant, &headers, body, &event_id_from(&id)).await?;
    reserved.keep(&accepted);
    Ok(answer(&accepted))
}

/// A key whose request is under way. It is free again when the request fails,
/// and when its client hangs up before the answer: no one would come back for
/// that answer, and a repeat must not wait for it.
struct Reserved<'a> {
    api: &'a Api,
    key: [u8; 32],
}

impl Reserved<'_> {
    fn keep(self, accepted: &Accepted) {
        if let Some(mut entry) = self.api.idempotency.get_mut(&self.key) {
            entry.accepted = Some(accepted.clone());
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let unanswered = |_: &[u8; 32], seen: &Remembered| seen.accepted.is_none();
        self.api.idempotency.remove_if(&self.key, unanswered);
    }
}

fn answer(accepted: &Accepted) -> Response {
    (StatusCode::ACCEPTED, axum::Json(accepted)).into_response()
}

/// The key a request is to be known by.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default();
    let fits = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len());
    if !fits || key.contains('\t') {
        return Err(Problem::invalid(
            "idempotency-key",
            format!("expected 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"),
        ));
    }
    Ok(Some(key.to_owned()))
}

/// The earlier answer to this key, or `None` after reserving it.
fn reserve(api: &Api, key: [u8; 32], body_hash: [u8; 32]) -> Result<Option<Accepted>, Problem> {
    let now = api.clock.now();
    if api.idempotency.len() >= IDEMPOTENCY_KEYS_MAX {
        let live = |seen: &Remembered| now.since(seen.at) < IDEMPOTENCY_WINDOW;
        api.idempotency.retain(|_, seen| live(seen));
        if api.idempotency.len() >= IDEMPOTENCY_KEYS_MAX {
            return Err(Problem::unavailable(
                "too many idempotency keys within 24 h: try again later, or without a key",
            ));
        }
    }
    match api.idempotency.entry(key) {
        dashmap::Entry::Vacant(free) => {
            free.insert(Remembered {
                body_hash,
                accepted: None,
                at: now,
            });
            Ok(None)
        }
        dashmap::Entry::Occupied(seen) => {
            let seen = seen.get();
            if seen.body_hash != body_hash {
                return Err(Problem::invalid(
                    "idempotency-key",
                    "this key came before with another body",
                ));
            }
            seen.accepted.clone().map(Some).ok_or_else(|| {
                Problem::conflict("in_progress", "a request with this key is under way")
            })
        }
    }
}

async fn append(
    api: &Api,
    tenant: &str,
    headers: &HeaderMap,
    body: Bytes,
    id: &str,
) -> Result<Accepted, Problem> {
    let event = read(api, tenant, headers, body, id)?;
    judge(api, &event)?;
    let to = TopicPartition {
        topic: ByteString::from(api.config.ingest.topics[0].as_str()),
        partition: partition_of(&event, api.event_partitions),
    };
    let record = NewRecord {
        to: to.clone(),
        key: event.ordering_key.clone(),
        value: event.body.clone(),
        headers: api.config.ingest.headers.of(&event),
    };
    let results = api.log.append(vec![record]).await;
    let offset = results
        .into_iter()
        .next()
        .unwrap_or_else(|| Err(AppendError::Unknown("the log gave no answer".to_owned())))?;
    telemetry::api_event();
    Ok(Accepted {
        id: event.id.to_string(),
        event_type: event.event_type.to_string(),
        tenant: event.tenant.to_string(),
        topic: to.topic.to_string(),
        partition: to.partition,
        offset,
    })
}

/// Events of one ordering key stand in one partition, in the order they came.
fn partition_of(event: &Event, partitions: u32) -> u32 {
    let mut hasher = blake3::Hasher::new();
    if event.ordering_key.is_empty() {
        hasher.update(event.id.as_bytes());
    } else {
        hasher.update(event.tenant.as_bytes()).update(b"\0");
        hasher.update(&event.ordering_key);
    }
    let hash = hasher.finalize();
    let word = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default());
    u32::try_from(word % u64::from(partitions)).unwrap_or(0)
}

/// Whether its body, as it will be delivered, satisfies its type's schema, where
/// that is enforced.
fn judge(api: &Api, event: &Event) -> Result<(), Problem> {
    let catalog = api.endpoints.catalog();
    catalog
        .judge(&event.event_type, &event.body)
        .map_err(|flaws| {
            let flaws: Vec<_> = flaws.iter().map(ToString::to_string).collect();
            let (event_type, flaws) = (&event.event_type, flaws.join("; "));
            Problem::not_satisfied(format!("it is no `{event_type}`: {flaws}"))
        })
}

/// The event of a request. The path names the tenant; a request that names
/// another is refused.
fn read(
    api: &Api,
    tenant: &str,
    headers: &HeaderMap,
    body: Bytes,
    id: &str,
) -> Result<Event, Problem> {
    let names = &api.config.ingest.headers;
    let mut routed: Vec<(ByteString, Bytes)> = headers
        .iter()
        .filter(|(name, _)| name.as_str() != names.tenant)
        .map(|(name, value)| {
            let value = Bytes::copy_from_slice(value.as_bytes());
            (ByteString::from(name.as_str()), value)
        })
        .collect();
    routed.push((
        ByteString::from(names.tenant.as_str()),
        Bytes::copy_from_slice(tenant.as_bytes()),
    ));
    let record = record_of(routed, body, api.clock.now());
    let nowhere = TopicPartition {
        topic: ByteString::new(),
        partition: 0,
    };
    let event = api
        .decoder
        .decode_or(&nowhere, &record, |_| ByteString::from(id))?;
    Ok(event)
}
