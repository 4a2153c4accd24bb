//! Lists of deliveries: what the attempts of a stretch of the log say of each.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use posthaste_core::event::{Origin, check_tenant};
use posthaste_core::id::{DeliveryId, EndpointId, event_time};
use posthaste_core::limits::{LOOK_FOUND_MAX, LOOK_PAGE_DEFAULT, LOOK_PAGE_MAX};
use posthaste_core::outcome::Cause;
use posthaste_core::time::Timestamp;
use posthaste_proto as proto;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::dead::{self, Letter};
use super::record::{self, Failure, Recorded, recorded, time};
use crate::api::Api;
use crate::api::dead_letters::{find_endpoint, read_time};
use crate::api::document::values;
use crate::api::look::{Bound, Budget, CLOCKS_APART, Cursor, Key, before, cut, partitions, turn};
use crate::api::page::{no_cursor, only_by_path, read_limit};
use crate::api::problem::Problem;
use crate::config::format_rfc3339_millis;
use crate::log::LogError;

mod owed;

/// Which deliveries, and which page of them.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// Of that tenant alone; not where the path names one.
    #[param(nullable = false)]
    tenant: Option<String>,
    /// An endpoint's id; its uid where the tenant is named. One has to be named
    /// where the status is `held` or `scheduled`.
    #[param(nullable = false)]
    endpoint: Option<String>,
    /// Of events of that type.
    #[param(nullable = false)]
    event_type: Option<String>,
    /// Of the event of that id.
    #[param(nullable = false)]
    event: Option<String>,
    /// That stand so.
    #[param(inline, nullable = false)]
    status: Option<Status>,
    /// Whose last attempt failed for this.
    #[param(inline, value_type = Option<values::ErrorCode>, nullable = false)]
    error_code: Option<String>,
    /// With attempts made not before then.
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

/// How a delivery stands, as far as its attempts and dead letters say, or, of the
/// last two, its endpoint's lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ListedStatus)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum Status {
    /// Delivered.
    Succeeded,
    /// Its last attempt failed.
    Failing,
    /// Given up.
    Dead,
    /// It waits for its time.
    Scheduled,
    /// As soon as its endpoint takes it.
    Held,
}

/// A listing that makes sense.
struct Wanted {
    tenant: Option<String>,
    endpoint: Option<EndpointId>,
    event_type: Option<String>,
    event: Option<String>,
    since: Timestamp,
    until: Timestamp,
}

/// One delivery's attempts, taken together.
#[derive(Debug)]
pub(in crate::api) struct Gathered {
    endpoint: EndpointId,
    tenant: String,
    event: String,
    event_type: String,
    origin: Origin,
    first: Timestamp,
    last: Timestamp,
    delivered: bool,
    number: u32,
    status: u32,
    cause: String,
    next_due_ms: u64,
}

/// A delivery as a list shows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListedDelivery)]
pub(in crate::api) struct Entry {
    id: String,
    tenant: String,
    endpoint: String,
    event: String,
    #[serde(rename = "type")]
    event_type: String,
    status: Status,
    /// Attempts made, those that failed on our side left out.
    attempts: u32,
    /// `null` when the last attempt got no response.
    #[schema(required = true)]
    last_status: Option<u32>,
    /// `null` when it was delivered, and where the lane does not say.
    #[schema(required = true)]
    error: Option<Failure>,
    /// `null` of what is `held` or `scheduled`: the delivery tells.
    #[schema(value_type = Option<values::Time>, required = true)]
    first_attempt_at: Option<String>,
    /// `null` likewise.
    #[schema(value_type = Option<values::Time>, required = true)]
    last_attempt_at: Option<String>,
    /// `null` where there is none, or it was decided later: the delivery tells.
    #[schema(value_type = Option<values::Time>, required = true)]
    next_attempt_at: Option<String>,
    #[schema(required = true)]
    dead_letter: Option<Letter>,
    origin: Place,
}

/// A place in a source topic.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Origin)]
pub(in crate::api) struct Place {
    topic: String,
    partition: u32,
    offset: u64,
    /// The time of its record.
    #[schema(value_type = values::Time)]
    at: String,
}

/// A page of deliveries.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryPage)]
pub(super) struct Deliveries {
    data: Vec<Entry>,
    has_more: bool,
    /// For the next page; `null` on the last one.
    #[schema(required = true)]
    next_cursor: Option<String>,
    scanned: Scanned,
}

/// How far a look came.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveriesScanned)]
struct Scanned {
    /// The attempts made since then were looked at; `null` when all there are, and
    /// of what is `held` or `scheduled`.
    #[schema(value_type = Option<values::Time>, required = true)]
    since: Option<String>,
    #[schema(value_type = values::Time)]
    until: String,
    /// What ended the look before it had seen all; `next_cursor` goes on.
    #[schema(required = true)]
    ended_by: Option<Bound>,
    /// Whether all dead letters written since were looked at: otherwise one that
    /// is `failing` here may be given up.
    dead_letters: bool,
}

impl From<&Origin> for Place {
    fn from(origin: &Origin) -> Self {
        Self {
            topic: origin.topic.to_string(),
            partition: origin.partition,
            offset: origin.offset,
            at: format_rfc3339_millis(origin.timestamp),
        }
    }
}

impl Listing {
    /// The path names the tenant.
    pub(super) fn of_tenant(mut self, tenant: String) -> Result<Self, Problem> {
        only_by_path(self.tenant.as_ref())?;
        self.tenant = Some(tenant);
        Ok(self)
    }

    fn wanted(&self, api: &Api, now: Timestamp) -> Result<Wanted, Problem> {
        if let Some(tenant) = &self.tenant {
            check_tenant(tenant)?;
        }
        if let Some(code) = &self.error_code
            && Cause::from_code(code).is_none()
        {
            let known: Vec<_> = Cause::ALL
                .iter()
                .map(|c| format!("`{}`", c.code()))
                .collect();
            let (shown, known) = (code.escape_default(), known.join(", "));
            let problem = format!("`{shown}`: expected one of {known}");
            return Err(Problem::invalid("error_code", problem));
        }
        let endpoint = self.endpoint.as_deref();
        let endpoint = endpoint.map(|name| find_endpoint(api, self.tenant.as_deref(), name));
        let time = |param, text: &Option<String>, open| match text {
            None => Ok(open),
            Some(text) => read_time(text, now).map_err(|problem| Problem::invalid(param, problem)),
        };
        let (since, until) = (
            time("since", &self.since, Timestamp::default())?,
            time("until", &self.until, Timestamp::from_millis(u64::MAX))?,
        );
        if since >= until {
            return Err(Problem::invalid("since", "expected a time before `until`"));
        }
        // Nothing of an event is older than it.
        let event = self.event.as_deref().and_then(event_time);
        let event = event.filter(|time| *time <= now);
        let since = event.map_or(since, |time| since.max(before(time, CLOCKS_APART)));
        Ok(Wanted {
            tenant: self.tenant.clone(),
            endpoint: endpoint.transpose()?,
            event_type: self.event_type.clone(),
            event: self.event.clone(),
            since,
            until,
        })
    }
}

impl Wanted {
    fn matches(&self, attempt: &proto::Attempt) -> bool {
        let at = Timestamp::from_millis(attempt.started_ms);
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|w| w == found);
        is(&self.tenant, &attempt.tenant)
            && is(&self.event, &attempt.event_id)
            && is(&self.event_type, &attempt.event_type)
            && self
                .endpoint
                .is_none_or(|id| attempt.endpoint_id[..] == id.as_bytes()[..])
            && (self.since..self.until).contains(&at)
    }

    /// The records that can hold such attempts.
    fn records(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        let since = self.since > Timestamp::default();
        let until = self.until < Timestamp::from_millis(u64::MAX);
        (
            since.then(|| before(self.since, CLOCKS_APART)),
            until.then(|| self.until.after(CLOCKS_APART)),
        )
    }
}

/// One page.
pub(super) async fn page(api: &Api, listing: Listing) -> Result<Response, Problem> {
    if let Some(status) = listing.status
        && let Some(waits) = status.waits()
    {
        return owed::page(api, &listing, status, waits).await;
    }
    let limit = read_limit(listing.limit.unwrap_or(LOOK_PAGE_DEFAULT), LOOK_PAGE_MAX)?;
    let cursor = listing.cursor.as_deref().map(str::parse::<Cursor>);
    let cursor = cursor.transpose().map_err(|_| no_cursor())?;
    let now = cursor.as_ref().map_or(api.clock.now(), |at| at.asked_at);
    let wanted = listing.wanted(api, now)?;
    let _turn = turn(api)?;
    let log = &*api.log;
    let places = partitions(log, &[api.config.topics.attempts()]).await?;
    let mut cursor = match cursor {
        Some(cursor) => cursor,
        None => {
            let (since, until) = wanted.records();
            Cursor::open(log, &places, now, since, until).await?
        }
    };
    let mut back = cursor.look(log, &places);
    let mut gathered = BTreeMap::new();
    let mut budget = Budget::new();
    while let Some(pieces) = back.next(&mut budget).await? {
        for piece in &pieces {
            for found in recorded(piece, |attempt| wanted.matches(attempt)) {
                add(&mut gathered, found);
            }
        }
        if gathered.len() >= LOOK_FOUND_MAX && !cursor.is_fixed() {
            back.stop();
            break;
        }
    }
    cursor.looked(&back)?;
    let mut scanned = Scanned {
        since: back.reached().map(|at| format_rfc3339_millis(at.min(now))),
        until: format_rfc3339_millis(wanted.until.min(now)),
        ended_by: back.ended_by,
        dead_letters: true,
    };
    let (entries, complete) = judge(api, gathered).await?;
    scanned.dead_letters = complete;
    let items = entries.into_iter().filter(|(_, entry)| {
        let code = entry.error.as_ref().map(|error| &error.code);
        listing.status.is_none_or(|status| entry.status == status)
            && (listing.error_code.is_none() || listing.error_code.as_ref() == code)
    });
    let (data, next) = cut(items.collect(), cursor, limit);
    let next_cursor = next.map(|cursor| cursor.to_string());
    let answer = Deliveries {
        data,
        has_more: next_cursor.is_some(),
        next_cursor,
        scanned,
    };
    Ok(Json(answer).into_response())
}

/// Takes an attempt to its delivery's others.
pub(in crate::api) fn add(all: &mut BTreeMap<DeliveryId, Gathered>, found: Recorded) {
    let (at, delivered) = (found.at(), found.is_delivered());
    let Recorded {
        delivery, attempt, ..
    } = found;
    let (Some(origin), Some(endpoint)) = (record::origin(&attempt), record::endpoint(&attempt))
    else {
        return;
    };
    let of_it = all.entry(delivery).or_insert_with(|| Gathered {
        endpoint,
        tenant: attempt.tenant,
        event: attempt.event_id,
        event_type: attempt.event_type,
        origin,
        first: at,
        last: Timestamp::default(),
        delivered: false,
        number: 0,
        status: 0,
        cause: String::new(),
        next_due_ms: 0,
    });
    of_it.first = of_it.first.min(at);
    // Of a second copy that failed later nothing follows.
    if delivered || (!of_it.delivered && at >= of_it.last) {
        of_it.delivered = delivered;
        of_it.number = attempt.number;
        of_it.status = attempt.status;
        of_it.cause = attempt.cause;
        of_it.next_due_ms = attempt.next_due_ms;
    }
    of_it.last = of_it.last.max(at);
}

/// What became of each, with the place it has in a list. Answers whether all
/// dead letters of them were looked at.
pub(in crate::api) async fn judge(
    api: &Api,
    gathered: BTreeMap<DeliveryId, Gathered>,
) -> Result<(Vec<(Key, Entry)>, bool), LogError> {
    let failing = gathered.iter().filter(|(_, of_it)| !of_it.delivered);
    let since = failing.clone().map(|(_, of_it)| of_it.first).min();
    let failing: BTreeMap<_, _> = failing.map(|(id, of_it)| (*id, of_it.endpoint)).collect();
    let mut letters = match since {
        Some(since) => dead::look(api, &failing, since, &mut Budget::new()).await?,
        None => dead::Letters::none(),
    };
    let entry = |(id, of_it): (DeliveryId, Gathered)| {
        let key = Key {
            at: of_it.last,
            id: u128::from_be_bytes(*id.as_bytes()),
        };
        (key, of_it.entry(id, letters.of.remove(&id)))
    };
    let entries = gathered.into_iter().map(entry).collect();
    Ok((entries, letters.complete))
}

impl Gathered {
    fn entry(self, id: DeliveryId, dead_letter: Option<Letter>) -> Entry {
        let status = match (self.delivered, &dead_letter) {
            (true, _) => Status::Succeeded,
            (false, Some(_)) => Status::Dead,
            (false, None) => Status::Failing,
        };
        let due = Some(self.next_due_ms).filter(|_| status == Status::Failing);
        Entry {
            id: id.to_string(),
            endpoint: self.endpoint.to_string(),
            origin: Place::from(&self.origin),
            tenant: self.tenant,
            event: self.event,
            event_type: self.event_type,
            status,
            // The letter can be there before the record of the last attempt.
            attempts: dead_letter
                .as_ref()
                .map_or(self.number, |l| l.attempts.max(self.number)),
            last_status: (self.status > 0).then_some(self.status),
            error: Failure::of(&self.cause),
            first_attempt_at: Some(format_rfc3339_millis(self.first)),
            last_attempt_at: Some(format_rfc3339_millis(self.last)),
            next_attempt_at: due.and_then(time),
            dead_letter,
        }
    }
}
