//! Who changed what: the topic of changes, newest first, a page at a time.
//!
//! What is there was written before the change it tells of. One that came too
//! late for the table is followed by a `change.refused` of the same request.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use posthaste_core::id::RequestId;
use posthaste_core::limits::{
    CHANGES_PAGE_DEFAULT, CHANGES_PAGE_MAX, CHANGES_READ_SPAN, CHANGES_SCAN_SPAN_MAX,
};
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::document::{codes, values};
use super::page::{Page, read_limit};
use super::problem::{Asked, Problem};
use crate::config::format_rfc3339;
use crate::log::{LogError, Offset, Record, TopicPartition};

/// Bytes read at once.
const READ_BYTES: usize = 1024 * 1024;

/// Which page, and of whom.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Listing {
    /// Of that tenant alone.
    #[param(nullable = false)]
    tenant: Option<String>,
    /// The id of an endpoint or a key.
    #[param(nullable = false)]
    subject: Option<String>,
    #[param(schema_with = values::page_limit::<CHANGES_PAGE_DEFAULT, CHANGES_PAGE_MAX>)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[param(value_type = Option<String>, nullable = false)]
    cursor: Option<Offset>,
}

/// A change that was made.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Change)]
struct Shown {
    #[schema(value_type = values::Time)]
    at: String,
    /// The id of the key that was used; `local` where none was needed.
    actor: String,
    request_id: String,
    #[schema(examples("endpoint.updated"))]
    action: String,
    /// The id of an endpoint or a key.
    subject: String,
    /// `null` when it is no tenant's alone.
    tenant: Option<String>,
    /// `null` when it has none.
    version: Option<u64>,
}

type Changes = Page<Shown>;

/// Lists changes, newest first.
#[utoipa::path(
    get,
    path = "/v1/audit",
    operation_id = "list_changes",
    tag = "Access",
    params(Listing),
    responses(
        (status = 200, description = "A page of them.", body = Changes),
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(listing): Asked<Listing>,
) -> Result<Response, Problem> {
    let limit = listing.limit.unwrap_or(CHANGES_PAGE_DEFAULT);
    let limit = read_limit(limit, CHANGES_PAGE_MAX)?;
    let from = TopicPartition {
        topic: api.config.topics.changes(),
        partition: 0,
    };
    let (begin, end) = api.log.bounds(&from).await?;
    let mut before = listing.cursor.unwrap_or(end).min(end);
    let least = before.saturating_sub(CHANGES_SCAN_SPAN_MAX).max(begin);
    let mut data = Vec::new();
    while before > least && data.len() < limit {
        let start = before.saturating_sub(CHANGES_READ_SPAN).max(least);
        for record in read(&api, &from, start, before).await?.into_iter().rev() {
            if data.len() == limit {
                break;
            }
            before = record.offset;
            data.extend(listing.shown(&record));
        }
        if data.len() < limit {
            before = start;
        }
    }
    let has_more = before > begin;
    let next_cursor = has_more.then(|| before.to_string());
    let page = Page {
        data,
        has_more,
        next_cursor,
    };
    Ok(Json(page).into_response())
}

/// The records from `start` to `before`.
async fn read(
    api: &Api,
    from: &TopicPartition,
    start: Offset,
    before: Offset,
) -> Result<Vec<Record>, LogError> {
    let (mut at, mut records) = (start, Vec::new());
    while at < before {
        let (read, next) = api.log.read(from, at, READ_BYTES).await?;
        records.extend(read.into_iter().filter(|record| record.offset < before));
        if next <= at {
            break;
        }
        at = next;
    }
    Ok(records)
}

impl Listing {
    /// A record as it is shown, if it is one that was asked for.
    fn shown(&self, record: &Record) -> Option<Shown> {
        let change = proto::Change::from_value(&record.value).ok()?;
        let wanted =
            |asked: &Option<String>, is: &str| asked.as_deref().is_none_or(|asked| asked == is);
        if !wanted(&self.tenant, &change.tenant) || !wanted(&self.subject, &change.subject) {
            return None;
        }
        let request = <[u8; 16]>::try_from(change.request_id.as_ref()).ok()?;
        Some(Shown {
            at: format_rfc3339(Timestamp::from_millis(change.at_ms)),
            actor: change.actor,
            request_id: RequestId::from_bytes(request).to_string(),
            action: change.action,
            subject: change.subject,
            tenant: Some(change.tenant).filter(|tenant| !tenant.is_empty()),
            version: Some(change.version).filter(|version| *version > 0),
        })
    }
}
