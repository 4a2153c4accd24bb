//! Operations: what was asked of endpoints' owners, how far it is, and how it is
//! steered.
//!
//! Every instance shows them from its own fold of the endpoints table; what they
//! do, they do in the owner of the endpoint's lane.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use posthaste_core::id::OperationId;
use posthaste_core::operation::{Kind, Known, Operation, Operations, Progress, State, Wanted};
use posthaste_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Api;
use super::auth::Caller;
use super::page::Paging;
use super::problem::{Asked, Problem, Segments};
use crate::config::format_rfc3339;

pub mod lane;
pub mod replay;
pub mod resend;
mod span;
mod start;

pub(super) use start::{accepted, begin, check_room, new, put, unheard};

/// Which operations, and which page of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    tenant: Option<String>,
    /// An endpoint's id.
    endpoint: Option<String>,
    kind: Option<String>,
    state: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Whose operations: all, or one tenant's.
#[derive(Debug, Deserialize)]
pub struct Whose {
    #[serde(default)]
    tenant: Option<String>,
}

/// One operation, and the tenant a path says it is of.
#[derive(Debug, Deserialize)]
pub struct Named {
    #[serde(default)]
    tenant: Option<String>,
    operation: String,
}

/// Where an operation stands, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// Its owner has not said anything yet.
    Pending,
    Running,
    Paused,
    /// To be cancelled, which its owner has not said that it is.
    Cancelling,
    Succeeded,
    Cancelled,
    Failed,
}

/// An operation as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    id: String,
    kind: &'static str,
    tenant: String,
    endpoint: String,
    state: &'static str,
    created_at: String,
    actor: String,
    asked: What,
    progress: Done,
    /// Why it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    version: u64,
}

/// What was asked for; `null` where nothing was.
#[derive(Debug, Serialize)]
struct What {
    since: Option<String>,
    until: Option<String>,
    event_types: Vec<String>,
    filter: Option<Box<RawValue>>,
    rate_per_second: Option<u32>,
    cause: Option<String>,
    /// How many were named.
    deliveries: Option<usize>,
}

/// How far it is.
#[derive(Debug, Serialize)]
struct Done {
    /// To be read.
    records: u64,
    scanned: u64,
    /// Written, cancelled or made due.
    deliveries: u64,
    /// Records that could not be read, or go to nobody.
    skipped: u64,
    /// Of the records; `null` for what reads none, and before it has begun.
    percent: Option<u64>,
    /// Deliveries a second, since it was asked for.
    rate: Option<f64>,
    /// When it ends, if it goes on as it did.
    eta: Option<String>,
    /// When its owner said so.
    at: Option<String>,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Replay, "replay"),
    (Kind::Redrive, "redrive"),
    (Kind::Cancel, "cancel"),
    (Kind::RetryNow, "retry_now"),
    (Kind::Probe, "probe"),
];

const STATES: [(Stands, &str); 7] = [
    (Stands::Pending, "pending"),
    (Stands::Running, "running"),
    (Stands::Paused, "paused"),
    (Stands::Cancelling, "cancelling"),
    (Stands::Succeeded, "succeeded"),
    (Stands::Cancelled, "cancelled"),
    (Stands::Failed, "failed"),
];

/// The routes: each for all tenants, and for one.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/replays", post(replay::create))
        .route("/v1/resends", post(resend::create))
        .route("/v1/operations", get(list))
        .route("/v1/operations/{operation}", get(show))
        .route("/v1/operations/{operation}/pause", post(pause))
        .route("/v1/operations/{operation}/resume", post(resume))
        .route("/v1/operations/{operation}/cancel", post(cancel))
        .route("/v1/tenants/{tenant}/operations", get(list))
        .route("/v1/tenants/{tenant}/operations/{operation}", get(show))
        .route(
            "/v1/tenants/{tenant}/operations/{operation}/pause",
            post(pause),
        )
        .route(
            "/v1/tenants/{tenant}/operations/{operation}/resume",
            post(resume),
        )
        .route(
            "/v1/tenants/{tenant}/operations/{operation}/cancel",
            post(cancel),
        )
        .merge(of_endpoints())
}

/// What is asked of one endpoint's owner.
fn of_endpoints() -> Router<Arc<Api>> {
    Router::new()
        .route(
            "/v1/tenants/{tenant}/endpoints/{endpoint}/replays",
            post(replay::create_for),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints/{endpoint}/resends",
            post(resend::create_for),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints/{endpoint}/cancel",
            post(lane::cancel),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints/{endpoint}/retry_now",
            post(lane::retry_now),
        )
        .route(
            "/v1/tenants/{tenant}/endpoints/{endpoint}/probe",
            post(lane::probe),
        )
}

/// Lists operations, oldest first.
pub async fn list(
    Shared(api): Shared<Arc<Api>>,
    Segments(whose): Segments<Whose>,
    Asked(listing): Asked<Listing>,
) -> Result<Response, Problem> {
    let kind = read(listing.kind.as_deref(), "kind", &KINDS)?;
    let state = read(listing.state.as_deref(), "state", &STATES)?;
    let endpoint = listing.endpoint.as_deref().map(str::parse);
    let endpoint = endpoint
        .transpose()
        .map_err(|_| Problem::invalid("endpoint", "expected an endpoint's id"))?;
    if listing.tenant.is_some() && whose.tenant.is_some() {
        return Err(Problem::invalid("tenant", "the path names it already"));
    }
    let tenant = whose.tenant.or(listing.tenant);
    let operations = operations(&api);
    let wanted = |known: &Known| {
        let of = &known.operation;
        tenant.as_ref().is_none_or(|tenant| of.tenant == *tenant)
            && endpoint.is_none_or(|endpoint| of.endpoint == endpoint)
            && kind.is_none_or(|kind| of.kind == kind)
            && state.is_none_or(|state| Stands::of(known) == state)
    };
    let found = operations.iter().filter(|(_, known)| wanted(known));
    let paging = Paging::new(listing.limit, listing.cursor);
    Ok(Json(paging.of(found, Shown::of)?).into_response())
}

/// One operation.
pub async fn show(
    Shared(api): Shared<Arc<Api>>,
    Segments(named): Segments<Named>,
) -> Result<Response, Problem> {
    let known = named.find(&api)?;
    Ok(Json(Shown::of(&known)).into_response())
}

/// Holds an operation: what it has done stays done.
pub async fn pause(
    api: Shared<Arc<Api>>,
    named: Segments<Named>,
    caller: Caller,
) -> Result<Response, Problem> {
    steer(api, named, caller, Wanted::Pause).await
}

/// Lets it go on.
pub async fn resume(
    api: Shared<Arc<Api>>,
    named: Segments<Named>,
    caller: Caller,
) -> Result<Response, Problem> {
    steer(api, named, caller, Wanted::Unspecified).await
}

/// Ends it for good: what it has done stays done.
pub async fn cancel(
    api: Shared<Arc<Api>>,
    named: Segments<Named>,
    caller: Caller,
) -> Result<Response, Problem> {
    steer(api, named, caller, Wanted::Cancel).await
}

async fn steer(
    Shared(api): Shared<Arc<Api>>,
    Segments(named): Segments<Named>,
    caller: Caller,
    wanted: Wanted,
) -> Result<Response, Problem> {
    let known = named.find(&api)?;
    if known.operation.wanted != wanted {
        let over = match Stands::of(&known) {
            Stands::Pending | Stands::Running | Stands::Paused => None,
            Stands::Cancelling => Some("cancelling"),
            Stands::Succeeded | Stands::Cancelled | Stands::Failed => Some("over"),
        };
        if let Some(over) = over {
            let detail = format!("the operation is {over}: expected one that goes on");
            return Err(Problem::conflict("operation_over", detail));
        }
        let changed = Operation {
            wanted,
            version: known.operation.version + 1,
            ..known.operation.as_ref().clone()
        };
        api.endpoints.put_operation(&changed, &caller.by()).await?;
    }
    Ok(Json(Shown::of(&named.find(&api)?)).into_response())
}

fn operations(api: &Api) -> Arc<Operations> {
    Arc::clone(&api.endpoints.operations().borrow())
}

/// One of a few by its name.
fn read<T: Copy>(
    name: Option<&str>,
    param: &'static str,
    known: &[(T, &str)],
) -> Result<Option<T>, Problem> {
    let Some(name) = name else {
        return Ok(None);
    };
    let found = known.iter().find(|(_, known)| *known == name);
    found.map(|(one, _)| Some(*one)).ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(_, name)| format!("`{name}`")).collect();
        let (shown, wanted) = (name.escape_default(), names.join(", "));
        Problem::invalid(param, format!("`{shown}`: expected one of {wanted}"))
    })
}

impl Named {
    /// Another tenant's operation is not found, as one that never was.
    fn find(&self, api: &Api) -> Result<Known, Problem> {
        let id = OperationId::from_str(&self.operation).ok();
        let operations = operations(api);
        let known = id.and_then(|id| operations.get(id));
        let own = |known: &&Known| {
            let tenant = self.tenant.as_ref();
            tenant.is_none_or(|tenant| known.operation.tenant == *tenant)
        };
        let none = || Problem::not_found("no such operation");
        known.filter(own).cloned().ok_or_else(none)
    }
}

impl Stands {
    fn of(known: &Known) -> Self {
        match (&known.progress, known.operation.wanted) {
            (Some(progress), wanted) => match (progress.state, wanted) {
                (State::Succeeded, _) => Self::Succeeded,
                (State::Cancelled, _) => Self::Cancelled,
                (State::Failed, _) => Self::Failed,
                (_, Wanted::Cancel) => Self::Cancelling,
                (_, Wanted::Pause) => Self::Paused,
                (_, Wanted::Unspecified) => Self::Running,
            },
            (None, Wanted::Cancel) => Self::Cancelling,
            (None, Wanted::Pause) => Self::Paused,
            (None, Wanted::Unspecified) => Self::Pending,
        }
    }
}

fn name_of<T: PartialEq>(one: T, all: &[(T, &'static str)]) -> &'static str {
    let found = all.iter().find(|(known, _)| *known == one);
    found.map_or("unknown", |(_, name)| name)
}

impl Shown {
    pub(super) fn of(known: &Known) -> Self {
        let of = &known.operation;
        let progress = known.progress.as_deref();
        Self {
            id: of.id.to_string(),
            kind: name_of(of.kind, &KINDS),
            tenant: of.tenant.clone(),
            endpoint: of.endpoint.to_string(),
            state: name_of(Stands::of(known), &STATES),
            created_at: format_rfc3339(of.created_at),
            actor: of.actor.clone(),
            asked: What::of(of),
            progress: Done::of(of, progress),
            detail: progress.map_or_else(String::new, |progress| progress.detail.clone()),
            version: of.version,
        }
    }
}

impl What {
    fn of(operation: &Operation) -> Self {
        let time = |at: Timestamp| (at > Timestamp::default()).then(|| format_rfc3339(at));
        let filter = operation.filter.as_ref();
        let types = operation.event_types.iter();
        Self {
            since: time(operation.span.0),
            until: time(operation.span.1),
            event_types: types.map(ToString::to_string).collect(),
            filter: filter.and_then(|filter| RawValue::from_string(filter.text().to_owned()).ok()),
            rate_per_second: Some(operation.rate_per_second).filter(|rate| *rate > 0),
            cause: Some(operation.dead_cause.clone()).filter(|cause| !cause.is_empty()),
            deliveries: Some(operation.offsets.len()).filter(|count| *count > 0),
        }
    }
}

impl Done {
    fn of(operation: &Operation, progress: Option<&Progress>) -> Self {
        let records = operation.records();
        let Some(progress) = progress else {
            return Self {
                records,
                scanned: 0,
                deliveries: 0,
                skipped: 0,
                percent: None,
                rate: None,
                eta: None,
                at: None,
            };
        };
        let took = progress.at.since(operation.created_at);
        let read = read_of(operation, progress);
        let per_second = |count: u64| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            let rate = f64::from(count) / took.as_secs_f64();
            rate.is_finite().then_some((rate * 10.0).round() / 10.0)
        };
        Self {
            records,
            scanned: progress.scanned,
            deliveries: progress.count,
            skipped: progress.skipped,
            percent: match progress.state {
                State::Succeeded => Some(100),
                _ => (read.saturating_mul(100)).checked_div(records),
            },
            rate: per_second(progress.count),
            eta: match progress.state {
                State::Running => ends_at(progress.at, took, read, records),
                _ => None,
            },
            at: Some(format_rfc3339(progress.at)),
        }
    }
}

/// Records that lie behind its places.
fn read_of(operation: &Operation, progress: &Progress) -> u64 {
    let ranges = operation.ranges.iter().zip(&progress.next);
    let read = ranges.map(|(range, &next)| next.clamp(range.from, range.to) - range.from);
    read.fold(0, u64::saturating_add)
}

/// When the rest is read, at the pace so far.
fn ends_at(at: Timestamp, took: Duration, read: u64, records: u64) -> Option<String> {
    let left = u128::from(records.saturating_sub(read));
    let millis = (took.as_millis() * left).checked_div(u128::from(read))?;
    let millis = u64::try_from(millis).ok()?;
    Some(format_rfc3339(at.after(Duration::from_millis(millis))))
}

#[cfg(test)]
mod tests;
