//! Redrives: an operation for each endpoint that has letters of those asked for.
//!
//! Whose letters there are is found by reading them, within a bound: past it the
//! answer has a cursor, and what is asked for with it finds the others. The
//! operations of one redrive carry the time it was first asked for, so that an
//! endpoint that has one is not given another.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use posthaste_core::endpoint::Endpoint;
use posthaste_core::id::EndpointId;
use posthaste_core::lane::partition_of;
use posthaste_core::limits::OPERATIONS_PER_REQUEST_MAX;
use posthaste_core::operation::{Kind, Operation, Range};
use posthaste_core::registry::Registry;
use posthaste_core::replay::Buried;
use posthaste_core::shard::dead_cause_name;
use posthaste_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::filter::{Filter, Wanted};
use super::many::Lane;
use super::scan::{Cursor, Scan, Told};
use super::{is_whole, open};
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::body::{Whole, read_json};
use crate::api::document::codes;
use crate::api::filters::backtest::Counts;
use crate::api::operations::replay::read_rate;
use crate::api::operations::{Shown, check_room, new, put, unheard};
use crate::api::problem::Problem;
use crate::config::Topics;

/// What to redrive.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Redrive {
    #[serde(default)]
    filter: Filter,
    /// Every one; otherwise a filter says which.
    #[serde(default)]
    all: bool,
    /// Deliveries a second for each endpoint, at most 100,000; 500 when it is
    /// absent.
    #[serde(alias = "rate")]
    rate_per_second: Option<u32>,
    /// The `next_cursor` of the answer before.
    cursor: Option<String>,
    /// Only count.
    #[serde(default)]
    dry_run: bool,
}

/// What a redrive began, or would begin.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Redriven)]
struct Begun {
    dry_run: bool,
    operations: Vec<Shown>,
    /// Deliveries that come again, of the letters that were read: of each one, or
    /// as many as it is for and the lane keeps.
    letters: u64,
    /// How many endpoints' they are.
    endpoints: usize,
    skipped: Skipped,
    has_more: bool,
    /// Where not all was read: what is asked for with it finds the others.
    #[schema(required = true)]
    next_cursor: Option<String>,
}

/// Deliveries of letters that match and stay, by why.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
struct Skipped {
    no_delivery: u64,
    /// Held deliveries given up at once, of which the lane's retention has passed
    /// the records.
    no_longer_kept: u64,
    endpoint_deleted: u64,
    endpoint_disabled: u64,
}

/// Whose letters were found.
struct Search {
    registry: Arc<Registry>,
    endpoints: BTreeMap<EndpointId, Found>,
    /// They have their operation, of these ranges of the lane.
    known: BTreeMap<EndpointId, Vec<Range>>,
    /// An operation has all it can be about.
    full: bool,
    letters: u64,
    skipped: Skipped,
}

/// One endpoint's letters.
struct Found {
    endpoint: Arc<Endpoint>,
    /// Those for many.
    buried: Buried,
}

/// Asks for the deliveries of dead letters again: the answer names an operation
/// for each endpoint.
///
/// A letter for many names where its deliveries stand in the lane. They come again
/// as long as the lane keeps them; what was delivered in between does not.
#[utoipa::path(
    post,
    path = "/v1/dead_letters/redrive",
    operation_id = "redrive_dead_letters",
    tag = "Dead letters",
    request_body = Redrive,
    responses(
        (status = 200, description = "What a dry run counted.", body = Begun),
        (status = 202, description = "The operations, which begin.", body = Begun),
        codes::TooManyOperations,
        codes::Invalid,
        codes::Unavailable,
    ),
)]
pub async fn redrive(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Whole(body): Whole,
) -> Result<Response, Problem> {
    let asked: Redrive = read_json(&body)?;
    if asked.all != (asked.filter == Filter::default()) {
        let wanted = "expected a condition such as `endpoint`, or instead `all`: true";
        return Err(Problem::invalid("filter", wanted));
    }
    let rate = read_rate(asked.rate_per_second)?;
    let (wanted, cursor, mut scan) = open(&api, asked.filter, asked.cursor.as_deref()).await?;
    let mut search = Search::new(&api, &wanted, cursor.asked_at);
    let mut lane = Lane::of(&api);
    while search.has_room()
        && let Some(letter) = scan.next().await?
    {
        if wanted.matches(&letter.told) {
            let kept = match &letter.told {
                Told::One(dead) => u64::from(is_whole(dead)),
                Told::Many(many) => lane.kept(many).await?,
            };
            search.add(&letter.told, kept);
        }
    }
    let next_cursor = scan.rest().map(|cursor| cursor.to_string());
    let operation = |(id, found): (_, Found)| Operation {
        ranges: ranges(
            &api,
            id,
            &cursor,
            search.known.contains_key(&id),
            found.buried,
        ),
        created_at: cursor.asked_at,
        rate_per_second: rate,
        ..of(&api, &found.endpoint, &wanted, &caller)
    };
    let endpoints = std::mem::take(&mut search.endpoints).into_iter();
    let operations: Vec<_> = endpoints.map(operation).collect();
    if !asked.dry_run {
        begin_all(&api, &operations, &caller).await?;
    }
    let endpoints = operations.len();
    let shown = operations.into_iter().filter(|_| !asked.dry_run);
    let answer = Begun {
        dry_run: asked.dry_run,
        operations: shown
            .map(|operation| Shown::of(&unheard(operation)))
            .collect(),
        letters: search.letters,
        endpoints,
        skipped: search.skipped,
        has_more: next_cursor.is_some(),
        next_cursor,
    };
    let status = match asked.dry_run {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    Ok((status, Json(answer)).into_response())
}

/// All of them, or none where one has no room.
async fn begin_all(api: &Api, operations: &[Operation], caller: &Caller) -> Result<(), Problem> {
    for operation in operations {
        check_room(api, operation.endpoint)?;
    }
    for operation in operations {
        put(api, operation, &caller.by()).await?;
    }
    Ok(())
}

/// The letters of one endpoint.
fn of(api: &Api, endpoint: &Endpoint, wanted: &Wanted, caller: &Caller) -> Operation {
    let cause = wanted.cause.map(dead_cause_name);
    Operation {
        span: (
            wanted.since.unwrap_or_default(),
            wanted.until.unwrap_or_default(),
        ),
        dead_cause: cause.unwrap_or_default().to_owned(),
        ..new(api, endpoint, Kind::Redrive, caller)
    }
}

/// An endpoint's letters from the page's beginning to where the topic ended when
/// the first one was asked for, unless it has an operation for `all` of them; and
/// what those for many tell of, which only this page does.
fn ranges(
    api: &Api,
    endpoint: EndpointId,
    cursor: &Cursor,
    all: bool,
    buried: Buried,
) -> Vec<Range> {
    let partition = partition_of(endpoint, Topics::DEAD_PARTITIONS);
    let range = cursor.range(partition);
    let letters = (!all).then(|| Range {
        topic: api.config.topics.dead().to_string(),
        partition,
        from: range.start,
        to: range.end,
        ..Range::default()
    });
    let held = buried.ranges(&api.config.topics.lane());
    letters.into_iter().chain(held).collect()
}

impl Search {
    fn new(api: &Api, wanted: &Wanted, asked_at: Timestamp) -> Self {
        let cause = wanted.cause.map_or("", dead_cause_name);
        let operations = Arc::clone(&api.endpoints.operations().borrow());
        let lane = api.config.topics.lane();
        let mut known: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (_, one) in operations.iter() {
            let of = &one.operation;
            if of.kind == Kind::Redrive && of.created_at == asked_at && of.dead_cause == cause {
                let ranges = of.ranges.iter().filter(|range| range.topic == *lane);
                let known = known.entry(of.endpoint).or_default();
                known.extend(ranges.cloned());
            }
        }
        Self {
            registry: Arc::clone(&api.endpoints.registry().borrow()),
            endpoints: BTreeMap::new(),
            known,
            full: false,
            letters: 0,
            skipped: Skipped::default(),
        }
    }

    fn has_room(&self) -> bool {
        !self.full && self.endpoints.len() < OPERATIONS_PER_REQUEST_MAX
    }

    /// A letter of which so many deliveries are kept. An endpoint that takes
    /// nothing would have them held for ever: then the letter stays what it is.
    fn add(&mut self, letter: &Told, kept: u64) {
        let count = match letter {
            Told::One(_) => 1,
            Told::Many(many) => many.count,
        };
        let whose = letter.whose().and_then(|(_, id)| id.try_into().ok());
        let Some(id) = whose.map(EndpointId::from_bytes) else {
            self.skipped.no_delivery += count;
            return;
        };
        match letter {
            Told::One(_) => self.skipped.no_delivery += count - kept,
            Told::Many(_) => self.skipped.no_longer_kept += count - kept,
        }
        if kept == 0 {
            return;
        }
        let known = self.registry.index(id);
        match known.and_then(|ix| self.registry.endpoint(ix)) {
            None => self.skipped.endpoint_deleted += kept,
            Some(endpoint) if endpoint.disabled => self.skipped.endpoint_disabled += kept,
            Some(endpoint) => {
                self.letters += kept;
                if self.is_known(id, letter) {
                    return;
                }
                let found = self.endpoints.entry(id).or_insert_with(|| Found {
                    endpoint: Arc::clone(endpoint),
                    buried: Buried::default(),
                });
                if let Told::Many(many) = letter {
                    found.buried.add(many);
                    self.full |= found.buried.is_full();
                }
            }
        }
    }

    /// Whether an operation of this redrive is about it.
    fn is_known(&self, endpoint: EndpointId, letter: &Told) -> bool {
        let Some(ranges) = self.known.get(&endpoint) else {
            return false;
        };
        let Told::Many(many) = letter else {
            return true;
        };
        ranges.iter().any(|range| {
            range.partition == many.partition && range.from <= many.from && many.to <= range.to
        })
    }
}

/// Counts an endpoint's letters of some time, as far as one page reads.
pub(in crate::api) async fn count(
    api: &Api,
    endpoint: EndpointId,
    since: Timestamp,
    until: Timestamp,
) -> Result<Counts, Problem> {
    let wanted = Wanted {
        endpoint: Some(endpoint),
        since: Some(since),
        until: Some(until),
        ..Wanted::default()
    };
    let (log, topic) = (&*api.log, api.config.topics.dead());
    let (only, from, now) = (wanted.partition(), wanted.read_from(), api.clock.now());
    let cursor = Cursor::open(log, &topic, now, only, from).await?;
    let records = cursor.records();
    let mut scan = Scan::from(log, &topic, cursor).await?;
    let (mut matched, mut scanned, mut skipped) = (0, 0, 0);
    let mut lane = Lane::of(api);
    while let Some(letter) = scan.next().await? {
        scanned += 1;
        if wanted.matches(&letter.told) {
            let (count, kept) = match &letter.told {
                Told::One(dead) => (1, u64::from(is_whole(dead))),
                Told::Many(many) => (many.count, lane.kept(many).await?),
            };
            matched += kept;
            skipped += count - kept;
        }
    }
    let left = scan.rest().map_or(0, |rest| rest.records());
    let all = u128::from(matched) * u128::from(records);
    let estimated = all.checked_div(u128::from(records - left)).unwrap_or(0);
    Ok(Counts {
        matched,
        scanned,
        skipped,
        estimated: u64::try_from(estimated).unwrap_or(u64::MAX),
        exact: left == 0,
    })
}
