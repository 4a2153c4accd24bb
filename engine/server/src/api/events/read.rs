//! Events as they stand in the log: found by id, or listed, by bounded looks at
//! the source topics.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use posthaste_core::event::{Event, check_tenant};
use posthaste_core::id::event_time;
use posthaste_core::limits::{LOOK_PAGE_DEFAULT, LOOK_PAGE_MAX};
use posthaste_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::dead_letters::read_time;
use crate::api::deliveries::Entry;
use crate::api::deliveries::record::{self, trace};
use crate::api::document::{codes, values};
use crate::api::look::{
    Ahead, Bound, Budget, CLOCKS_APART, Cursor, Piece, before, cut, partitions, sources, turn,
};
use crate::api::page::{no_cursor, only_by_path, read_limit};
use crate::api::problem::{Asked, Problem, Segments};
use crate::config::format_rfc3339_millis;
use crate::log::Record;

mod found;

pub(in crate::api) use found::{cut_body, wanted_by};

/// Which events, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// Of that tenant alone; not where the path names one.
    #[param(nullable = false)]
    tenant: Option<String>,
    /// Of that type.
    #[serde(rename = "type")]
    #[param(nullable = false)]
    event_type: Option<String>,
    /// Not before then, by the time of the record.
    #[param(value_type = Option<values::Moment>, nullable = false)]
    since: Option<String>,
    /// Before then.
    #[param(value_type = Option<values::Moment>, nullable = false)]
    until: Option<String>,
    #[param(schema_with = values::page_limit::<LOOK_PAGE_DEFAULT, LOOK_PAGE_MAX>)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// Where an event is looked for whose id does not tell.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Lookup {
    /// Of that tenant alone; not where the path names one.
    #[param(nullable = false)]
    tenant: Option<String>,
    /// Not before then.
    #[param(value_type = Option<values::Moment>, nullable = false)]
    since: Option<String>,
    /// Before then.
    #[param(value_type = Option<values::Moment>, nullable = false)]
    until: Option<String>,
}

/// An event as a list shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListedEvent)]
struct Item {
    id: String,
    tenant: String,
    #[serde(rename = "type")]
    event_type: String,
    /// The time of its record.
    #[schema(value_type = values::Time)]
    at: String,
    topic: String,
    partition: u32,
    offset: u64,
    body_bytes: usize,
}

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventPage)]
struct Events {
    data: Vec<Item>,
    has_more: bool,
    /// For the next page; `null` on the last one.
    #[schema(required = true)]
    next_cursor: Option<String>,
    scanned: Scanned,
}

/// How far a look at events came.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventsScanned)]
struct Scanned {
    /// Events since then were looked at; `null` when all there are.
    #[schema(value_type = Option<values::Time>, required = true)]
    since: Option<String>,
    /// What ended the look before it had seen all; `next_cursor` goes on.
    #[schema(required = true)]
    ended_by: Option<Bound>,
}

/// An event as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
struct Shown {
    #[serde(flatten)]
    item: Item,
    content_type: String,
    #[schema(required = true)]
    ordering_key: Option<String>,
    /// Of its record.
    headers: Vec<Header>,
    /// The first bytes of the body, where they are text …
    #[schema(required = true)]
    body: Option<String>,
    /// … and where they are not.
    #[schema(required = true)]
    body_base64: Option<String>,
    body_truncated: bool,
    /// Deliveries with attempts on record.
    deliveries: Vec<Entry>,
    /// Deliveries to endpoints that want it as they are now, without any.
    not_attempted: Vec<NotAttempted>,
    /// What ended the look at attempts before all were seen.
    #[schema(required = true)]
    ended_by: Option<Bound>,
}

/// A header of a record.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventHeader)]
struct Header {
    name: String,
    value: String,
}

/// A delivery without an attempt on record.
#[derive(Debug, Serialize, ToSchema)]
struct NotAttempted {
    id: String,
    endpoint: String,
}

/// An event and its record.
pub(super) struct Found {
    pub(super) event: Event,
    pub(super) record: Record,
}

/// From when to when.
#[derive(Debug, Clone, Copy)]
struct Range {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// Lists events, the newest first.
///
/// The log is looked through from its end, within bounds of bytes and time; `scanned` says how far.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "list_events",
    tag = "Events",
    params(Listing),
    responses(
        (status = 200, description = "A page of them.", body = Events),
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn list(
    State(api): State<Arc<Api>>,
    Asked(listing): Asked<Listing>,
) -> Result<Response, Problem> {
    page(&api, listing).await
}

/// Lists a tenant's events, the newest first.
///
/// The log is looked through from its end, within bounds of bytes and time; `scanned` says how far.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/events",
    operation_id = "list_events_of_tenant",
    tag = "Events",
    params(Listing),
    responses(
        (status = 200, description = "A page of them.", body = Events),
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn list_of_tenant(
    State(api): State<Arc<Api>>,
    Segments(tenant): Segments<String>,
    Asked(mut listing): Asked<Listing>,
) -> Result<Response, Problem> {
    only_by_path(listing.tenant.as_ref())?;
    listing.tenant = Some(tenant);
    page(&api, listing).await
}

/// Shows one event, and what became of it.
///
/// An id that Posthaste made tells where to look for it. For any other the newest events are looked
/// through first; `since` and `until` narrow that.
#[utoipa::path(
    get,
    path = "/v1/events/{event}",
    operation_id = "get_event",
    tag = "Events",
    params(Lookup),
    responses(
        (status = 200, description = "The event.", body = Shown),
        codes::Invalid,
        codes::NotFound,
        codes::Unavailable,
    ),
)]
pub async fn show(
    State(api): State<Arc<Api>>,
    Segments(id): Segments<String>,
    Asked(lookup): Asked<Lookup>,
) -> Result<Response, Problem> {
    answer(&api, &id, lookup).await
}

/// Shows one event of a tenant's, and what became of it.
///
/// An id that Posthaste made tells where to look for it. For any other the newest events are looked
/// through first; `since` and `until` narrow that.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/events/{event}",
    operation_id = "get_event_of_tenant",
    tag = "Events",
    params(Lookup),
    responses(
        (status = 200, description = "The event.", body = Shown),
        codes::Invalid,
        codes::NotFound,
        codes::Unavailable,
    ),
)]
pub async fn show_of_tenant(
    State(api): State<Arc<Api>>,
    Segments((tenant, id)): Segments<(String, String)>,
    Asked(mut lookup): Asked<Lookup>,
) -> Result<Response, Problem> {
    only_by_path(lookup.tenant.as_ref())?;
    lookup.tenant = Some(tenant);
    answer(&api, &id, lookup).await
}

fn range(since: Option<&str>, until: Option<&str>, now: Timestamp) -> Result<Range, Problem> {
    let time = |param, text: Option<&str>| {
        let read = text.map(|text| read_time(text, now)).transpose();
        read.map_err(|problem| Problem::invalid(param, problem))
    };
    let (since, until) = (time("since", since)?, time("until", until)?);
    if since
        .zip(until)
        .is_some_and(|(since, until)| since >= until)
    {
        return Err(Problem::invalid("since", "expected a time before `until`"));
    }
    Ok(Range { since, until })
}

async fn page(api: &Api, listing: Listing) -> Result<Response, Problem> {
    if let Some(tenant) = &listing.tenant {
        check_tenant(tenant)?;
    }
    let limit = read_limit(listing.limit.unwrap_or(LOOK_PAGE_DEFAULT), LOOK_PAGE_MAX)?;
    let cursor = listing.cursor.as_deref().map(str::parse::<Cursor>);
    let cursor = cursor.transpose().map_err(|_| no_cursor())?;
    let now = cursor.as_ref().map_or(api.clock.now(), |at| at.asked_at);
    let Range { since, until } = range(listing.since.as_deref(), listing.until.as_deref(), now)?;
    let _turn = turn(api)?;
    let log = &*api.log;
    let places = partitions(log, &sources(api)).await?;
    let mut cursor = match cursor {
        Some(cursor) => cursor,
        None => Cursor::open(log, &places, now, since, until).await?,
    };
    let mut back = cursor.look(log, &places);
    let mut items = Vec::new();
    let mut budget = Budget::new();
    while let Some(pieces) = back.next(&mut budget).await? {
        for piece in &pieces {
            for found in events(api, piece, listing.tenant.as_deref()) {
                let of_type = listing.event_type.as_ref();
                if of_type.is_none_or(|wanted| *wanted == *found.event.event_type) {
                    items.push((found.key(&places), found.item()));
                }
            }
        }
        if items.len() >= limit && !cursor.is_fixed() {
            back.stop();
            break;
        }
    }
    cursor.looked(&back)?;
    let reached = back.reached().map(|at| format_rfc3339_millis(at.min(now)));
    let (data, next) = cut(items, cursor, limit);
    let next_cursor = next.map(|cursor| cursor.to_string());
    let answer = Events {
        data,
        has_more: next_cursor.is_some(),
        next_cursor,
        scanned: Scanned {
            since: reached,
            ended_by: back.ended_by,
        },
    };
    Ok(Json(answer).into_response())
}

/// A piece's events of a tenant; what is none is passed over.
fn events(api: &Api, piece: &Piece, tenant: Option<&str>) -> Vec<Found> {
    let decode = |record: &Record| {
        let event = api.decoder.decode(&piece.tp, record).ok()?;
        let record = record.clone();
        Some(Found { event, record })
    };
    let events = piece.records.iter().filter_map(decode);
    let of_tenant = events.filter(|f| tenant.is_none_or(|tenant| *f.event.tenant == *tenant));
    of_tenant.collect()
}

async fn answer(api: &Api, id: &str, lookup: Lookup) -> Result<Response, Problem> {
    if let Some(tenant) = &lookup.tenant {
        check_tenant(tenant)?;
    }
    let now = api.clock.now();
    let range = range(lookup.since.as_deref(), lookup.until.as_deref(), now)?;
    let _turn = turn(api)?;
    let found = find(api, id, lookup.tenant.as_deref(), range).await?;
    let origin = &found.event.origin;
    let wanted = |attempt: &posthaste_proto::Attempt| {
        attempt.event_id == id && record::origin(attempt).as_ref() == Some(origin)
    };
    let trace = trace(api, origin.timestamp, wanted, false, &mut Budget::new()).await?;
    Ok(Json(found.shown(api, trace).await?).into_response())
}

/// An event by its id, wherever it is.
pub(super) async fn find_event(
    api: &Api,
    id: &str,
    tenant: Option<&str>,
) -> Result<Found, Problem> {
    if let Some(tenant) = tenant {
        check_tenant(tenant)?;
    }
    let _turn = turn(api)?;
    let all = Range {
        since: None,
        until: None,
    };
    find(api, id, tenant, all).await
}

/// By the time that the id tells, or, where it tells none, in the range asked for,
/// the newest first.
async fn find(api: &Api, id: &str, tenant: Option<&str>, range: Range) -> Result<Found, Problem> {
    let log = &*api.log;
    let places = partitions(log, &sources(api)).await?;
    let mut budget = Budget::new();
    let of_id = |pieces: &[Piece]| {
        let all = pieces.iter().flat_map(|piece| events(api, piece, tenant));
        all.into_iter().find(|found| *found.event.id == *id)
    };
    if let Some(time) = event_time(id).filter(|time| *time <= api.clock.now().after(CLOCKS_APART)) {
        let (since, until) = (before(time, CLOCKS_APART), time.after(CLOCKS_APART));
        let mut ahead = Ahead::open(log, places.clone(), since, Some(until)).await?;
        while let Some(pieces) = ahead.next(&mut budget).await? {
            if let Some(found) = of_id(&pieces) {
                return Ok(found);
            }
        }
    }
    let Range { since, until } = range;
    let cursor = Cursor::open(log, &places, api.clock.now(), since, until).await?;
    let mut back = cursor.look(log, &places);
    while let Some(pieces) = back.next(&mut budget).await? {
        if let Some(found) = of_id(&pieces) {
            return Ok(found);
        }
    }
    Err(Problem::not_found(match (back.ended_by, back.reached()) {
        (Some(_), Some(reached)) => format!(
            "no such event since {}: before that was not looked; `since` and `until` say where to",
            format_rfc3339_millis(reached.min(api.clock.now()))
        ),
        _ => "no such event, or the log no longer has it".to_owned(),
    }))
}
