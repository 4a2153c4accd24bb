//! Dead letters: list them, and bring their deliveries again.
//!
//! They are read page by page, oldest first. A redrive finds out whose there
//! are, and asks those endpoints' owners to bring them again; nothing is taken
//! out of the dead letters.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use posthaste_core::id::{DeliveryId, EndpointId};
use posthaste_core::limits::{DEAD_PAGE_DEFAULT, DEAD_PAGE_MAX};
use posthaste_core::shard::dead_cause_name;
use posthaste_proto as proto;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::document::{codes, values};
use super::page::{Page as Listed, no_cursor, read_limit};
use super::problem::{Asked, Problem};
use crate::config::format_rfc3339;
use crate::log::LogError;

mod filter;
mod many;
pub mod redrive;
mod scan;

use filter::{Filter, Wanted};
pub(super) use filter::{find_endpoint, read_time};
pub(super) use many::in_lane;
use many::{Lane, Many};
pub(super) use redrive::count;
use scan::{Cursor, Letter, Scan, Told};

/// What to list: a filter, and which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// Of that tenant alone.
    #[param(nullable = false)]
    tenant: Option<String>,
    /// An endpoint's id; its uid where the tenant is named.
    #[param(nullable = false)]
    endpoint: Option<String>,
    /// Why they were given up.
    #[param(value_type = Option<values::DeadCause>, nullable = false)]
    cause: Option<String>,
    /// Not before then: a UTC time, or how long ago.
    #[param(value_type = Option<values::Moment>, nullable = false)]
    since: Option<String>,
    /// Before then.
    #[param(value_type = Option<values::Moment>, nullable = false)]
    until: Option<String>,
    #[param(schema_with = values::page_limit::<DEAD_PAGE_DEFAULT, DEAD_PAGE_MAX>)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// A dead letter as it is shown: never with its body.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
struct Shown {
    /// Its place in the topic.
    partition: u32,
    offset: u64,
    #[schema(value_type = values::Time)]
    at: String,
    #[schema(value_type = values::DeadCause)]
    cause: &'static str,
    detail: String,
    /// Where the event was first read.
    origin: Option<Place>,
    /// Whether its delivery can be brought again.
    redrivable: bool,
    /// `null` when the record never became an event, and for many at once.
    delivery: Option<Undelivered>,
    /// Held deliveries that were given up at once, by this letter for all; `null`
    /// otherwise.
    range: Option<Many>,
}

/// A place in the log.
#[derive(Debug, Serialize, ToSchema)]
struct Place {
    topic: String,
    partition: u32,
    offset: u64,
}

/// The delivery that was given up.
#[derive(Debug, Serialize, ToSchema)]
struct Undelivered {
    id: Option<String>,
    tenant: String,
    endpoint: Option<String>,
    event: String,
    #[serde(rename = "type")]
    event_type: String,
    attempts: u32,
    /// `null` when the last attempt got no response.
    last_status: Option<u32>,
    last_cause: String,
}

type DeadLetters = Listed<Shown>;

/// Lists dead letters, oldest first.
#[utoipa::path(
    get,
    path = "/v1/dead_letters",
    operation_id = "list_dead_letters",
    tag = "Dead letters",
    params(Listing),
    responses(
        (status = 200, description = "A page of them.", body = DeadLetters),
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn list(
    State(api): State<Arc<Api>>,
    Asked(listing): Asked<Listing>,
) -> Result<Response, Problem> {
    let limit = read_limit(listing.limit.unwrap_or(DEAD_PAGE_DEFAULT), DEAD_PAGE_MAX)?;
    let filter = Filter {
        tenant: listing.tenant,
        endpoint: listing.endpoint,
        cause: listing.cause,
        since: listing.since,
        until: listing.until,
    };
    let (wanted, _, mut scan) = open(&api, filter, listing.cursor.as_deref()).await?;
    let (mut data, mut lane) = (Vec::new(), Lane::of(&api));
    while data.len() < limit
        && let Some(letter) = scan.next().await?
    {
        if wanted.matches(&letter.told) {
            data.push(shown(letter, &mut lane).await?);
        }
    }
    let next_cursor = scan.rest().map(|cursor| cursor.to_string());
    let has_more = next_cursor.is_some();
    let page = Listed {
        data,
        has_more,
        next_cursor,
    };
    Ok(Json(page).into_response())
}

/// Whether what it would deliver is there: an oversize delivery was written
/// without its body.
fn is_whole(dead: &proto::Dead) -> bool {
    dead.delivery.is_some() && dead.cause() != proto::DeadCause::Oversize
}

async fn open<'a>(
    api: &'a Api,
    filter: Filter,
    cursor: Option<&str>,
) -> Result<(Wanted, Cursor, Scan<'a>), Problem> {
    let (log, topic) = (&*api.log, api.config.topics.dead());
    let cursor = cursor.map(|text| text.parse::<Cursor>().map_err(|_| no_cursor()));
    let cursor = cursor.transpose()?;
    let asked_at = cursor.as_ref().map_or(api.clock.now(), |at| at.asked_at);
    let wanted = filter.wanted(api, asked_at)?;
    let cursor = match cursor {
        Some(cursor) => cursor,
        None => {
            let (only, since) = (wanted.partition(), wanted.read_from());
            Cursor::open(log, &topic, asked_at, only, since).await?
        }
    };
    let scan = Scan::from(log, &topic, cursor.clone()).await?;
    Ok((wanted, cursor, scan))
}

async fn shown(letter: Letter, lane: &mut Lane<'_>) -> Result<Shown, LogError> {
    let at = format_rfc3339(letter.told.at());
    let cause = dead_cause_name(letter.told.cause());
    let (partition, offset) = (letter.partition, letter.offset);
    Ok(match letter.told {
        Told::One(dead) => Shown {
            partition,
            offset,
            at,
            redrivable: is_whole(&dead),
            cause,
            detail: dead.detail,
            origin: dead.origin.map(|origin| Place {
                topic: origin.topic,
                partition: origin.partition,
                offset: origin.offset,
            }),
            delivery: dead.delivery.map(undelivered),
            range: None,
        },
        Told::Many(many) => {
            let range = lane.shown(&many).await?;
            Shown {
                partition,
                offset,
                at,
                redrivable: range.is_kept(),
                cause,
                detail: String::new(),
                origin: None,
                delivery: None,
                range: Some(range),
            }
        }
    })
}

fn undelivered(delivery: proto::Deliver) -> Undelivered {
    let id = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).ok();
    Undelivered {
        id: id(&delivery.delivery_id).map(|id| DeliveryId::from_bytes(id).to_string()),
        tenant: delivery.tenant,
        endpoint: id(&delivery.endpoint_id).map(|id| EndpointId::from_bytes(id).to_string()),
        event: delivery.event_id,
        event_type: delivery.event_type,
        attempts: delivery.attempt,
        last_status: (delivery.last_status > 0).then_some(delivery.last_status),
        last_cause: delivery.last_cause,
    }
}
