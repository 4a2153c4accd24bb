//! The last records of a source, read as ingest reads them: the event each
//! stands for and who gets it, or why it became a dead letter.

use std::cmp::Reverse;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use posthaste_core::event::{Event, EventError};
use posthaste_core::limits::{
    PREVIEW_BODY_BYTES_MAX, PREVIEW_DEFAULT, PREVIEW_HEADER_BYTES_MAX, PREVIEW_HEADERS_MAX,
    PREVIEW_MAX,
};
use posthaste_core::shard::dead_cause_name;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::topics;
use crate::api::Api;
use crate::api::document::{codes, values};
use crate::api::events::read::{cut_body, wanted_by};
use crate::api::look::{Bound, Budget, Cursor, partitions, turn};
use crate::api::page::read_limit;
use crate::api::problem::{Asked, Problem, Segments};
use crate::config::format_rfc3339_millis;
use crate::ingest::poison::cause_of;
use crate::log::{Record, TopicPartition};

/// How many.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::api) struct Last {
    #[param(schema_with = values::page_limit::<PREVIEW_DEFAULT, PREVIEW_MAX>)]
    limit: Option<usize>,
}

/// The last records of a source, the newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SourcePreview)]
struct Preview {
    data: Vec<Previewed>,
    /// What ended the look before it had seen so many.
    #[schema(required = true)]
    ended_by: Option<Bound>,
}

/// A record, and what it is taken for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PreviewedRecord)]
struct Previewed {
    partition: u32,
    offset: u64,
    #[schema(value_type = values::Time)]
    at: String,
    /// Of the record; long values are cut.
    headers: Vec<Header>,
    /// What it stands for …
    #[schema(required = true)]
    event: Option<Mapped>,
    /// … or why it is none.
    #[schema(required = true)]
    dead: Option<Refused>,
    /// The first bytes of what is delivered, or of a record that is no event, where they are
    /// text …
    #[schema(required = true)]
    body: Option<String>,
    /// … and where they are not.
    #[schema(required = true)]
    body_base64: Option<String>,
    body_truncated: bool,
}

/// A header of a record.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PreviewedHeader)]
struct Header {
    name: String,
    value: String,
}

/// The event that a record stands for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MappedEvent)]
struct Mapped {
    /// The `webhook-id`.
    id: String,
    tenant: String,
    #[serde(rename = "type")]
    event_type: String,
    content_type: String,
    #[schema(required = true)]
    ordering_key: Option<String>,
    /// Those that want it as they are now.
    endpoints: Vec<String>,
}

/// Why a record became a dead letter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RefusedRecord)]
struct Refused {
    #[schema(value_type = values::DeadCause)]
    cause: &'static str,
    detail: String,
}

/// Shows the last records of a source topic as ingest takes them.
///
/// Each with the event that it stands for and the endpoints that want it now, or with what its
/// dead letter says. The topic is looked through from its end, within bounds of bytes and time.
#[utoipa::path(
    get,
    path = "/v1/sources/{topic}/preview",
    operation_id = "preview_source",
    tag = "Sources",
    params(Last),
    responses(
        (status = 200, description = "The records.", body = Preview),
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub(in crate::api) async fn show(
    State(api): State<Arc<Api>>,
    Segments(name): Segments<String>,
    Asked(asked): Asked<Last>,
) -> Result<Response, Problem> {
    let limit = read_limit(asked.limit.unwrap_or(PREVIEW_DEFAULT), PREVIEW_MAX)?;
    let topic = topics(&api).into_iter().find(|topic| **topic == *name);
    let topic = topic
        .ok_or_else(|| Problem::not_found("no such source: expected one of `ingest.topics`"))?;
    let _turn = turn(&api)?;
    let (last, ended_by) = last(&api, &topic, limit).await?;
    let data = last
        .iter()
        .map(|(tp, record)| Previewed::of(&api, tp, record));
    let preview = Preview {
        data: data.collect(),
        ended_by,
    };
    Ok(Json(preview).into_response())
}

/// A record and its place.
type Found = (TopicPartition, Record);

/// The newest records, by their times.
async fn last(
    api: &Api,
    topic: &ByteString,
    limit: usize,
) -> Result<(Vec<Found>, Option<Bound>), Problem> {
    let log = &*api.log;
    let places = partitions(log, std::slice::from_ref(topic)).await?;
    let cursor = Cursor::open(log, &places, api.clock.now(), None, None).await?;
    let mut back = cursor.look(log, &places);
    let mut budget = Budget::new();
    let mut found: Vec<Found> = Vec::new();
    while let Some(pieces) = back.next(&mut budget).await? {
        for piece in pieces {
            let records = piece.records.into_iter();
            found.extend(records.map(|record| (piece.tp.clone(), record)));
        }
        found.sort_by_key(|(tp, record)| Reverse((record.timestamp, tp.partition, record.offset)));
        found.truncate(limit);
        // What is still to be read is older than all of them.
        let oldest = found.get(limit - 1).map(|(_, record)| record.timestamp);
        if oldest.is_some_and(|oldest| back.reached().is_none_or(|reached| reached <= oldest)) {
            break;
        }
    }
    Ok((found, back.ended_by))
}

impl Previewed {
    fn of(api: &Api, tp: &TopicPartition, record: &Record) -> Self {
        let read = api.decoder.decode(tp, record);
        let shown = read.as_ref().map_or(&record.value, |event| &event.body);
        let (body, body_base64, body_truncated) = cut_body(shown, PREVIEW_BODY_BYTES_MAX);
        let headers = record.headers.iter().take(PREVIEW_HEADERS_MAX);
        let header = |(name, value): &(ByteString, bytes::Bytes)| Header {
            name: name.to_string(),
            value: {
                let cut = &value[..value.len().min(PREVIEW_HEADER_BYTES_MAX)];
                String::from_utf8_lossy(cut).into_owned()
            },
        };
        let (event, dead) = match &read {
            Ok(event) => (Some(Mapped::of(api, event, record)), None),
            Err(error) => (None, Some(Refused::of(error))),
        };
        Self {
            partition: tp.partition,
            offset: record.offset,
            at: format_rfc3339_millis(record.timestamp),
            headers: headers.map(header).collect(),
            event,
            dead,
            body,
            body_base64,
            body_truncated,
        }
    }
}

impl Mapped {
    fn of(api: &Api, event: &Event, record: &Record) -> Self {
        let key = &event.ordering_key;
        let wanted = wanted_by(api, event, record).into_iter();
        Self {
            id: event.id.to_string(),
            tenant: event.tenant.to_string(),
            event_type: event.event_type.to_string(),
            content_type: event.content_type.to_string(),
            ordering_key: (!key.is_empty()).then(|| String::from_utf8_lossy(key).into_owned()),
            endpoints: wanted.map(|endpoint| endpoint.id.to_string()).collect(),
        }
    }
}

impl Refused {
    fn of(error: &EventError) -> Self {
        Self {
            cause: dead_cause_name(cause_of(error)),
            detail: error.to_string(),
        }
    }
}
