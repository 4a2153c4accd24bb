//! Events as they stand in the log: found by id, or listed, by bounded looks at
//! the source topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use posthaste_core::content::View;
use posthaste_core::delivery::delivery_id;
use posthaste_core::event::{Event, check_tenant};
use posthaste_core::id::event_time;
use posthaste_core::limits::{EVENT_SHOWN_BYTES_MAX, LOOK_PAGE_DEFAULT, LOOK_PAGE_MAX};
use posthaste_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::dead_letters::read_time;
use crate::api::deliveries::record::{self, Trace, trace};
use crate::api::deliveries::{Entry, add, judge};
use crate::api::document::{codes, values};
use crate::api::look::{
    Ahead, Bound, Budget, CLOCKS_APART, Cursor, Key, Piece, before, cut, partitions, sources, turn,
};
use crate::api::page::{no_cursor, read_limit};
use crate::api::problem::{Asked, Problem, Segments};
use crate::config::format_rfc3339_millis;
use crate::log::{LogError, Record, TopicPartition};

/// Which events, and which page of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// Of that tenant alone.
    #[param(nullable = false)]
    tenant: Option<String>,
    /// Of that type.
    #[serde(rename = "type")]
    #[param(nullable = false)]
    event_type: Option<String>,
    /// By their records' times: a UTC time, or how long ago.
    #[param(value_type = Option<values::Moment>, nullable = false)]
    since: Option<String>,
    /// … and before then.
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
    /// Of that tenant alone.
    #[param(nullable = false)]
    tenant: Option<String>,
    /// Look no further back, where the id does not tell: a UTC time, or how long ago.
    #[param(value_type = Option<values::Moment>, nullable = false)]
    since: Option<String>,
    /// … and only before then.
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
    #[schema(value_type = values::Time)]
    at: String,
    topic: String,
    partition: u32,
    offset: u64,
    body_bytes: usize,
}

/// An event as it is shown.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
struct Shown {
    #[serde(flatten)]
    item: Item,
    content_type: String,
    ordering_key: Option<String>,
    headers: Vec<Header>,
    /// The first bytes of the body, where they are text …
    body: Option<String>,
    /// … and where they are not.
    body_base64: Option<String>,
    body_truncated: bool,
    /// Deliveries with attempts on record.
    deliveries: Vec<Entry>,
    /// Deliveries to endpoints that want it as they are now, without any.
    not_attempted: Vec<NotAttempted>,
    /// What ended the look at attempts before all were seen.
    ended_by: Option<Bound>,
}

/// A header of an event's record.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RecordHeader)]
struct Header {
    name: String,
    value: String,
}

/// A delivery without attempts on record.
#[derive(Debug, Serialize, ToSchema)]
struct NotAttempted {
    id: String,
    endpoint: String,
}

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventPage)]
struct Events {
    data: Vec<Item>,
    has_more: bool,
    /// For the next page; `null` on the last one.
    next_cursor: Option<String>,
    scanned: Scanned,
}

/// How far a look came.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventsScanned)]
struct Scanned {
    /// What came since then was looked at; `null` when all there is.
    #[schema(value_type = Option<values::Time>)]
    since: Option<String>,
    /// What ended the look before it had seen all; `next_cursor` goes on.
    ended_by: Option<Bound>,
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

/// Lists events of one tenant, the newest first.
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

/// One event, and what became of it.
#[utoipa::path(
    get,
    path = "/v1/events/{event}",
    operation_id = "get_event",
    tag = "Events",
    params(Lookup),
    responses(
        (status = 200, description = "The event.", body = Shown),
        codes::Invalid,
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

/// One event of one tenant, and what became of it.
#[utoipa::path(
    get,
    path = "/v1/tenants/{tenant}/events/{event}",
    operation_id = "get_event_of_tenant",
    tag = "Events",
    params(Lookup),
    responses(
        (status = 200, description = "The event.", body = Shown),
        codes::Invalid,
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

fn only_by_path(tenant: Option<&String>) -> Result<(), Problem> {
    let detail = "the path names the tenant: expected none beside it";
    match tenant {
        Some(_) => Err(Problem::invalid("tenant", detail)),
        None => Ok(()),
    }
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

impl Found {
    /// Its place in a list: two records are never the same.
    fn key(&self, places: &[TopicPartition]) -> Key {
        let origin = &self.event.origin;
        let is_it =
            |tp: &TopicPartition| tp.topic == origin.topic && tp.partition == origin.partition;
        let place = places.iter().position(is_it).unwrap_or(0);
        let place = u128::try_from(place).unwrap_or(0);
        Key {
            at: self.record.timestamp,
            id: (place << 64) | u128::from(origin.offset),
        }
    }

    fn item(&self) -> Item {
        let (event, origin) = (&self.event, &self.event.origin);
        Item {
            id: event.id.to_string(),
            tenant: event.tenant.to_string(),
            event_type: event.event_type.to_string(),
            at: format_rfc3339_millis(origin.timestamp),
            topic: origin.topic.to_string(),
            partition: origin.partition,
            offset: origin.offset,
            body_bytes: event.body.len(),
        }
    }

    async fn shown(self, api: &Api, trace: Trace) -> Result<Shown, LogError> {
        let mut gathered = BTreeMap::new();
        for found in trace.attempts {
            add(&mut gathered, found);
        }
        let wanting = self.wanting(api).into_iter();
        let not_attempted = wanting.filter(|(id, _)| !gathered.contains_key(id));
        let not_attempted = not_attempted.map(|(id, endpoint)| NotAttempted {
            id: id.to_string(),
            endpoint: endpoint.to_string(),
        });
        let not_attempted = not_attempted.collect();
        let (entries, _) = judge(api, gathered).await?;
        let event = &self.event;
        let shown = &event.body[..event.body.len().min(EVENT_SHOWN_BYTES_MAX)];
        let text = readable(shown);
        let key = &event.ordering_key;
        Ok(Shown {
            item: self.item(),
            content_type: event.content_type.to_string(),
            ordering_key: (!key.is_empty()).then(|| String::from_utf8_lossy(key).into_owned()),
            headers: self.headers(),
            body_base64: text.is_none().then(|| BASE64_STANDARD.encode(shown)),
            body: text.map(ToOwned::to_owned),
            body_truncated: shown.len() < event.body.len(),
            deliveries: entries.into_iter().map(|(_, entry)| entry).collect(),
            not_attempted,
            ended_by: trace.ended_by,
        })
    }

    fn headers(&self) -> Vec<Header> {
        let header = |(name, value): &(bytestring::ByteString, bytes::Bytes)| Header {
            name: name.to_string(),
            value: String::from_utf8_lossy(value).into_owned(),
        };
        self.record.headers.iter().map(header).collect()
    }

    /// Who wants it, of the endpoints that were there when it came.
    fn wanting(
        &self,
        api: &Api,
    ) -> Vec<(
        posthaste_core::id::DeliveryId,
        posthaste_core::id::EndpointId,
    )> {
        let (event, registry) = (&self.event, api.endpoints.registry().borrow().clone());
        let mut matched = Vec::new();
        registry.matching(&event.tenant, &event.event_type, &mut matched);
        let view = View {
            event_type: &event.event_type,
            headers: &self.record.headers,
            body: &event.body,
        };
        registry.sift(&event.tenant, &view, &mut matched);
        let came = event.origin.timestamp.after(CLOCKS_APART);
        let there = matched.into_iter().filter_map(|ix| registry.endpoint(ix));
        let there = there.filter(|endpoint| endpoint.created_at <= came);
        let delivery = |id| (delivery_id(&event.origin, id, &[]), id);
        there.map(|endpoint| delivery(endpoint.id)).collect()
    }
}

/// The text that bytes are, but for a character that was cut in two.
fn readable(bytes: &[u8]) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}
