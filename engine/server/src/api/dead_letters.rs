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
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use serde::{Deserialize, Serialize};

use super::Api;
use super::page::{no_cursor, read_limit};
use super::problem::{Asked, Problem};
use crate::config::format_rfc3339;

mod filter;
mod redrive;
mod scan;

use filter::{Filter, Wanted};
pub(super) use filter::{find_endpoint, read_time};
pub(super) use redrive::count;
pub use redrive::redrive;
use scan::{Cursor, Letter, Scan};

/// What to list: a filter, and which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    tenant: Option<String>,
    endpoint: Option<String>,
    cause: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// A dead letter as it is shown: never with its body.
#[derive(Debug, Serialize)]
struct Shown {
    /// Its place in the topic.
    partition: u32,
    offset: u64,
    at: String,
    cause: &'static str,
    detail: String,
    /// Where the event was first read.
    origin: Option<Place>,
    /// Whether its delivery can be brought again.
    redrivable: bool,
    /// `null` when the record never became an event.
    delivery: Option<Undelivered>,
}

#[derive(Debug, Serialize)]
struct Place {
    topic: String,
    partition: u32,
    offset: u64,
}

#[derive(Debug, Serialize)]
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

/// Lists dead letters, oldest first.
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
    let mut data = Vec::new();
    while data.len() < limit
        && let Some(letter) = scan.next().await?
    {
        if wanted.matches(&letter.dead) {
            data.push(shown(letter));
        }
    }
    let next_cursor = scan.rest().map(|cursor| cursor.to_string());
    let has_more = next_cursor.is_some();
    let page = serde_json::json!({
        "data": data, "has_more": has_more, "next_cursor": next_cursor,
    });
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

fn shown(letter: Letter) -> Shown {
    let dead = letter.dead;
    let cause = dead_cause_name(dead.cause());
    let at = Timestamp::from_millis(dead.at_ms);
    Shown {
        partition: letter.partition,
        offset: letter.offset,
        at: format_rfc3339(at),
        redrivable: is_whole(&dead),
        cause,
        detail: dead.detail,
        origin: dead.origin.map(|origin| Place {
            topic: origin.topic,
            partition: origin.partition,
            offset: origin.offset,
        }),
        delivery: dead.delivery.map(undelivered),
    }
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
