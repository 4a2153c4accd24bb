//! Dead letters: list them, and bring their deliveries again.
//!
//! Both go through the topic page by page, oldest first. A page of a redrive is
//! answered once its deliveries are durable in the lane; nothing is taken out
//! of the dead letters, so that a delivery is at worst brought twice. A redrive
//! has a command id, which its cursor carries: a page asked for again makes the
//! same delivery ids.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use posthaste_core::delivery::redriven;
use posthaste_core::id::{CommandId, DeliveryId, EndpointId};
use posthaste_core::lane::partition_of;
use posthaste_core::limits::{
    APPEND_BATCH_BYTES, APPEND_BATCH_RECORDS, DEAD_PAGE_DEFAULT, DEAD_PAGE_MAX, REDRIVE_PAGE_MAX,
};
use posthaste_core::registry::Registry;
use posthaste_core::rng::Rng;
use posthaste_core::shard::dead_cause_name;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use posthaste_proto::Record as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::body::{Whole, read_json};
use super::document::{codes, values};
use super::page::{Page as Listed, no_cursor, read_limit};
use super::problem::{Asked, Problem};
use crate::clock::random_seed;
use crate::config::format_rfc3339;
use crate::log::{NewRecord, TopicPartition, append_until_durable};
use crate::telemetry;

mod filter;
mod scan;

use filter::{Filter, Wanted};
pub(super) use filter::{find_endpoint, read_time};
use scan::{Cursor, Letter, Scan};

const FIRST_WAIT: Duration = Duration::from_millis(50);

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

/// What to redrive.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(examples(json!({
    "filter": {"tenant": "acme", "cause": "exhausted", "since": "24h"},
})))]
#[serde(deny_unknown_fields)]
struct Redrive {
    #[serde(default)]
    filter: Filter,
    /// Every one; otherwise a filter says which.
    #[serde(default)]
    all: bool,
    #[schema(schema_with = values::body_limit::<REDRIVE_PAGE_MAX, REDRIVE_PAGE_MAX>)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
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
    /// `null` when the record never became an event.
    delivery: Option<Undelivered>,
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

/// What one page of a redrive did.
#[derive(Debug, Serialize, ToSchema)]
struct Redriven {
    command: String,
    dry_run: bool,
    redriven: u64,
    skipped: Skipped,
    has_more: bool,
    /// For the next page; `null` on the last one.
    next_cursor: Option<String>,
}

/// Letters that match and stay, by why.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
struct Skipped {
    no_delivery: u64,
    endpoint_deleted: u64,
    endpoint_disabled: u64,
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
    let (wanted, mut scan) = open(&api, filter, listing.cursor.as_deref()).await?;
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
    let page = Listed {
        data,
        has_more,
        next_cursor,
    };
    Ok(Json(page).into_response())
}

/// Brings the deliveries of one page of dead letters again.
#[utoipa::path(
    post,
    path = "/v1/dead_letters/redrive",
    operation_id = "redrive_dead_letters",
    tag = "Dead letters",
    request_body = Redrive,
    responses(
        (status = 200, description = "What was done.", body = Redriven),
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn redrive(State(api): State<Arc<Api>>, Whole(body): Whole) -> Result<Response, Problem> {
    let asked: Redrive = read_json(&body)?;
    if asked.all != (asked.filter == Filter::default()) {
        let wanted = "expected a condition such as `endpoint`, or instead `all`: true";
        return Err(Problem::invalid("filter", wanted));
    }
    let limit = read_limit(asked.limit.unwrap_or(REDRIVE_PAGE_MAX), REDRIVE_PAGE_MAX)?;
    let (command, cursor) = match asked.cursor.as_deref().map(split_cursor) {
        Some(split) => split.map(|(command, cursor)| (command, Some(cursor)))?,
        None => {
            let mut rng = Rng::new(random_seed());
            (CommandId::generate(api.clock.now(), &mut rng), None)
        }
    };
    let (wanted, mut scan) = open(&api, asked.filter, cursor).await?;
    let mut page = Page::new(&api, command);
    while page.matched < limit
        && page.bytes < APPEND_BATCH_BYTES
        && let Some(letter) = scan.next().await?
    {
        if wanted.matches(&letter.dead) {
            page.add(letter);
        }
    }
    let rest = scan.rest();
    let redriven = u64::try_from(page.records.len()).unwrap_or(u64::MAX);
    if !asked.dry_run {
        append(&api, &page.records).await;
        telemetry::redriven(redriven);
    }
    let answer = Redriven {
        command: command.to_string(),
        dry_run: asked.dry_run,
        redriven,
        skipped: page.skipped,
        has_more: rest.is_some(),
        next_cursor: rest.map(|cursor| format!("{command}.{cursor}")),
    };
    Ok(Json(answer).into_response())
}

/// A page of a redrive as it is gathered.
struct Page {
    registry: Arc<Registry>,
    command: CommandId,
    now: Timestamp,
    lane: bytestring::ByteString,
    lane_partitions: u32,
    records: Vec<NewRecord>,
    bytes: usize,
    matched: usize,
    skipped: Skipped,
}

impl Page {
    fn new(api: &Api, command: CommandId) -> Self {
        Self {
            registry: Arc::clone(&api.endpoints.registry().borrow()),
            command,
            now: api.clock.now(),
            lane: api.config.topics.lane(),
            lane_partitions: api.config.topics.lane_partitions,
            records: Vec::new(),
            bytes: 0,
            matched: 0,
            skipped: Skipped::default(),
        }
    }

    /// An endpoint that takes nothing would have the delivery cancelled: then
    /// the letter stays what it is.
    fn add(&mut self, letter: Letter) {
        self.matched += 1;
        let again = Some(letter.dead)
            .filter(is_whole)
            .and_then(|dead| redriven(dead.delivery?, self.command, self.now));
        let Some((id, delivery)) = again else {
            self.skipped.no_delivery += 1;
            return;
        };
        let known = self.registry.index(id);
        match known.and_then(|ix| self.registry.endpoint(ix)) {
            None => self.skipped.endpoint_deleted += 1,
            Some(endpoint) if endpoint.disabled => self.skipped.endpoint_disabled += 1,
            Some(_) => self.put(id, &delivery),
        }
    }

    fn put(&mut self, endpoint: EndpointId, delivery: &proto::Deliver) {
        let value = delivery.to_value();
        self.bytes += value.len();
        self.records.push(NewRecord {
            to: TopicPartition {
                topic: self.lane.clone(),
                partition: partition_of(endpoint, self.lane_partitions),
            },
            key: delivery.endpoint_id.clone(),
            value,
            headers: Vec::new(),
        });
    }
}

/// Whether what it would deliver is there: an oversize delivery was written
/// without its body.
fn is_whole(dead: &proto::Dead) -> bool {
    dead.delivery.is_some() && dead.cause() != proto::DeadCause::Oversize
}

/// Until all of them are durable.
async fn append(api: &Api, records: &[NewRecord]) {
    for batch in records.chunks(APPEND_BATCH_RECORDS) {
        let results = api.log.append(batch.to_vec()).await;
        let mut results = results.into_iter();
        for record in batch {
            if !matches!(results.next(), Some(Ok(_))) {
                append_until_durable(&*api.log, record.clone(), FIRST_WAIT).await;
            }
        }
    }
}

async fn open<'a>(
    api: &'a Api,
    filter: Filter,
    cursor: Option<&str>,
) -> Result<(Wanted, Scan<'a>), Problem> {
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
    Ok((wanted, Scan::from(log, &topic, cursor).await?))
}

/// A redrive's cursor carries its command's id before the place.
fn split_cursor(text: &str) -> Result<(CommandId, &str), Problem> {
    let (command, cursor) = text.split_once('.').ok_or_else(no_cursor)?;
    Ok((command.parse().map_err(|_| no_cursor())?, cursor))
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
